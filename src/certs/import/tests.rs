use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use serde_json::json;

use super::super::testing::{Pair, name, pair_for};
use super::*;
use crate::certs::served::files;
use crate::certs::state::paths::{StatePaths, StoredAccount, try_lock};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const ACCOUNT: &str = "https://acme-v02.api.letsencrypt.org/acme/acct/123";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn certified(names: &[&str], until: SystemTime) -> Pair {
    pair_for(
        &KeyPair::generate().expect("made"),
        names,
        now() - 10 * DAY,
        until,
    )
}

fn good(names: &[&str]) -> Pair {
    certified(names, now() + 50 * DAY)
}

/// A P-256 key of an account in all the forms that tools keep it in.
struct AccountKey(EcdsaKeyPair);

impl AccountKey {
    fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("made"))
    }

    fn sec1(&self) -> Vec<u8> {
        let der: EcPrivateKeyRfc5915Der<'_> = self.0.private_key().as_der().expect("DER");
        der.as_ref().to_vec()
    }

    fn pem(&self) -> String {
        keys::pem("EC PRIVATE KEY", &self.sec1())
    }

    fn jwk(&self) -> serde_json::Value {
        let d: EcPrivateKeyBin<'_> = self.0.private_key().as_be_bytes().expect("bytes");
        let point = self.0.public_key().as_ref();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]), "d": encode(d.as_ref())})
    }
}

/// What another server left behind, and our state.
struct ImportFixture {
    directory: tempfile::TempDir,
    targets: Vec<ImportTarget>,
    authorities: Vec<CaId>,
}

impl ImportFixture {
    fn new() -> Self {
        let target = |domain: &str, alias: Option<&str>| ImportTarget {
            domain: name(domain),
            names: [Some(domain), alias]
                .into_iter()
                .flatten()
                .map(name)
                .map(CertifiedName::Host)
                .collect(),
        };
        let targets = vec![
            target("ci.example.com", Some("alias.example.com")),
            target("cache.example.com", None),
            target("new.example.com", None),
        ];
        let authorities = vec![CaId::new(LETS_ENCRYPT).expect("a URL")];
        Self {
            directory: tempfile::tempdir().expect("directory"),
            targets,
            authorities,
        }
    }

    fn theirs(&self) -> PathBuf {
        self.directory.path().join("theirs")
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.theirs().join(path);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    fn options(&self) -> ImportOptions<'_> {
        ImportOptions {
            from: self.directory.path(),
            state: self.directory.path(),
            targets: &self.targets,
            others: &[],
            authorities: &self.authorities,
            ca: None,
            dry_run: false,
            now: now(),
        }
    }

    /// Imports, and shows each line without the path of the directory.
    fn import(&self, from: &str) -> String {
        self.import_with(ImportOptions {
            from: &self.theirs().join(from),
            ..self.options()
        })
    }

    fn import_with(&self, options: ImportOptions<'_>) -> String {
        let lines = import(ImportOptions {
            state: &self.state(),
            ..options
        })
        .expect("found");
        let lines: Vec<_> = lines.iter().map(|line| line.line(false)).collect();
        let root = self
            .theirs()
            .canonicalize()
            .expect("there")
            .display()
            .to_string();
        lines.join("\n").replace(&root, "")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn of(&self, ca: &str) -> crate::certs::state::paths::CaPaths {
        StatePaths::new(&self.state()).ca(&CaId::new(ca).expect("a URL"))
    }

    /// The certificate that is kept for a domain, which can be served.
    fn held(&self, ca: &str, domain: &str) -> Option<super::super::Certificate> {
        let path = self.of(ca).certificate(domain);
        path.exists()
            .then(|| files::load(&path, &path).expect("a pair"))
    }

    fn account(&self, ca: &str) -> (StoredAccount, EcdsaKeyPair) {
        let files = self.of(ca);
        let key = std::fs::read(files.account_key()).expect("a key");
        let der: rustls::pki_types::PrivatePkcs8KeyDer<'_> =
            rustls::pki_types::pem::PemObject::from_pem_slice(&key).expect("PKCS#8 in PEM");
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()).expect("P-256");
        let stored = std::fs::read(files.account()).expect("an account");
        (serde_json::from_slice(&stored).expect("JSON"), key)
    }

