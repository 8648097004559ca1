//! Metrics of the quotas of stores: for each rule, so that no series names a user.

use std::collections::BTreeMap;
use std::fmt;

use super::{MetricDescriptor, MetricsEncoder, count};
use crate::app::App;
use crate::store::AreaUse;

/// All areas of one rule.
#[derive(Default)]
struct RuleUse {
    areas: usize,
    /// The use of the fullest area.
    fullest: u64,
    size: u64,
}

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let sites = app.gateway().sites.load();
    let mut rules: BTreeMap<(String, String), RuleUse> = BTreeMap::new();
    for site in &sites.all {
        let areas = site.registry.store().map(|store| store.area_use());
        for area in areas.iter().flat_map(|areas| areas.iter()) {
            let labels = (site.host.domain.to_string(), area.rule.clone());
            rules.entry(labels).or_default().add(area);
        }
    }
    let series = |value: fn(&RuleUse) -> i64| {
        rules.iter().map(move |((domain, rule), used)| {
            let labels = [("domain", domain.as_str()), ("rule", rule.as_str())];
            (labels, value(used))
        })
    };
    let metric =
        MetricDescriptor::new("moorgate_quota_areas", "Areas of a quota that have content");
    out.gauges(&metric, series(|rule| count(rule.areas)))?;
    let metric = MetricDescriptor::new("moorgate_quota_size", "What each area of a quota may hold");
    out.gauges(&metric.bytes(), series(|rule| bytes(rule.size)))?;
    let metric = MetricDescriptor::new(
        "moorgate_quota_fullest",
        "What the fullest area of a quota holds",
    );
    out.gauges(&metric.bytes(), series(|rule| bytes(rule.fullest)))
}

impl RuleUse {
    fn add(&mut self, area: &AreaUse) {
        self.areas += usize::from(area.used() > 0);
        self.fullest = self.fullest.max(area.used());
        self.size = area.size;
    }
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
