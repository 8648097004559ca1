//! Certificates: until when they last, and when they are renewed.

use std::fmt;

use super::{Metric, Out, unix};
use crate::app::App;

pub(super) fn write(out: &mut Out<'_>, app: &App) -> fmt::Result {
    let all = app.certificate_reports();
    let expiry = all.iter().filter_map(|report| {
        Some((
            [("domain", report.domain.as_str()), ("source", report.source.as_str())],
            unix(report.not_after?),
        ))
    });
    let metric = Metric::new(
        "moorgate_certificate_expiry_timestamp",
        "The last moment of the certificate, in Unix time",
    );
    out.gauges(&metric.seconds(), expiry)?;
    let usable = all.iter().map(|report| {
        (
            [("domain", report.domain.as_str())],
            i64::from(report.not_after.is_some() && report.problem.is_none()),
        )
    });
    let metric =
        Metric::new("moorgate_certificate_ok", "1 where there is a certificate and nothing is wrong with it");
    out.gauges(&metric, usable)?;
    let next = all.iter().filter_map(|report| {
        let next = report.acme.as_ref()?.next_attempt?;
        Some(([("domain", report.domain.as_str())], unix(next)))
    });
    let metric = Metric::new(
        "moorgate_certificate_next_attempt_timestamp",
        "When the certificate will be ordered or renewed, in Unix time",
    );
    out.gauges(&metric.seconds(), next)
}
