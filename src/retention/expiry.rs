//! How long an image may live, as its pusher says by a label: `quay.expires-after` of Quay, "Image
//! tags overview".

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::retention::RetentionSettings;
use crate::registry::name::RepositoryName;

/// The label that the rules of a repository read: that of the first rule that has one.
pub(crate) fn label_of<'a>(
    settings: &'a RetentionSettings,
    repository: &RepositoryName,
) -> Option<&'a str> {
    let mut rules = settings.rules.iter();
    rules.find_map(|rule| {
        let label = rule.expiry_label.as_deref()?;
        let mut patterns = rule.repositories.iter();
        let matches = patterns.any(|pattern| pattern.matches(repository.as_str(), None));
        matches.then_some(label)
    })
}

/// A life in the form of [`ImageRecord::expires_after`](super::inventory::ImageRecord). One of more
/// than 136 years has no end.
pub(crate) fn whole_seconds(life: Duration) -> Option<NonZeroU32> {
    let seconds = u32::try_from(life.as_secs()).ok()?;
    NonZeroU32::new(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_beyond_136_years_have_no_end() {
        let seconds = |seconds| whole_seconds(Duration::from_secs(seconds)).map(NonZeroU32::get);
        assert_eq!(seconds(1), Some(1));
        assert_eq!(seconds(u32::MAX.into()), Some(u32::MAX));
        assert_eq!(seconds(1 << 32), None);
        assert_eq!(whole_seconds(Duration::from_millis(10)), None);
    }
}
