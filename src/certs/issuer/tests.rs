use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::certs::report::CertificateReport;
use crate::certs::testing::{host, name, snapshot};
use crate::config::acme::{AcmeRequest, CaSettings, CertifiedName, Directory, Fallback};
use crate::config::vhost::CertificateSource;

/// A configuration whose CA cannot be reached.
fn asking(state: &std::path::Path, domains: &[&str]) -> Snapshot {
    let hosts = domains.iter().map(|domain| {
        let names = vec![CertifiedName::Host(name(domain))];
        let request = AcmeRequest { contact: None, names, profile: None, fallback: Fallback::Refuse };
        host(&[domain], &[443], CertificateSource::Acme(request))
    });
    let mut snapshot = snapshot(state, hosts.collect());
    snapshot.acme.authorities = vec![CaSettings::new(Directory::Url("https://127.0.0.1:1/dir".to_owned()))];
    snapshot
}

async fn until(certificates: &Certificates, so: impl Fn(&[CertificateReport]) -> bool) {
    let seen = async {
        while !so(&certificates.report()) {
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
    assert!(seen.is_ok(), "{:#?}", certificates.report());
}

fn error(report: &CertificateReport) -> &str {
    report.acme.as_ref().and_then(|acme| acme.error.as_deref()).unwrap_or_default()
}

#[tokio::test]
async fn a_step_that_panics_stops_one_domain_for_an_hour() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = asking(directory.path(), &["a.example.com", "b.example.com"]);
    let certificates = Arc::new(Certificates::new(directory.path().to_owned()));
    certificates.apply(&snapshot);
    let (panicked, later) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    let set = later.clone();
    let wall = move || {
        // Only steps are tasks of their own here.
        assert!(tokio::task::try_id().is_none() || panicked.swap(true, Ordering::Relaxed), "on purpose");
        SystemTime::now() + Duration::from_secs(set.load(Ordering::Relaxed))
    };
    let issuer = Arc::new(Issuer::new(certificates.clone(), &snapshot, Arc::new(wall)));
    let watch = async {
        let is_broken = |report: &CertificateReport| error(report) == BROKEN;
        let is_refused = |report: &CertificateReport| error(report).contains("cannot be reached");
        until(&certificates, |all| all.iter().any(is_broken) && all.iter().any(is_refused)).await;
        let reports = certificates.report();
        let broken = reports.iter().find(|report| is_broken(report)).and_then(|report| report.acme.as_ref());
        let broken = broken.expect("one is");
        let wait = broken.next_attempt.expect("a time").duration_since(SystemTime::now()).expect("later");
        assert!(wait > Duration::from_secs(3500), "{wait:?}");
        assert_eq!((broken.attempts.failed, broken.state.as_str()), (1, &*format!("waiting: {BROKEN}")));
        later.store(3601, Ordering::Relaxed);
        issuer.apply(&snapshot);
        until(&certificates, |all| all.iter().all(is_refused)).await;
    };
    tokio::select! {
        () = issuer.clone().run(CancellationToken::new()) => unreachable!("nobody stops it"),
        () = watch => {}
    }
}
