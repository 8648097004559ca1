use std::sync::Mutex;
use std::time::Duration;

use rcgen::KeyPair;

use super::*;
use crate::certs::testing::{Pair, host, listen, pair, pair_for, snapshot};
use crate::config::acme::CertifiedName;
use crate::config::vhost::CertificateSource::Internal;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A state directory with certificates over it, and the log lines of what they do.
struct Plane {
    directory: tempfile::TempDir,
    certificates: Certificates,
}

impl Plane {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let certificates = Certificates::new(directory.path().to_owned());
        Self {
            directory,
            certificates,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn apply(&self, hosts: &[&SharedVirtualHost]) {
        let hosts = hosts.iter().map(|host| (*host).clone()).collect();
        self.certificates.apply(&snapshot(self.path(), hosts));
    }

    /// The serial number of what answers this name.
    fn leaf(&self, name: &str) -> Option<Vec<u8>> {
        let key = self.certificates.table().find(listen(443), Some(name))?;
        key.cert.first().map(|leaf| leaf.to_vec())
    }

    fn problem(&self, domain: &str) -> Option<String> {
        let mut reports = self.certificates.report().into_iter();
        reports
            .find(|report| report.domain.as_str() == domain)
            .expect("reported")
            .problem
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that `work` logs.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_broken_domain_does_not_stop_the_other() {
    let plane = Plane::new();
    let broken = Pair {
        certificate: "no PEM".into(),
        key: "no PEM".into(),
    }
    .write(plane.path(), "broken");
    let missing = CertificateSource::Files {
        certificate: "/nonexistent".into(),
        key: "/nonexistent".into(),
    };
    let good = pair(&["good.example.com"]).write(plane.path(), "good");
    let lines = logged(|| {
        plane.apply(&[
            &host(&["broken.example.com"], &[443], broken),
            &host(&["missing.example.com"], &[443], missing),
            &host(&["good.example.com"], &[443], good),
            &host(
                &["internal.example.com", "alias.example.com"],
                &[443],
                Internal,
            ),
        ]);
    });
    for served in [
        "good.example.com",
        "internal.example.com",
        "alias.example.com",
    ] {
        assert!(plane.leaf(served).is_some(), "{served}");
    }
    for refused in ["broken.example.com", "missing.example.com"] {
        assert!(plane.leaf(refused).is_none(), "{refused}");
        assert!(plane.problem(refused).is_some());
        let said = lines
            .iter()
            .filter(|line| line.contains("ERROR") && line.contains(refused))
            .count();
        assert_eq!(said, 1, "{lines:#?}");
    }
    assert_eq!(plane.problem("internal.example.com"), None);
}

#[test]
fn an_expired_certificate_is_served_and_said() {
    let plane = Plane::new();
    let key = KeyPair::generate().expect("made");
    let now = SystemTime::now();
    let files =
        pair_for(&key, &["a.example.com"], now - 9 * DAY, now - DAY).write(plane.path(), "a");
    let lines = logged(|| plane.apply(&[&host(&["a.example.com"], &[443], files)]));
    assert!(plane.leaf("a.example.com").is_some());
    let problem = plane.problem("a.example.com").expect("a problem");
    assert!(
        problem.starts_with("the certificate expired on "),
        "{problem}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("WARN") && line.contains("expired on")),
        "{lines:#?}"
    );
}

#[test]
fn changed_files_are_picked_up() {
    let plane = Plane::new();
    let files = pair(&["a.example.com"]).write(plane.path(), "a");
    plane.apply(&[&host(&["a.example.com"], &[443], files)]);
    let before = plane.leaf("a.example.com");
    plane.certificates.refresh();
    assert_eq!(plane.leaf("a.example.com"), before);
    pair(&["a.example.com"]).write(plane.path(), "a");
    let lines = logged(|| plane.certificates.refresh());
    assert!(plane.leaf("a.example.com").is_some());
    assert_ne!(plane.leaf("a.example.com"), before);
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[test]
fn a_bad_pair_keeps_the_last_good_one_and_is_said_until_it_is_good() {
    let plane = Plane::new();
    let files = pair(&["a.example.com"]).write(plane.path(), "a");
    plane.apply(&[&host(&["a.example.com"], &[443], files)]);
    let before = plane.leaf("a.example.com");

    // A renewal tool has replaced the certificate, and is about to replace the key.
    let new = pair(&["a.example.com"]);
    std::fs::write(plane.path().join("a.pem"), &new.certificate).expect("written");
    assert_eq!(
        logged(|| plane.certificates.refresh()),
        Vec::<String>::new()
    );
    assert_eq!(plane.leaf("a.example.com"), before);
    assert_eq!(plane.problem("a.example.com"), None);

    // It never did. The log counts what is said again.
    let said = || {
        let mut lines = logged(|| (0..4).for_each(|_| plane.certificates.refresh()));
        assert!(lines.len() > 1, "{lines:#?}");
        lines.dedup();
        lines
    };
    let lines = said();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("does not belong to the certificate"),
        "{lines:#?}"
    );
    assert_eq!(plane.leaf("a.example.com"), before);
    assert!(plane.problem("a.example.com").is_some());

    // Another change, just as bad.
    std::fs::write(
        plane.path().join("a.pem"),
        pair(&["a.example.com"]).certificate,
    )
    .expect("written");
    let lines = said();
    assert_eq!(lines.len(), 1, "{lines:#?}");

    std::fs::remove_file(plane.path().join("a.key")).expect("removed");
    let lines = said();
    // The first of them is what was found before.
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[1].contains("a.key"), "{lines:#?}");
    assert_eq!(plane.leaf("a.example.com"), before);

    new.write(plane.path(), "a");
    let lines = logged(|| plane.certificates.refresh());
    assert!(
        lines
            .iter()
            .any(|line| line.contains("certificate problem solved")),
        "{lines:#?}"
    );
    assert_ne!(plane.leaf("a.example.com"), before);
    assert_eq!(plane.problem("a.example.com"), None);
}

#[test]
fn a_reload_keeps_adds_and_drops() {
    let plane = Plane::new();
    let kept = host(&["kept.example.com"], &[443], Internal);
    let dropped = host(&["dropped.example.com"], &[443], Internal);
    plane.apply(&[&kept, &dropped]);
    let before = plane.leaf("kept.example.com");
    plane.apply(&[&host(&["new.example.com"], &[443], Internal), &kept]);
    assert_eq!(plane.leaf("kept.example.com"), before);
    assert!(plane.leaf("new.example.com").is_some());
    assert_eq!(plane.leaf("dropped.example.com"), None);
    let domains: Vec<_> = plane
        .certificates
        .report()
        .into_iter()
        .map(|report| report.domain)
        .collect();
    assert_eq!(
        domains.iter().map(HostName::as_str).collect::<Vec<_>>(),
        ["new.example.com", "kept.example.com"]
    );
}

#[test]
fn new_aliases_get_a_new_internal_leaf_and_a_new_source_its_own() {
    let plane = Plane::new();
    plane.apply(&[&host(&["a.example.com"], &[443], Internal)]);
    let first = plane.leaf("a.example.com");
    plane.apply(&[&host(&["a.example.com", "192.0.2.1"], &[443], Internal)]);
    let second = plane.leaf("a.example.com");
    assert_ne!(first, second);
    assert_eq!(
        plane.certificates.report()[0].names,
        ["a.example.com", "192.0.2.1"]
    );
    plane.apply(&[&host(&["a.example.com"], &[443], Internal)]);
    assert_eq!(plane.certificates.report()[0].names, ["a.example.com"]);

    let files = pair(&["a.example.com"]).write(plane.path(), "a");
    plane.apply(&[&host(&["a.example.com"], &[443], files)]);
    assert_eq!(plane.certificates.report()[0].source, SourceKind::Files);
}

#[test]
fn internal_leaves_are_renewed_in_their_last_third() {
    let plane = Plane::new();
    plane.apply(&[&host(&["a.example.com"], &[443], Internal)]);
    let first = plane.leaf("a.example.com");
    let now = SystemTime::now();
    plane.certificates.refresh_at(now + 19 * DAY);
    assert_eq!(plane.leaf("a.example.com"), first);
    plane.certificates.refresh_at(now + 21 * DAY);
    let second = plane.leaf("a.example.com");
    assert_ne!(second, first);
    plane.certificates.refresh_at(now + 21 * DAY);
    assert_eq!(plane.leaf("a.example.com"), second);
}

#[test]
fn a_broken_ca_refuses_until_it_is_mended() {
    let plane = Plane::new();
    InternalCa::open_or_make(plane.path()).expect("made");
    let key = plane.path().join("internal-ca/ca.key");
    let content = std::fs::read(&key).expect("read");
    std::fs::remove_file(&key).expect("removed");
    let mut lines = logged(|| {
        plane.apply(&[&host(&["a.example.com"], &[443], Internal)]);
        (0..3).for_each(|_| plane.certificates.refresh());
    });
    lines.dedup();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(plane.leaf("a.example.com"), None);
    std::fs::write(&key, content).expect("written");
    plane.certificates.refresh();
    assert!(plane.leaf("a.example.com").is_some());
    assert_eq!(plane.problem("a.example.com"), None);
}

/// A domain that asks the CA of `snapshot`, and a certificate of a CA for it.
fn acme(names: &[&str], fallback: Fallback) -> SharedVirtualHost {
    let certified = names
        .iter()
        .map(|name| CertifiedName::Host(crate::certs::testing::name(name)))
        .collect();
    let request = AcmeRequest {
        contact: None,
        names: certified,
        profile: None,
        fallback,
    };
    host(names, &[443], CertificateSource::Acme(request))
}

fn give(plane: &Plane, ca: &str, names: &[&str], life: (SystemTime, SystemTime)) {
    let Pair { certificate, key } =
        pair_for(&KeyPair::generate().expect("made"), names, life.0, life.1);
    let (storage, id) = (Storage::below(plane.path()), CaId::new(ca).expect("a URL"));
    storage.prepare(&id).expect("prepared");
    let domain = crate::certs::testing::name("a.example.com");
    storage
        .write_certificate(&id, &domain, &key, &certificate)
        .expect("written");
}

const ASKED: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const BEFORE: &str = "https://acme.zerossl.com/v2/DV90";

#[test]
fn of_all_that_cas_have_given_the_best_is_served() {
    let now = SystemTime::now();
    let (expired, good, newer) = (
        (now - 9 * DAY, now - DAY),
        (now - 20 * DAY, now + 60 * DAY),
        (now - DAY, now + DAY),
    );
    let (a, both) = (
        &["a.example.com"][..],
        &["a.example.com", "b.example.com"][..],
    );
    // What is served: of the CA that is asked, or of the one before.
    let table = [
        ("of a former CA", None, Some((a, good)), BEFORE),
        (
            "of a former CA, as the other has expired",
            Some((a, expired)),
            Some((a, good)),
            BEFORE,
        ),
        (
            "of the CA that is asked, though older",
            Some((a, good)),
            Some((a, newer)),
            ASKED,
        ),
        (
            "for more names, rather than expired",
            Some((a, expired)),
            Some((both, good)),
            BEFORE,
        ),
        (
            "valid, rather than not yet, though of a former CA",
            Some((a, (now + DAY, now + 90 * DAY))),
            Some((a, good)),
            BEFORE,
        ),
        (
            "not valid yet, rather than nothing",
            Some((a, (now + DAY, now + 90 * DAY))),
            None,
            ASKED,
        ),
        (
            "expired, rather than nothing",
            Some((a, expired)),
            None,
            ASKED,
        ),
    ];
    for (what, asked, before, served) in table {
        let plane = Plane::new();
        for (ca, given) in [(ASKED, asked), (BEFORE, before)] {
            given
                .into_iter()
                .for_each(|(names, life)| give(&plane, ca, names, life));
        }
        plane.apply(&[&acme(a, Fallback::Refuse)]);
        assert!(plane.leaf("a.example.com").is_some(), "{what}");
        let issued = plane
            .certificates
            .issued(&crate::certs::testing::name("a.example.com"));
        assert_eq!(issued.expect("one").ca.as_str(), served, "{what}");
    }
}

#[test]
fn what_is_imported_while_moorgate_runs_is_found() {
    let plane = Plane::new();
    let lines = logged(|| plane.apply(&[&acme(&["a.example.com"], Fallback::Refuse)]));
    assert!(
        lines
            .iter()
            .any(|line| line.contains("handshakes are refused")),
        "{lines:#?}"
    );
    assert_eq!(plane.leaf("a.example.com"), None);
    give(
        &plane,
        BEFORE,
        &["a.example.com"],
        (SystemTime::now() - DAY, SystemTime::now() + 60 * DAY),
    );
    plane.certificates.refresh();
    assert!(plane.leaf("a.example.com").is_some());
    assert_eq!(plane.problem("a.example.com"), None);
}

#[test]
fn a_stand_in_is_not_said_to_be_a_refusal() {
    let plane = Plane::new();
    let lines = logged(|| plane.apply(&[&acme(&["a.example.com"], Fallback::Internal)]));
    assert!(plane.leaf("a.example.com").is_some());
    let said: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("no certificate"))
        .collect();
    assert_eq!(said.len(), 1, "{lines:#?}");
    assert!(
        said[0].contains("WARN") && said[0].contains("serving one of the internal CA"),
        "{lines:#?}"
    );
}
