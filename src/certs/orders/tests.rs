use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attempt::{AttemptResult, CertificateAttempt};
use super::*;
use crate::certs::served::report::CertificateReport;
use crate::certs::state::storage::{DomainRecord, RenewalAdvice};
use crate::certs::testing::{host, name, pair, snapshot};
use crate::config::acme::{AcmeDirectory, AcmeRequest, CaSettings, CertifiedName, Fallback};
use crate::config::vhost::CertificateSource;

/// A configuration whose CA cannot be reached.
fn with_acme(state: &std::path::Path, domains: &[&str]) -> Snapshot {
    let hosts = domains.iter().map(|domain| {
        let names = vec![CertifiedName::Host(name(domain))];
        let request = AcmeRequest {
            contact: None,
            names,
            profile: None,
            fallback: Fallback::Refuse,
        };
        host(&[domain], &[443], CertificateSource::Acme(request))
    });
    let mut snapshot = snapshot(state, hosts.collect());
    snapshot.acme.authorities = vec![CaSettings::new(AcmeDirectory::Url(
        "https://127.0.0.1:1/dir".to_owned(),
    ))];
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
    report
        .acme
        .as_ref()
        .and_then(|acme| acme.error.as_deref())
        .unwrap_or_default()
}

#[test]
fn a_request_is_met_by_a_certificate_that_came_into_force_after_it() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = with_acme(directory.path(), &["a.example.com"]);
    for (served, is_ordered_again) in [
        (None, false),
        (Some("earlier"), false),
        (Some("issued"), true),
    ] {
        let mut domain = ScheduledDomain::new(snapshot.domains[0].clone());
        domain.begin();
        domain.request_renewal(served.map(str::to_owned));
        let outcome = Some(AttemptOutcome::Issued);
        domain.end(DomainState::New, outcome, Some("issued".to_owned()));
        assert_eq!(domain.begin().requested, is_ordered_again, "{served:?}");
    }
}

#[tokio::test]
async fn a_step_that_panics_stops_one_domain_for_an_hour() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = with_acme(directory.path(), &["a.example.com", "b.example.com"]);
    let certificates = Arc::new(Certificates::new(directory.path().to_owned()));
    certificates.apply(&snapshot);
    let (panicked, later) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    let set = later.clone();
    let system_clock = move || {
        // Only steps run as tasks here.
        assert!(
            tokio::task::try_id().is_none() || panicked.swap(true, Ordering::Relaxed),
            "on purpose"
        );
        SystemTime::now() + Duration::from_secs(set.load(Ordering::Relaxed))
    };
    let issuer = Arc::new(Issuer::new(
        certificates.clone(),
        &snapshot,
        Arc::new(system_clock),
    ));
    let watch = async {
        let is_broken = |report: &CertificateReport| error(report) == PANIC_MESSAGE;
        let is_refused = |report: &CertificateReport| error(report).contains("cannot be reached");
        until(&certificates, |all| {
            all.iter().any(is_broken) && all.iter().any(is_refused)
        })
        .await;
        let reports = certificates.report();
        let broken = reports
            .iter()
            .find(|report| is_broken(report))
            .and_then(|report| report.acme.as_ref());
        let broken = broken.expect("one is");
        let wait = broken
            .next_attempt
            .expect("a time")
            .duration_since(SystemTime::now())
            .expect("later");
        assert!(wait > Duration::from_secs(3500), "{wait:?}");
        assert_eq!(
            (broken.attempts.failed, broken.state.as_str()),
            (1, &*format!("waiting: {PANIC_MESSAGE}"))
        );
        later.store(3601, Ordering::Relaxed);
        issuer.apply(&snapshot);
        until(&certificates, |all| all.iter().all(is_refused)).await;
    };
    tokio::select! {
        () = issuer.clone().run(CancellationToken::new()) => unreachable!("it is not stopped"),
        () = watch => {}
    }
}

