//! Metrics of the upstreams' health, as requests have shown it.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder};
use crate::app::App;
use crate::request::site::{Registry, Site};
use crate::upstream::health::{HealthState, UpstreamHealth};

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let sites = app.gateway().sites.load();
    let all: Vec<_> = sites.all.iter().flat_map(|site| upstreams(site)).collect();
    let up = all.iter().filter_map(|(labels, health)| {
        let value: i64 = match health.report().state {
            HealthState::Unknown => return None,
            HealthState::Healthy => 1,
            HealthState::Failing => 0,
        };
        Some((*labels, value))
    });
    let metric = MetricDescriptor::new(
        "moorgate_upstream_up",
        "1 if the last requests to the upstream succeeded, 0 if it fails; none before the first one",
    );
    out.gauges(&metric, up)?;
    let failures = all.iter().flat_map(|([domain, role, upstream], health)| {
        health.failures().map(move |(reason, count)| {
            let labels = [*domain, *role, *upstream, ("reason", reason.as_str())];
            (labels, count)
        })
    });
    let metric = MetricDescriptor::new(
        "moorgate_upstream_failures",
        "Requests to which the upstream gave no usable response, by reason",
    );
    out.counters(&metric, failures)
}

type Labels<'a> = [(&'static str, &'a str); 3];

/// The registry and the browser of a site.
fn upstreams(site: &Site) -> impl Iterator<Item = (Labels<'_>, &UpstreamHealth)> {
    let registry = match &site.registry {
        Registry::Upstream(backend) => Some(backend),
        Registry::Store(_) => None,
    };
    let backends = registry.into_iter().chain(&site.browser);
    backends.filter_map(|backend| {
        let health = backend.upstream.health()?;
        let labels = [
            ("domain", site.host.domain.as_str()),
            ("role", health.role().as_str()),
            ("upstream", health.url()),
        ];
        Some((labels, &**health))
    })
}
