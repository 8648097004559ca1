//! Metrics of certificates: expiry, renewal, and the limits of CAs.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder, count, unix};
use crate::app::App;
use crate::certs::served::report::{Attempts, CertificateReport};

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let all = app.certificate_reports();
    let expiry = all.iter().filter_map(|report| {
        Some((
            [
                ("domain", report.domain.as_str()),
                ("source", report.source.as_str()),
            ],
            unix(report.not_after?),
        ))
    });
    let metric = MetricDescriptor::new(
        "moorgate_certificate_expiry_timestamp",
        "Expiry of the certificate, in Unix time",
    );
    out.gauges(&metric.seconds(), expiry)?;
    let usable = all.iter().map(|report| {
        (
            [("domain", report.domain.as_str())],
            i64::from(report.not_after.is_some() && report.problem.is_none()),
        )
    });
    let metric = MetricDescriptor::new("moorgate_certificate_ok", "1 if the certificate is usable");
    out.gauges(&metric, usable)?;
    let next = all.iter().filter_map(|report| {
        let next = report.acme.as_ref()?.next_attempt?;
        Some(([("domain", report.domain.as_str())], unix(next)))
    });
    let metric = MetricDescriptor::new(
        "moorgate_certificate_next_attempt_timestamp",
        "When the certificate is ordered or renewed next, in Unix time",
    );
    out.gauges(&metric.seconds(), next)?;
    attempts(out, &all)?;
    budgets(out, app)
}

fn attempts(out: &mut MetricsEncoder<'_>, all: &[CertificateReport]) -> fmt::Result {
    let attempts = all
        .iter()
        .filter_map(|report| Some((report.domain.as_str(), report.acme.as_ref()?.attempts)));
    let attempts = attempts.flat_map(
        |(
            domain,
            Attempts {
                issued,
                failed,
                postponed,
            },
        )| {
            [
                ("issued", issued),
                ("failed", failed),
                ("postponed", postponed),
            ]
            .map(|(outcome, count)| ([("domain", domain), ("outcome", outcome)], count))
        },
    );
    let metric = MetricDescriptor::new(
        "moorgate_certificate_attempts",
        "Attempts to issue a certificate, by outcome",
    );
    out.counters(&metric, attempts)
}

fn budgets(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let all = app.issuer().budgets();
    let left = all.iter().flat_map(|of| {
        of.budget.iter().map(|budget| {
            let limit = budget.limit.label();
            (
                [
                    ("domain", of.domain.as_str()),
                    ("ca", of.ca.as_str()),
                    ("limit", limit),
                ],
                count(budget.left),
            )
        })
    });
    let metric = MetricDescriptor::new(
        "moorgate_acme_budget_left",
        "Remaining requests of the domain within a limit of the CA",
    );
    out.gauges(&metric, left)
}