#[tokio::test]
async fn what_another_process_has_renewed_is_not_ordered_again() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = with_acme(directory.path(), &["a.example.com"]);
    let certificates = Arc::new(Certificates::new(directory.path().to_owned()));
    certificates.apply(&snapshot);
    let issuer = Arc::new(Issuer::new(
        certificates.clone(),
        &snapshot,
        Arc::new(SystemTime::now),
    ));
    let host = &issuer.context.plan.load().hosts[0];
    let attempt = |previous_serial| {
        let request = plan::request_of(host).expect("it uses ACME");
        CertificateAttempt {
            context: &issuer.context,
            host,
            request,
            requested: false,
            changed: false,
            previous_serial,
        }
    };
    // The attempt is decided on without a certificate. The other process stores one before the
    // domain is locked.
    let pair = pair(&["a.example.com"]);
    let (_, ca) = issuer
        .context
        .plan
        .load()
        .authorities()
        .next()
        .map(|(ca, id)| (ca.clone(), id))
        .expect("a CA");
    issuer.context.storage.prepare(&ca).expect("a disk");
    let written =
        issuer
            .context
            .storage
            .write_certificate(&ca, &host.domain, &pair.key, &pair.certificate);
    written.expect("written");
    certificates.refresh();
    let serial = issuer.context.serial(&host.domain);
    assert!(serial.is_some());
    let AttemptResult { state, outcome } = attempt(None)
        .run(&mut DomainRecord::default())
        .await
        .expect("a disk");
    assert_eq!((state, outcome), (DomainState::New, None));
    let AttemptResult { outcome, .. } = attempt(serial)
        .run(&mut DomainRecord::default())
        .await
        .expect("a disk");
    assert_eq!(
        outcome,
        Some(AttemptOutcome::Failed),
        "the CA cannot be reached"
    );
}

#[tokio::test]
async fn an_order_waits_while_another_process_has_the_account_locked() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = with_acme(directory.path(), &["a.example.com"]);
    let certificates = Arc::new(Certificates::new(directory.path().to_owned()));
    certificates.apply(&snapshot);
    let mut context = OrderContext::new(certificates, &snapshot, Arc::new(SystemTime::now));
    context.account_lock_timeout = Duration::from_millis(50);
    let context = Arc::new(context);
    let plan = context.plan.load_full();
    let host = &plan.hosts[0];
    let order = async || {
        let attempt = CertificateAttempt {
            context: &context,
            host,
            request: plan::request_of(host).expect("it uses ACME"),
            requested: false,
            changed: false,
            previous_serial: None,
        };
        let mut record = DomainRecord::default();
        let ordered = attempt.run(&mut record);
        let ordered = tokio::time::timeout(Duration::from_secs(30), ordered).await;
        ordered.expect("bounded").expect("a disk")
    };
    let (_, ca) = plan.authorities().next().expect("a CA");
    context.storage.prepare(&ca).expect("a disk");
    let locked = context.storage.lock_account(&ca, Duration::ZERO);
    let lock = locked.expect("a disk").expect("free");
    let before = SystemTime::now();
    let AttemptResult { state, outcome } = order().await;
    assert_eq!(outcome, Some(AttemptOutcome::Postponed));
    let DomainState::Waiting { until, why } = state else {
        panic!("{state:?}");
    };
    assert_eq!(why, "another process is creating the account at this CA");
    assert!(before + Duration::from_mins(1) <= until, "{until:?}");
    drop(lock);
    let AttemptResult { outcome, .. } = order().await;
    assert_eq!(
        outcome,
        Some(AttemptOutcome::Failed),
        "the CA cannot be reached"
    );
}

#[tokio::test]
async fn renewal_information_is_stored_beside_what_another_process_has_written() {
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = with_acme(directory.path(), &["a.example.com"]);
    let certificates = Arc::new(Certificates::new(directory.path().to_owned()));
    let issuer = Arc::new(Issuer::new(
        certificates,
        &snapshot,
        Arc::new(SystemTime::now),
    ));
    let domain = name("a.example.com");
    let theirs = DomainRecord {
        serial: Some("02".to_owned()),
        ..DomainRecord::default()
    };
    issuer
        .context
        .storage
        .write_record(&domain, &theirs)
        .expect("written");
    let advice = RenewalAdvice {
        serial: "01".to_owned(),
        window: None,
        explanation: None,
        ask_again: SystemTime::UNIX_EPOCH,
        failures: 0,
    };
    let ours = || DomainRecord {
        advice: Some(advice.clone()),
        serial: Some("01".to_owned()),
        ..DomainRecord::default()
    };
    let mut record = ours();
    issuer
        .context
        .store_advice(&domain, &mut record)
        .await
        .expect("stored");
    assert_eq!(
        record,
        DomainRecord {
            advice: Some(advice.clone()),
            ..theirs.clone()
        }
    );
    assert_eq!(
        issuer.context.storage.record(&domain).expect("read"),
        record
    );

    let _lock = issuer
        .context
        .storage
        .try_lock(&domain)
        .expect("a disk")
        .expect("free");
    issuer
        .context
        .storage
        .write_record(&domain, &theirs)
        .expect("written");
    let mut record = ours();
    issuer
        .context
        .store_advice(&domain, &mut record)
        .await
        .expect("not stored");
    assert_eq!(
        (
            record,
            issuer.context.storage.record(&domain).expect("read")
        ),
        (ours(), theirs)
    );
}
