//! Serde adapters for times in the files below `state`: RFC 3339 in UTC, by the serde of
//! [`jiff::Timestamp`].

use std::time::SystemTime;

use jiff::Timestamp;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    Timestamp::try_from(*at)
        .map_err(S::Error::custom)?
        .serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SystemTime, D::Error> {
    Timestamp::deserialize(deserializer).map(SystemTime::from)
}

/// For `Option<SystemTime>`.
pub(super) mod option {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::try_from)
            .transpose()
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Timestamp>::deserialize(deserializer)?.map(SystemTime::from))
    }
}

/// For `Vec<SystemTime>`.
pub(super) mod list {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        times: &[SystemTime],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let times: Result<Vec<_>, _> = times.iter().map(|at| Timestamp::try_from(*at)).collect();
        times.map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SystemTime>, D::Error> {
        let times = Vec::<Timestamp>::deserialize(deserializer)?;
        Ok(times.into_iter().map(SystemTime::from).collect())
    }
}

/// For maps whose keys are not strings, which JSON does not allow: a list of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use super::*;

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
