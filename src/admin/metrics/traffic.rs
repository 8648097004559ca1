//! Metrics of requests by domain. Those that reached no domain have an empty label.

use std::fmt;
use std::sync::Arc;

use super::{MetricDescriptor, MetricsEncoder};
use crate::app::App;
use crate::observe::metrics::Traffic;

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let gateway = app.gateway();
    let sites = gateway.sites.load();
    let mut all: Vec<(&str, &Arc<Traffic>)> = sites
        .all
        .iter()
        .map(|site| (site.host.domain.as_str(), &site.traffic))
        .collect();
    all.push(("", &gateway.unlocated_traffic));
    let of_each = || {
        all.iter()
            .map(|(domain, traffic)| ([("domain", *domain)], *traffic))
    };
    let requests = all.iter().flat_map(|(domain, traffic)| {
        traffic.requests().map(|(label, status, count)| {
            (
                [
                    ("domain", *domain),
                    ("call", label.as_str()),
                    ("status", status),
                ],
                count,
            )
        })
    });
    out.counters(
        &MetricDescriptor::new("moorgate_requests", "Requests that are over"),
        requests,
    )?;
    let open = of_each().map(|(labels, traffic)| (labels, traffic.open()));
    out.gauges(
        &MetricDescriptor::new("moorgate_requests_in_flight", "Requests that go on"),
        open,
    )?;
    let durations = of_each().map(|(labels, traffic)| (labels, traffic.durations()));
    let metric = MetricDescriptor::new(
        "moorgate_request_duration",
        "From the head of a request to the end of its answer",
    );
    out.durations(&metric, durations)?;
    let upstream = of_each().map(|(labels, traffic)| (labels, traffic.upstream()));
    let metric = MetricDescriptor::new(
        "moorgate_upstream_response",
        "From forwarding to the head of the upstream's answer",
    );
    out.durations(&metric, upstream)?;
    let received = of_each().map(|(labels, traffic)| (labels, traffic.received()));
    out.counters(
        &MetricDescriptor::new("moorgate_received", "Bodies of requests that are over").bytes(),
        received,
    )?;
    let sent = of_each().map(|(labels, traffic)| (labels, traffic.sent()));
    out.counters(
        &MetricDescriptor::new("moorgate_sent", "Bodies of answers that are over").bytes(),
        sent,
    )?;
    let cut = all.iter().flat_map(|(domain, traffic)| {
        [
            ("upstream", traffic.upstream_cut()),
            ("client", traffic.client_gone()),
        ]
        .map(|(by, count)| ([("domain", *domain), ("by", by)], count))
    });
    out.counters(
        &MetricDescriptor::new(
            "moorgate_interrupted",
            "Requests that were broken off, and by whom",
        ),
        cut,
    )
}
