//! The tables of a domain file about what its registry holds: `[[retention]]`,
//! `[retention_settings]` and `[[quota]]`.

use std::time::Duration;

use super::table::TableReader;
use super::{List, MINUTE, Setting};
use crate::config::retention::{Grouping, HoursOfDay};
use crate::config::values::access as patterns;
use crate::config::values::retention::{self as values, RawInUse};
use crate::config::values::{self as general, DAY};
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// What a domain file says of what its registry holds.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawHoldings {
    pub(in crate::config) retention: List<RawRetention>,
    pub(in crate::config) settings: Setting<RawRetentionSettings>,
    pub(in crate::config) quota: List<RawQuota>,
}

/// `[[retention]]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawRetention {
    pub(in crate::config) repositories: List<RepositoryPattern>,
    pub(in crate::config) tags: List<Pattern>,
    pub(in crate::config) protect: List<Pattern>,
    pub(in crate::config) keep: Setting<RawKept>,
    pub(in crate::config) ttl: Setting<Duration>,
    pub(in crate::config) per: Setting<Grouping>,
    pub(in crate::config) expiry_label: Setting<Option<Box<str>>>,
}

/// `retention.keep`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawKept {
    pub(in crate::config) newest: Setting<usize>,
    pub(in crate::config) pulled_within: Setting<Duration>,
    pub(in crate::config) pushed_within: Setting<Duration>,
}

/// `[retention_settings]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawRetentionSettings {
    pub(in crate::config) every: Setting<Option<Duration>>,
    pub(in crate::config) hours: Setting<HoursOfDay>,
    pub(in crate::config) max_tags: Setting<usize>,
    pub(in crate::config) max_share: Setting<u8>,
    pub(in crate::config) min_age: Setting<Duration>,
    pub(in crate::config) dry_run: Setting<bool>,
    pub(in crate::config) in_use: List<RawInUse>,
}

/// `[[quota]]`
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawQuota {
    pub(in crate::config) repositories: List<RepositoryPattern>,
    pub(in crate::config) size: Setting<u64>,
}

pub(super) fn holdings(top: &mut TableReader<'_>) -> RawHoldings {
    RawHoldings {
        retention: top.tables("retention", rule),
        settings: top.table("retention_settings", settings),
        quota: top.tables("quota", |table| RawQuota {
            repositories: table.list("repositories", patterns::repository_pattern),
            size: table.value("size", |value| general::size(value, 1, u64::MAX)),
        }),
    }
}

fn rule(table: &mut TableReader<'_>) -> RawRetention {
    RawRetention {
        repositories: table.list("repositories", patterns::repository_pattern),
        tags: table.list("tags", patterns::tag_pattern),
        protect: table.list("protect", patterns::tag_pattern),
        keep: table.inner("keep", "retention.keep", |table| RawKept {
            newest: table.value("newest", |value| general::number(value, 1, MAX_TAGS)),
            pulled_within: window(table, "pulled_within"),
            pushed_within: window(table, "pushed_within"),
        }),
        ttl: window(table, "ttl"),
        per: table.value("per", values::grouping),
        expiry_label: table.value("expiry_label", values::expiry_label),
    }
}

fn settings(table: &mut TableReader<'_>) -> RawRetentionSettings {
    RawRetentionSettings {
        every: table.value("every", |value| {
            general::duration_or_never(value, MINUTE, 365 * DAY)
        }),
        hours: table.value("hours", values::hours),
        max_tags: table.value("max_tags", |value| general::number(value, 1, MAX_TAGS)),
        max_share: table.value("max_share", values::share),
        min_age: window(table, "min_age"),
        dry_run: table.value("dry_run", general::flag),
        in_use: table.list("in_use", values::in_use),
    }
}

fn window(table: &mut TableReader<'_>, key: &'static str) -> Setting<Duration> {
    table.value(key, |value| general::duration(value, 3650 * DAY))
}

/// Far more than a registry has, and far from any overflow.
const MAX_TAGS: u64 = 1_000_000_000;