    /// That the account and key of Let's Encrypt are these.
    fn assert_account(&self, key: &AccountKey) {
        let (stored, held) = self.account(LETS_ENCRYPT);
        assert_eq!(stored.url, ACCOUNT);
        assert_eq!(stored.directory.as_str(), LETS_ENCRYPT);
        assert_eq!(stored.contacts, ["mailto:ops@example.com"]);
        assert_eq!(held.public_key().as_ref(), key.0.public_key().as_ref());
    }
}

#[test]
fn caddy_1() {
    let world = ImportFixture::new();
    let site = |site: &str, pair: &Pair| {
        let base = format!(".caddy/acme/acme-v02.api.letsencrypt.org/sites/{site}/{site}");
        world.write(&format!("{base}.crt"), &pair.certificate);
        world.write(&format!("{base}.key"), &pair.key);
        world.write(&format!("{base}.json"), r#"{"domain": "x"}"#);
    };
    site("ci.example.com", &good(&["ci.example.com"]));
    site("cache.example.com", &good(&["cache.example.com"]));
    site("other.example.com", &good(&["other.example.com"]));
    let user = ".caddy/acme/acme-v02.api.letsencrypt.org/users/ops@example.com/ops";
    let about = json!({"Email": "ops@example.com", "Registration": {"body": {"status": "valid"}, "uri": ACCOUNT}});
    world.write(&format!("{user}.json"), about.to_string());
    // It made its keys on a curve that is larger.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("made");
    world.write(&format!("{user}.key"), key.serialize_pem());
    insta::assert_snapshot!(world.import(".caddy"), @r"
    imported  cache.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/.caddy/acme/acme-v02.api.letsencrypt.org/sites/cache.example.com/cache.example.com.crt)
    imported  ci.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z; it lacks alias.example.com, so that another will be ordered  (/.caddy/acme/acme-v02.api.letsencrypt.org/sites/ci.example.com/ci.example.com.crt)
    skipped   other.example.com: no domain of the configuration has this name  (/.caddy/acme/acme-v02.api.letsencrypt.org/sites/other.example.com/other.example.com.crt)
    skipped   account https://acme-v02.api.letsencrypt.org/acme/acct/123: its key is no ECDSA P-256 key, so that a new account will be made  (/.caddy/acme/acme-v02.api.letsencrypt.org/users/ops@example.com/ops.json)
    ");
    assert!(world.held(LETS_ENCRYPT, "ci.example.com").is_some());
    assert!(world.held(LETS_ENCRYPT, "cache.example.com").is_some());
    // Nothing is known that was not taken over: the second time, all is kept.
    let again = world.import("");
    assert_eq!(again.matches("kept").count(), 2, "{again}");
    assert!(!again.contains("imported"), "{again}");
    // With a key of ours, the account is taken over too.
    let key = AccountKey::generate();
    world.write(&format!("{user}.key"), key.pem());
    world.import(".caddy");
    world.assert_account(&key);
}

#[test]
fn caddy_2() {
    let world = ImportFixture::new();
    let site = |ca: &str, site: &str, pair: &Pair, url: &str| {
        let base = format!("caddy/certificates/{ca}/{site}/{site}");
        world.write(&format!("{base}.crt"), &pair.certificate);
        world.write(&format!("{base}.key"), &pair.key);
        world.write(
            &format!("{base}.json"),
            json!({"sans": [site], "issuer_data": {"ca": url}}).to_string(),
        );
    };
    let both = good(&["ci.example.com", "alias.example.com"]);
    site(
        "acme-v02.api.letsencrypt.org-directory",
        "ci.example.com",
        &both,
        LETS_ENCRYPT,
    );
    let step = "https://ca.internal:9000/acme/acme/directory";
    site(
        "ca.internal-9000-acme-acme-directory",
        "wildcard_.example.com",
        &good(&["*.example.com"]),
        step,
    );
    site("local", "x.localhost", &good(&["x.localhost"]), "");
    let key = AccountKey::generate();
    let user = "caddy/acme/acme-v02.api.letsencrypt.org-directory/users/ops@example.com/ops";
    let about =
        json!({"status": "valid", "contact": ["mailto:ops@example.com"], "location": ACCOUNT});
    world.write(&format!("{user}.json"), about.to_string());
    world.write(&format!("{user}.key"), key.pem());
    insta::assert_snapshot!(world.import(""), @r"
    imported  ci.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/caddy/certificates/acme-v02.api.letsencrypt.org-directory/ci.example.com/ci.example.com.crt)
    imported  ci.example.com at ca.internal:9000; until 2024-11-23T00:00:00Z; no [[ca]] names its CA, so that another will renew it  (/caddy/certificates/ca.internal-9000-acme-acme-directory/wildcard_.example.com/wildcard_.example.com.crt)
    imported  cache.example.com at ca.internal:9000; until 2024-11-23T00:00:00Z; no [[ca]] names its CA, so that another will renew it  (/caddy/certificates/ca.internal-9000-acme-acme-directory/wildcard_.example.com/wildcard_.example.com.crt)
    imported  new.example.com at ca.internal:9000; until 2024-11-23T00:00:00Z; no [[ca]] names its CA, so that another will renew it  (/caddy/certificates/ca.internal-9000-acme-acme-directory/wildcard_.example.com/wildcard_.example.com.crt)
    imported  account https://acme-v02.api.letsencrypt.org/acme/acct/123  (/caddy/acme/acme-v02.api.letsencrypt.org-directory/users/ops@example.com/ops.json)
    skipped   Caddy's own CA: its clients trust it alone: set `internal = true` for such a domain  (/caddy/certificates/local)
    ");
    world.assert_account(&key);
    assert!(world.held(step, "cache.example.com").is_some());
    assert!(
        world
            .held(LETS_ENCRYPT, "ci.example.com")
            .expect("held")
            .facts
            .names
            .len()
            == 2
    );
}

#[test]
fn certbot() {
    let world = ImportFixture::new();
    let certificate = |name: &str, n: u32, pair: &Pair| {
        for (kind, text) in [("fullchain", &pair.certificate), ("privkey", &pair.key)] {
            let archive = format!("letsencrypt/archive/{name}/{kind}{n}.pem");
            world.write(&archive, text);
        }
    };
    certificate(
        "ci.example.com",
        1,
        &certified(&["ci.example.com"], now() + DAY),
    );
    certificate(
        "ci.example.com",
        2,
        &good(&["ci.example.com", "alias.example.com"]),
    );
    for kind in ["fullchain", "privkey"] {
        std::fs::create_dir_all(world.theirs().join("letsencrypt/live/ci.example.com"))
            .expect("made");
        let link = world
            .theirs()
            .join(format!("letsencrypt/live/ci.example.com/{kind}.pem"));
        symlink(format!("../../archive/ci.example.com/{kind}2.pem"), link).expect("linked");
    }
    // A copy that lost its links: 10 comes after 9.
    certificate(
        "cache.example.com",
        9,
        &certified(&["cache.example.com"], now() - DAY),
    );
    certificate("cache.example.com", 10, &good(&["cache.example.com"]));
    for name in ["ci.example.com", "cache.example.com"] {
        let conf =
            format!("version = 2.1\n[renewalparams]\naccount = 0123\nserver = {LETS_ENCRYPT}\n");
        world.write(&format!("letsencrypt/renewal/{name}.conf"), conf);
    }
    let account = "letsencrypt/accounts/acme-v02.api.letsencrypt.org/directory/0123";
    let rsa = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"});
    world.write(&format!("{account}/private_key.json"), rsa.to_string());
    let regr = json!({"body": {"contact": ["mailto:ops@example.com"]}, "uri": ACCOUNT});
    world.write(&format!("{account}/regr.json"), regr.to_string());
    insta::assert_snapshot!(world.import(""), @r"
    imported  cache.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/letsencrypt/archive/cache.example.com/fullchain10.pem)
    imported  ci.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/letsencrypt/live/ci.example.com/fullchain.pem)
    skipped   account https://acme-v02.api.letsencrypt.org/acme/acct/123: its key is no ECDSA P-256 key, so that a new account will be made  (/letsencrypt/accounts/acme-v02.api.letsencrypt.org/directory/0123/regr.json)
    ");
    assert_eq!(
        world
            .held(LETS_ENCRYPT, "ci.example.com")
            .expect("held")
            .facts
            .names
            .len(),
        2
    );
    assert!(world.held(LETS_ENCRYPT, "cache.example.com").is_some());
    let key = AccountKey::generate();
    world.write(
        &format!("{account}/private_key.json"),
        key.jwk().to_string(),
    );
    world.import("letsencrypt");
    world.assert_account(&key);
}

