//! Checks the certificates of a configuration without serving them, for `moorgate check` and
//! `moorgate certs`. Creates and changes nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::{self, Half};
use super::internal_ca::{InternalCa, InternalCaError};
use super::report::CertificateReport;
use super::status;
use crate::certs::inspect::Defect;
use crate::certs::{Certificate, chain};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, VirtualHost};

/// A problem with the certificate of a domain that the administrator can solve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateProblem {
    /// The domain file.
    pub source: PathBuf,
    /// The key in it, like `["tls", "certificate"]`.
    pub key: &'static [&'static str],
    pub message: String,
    pub help: String,
    /// Whether handshakes for the domain would be refused; otherwise the certificate is served in
    /// spite of the problem.
    pub refused: bool,
}

impl CertificateProblem {
    /// Whether the certificate is kept below the state directory.
    pub(crate) fn is_in_state(&self) -> bool {
        self.key == INTERNAL
    }
}

/// The problems of all domains, in order of their files.
pub(crate) fn problems(snapshot: &Snapshot, now: SystemTime) -> Vec<CertificateProblem> {
    snapshot
        .domains
        .iter()
        .flat_map(|host| problems_of(host, &snapshot.state, now))
        .collect()
}

/// Reports on each domain, in the order of the domain files. Leaves of the internal CA are issued
/// when the server starts: only their issuer is known here.
pub(crate) fn reports(snapshot: &Snapshot, now: SystemTime) -> Vec<CertificateReport> {
    snapshot
        .domains
        .iter()
        .map(|host| report_of(host, snapshot, now))
        .collect()
}

fn problems_of(host: &VirtualHost, state: &Path, now: SystemTime) -> Vec<CertificateProblem> {
    let refused = |key, message, help: &str| CertificateProblem {
        source: host.source.clone(),
        key,
        message,
        help: help.to_owned(),
        refused: true,
    };
    match &host.certificate {
        CertificateSource::Files { certificate, key } => match files::load(certificate, key) {
            Ok(loaded) => served_problems(host, &loaded, now),
            Err(error) => {
                let half = match error.half() {
                    Half::Certificate => CERTIFICATE,
                    Half::Key => KEY,
                };
                vec![refused(half, error.to_string(), error.help())]
            }
        },
        CertificateSource::Internal => match open_ca(state, now) {
            Ok(_) => Vec::new(),
            Err(error) => vec![refused(INTERNAL, error.to_string(), error.help())],
        },
        // The process that orders retries and reports these.
        CertificateSource::Acme(_) => Vec::new(),
    }
}

/// The problems of a certificate that is served in spite of them.
fn served_problems(
    host: &VirtualHost,
    certificate: &Certificate,
    now: SystemTime,
) -> Vec<CertificateProblem> {
    let facts = &certificate.facts;
    let mut defects = facts.defects(now, host.names());
    let days = facts.not_after.duration_since(now).unwrap_or_default();
    if defects.is_empty() && days < NOTICE {
        defects.push(Defect::expires_soon(facts.not_after, days));
    }
    let defects = defects
        .into_iter()
        .map(|defect| (defect.to_string(), help(&defect, host)));
    let chain = &certificate.key.cert;
    let broken = chain::check(chain, now).err().map(|defect| {
        let help = "put the certificates in order, each followed by that of its issuer";
        (defect.to_string(), help.to_owned())
    });
    let alone = chain::absent_issuer(chain).map(|issuer| {
        let message = format!(
            "the certificate comes without its chain: clients that do not have that of {issuer} refuse it"
        );
        let help = "append the certificate of its issuer, as certbot does in fullchain.pem";
        (message, help.to_owned())
    });
    let all = defects.chain(broken).chain(alone);
    all.map(|(message, help)| CertificateProblem {
        source: host.source.clone(),
        key: CERTIFICATE,
        message,
        help,
        refused: false,
    })
    .collect()
}

