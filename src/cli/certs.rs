//! `moorgate certs`: what a configuration's certificates are, and the internal CA's certificate.

pub mod import;

use std::io::Write;
use std::time::SystemTime;

use anyhow::anyhow;

use crate::certs::check;
use crate::certs::inspect::Moment;
use crate::certs::internal_ca::InternalCa;
use crate::certs::report::CertificateReport;
use crate::config::snapshot::Snapshot;

/// Lists the certificates of all domains, from the files alone: a line for each, or a JSON array.
pub fn list(snapshot: &Snapshot, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let reports = check::reports(snapshot, SystemTime::now());
    if json {
        serde_json::to_writer_pretty(&mut *out, &reports)?;
        writeln!(out)?;
        return Ok(());
    }
    for report in &reports {
        writeln!(out, "{}", line(report))?;
    }
    Ok(())
}

/// Writes the internal CA's certificate in PEM, for the trust stores of clients. Makes the CA first if
/// there is none yet.
pub fn ca(snapshot: &Snapshot, out: &mut impl Write) -> anyhow::Result<()> {
    let ca = InternalCa::open_or_make(&snapshot.state).map_err(|error| {
        let help = error.help();
        anyhow!("{error}; {help}")
    })?;
    out.write_all(ca.pem().as_bytes())?;
    Ok(())
}

fn line(report: &CertificateReport) -> String {
    let CertificateReport { domain, source, names, issuer, serial: _, not_before: _, not_after, problem } =
        report;
    let mut words = vec![format!("{domain}  {source}")];
    words.extend(not_after.map(|at| format!("until {}", Moment(at))));
    words.extend(issuer.as_ref().map(|issuer| format!("by {issuer}")));
    if !names.is_empty() {
        words.push(format!("for {}", names.join(", ")));
    }
    words.extend(problem.as_ref().map(|problem| format!("PROBLEM: {problem}")));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{host, pair, snapshot};
    use crate::config::vhost::CertificateSource;

    #[test]
    fn each_domain_has_a_line_and_a_json_object() {
        let directory = tempfile::tempdir().expect("directory");
        let files = pair(&["a.example.com"]).write(directory.path(), "a");
        let hosts = vec![
            host(&["a.example.com"], &[443], files),
            host(&["b.example.com"], &[443], CertificateSource::Internal),
        ];
        let snapshot = snapshot(directory.path(), hosts);

        let mut text = Vec::new();
        list(&snapshot, false, &mut text).expect("listed");
        let text = String::from_utf8(text).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("a.example.com  files  until 20"), "{text}");
        assert!(lines[0].ends_with("for a.example.com"), "{text}");
        assert_eq!(lines[1], "b.example.com  internal");

        let mut json = Vec::new();
        list(&snapshot, true, &mut json).expect("listed");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json[0]["domain"], "a.example.com");
        assert_eq!(json[0]["names"][0], "a.example.com");
        assert_eq!(json[1]["source"], "internal");
        assert!(json[1]["problem"].is_null());
    }

    #[test]
    fn the_ca_is_made_and_printed_and_stays_the_same() {
        let directory = tempfile::tempdir().expect("directory");
        let snapshot = snapshot(directory.path(), Vec::new());
        let [first, second] = [(); 2].map(|()| {
            let mut out = Vec::new();
            ca(&snapshot, &mut out).expect("printed");
            out
        });
        assert!(first.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert_eq!(first, second);
    }
}
