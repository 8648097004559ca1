//! Metrics of logins: hashes, failures, and lockouts.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder, count};
use crate::app::App;

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let verifier = &app.gateway().verifier;
    let checks = verifier.status();
    let lockout = verifier.lockout_status();
    out.counter(
        &MetricDescriptor::new("moorgate_password_hashes", "Hashed passwords"),
        checks.hashed,
    )?;
    out.gauge(
        &MetricDescriptor::new("moorgate_passwords_waiting", "Passwords waiting for a hash"),
        count(checks.waiting),
    )?;
    let metric = MetricDescriptor::new(
        "moorgate_passwords_remembered",
        "Cached logins, which need no hash",
    );
    out.gauge(&metric, count(checks.remembered))?;
    let metric = MetricDescriptor::new(
        "moorgate_logins_failed",
        "Wrong passwords that count against a limit",
    );
    out.counter(&metric, lockout.failed)?;
    let metric = MetricDescriptor::new(
        "moorgate_logins_known_wrong",
        "Passwords known to be wrong: no hash, not counted",
    );
    out.counter(&metric, lockout.repeated)?;
    let refused = lockout
        .refused
        .map(|(limit, count)| ([("budget", limit.as_str())], count));
    let metric = MetricDescriptor::new(
        "moorgate_logins_refused",
        "Logins refused without a hash, by the exhausted limit",
    );
    out.counters(&metric, refused)?;
    let failing = [("address", lockout.addresses), ("user", lockout.users)];
    let failing = failing.map(|(kind, many)| ([("kind", kind)], count(many)));
    out.gauges(
        &MetricDescriptor::new(
            "moorgate_logins_failing",
            "Users and addresses with wrong passwords that still count",
        ),
        failing,
    )
}
