//! Metrics of the upstreams' health, as requests have shown it.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder};
use crate::app::App;
use crate::request::site::{Registry, Site, Sites};
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
    out.counters(&metric, failures)?;
    write_replicas(out, &sites)
}

/// The service of replicas, where an upstream has several.
fn write_replicas(out: &mut MetricsEncoder<'_>, sites: &Sites) -> fmt::Result {
    let grouped = sites.all.iter().filter_map(|site| {
        let backend = site.registry.upstream()?;
        Some((site, backend.upstream.group()?))
    });
    let all: Vec<_> = grouped
        .flat_map(|(site, group)| group.replicas().iter().map(move |replica| (site, replica)))
        .filter_map(|(site, replica)| {
            let labels = [
                ("domain", site.host.domain.as_str()),
                ("upstream", replica.health()?.url()),
            ];
            Some((labels, replica.service_report()))
        })
        .collect();
    let metric = MetricDescriptor::new(
        "moorgate_upstream_replica_in_service",
        "1 if the replica gets requests, 0 if it is ejected",
    );
    let in_service = all.iter().map(|(labels, service)| {
        let value: i64 = if service.ejected.is_none() { 1 } else { 0 };
        (*labels, value)
    });
    out.gauges(&metric, in_service)?;
    let metric = MetricDescriptor::new(
        "moorgate_upstream_replica_requests_in_flight",
        "Requests at the replica whose response has not ended",
    );
    let in_flight = all
        .iter()
        .map(|(labels, service)| (*labels, i64::from(service.in_flight)));
    out.gauges(&metric, in_flight)?;
    let metric = MetricDescriptor::new(
        "moorgate_upstream_replica_ejections",
        "How often the replica was ejected",
    );
    let ejections = all
        .iter()
        .map(|(labels, service)| (*labels, service.ejections));
    out.counters(&metric, ejections)
}

type Labels<'a> = [(&'static str, &'a str); 3];

/// The registry and the browser of a site.
fn upstreams(site: &Site) -> impl Iterator<Item = (Labels<'_>, &UpstreamHealth)> {
    let registry = match &site.registry {
        Registry::Upstream(backend) => Some(backend),
        Registry::Store(_) => None,
    };
    let backends = registry.into_iter().chain(&site.browser);
    let healths = backends.flat_map(|backend| backend.upstream.healths());
    healths.map(|health| {
        let labels = [
            ("domain", site.host.domain.as_str()),
            ("role", health.role().as_str()),
            ("upstream", health.url()),
        ];
        (labels, &**health)
    })
}
