//! Moments in the files below `state`: RFC 3339 in UTC, so that a person can read them.

use std::time::SystemTime;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn text(at: SystemTime) -> Result<String, jiff::Error> {
    Ok(jiff::Timestamp::try_from(at)?.to_string())
}

fn moment(text: &str) -> Result<SystemTime, jiff::Error> {
    Ok(text.parse::<jiff::Timestamp>()?.into())
}

pub(super) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    text(*at).map_err(S::Error::custom)?.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    moment(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A moment or none.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, SystemTime, moment, text};
    use serde::de::Error as _;
    use serde::ser::Error as _;

    pub(in super::super) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(text)
            .transpose()
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| moment(&text))
            .transpose()
            .map_err(D::Error::custom)
    }
}

/// Moments in a row.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Serialize, Serializer, SystemTime, moment, text};
    use serde::de::Error as _;
    use serde::ser::Error as _;

    pub(in super::super) fn serialize<S: Serializer>(
        all: &[SystemTime],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let all: Result<Vec<_>, _> = all.iter().map(|at| text(*at)).collect();
        all.map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SystemTime>, D::Error> {
        let all = Vec::<String>::deserialize(deserializer)?;
        all.iter()
            .map(|text| moment(text))
            .collect::<Result<_, _>>()
            .map_err(D::Error::custom)
    }
}

/// A map whose keys are no texts, as JSON demands, becomes a list of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in super::super) fn deserialize<'de, D, K, V>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}