#[test]
fn acme_sh() {
    let world = ImportFixture::new();
    let certificate = |directory: &str, name: &str, pair: &Pair| {
        let base = format!(".acme.sh/{directory}");
        world.write(&format!("{base}/fullchain.cer"), &pair.certificate);
        world.write(&format!("{base}/{name}.key"), &pair.key);
        world.write(
            &format!("{base}/{name}.conf"),
            format!("Le_Domain='{name}'\nLe_API='{LETS_ENCRYPT}'\n"),
        );
    };
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("made");
    let rsa = pair_for(&rsa, &["ci.example.com"], now() - DAY, now() + 20 * DAY);
    certificate("ci.example.com", "ci.example.com", &rsa);
    certificate(
        "ci.example.com_ecc",
        "ci.example.com",
        &good(&["ci.example.com"]),
    );
    world.write(".acme.sh/account.conf", "ACCOUNT_EMAIL='ops@example.com'\n");
    let account = ".acme.sh/ca/acme-v02.api.letsencrypt.org/directory";
    let key = AccountKey::generate();
    world.write(&format!("{account}/account.key"), key.pem());
    world.write(
        &format!("{account}/ca.conf"),
        format!("ACCOUNT_URL='{ACCOUNT}'\nCA_EMAIL='ops@example.com'\n"),
    );
    insta::assert_snapshot!(world.import(""), @r"
    skipped   ci.example.com at acme-v02.api.letsencrypt.org: another that was found is better  (/.acme.sh/ci.example.com/fullchain.cer)
    imported  ci.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z; it lacks alias.example.com, so that another will be ordered  (/.acme.sh/ci.example.com_ecc/fullchain.cer)
    imported  account https://acme-v02.api.letsencrypt.org/acme/acct/123  (/.acme.sh/ca/acme-v02.api.letsencrypt.org/directory/account.key)
    ");
    world.assert_account(&key);
    let held = world
        .held(LETS_ENCRYPT, "ci.example.com")
        .expect("held")
        .facts
        .not_after;
    assert_eq!(
        held,
        now() + 50 * DAY,
        "of the two, the one that lives longer"
    );
}

#[test]
fn traefik() {
    for version in [1, 2] {
        let world = ImportFixture::new();
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let key = AccountKey::generate();
        let registration = json!({"body": {"contact": ["mailto:ops@example.com"]}, "uri": ACCOUNT});
        let account = |key: &[u8]| json!({"Email": "ops@example.com", "Registration": registration, "PrivateKey": BASE64_STANDARD.encode(key)});
        let pair = good(&["ci.example.com", "alias.example.com"]);
        let (crt, private) = (encode(&pair.certificate), encode(&pair.key));
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256)
            .expect("made")
            .serialize_der();
        let file = if version == 1 {
            let entry = json!({"Domain": {"Main": "ci.example.com", "SANs": null}, "Certificate": crt, "Key": private});
            json!({"Account": account(&key.sec1()), "Certificates": [entry], "HTTPChallenges": {}})
        } else {
            let entry = json!({"domain": {"main": "ci.example.com"}, "certificate": crt, "key": private, "Store": "default"});
            // Of two resolvers, one has an account of the usual kind of Traefik, whose inner key is
            // PKCS#1.
            json!({"le": {"Account": account(&key.sec1()), "Certificates": [entry]},
                   "unused": {"Account": account(&rsa[26..]), "Certificates": null}})
        };
        world.write("acme.json", file.to_string());
        let shown = world.import("acme.json");
        if version == 2 {
            insta::assert_snapshot!(shown, @r"
            imported  ci.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/acme.json)
            skipped   account https://acme-v02.api.letsencrypt.org/acme/acct/123: its key is no ECDSA P-256 key, so that a new account will be made  (/acme.json)
            imported  account https://acme-v02.api.letsencrypt.org/acme/acct/123  (/acme.json)
            ");
        }
        world.assert_account(&key);
        assert!(
            world.held(LETS_ENCRYPT, "ci.example.com").is_some(),
            "version {version}: {shown}"
        );
    }
}

