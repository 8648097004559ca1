//! What retention reads of an image's configuration: when it was built, and how long its pusher
//! says that it may live (Quay's label `quay.expires-after`, also as an annotation of the manifest).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// What a configuration says. Of its labels, those alone whose values are times to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    pub(crate) created: Option<Timestamp>,
    lives: Box<[(Box<str>, Duration)]>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigJson {
    created: Value,
    config: Value,
}

impl ImageConfig {
    /// Whether content of this media type is the configuration of an image.
    pub(crate) fn is_type(media_type: &str) -> bool {
        const TYPES: [&str; 2] = [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.container.image.v1+json",
        ];
        TYPES.contains(&media_type)
    }

    /// Reads a configuration. What it does not have, or writes in another way, is not known.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let ConfigJson { created, config } = serde_json::from_slice(bytes).unwrap_or_default();
        let created = created.as_str().and_then(|text| text.parse().ok());
        Self {
            created,
            lives: lives(config.get("Labels")).take(MAX_LIVES).collect(),
        }
    }

    /// The same with the annotations of its manifest, which count more than labels.
    pub(crate) fn annotated(self, manifest: &[u8]) -> Self {
        let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
        let annotations = lives(manifest.get("annotations"));
        Self {
            lives: annotations.chain(self.lives).take(MAX_LIVES).collect(),
            ..self
        }
    }

    /// How long the image may live, as a label or an annotation of this name says.
    pub(crate) fn life(&self, label: &str) -> Option<Duration> {
        let mut lives = self.lives.iter();
        let (_, life) = lives.find(|(name, _)| **name == *label)?;
        Some(*life)
    }
}

/// The members of an object that are times to live.
fn lives(object: Option<&Value>) -> impl Iterator<Item = (Box<str>, Duration)> {
    let members = object.and_then(Value::as_object);
    members.into_iter().flatten().filter_map(|(name, value)| {
        let life = time_to_live(value.as_str()?)?;
        Some((name.as_str().into(), life))
    })
}

/// A time as Quay reads it: a number with `s`, `m`, `h`, `d` or `w`. Nothing lives for no time.
pub(crate) fn time_to_live(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let life = Duration::from_secs(number.checked_mul(seconds)?);
    (!life.is_zero()).then_some(life)
}

/// Far more than one image has: a configuration may hold a megabyte of labels.
const MAX_LIVES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_those_of_quay() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("2h", Some(7_200)),
            ("7d", Some(604_800)),
            (" 3w ", Some(1_814_400)),
            ("0d", None),
            ("", None),
            ("d", None),
            ("7", None),
            ("-7d", None),
            ("+7d", None),
            ("7y", None),
            ("7 d", None),
            ("1.5h", None),
            ("7é", None),
            ("99999999999999999999d", None),
            ("18446744073709551615w", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(time_to_live(text), expected, "{text}");
        }
    }

    #[test]
    fn a_configuration_says_when_it_was_built_and_how_long_it_lives() {
        let text = r#"{"created":"2024-02-03T04:05:06.7Z","architecture":"amd64","config":{
            "Labels":{"quay.expires-after":"2w","version":"1.2","other":null}}}"#;
        let read = ImageConfig::parse(text.as_bytes());
        assert_eq!(read.created, "2024-02-03T04:05:06.7Z".parse().ok());
        let weeks = Duration::from_secs(2 * 604_800);
        assert_eq!(read.life("quay.expires-after"), Some(weeks));
        assert_eq!(read.life("version"), None);
        let manifest = br#"{"annotations":{"quay.expires-after":"1d","note":"2"}}"#;
        let day = Duration::from_secs(86_400);
        assert_eq!(
            read.annotated(manifest).life("quay.expires-after"),
            Some(day)
        );
        for text in [
            "",
            "[]",
            "{}",
            r#"{"created":5,"config":[]}"#,
            "{\"created\":\"now\"}",
        ] {
            let read = ImageConfig::parse(text.as_bytes());
            assert_eq!(read, ImageConfig::default(), "{text}");
        }
    }
}