fn report_of(host: &VirtualHost, snapshot: &Snapshot, now: SystemTime) -> CertificateReport {
    match &host.certificate {
        CertificateSource::Files { certificate, key } => match files::load(certificate, key) {
            Ok(loaded) => CertificateReport::new(host, Some(&loaded.facts), None, now),
            Err(error) => CertificateReport::new(host, None, Some(&error.to_string()), now),
        },
        CertificateSource::Acme(request) => status::report(host, request, snapshot, now),
        CertificateSource::Internal => match open_ca(&snapshot.state, now) {
            Ok(ca) => CertificateReport {
                issuer: ca.map(|ca| ca.subject().to_owned()),
                ..CertificateReport::new(host, None, None, now)
            },
            Err(error) => CertificateReport::new(host, None, Some(&error.to_string()), now),
        },
    }
}

/// Opens the internal CA; `None` before it is created.
fn open_ca(state: &Path, now: SystemTime) -> Result<Option<InternalCa>, InternalCaError> {
    let ca = InternalCa::open(state)?;
    if let Some(ca) = &ca {
        ca.ensure_alive(now)?;
    }
    Ok(ca)
}

fn help(defect: &Defect, host: &VirtualHost) -> String {
    match defect {
        Defect::Expired(_) | Defect::ExpiresSoon { .. } => {
            "renew it; the files are re-read when they change".to_owned()
        }
        Defect::NotYetValid(_) => "check this machine's clock, or wait".to_owned(),
        Defect::DoesNotCover(name) if *name == host.domain => {
            format!("get a certificate for {name}, or name the one that is for it")
        }
        Defect::DoesNotCover(name) => {
            format!("get a certificate that has this name too, or take {name} out of `aliases`")
        }
    }
}

/// A certificate from files is renewed by somebody else, who may have forgotten it.
const NOTICE: Duration = Duration::from_hours(48);
const CERTIFICATE: &[&str] = &["tls", "certificate"];
const KEY: &[&str] = &["tls", "key"];
const INTERNAL: &[&str] = &["tls", "internal"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{host, pair, snapshot};

    #[test]
    fn each_domain_has_its_own_words() {
        let directory = tempfile::tempdir().expect("directory");
        let good = pair(&["a.example.com"]).write(directory.path(), "a");
        let missing = CertificateSource::Files {
            certificate: directory.path().join("none.pem"),
            key: directory.path().join("none.key"),
        };
        let snapshot = snapshot(
            directory.path(),
            vec![
                host(&["a.example.com", "alias.example.com"], &[443], good),
                host(&["b.example.com"], &[443], missing),
                host(&["c.example.com"], &[443], CertificateSource::Internal),
            ],
        );
        let found = problems(&snapshot, SystemTime::now());
        let keys: Vec<_> = found
            .iter()
            .map(|problem| (problem.key, problem.refused))
            .collect();
        assert_eq!(keys, [(CERTIFICATE, false), (CERTIFICATE, true)]);
        assert_eq!(
            found[0].message,
            "the certificate does not cover alias.example.com"
        );
        assert!(
            found[1].message.starts_with("cannot read "),
            "{}",
            found[1].message
        );

        let reports = reports(&snapshot, SystemTime::now());
        assert_eq!(
            reports
                .iter()
                .map(|report| report.problem.is_some())
                .collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(
            !directory.path().join("internal-ca").exists(),
            "a check creates nothing"
        );
    }

    #[test]
    fn a_damaged_ca_is_a_problem_of_each_domain_that_needs_it() {
        let directory = tempfile::tempdir().expect("directory");
        InternalCa::open_or_make(directory.path()).expect("made");
        std::fs::remove_file(directory.path().join("internal-ca/ca.key")).expect("removed");
        let hosts = ["a.example.com", "b.example.com"];
        let hosts = hosts.map(|name| host(&[name], &[443], CertificateSource::Internal));
        let found = problems(&snapshot(directory.path(), hosts.into()), SystemTime::now());
        assert_eq!(found.len(), 2);
        assert!(
            found
                .iter()
                .all(|problem| problem.key == INTERNAL && problem.refused)
        );
    }
}
