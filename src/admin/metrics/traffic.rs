//! Metrics of requests by domain. Those that reached no domain have an empty label.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder};
use crate::app::App;
use crate::observe::metrics::Traffic;

/// The requests of one domain.
struct DomainTraffic<'a> {
    domain: &'a str,
    traffic: &'a Traffic,
}

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let gateway = app.gateway();
    let sites = gateway.sites.load();
    let mut all: Vec<DomainTraffic<'_>> = sites
        .all
        .iter()
        .map(|site| DomainTraffic {
            domain: site.host.domain.as_str(),
            traffic: &site.traffic,
        })
        .collect();
    all.push(DomainTraffic {
        domain: "",
        traffic: &gateway.unlocated_traffic,
    });
    write_requests(out, &all)?;
    write_durations(out, &all)?;
    write_bytes(out, &all)?;
    write_interruptions(out, &all)
}

/// A series for each domain.
fn by_domain<'a, V>(
    all: &[DomainTraffic<'a>],
    value: fn(&Traffic) -> V,
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], V)> {
    all.iter()
        .map(move |of| ([("domain", of.domain)], value(of.traffic)))
}

fn write_requests(out: &mut MetricsEncoder<'_>, all: &[DomainTraffic<'_>]) -> fmt::Result {
    let finished = all.iter().flat_map(|of| {
        of.traffic.requests().map(|(label, status, count)| {
            let labels = [
                ("domain", of.domain),
                ("call", label.as_str()),
                ("status", status),
            ];
            (labels, count)
        })
    });
    let metric = MetricDescriptor::new("moorgate_requests", "Finished requests");
    out.counters(&metric, finished)?;
    let metric = MetricDescriptor::new("moorgate_requests_in_flight", "Requests in flight");
    out.gauges(&metric, by_domain(all, Traffic::open))
}

fn write_durations(out: &mut MetricsEncoder<'_>, all: &[DomainTraffic<'_>]) -> fmt::Result {
    let metric = MetricDescriptor::new(
        "moorgate_request_duration",
        "From the head of a request to the end of its response",
    );
    out.durations(&metric, by_domain(all, Traffic::durations))?;
    let metric = MetricDescriptor::new(
        "moorgate_upstream_response",
        "From forwarding a request to the response head of the upstream",
    );
    out.durations(&metric, by_domain(all, Traffic::upstream))
}

fn write_bytes(out: &mut MetricsEncoder<'_>, all: &[DomainTraffic<'_>]) -> fmt::Result {
    let metric = MetricDescriptor::new(
        "moorgate_received",
        "Request body bytes of finished requests",
    );
    out.counters(&metric.bytes(), by_domain(all, Traffic::received))?;
    let metric = MetricDescriptor::new("moorgate_sent", "Response body bytes of finished requests");
    out.counters(&metric.bytes(), by_domain(all, Traffic::sent))
}

fn write_interruptions(out: &mut MetricsEncoder<'_>, all: &[DomainTraffic<'_>]) -> fmt::Result {
    let interrupted = all.iter().flat_map(|of| {
        [
            ("upstream", of.traffic.upstream_cut()),
            ("client", of.traffic.client_gone()),
        ]
        .map(|(by, count)| ([("domain", of.domain), ("by", by)], count))
    });
    let metric = MetricDescriptor::new(
        "moorgate_interrupted",
        "Interrupted requests, by the side that interrupted them",
    );
    out.counters(&metric, interrupted)
}
