//! When manifests were last pulled, which an image layout cannot say: kept in memory and written
//! now and then. A process that is killed loses the last minute of it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::layout::{StoreLayout, if_exists};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::state_file::{Access, atomic_write};

/// The pulls that are not written yet, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct PullTimes {
    waiting: Mutex<HashMap<RepositoryName, BTreeMap<Digest, u64>>>,
}

impl PullTimes {
    /// A manifest of a repository was pulled now.
    pub(super) fn note(&self, name: &RepositoryName, digest: &Digest) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(name) {
            Some(pulls) => drop(pulls.insert(digest.clone(), now)),
            None => drop(waiting.insert(name.clone(), BTreeMap::from([(digest.clone(), now)]))),
        }
    }

    /// Writes what waits, without manifests for which `is_kept` says no.
    pub(super) fn write(
        &self,
        layout: &StoreLayout,
        is_kept: impl Fn(&RepositoryName, &Digest) -> bool,
    ) -> io::Result<()> {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut written = Ok(());
        for (name, pulls) in waiting {
            let mut all = read(layout, &name).unwrap_or_default();
            all.extend(
                pulls
                    .into_iter()
                    .map(|(digest, at)| (digest.as_str().to_owned(), at)),
            );
            all.retain(|digest, _| {
                Digest::parse(digest).is_ok_and(|digest| is_kept(&name, &digest))
            });
            let text = serde_json::to_vec(&all)?;
            // What cannot be written for one repository does not keep the others from it.
            written = written.and(atomic_write(&layout.pulled(&name), &text, Access::Private));
        }
        written
    }
}

/// The times of last pulls by digest. A damaged file counts as empty: nothing but a clean-up uses
/// it.
pub(super) fn read(
    layout: &StoreLayout,
    name: &RepositoryName,
) -> io::Result<BTreeMap<String, u64>> {
    let bytes = if_exists(std::fs::read(layout.pulled(name)))?;
    Ok(bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_added_to_those_written_before() {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path().to_owned()).unwrap();
        let name = RepositoryName::parse("base/app").unwrap();
        let digest = |n: u8| Digest::parse(&format!("sha256:{n:064x}")).unwrap();
        let pulled = PullTimes::default();
        for n in [1, 2] {
            pulled.note(&name, &digest(n));
            pulled.write(&layout, |_, _| true).unwrap();
        }
        assert_eq!(read(&layout, &name).unwrap().len(), 2);
        pulled.note(&name, &digest(3));
        pulled.write(&layout, |_, kept| *kept != digest(1)).unwrap();
        let kept: Vec<_> = read(&layout, &name).unwrap().into_keys().collect();
        assert_eq!(kept, [digest(2).as_str(), digest(3).as_str()]);
    }
}