/// One certificate as certbot keeps it.
fn one(world: &ImportFixture, pair: &Pair) {
    world.write("live/ci.example.com/fullchain.pem", &pair.certificate);
    world.write("live/ci.example.com/privkey.pem", &pair.key);
    world.write(
        "renewal/ci.example.com.conf",
        format!("server = {LETS_ENCRYPT}\n"),
    );
}

#[test]
fn what_is_of_no_use_is_told_and_left() {
    let world = ImportFixture::new();
    let told = |pair: &Pair| {
        one(&world, pair);
        let text = world.import("");
        assert!(world.held(LETS_ENCRYPT, "ci.example.com").is_none());
        text
    };
    let (good, other) = (good(&["ci.example.com"]), good(&["ci.example.com"]));
    let shown = [
        told(&certified(&["ci.example.com"], now() - DAY)),
        told(&Pair {
            certificate: good.certificate.clone(),
            key: other.key,
        }),
        told(&Pair {
            certificate: good.certificate.clone(),
            key: "-----BEGIN".into(),
        }),
        told(&Pair {
            certificate: good.key.clone(),
            key: good.key.clone(),
        }),
        told(&certified(&["strange.example.com"], now() + DAY)),
    ];
    insta::assert_snapshot!(shown.join("\n"), @r"
    skipped   ci.example.com: it expired on 2024-10-03T00:00:00Z  (/live/ci.example.com/fullchain.pem)
    skipped   ci.example.com: the private key does not belong to the certificate  (/live/ci.example.com/fullchain.pem)
    skipped   ci.example.com: the private key is missing or encrypted  (/live/ci.example.com/fullchain.pem)
    skipped   ci.example.com: there is no certificate in it  (/live/ci.example.com/fullchain.pem)
    skipped   ci.example.com: no domain of the configuration has this name  (/live/ci.example.com/fullchain.pem)
    ");
    std::fs::remove_file(world.theirs().join("renewal/ci.example.com.conf")).expect("removed");
    one_without_ca(&world, &good);
    assert!(
        world
            .import("")
            .contains("name the URL of its directory with --ca")
    );
    let ca = CaId::new("https://ca.internal/directory").expect("a URL");
    world.import_with(ImportOptions {
        from: &world.theirs(),
        ca: Some(&ca),
        ..world.options()
    });
    assert!(world.held(ca.as_str(), "ci.example.com").is_some());
}

#[test]
fn a_certificate_that_clients_cannot_verify_now_replaces_no_good_one() {
    let world = ImportFixture::new();
    let names = &["cache.example.com"];
    let key = KeyPair::generate().expect("made");
    let early = pair_for(&key, names, now() + DAY, now() + 90 * DAY);
    let mut broken = certified(names, now() + 80 * DAY);
    broken.certificate += &good(&["issuer.example.com"]).certificate;
    one(&world, &early);
    let first = world.import("");
    one(&world, &broken);
    let second = world.import("");
    one(&world, &good(names));
    let third = world.import("");
    one(&world, &early);
    let fourth = world.import("");
    one(&world, &broken);
    let shown = [first, second, third, fourth, world.import("")].join("\n");
    insta::assert_snapshot!(shown, @r"
    imported  cache.example.com at acme-v02.api.letsencrypt.org; until 2025-01-02T00:00:00Z; it is not valid before 2024-10-05T00:00:00Z  (/live/ci.example.com/fullchain.pem)
    imported  cache.example.com at acme-v02.api.letsencrypt.org; until 2024-12-23T00:00:00Z; CN=rcgen self signed cert has not signed CN=rcgen self signed cert, though it has the name of its issuer, so that another will be ordered  (/live/ci.example.com/fullchain.pem)
    imported  cache.example.com at acme-v02.api.letsencrypt.org; until 2024-11-23T00:00:00Z  (/live/ci.example.com/fullchain.pem)
    kept      cache.example.com at acme-v02.api.letsencrypt.org: what is below `state` is as good or better  (/live/ci.example.com/fullchain.pem)
    kept      cache.example.com at acme-v02.api.letsencrypt.org: what is below `state` is as good or better  (/live/ci.example.com/fullchain.pem)
    ");
}

fn one_without_ca(world: &ImportFixture, pair: &Pair) {
    world.write("live/ci.example.com/fullchain.pem", &pair.certificate);
    world.write("live/ci.example.com/privkey.pem", &pair.key);
}

#[test]
fn nothing_newer_is_replaced_and_nothing_damaged() {
    let world = ImportFixture::new();
    let end = |world: &ImportFixture| {
        world
            .held(LETS_ENCRYPT, "ci.example.com")
            .expect("held")
            .facts
            .not_after
    };
    one(&world, &certified(&["ci.example.com"], now() + 30 * DAY));
    world.import("");
    one(&world, &certified(&["ci.example.com"], now() + 20 * DAY));
    assert!(world.import("").starts_with("kept"));
    assert_eq!(end(&world), now() + 30 * DAY);
    one(&world, &certified(&["ci.example.com"], now() + 40 * DAY));
    assert!(world.import("").starts_with("imported"));
    assert_eq!(end(&world), now() + 40 * DAY);
    // One for all names is better than one that lives a little longer.
    one(
        &world,
        &certified(&["ci.example.com", "alias.example.com"], now() + 35 * DAY),
    );
    assert!(world.import("").starts_with("imported"));
    one(&world, &certified(&["ci.example.com"], now() + 50 * DAY));
    assert!(world.import("").starts_with("kept"));
    assert_eq!(end(&world), now() + 35 * DAY);
    let path = world.of(LETS_ENCRYPT).certificate("ci.example.com");
    std::fs::write(&path, "damaged").expect("written");
    let shown = world.import("");
    assert!(
        shown.starts_with("FAILED") && shown.contains("move it away first"),
        "{shown}"
    );
    assert_eq!(std::fs::read(&path).expect("read"), b"damaged");
}

#[test]
fn a_dry_run_writes_nothing_and_says_the_same() {
    let world = ImportFixture::new();
    one(&world, &good(&["ci.example.com"]));
    let dry = world.import_with(ImportOptions {
        from: &world.theirs(),
        dry_run: true,
        ..world.options()
    });
    assert!(!world.state().exists());
    assert_eq!(dry, world.import(""));
    let path = world.of(LETS_ENCRYPT).certificate("ci.example.com");
    assert_eq!(
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn an_order_under_way_is_not_disturbed() {
    let world = ImportFixture::new();
    one(&world, &good(&["ci.example.com"]));
    let held = try_lock(&StatePaths::new(&world.state()).order_lock("ci.example.com"))
        .expect("made")
        .expect("free");
    assert!(world.import("").starts_with("FAILED"));
    assert!(world.held(LETS_ENCRYPT, "ci.example.com").is_none());
    drop(held);
    assert!(world.import("").starts_with("imported"));
}

#[test]
fn a_place_without_any_of_it_is_an_error() {
    let world = ImportFixture::new();
    world.write("notes.txt", "nothing");
    world.write("acme.json", "{}");
    let options = ImportOptions {
        from: &world.theirs(),
        ..world.options()
    };
    let words = import(options)
        .expect_err("nothing")
        .to_string()
        .replace(&world.theirs().display().to_string(), "/srv");
    insta::assert_snapshot!(words, @"found no certificates of Caddy, certbot, acme.sh or Traefik in /srv: name the directory that holds them, like ~/.caddy, ~/.local/share/caddy, /etc/letsencrypt or ~/.acme.sh, or Traefik's acme.json");
}

#[test]
fn a_wildcard_that_is_wanted_is_missed_in_what_has_none() {
    let mut world = ImportFixture::new();
    world.targets[0].names = vec![CertifiedName::Wildcard(name("example.com"))];
    one(&world, &good(&["ci.example.com", "alias.example.com"]));
    let dry = ImportOptions {
        from: &world.theirs(),
        dry_run: true,
        ..world.options()
    };
    assert!(
        world
            .import_with(dry)
            .contains("; it lacks *.example.com, so that another will be ordered")
    );
    one(&world, &good(&["*.example.com"]));
    assert!(!world.import("").contains("lacks"));
}
