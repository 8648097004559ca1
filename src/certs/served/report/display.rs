//! The output of `moorgate certs`.

use super::{AcmeStatus, CertificateReport};
use crate::certs::inspect::Rfc3339;

pub(crate) fn listing(reports: &[CertificateReport]) -> String {
    reports
        .iter()
        .flat_map(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

fn lines(report: &CertificateReport) -> Vec<String> {
    let CertificateReport {
        domain,
        source,
        names,
        issuer,
        serial: _,
        not_before: _,
        not_after,
        problem,
        acme,
    } = report;
    let mut words = vec![format!("{domain}  {source}")];
    words.extend(not_after.map(|at| format!("until {}", Rfc3339(at))));
    words.extend(issuer.as_ref().map(|issuer| format!("by {issuer}")));
    if !names.is_empty() {
        words.push(format!("for {}", names.join(", ")));
    }
    let mut lines = vec![words.join("  ")];
    lines.extend(acme.iter().flat_map(of_acme));
    lines.extend(
        problem
            .as_ref()
            .map(|problem| format!("  PROBLEM: {problem}")),
    );
    lines
}

fn of_acme(status: &AcmeStatus) -> Vec<String> {
    let AcmeStatus {
        ca,
        profile,
        state,
        window_start,
        window_end,
        explanation,
        next_attempt,
        error,
        unused,
        findings,
        // Since the process began: for those who count.
        attempts: _,
    } = status;
    let profile = profile
        .as_ref()
        .map(|profile| format!(", profile {profile}"))
        .unwrap_or_default();
    let mut lines = vec![format!("  from {ca}{profile}")];
    lines.extend((!state.is_empty()).then(|| format!("  {state}")));
    lines.extend(next_attempt.map(|at| format!("  next attempt at {}", Rfc3339(at))));
    let window = window_start.zip(*window_end);
    lines.extend(window.map(|(start, end)| {
        format!(
            "  the CA suggests renewal from {} to {}",
            Rfc3339(start),
            Rfc3339(end)
        )
    }));
    lines.extend(
        explanation
            .iter()
            .map(|url| format!("  the CA explains that at {url}")),
    );
    lines.extend(error.as_ref().map(|error| format!("  LAST ERROR: {error}")));
    lines.extend(
        unused
            .iter()
            .map(|unused| format!("  NOT IN FORCE: {unused}")),
    );
    lines.extend(findings.iter().map(|finding| format!("  FOUND: {finding}")));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::certs::served::report::{Attempts, SourceKind};
    use crate::certs::testing::name;

    #[test]
    fn a_listing_says_all_that_is_known() {
        let day = |n: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(n * 24 * 60 * 60));
        let status = AcmeStatus {
            ca: "letsencrypt".into(),
            profile: Some("shortlived".into()),
            state: "waiting: no order is placed yet".into(),
            window_start: day(2),
            window_end: day(3),
            explanation: Some("https://ca.example/why".into()),
            next_attempt: day(4),
            error: Some("the CA refuses: no".into()),
            unused: Some("the certificate 02 of https://ca.example/dir: it ended".into()),
            findings: vec!["a does not resolve".into(), "b does not lead here".into()],
            attempts: Attempts::default(),
        };
        let held = CertificateReport {
            domain: name("a.example.com"),
            source: SourceKind::Acme,
            names: vec!["a.example.com".into(), "b.example.com".into()],
            issuer: Some("CN=R12".into()),
            serial: Some("01".into()),
            not_before: day(0),
            not_after: day(5),
            problem: Some("the certificate has expired".into()),
            acme: Some(status),
        };
        let none = CertificateReport {
            domain: name("c.example.com"),
            source: SourceKind::Internal,
            names: Vec::new(),
            issuer: None,
            not_after: None,
            problem: None,
            acme: None,
            ..held.clone()
        };
        insta::assert_snapshot!(listing(&[held, none]), @r"
        a.example.com  acme  until 1970-01-06T00:00:00Z  by CN=R12  for a.example.com, b.example.com
          from letsencrypt, profile shortlived
          waiting: no order is placed yet
          next attempt at 1970-01-05T00:00:00Z
          the CA suggests renewal from 1970-01-03T00:00:00Z to 1970-01-04T00:00:00Z
          the CA explains that at https://ca.example/why
          LAST ERROR: the CA refuses: no
          NOT IN FORCE: the certificate 02 of https://ca.example/dir: it ended
          FOUND: a does not resolve
          FOUND: b does not lead here
          PROBLEM: the certificate has expired
        c.example.com  internal
        ");
    }
}
