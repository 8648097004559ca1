//! Certificates from files: each way in which clients would refuse one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::check;
use crate::harness::{Domain, Setup};

const DAY: Duration = Duration::from_hours(24);

/// What is to be issued for `ci.test`.
struct Certificate {
    names: &'static [&'static str],
    begins: SystemTime,
    ends: SystemTime,
    with_chain: bool,
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            names: &["ci.test"],
            begins: SystemTime::now() - DAY,
            ends: SystemTime::now() + 80 * DAY,
            with_chain: true,
        }
    }
}

fn ca(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

impl Certificate {
    /// Writes `ci.pem` and `ci.key`.
    fn write(&self, folder: &Path) {
        let (issuer, issuer_pem) = ca("an issuer");
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = self.begins.into();
        params.not_after = self.ends.into();
        let key = KeyPair::generate().unwrap();
        let mut pem = params.signed_by(&key, &issuer).unwrap().pem();
        if self.with_chain {
            pem.push_str(&issuer_pem);
        }
        fs::write(folder.join("ci.pem"), pem).unwrap();
        fs::write(folder.join("ci.key"), key.serialize_pem()).unwrap();
    }
}

/// The warnings' messages, dates left out, with the status of a strict check.
async fn said_of(prepare: impl FnOnce(&Path)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let domain = Domain::new("ci.test", "http://127.0.0.1:1")
        .top("aliases = [\"ci.example\"]")
        .tls("certificate = \"ci.pem\"\nkey = \"ci.key\"");
    Setup::new().domain(domain).write(directory.path());
    prepare(&directory.path().join("conf.d"));
    let (status, said) = check(directory.path(), &[]).await;
    assert_eq!(status, 0, "{said}");
    assert_eq!(check(directory.path(), &["--strict"]).await.0, 1);
    let lines = said.lines().filter_map(|line| {
        let help = line.trim_start().strip_prefix("= ");
        help.or_else(|| line.strip_prefix("warning: "))
    });
    lines
        .filter(|line| !line.contains("chmod") && !line.contains("every user of this machine"))
        .map(without_dates)
        .collect()
}

fn without_dates(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let is_date = word.trim_end_matches(',').ends_with('Z') && word.contains("T");
        if is_date { "DATE" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

const BOTH: &[&str] = &["ci.test", "ci.example"];

#[tokio::test]
async fn each_defect_has_its_words_and_its_cure() {
    let now = SystemTime::now();
    let good = || Certificate {
        names: BOTH,
        ..Certificate::default()
    };
    let cases = [
        (
            "without its chain",
            Certificate {
                with_chain: false,
                ..good()
            },
        ),
        (
            "ends tomorrow",
            Certificate {
                ends: now + DAY,
                ..good()
            },
        ),
        (
            "ended",
            Certificate {
                ends: now - DAY / 2,
                ..good()
            },
        ),
        (
            "not begun",
            Certificate {
                begins: now + DAY,
                ..good()
            },
        ),
        ("without an alias", Certificate::default()),
        (
            "foreign",
            Certificate {
                names: &["other.test"],
                ..good()
            },
        ),
    ];
    let mut all = Vec::new();
    for (case, certificate) in cases {
        let said = said_of(|folder| certificate.write(folder)).await;
        all.push(format!("{case}:\n  {}", said.join("\n  ")));
    }
    let of_another = said_of(|folder| {
        good().write(folder);
        let key = KeyPair::generate().unwrap().serialize_pem();
        fs::write(folder.join("ci.key"), key).unwrap();
    });
    all.push(format!("another key:\n  {}", of_another.await.join("\n  ")));
    let missing = said_of(|_| {}).await;
    all.push(format!("missing:\n  {}", missing.join("\n  ")));
    let reversed = said_of(|folder| {
        good().write(folder);
        let pem = fs::read_to_string(folder.join("ci.pem")).unwrap();
        fs::write(
            folder.join("ci.pem"),
            format!("{pem}{}", ca("a stranger").1),
        )
        .unwrap();
    });
    all.push(format!("foreign chain:\n  {}", reversed.await.join("\n  ")));
    let all = all.join("\n");
    insta::assert_snapshot!(all, @r"
    without its chain:
      the certificate comes without its chain: clients that do not have that of CN=an issuer refuse it
      help: append the certificate of its issuer, as certbot does in fullchain.pem
    ends tomorrow:
      the certificate expires on DATE in less than 1 day
      help: renew it; the files are re-read when they change
    ended:
      the certificate expired on DATE
      help: renew it; the files are re-read when they change
    not begun:
      the certificate is not valid before DATE
      help: check this machine's clock, or wait
    without an alias:
      the certificate does not cover ci.example
      help: get a certificate that has this name too, or take ci.example out of `aliases`
    foreign:
      the certificate does not cover ci.test
      help: get a certificate for ci.test, or name the one that is for it
      the certificate does not cover ci.example
      help: get a certificate that has this name too, or take ci.example out of `aliases`
    another key:
      the key in DIR/conf.d/ci.key does not belong to the certificate in DIR/conf.d/ci.pem
      help: name the certificate and the key that were made together
    missing:
      cannot read DIR/conf.d/ci.pem: No such file or directory (os error 2)
      help: check the path and that moorgate's user may read the file and enter its directory
    foreign chain:
      CN=a stranger does not sign CN=an issuer in the chain: its issuer is CN=an issuer
      help: put the certificates in order, each followed by that of its issuer
    ");
}

#[tokio::test]
async fn a_good_certificate_has_nothing_to_say() {
    let directory = tempfile::tempdir().unwrap();
    let domain = Domain::new("ci.test", "http://127.0.0.1:1")
        .tls("certificate = \"ci.pem\"\nkey = \"ci.key\"");
    Setup::new().domain(domain).write(directory.path());
    Certificate::default().write(&directory.path().join("conf.d"));
    let key = directory.path().join("conf.d/ci.key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(key, mode).unwrap();
    let said = check(directory.path(), &["--strict"]).await;
    assert_eq!(said, (0, String::new()));
}
