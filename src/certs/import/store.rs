//! Chooses the best certificate for each domain and CA among those found and writes it below
//! `state`, unless the stored one is as good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::super::Certificate;
use super::super::chain::{self, ChainDefect};
use super::super::inspect::{CertificateFacts, InspectError, Rfc3339};
use super::keys::pem;
use super::{
    FoundAccount, FoundCertificate, ImportOptions, ImportOutcome, ImportTarget, ImportedItem, until,
};
use crate::certs::served::files;
use crate::certs::served::stored;
use crate::certs::state::paths::{CaId, StatePaths, StoredAccount, try_lock};
use crate::state_file::{Access, atomic_write};

/// A certificate that can be served.
struct Usable {
    from: PathBuf,
    name: String,
    ca: CaId,
    facts: CertificateFacts,
    /// Why clients cannot verify its chain, if so.
    defect: Option<ChainDefect>,
    /// The key and the chain as they are stored.
    pem: String,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
enum UnusableCertificate {
    #[error("the certificate is not valid PEM")]
    NotPem,
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("the private key is missing or encrypted")]
    NoKey,
    #[error("the private key is of a kind that cannot be used")]
    UnsupportedKey,
    #[error("the private key does not belong to the certificate")]
    KeyOfAnother,
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("it expired on {}", Rfc3339(*.0))]
    Expired(SystemTime),
    /// Neither the other tool nor the administrator names the CA.
    #[error("nothing says from which CA it is: name the URL of its directory with --ca")]
    UnknownCa,
}

/// Imports the certificates that the targets can use.
pub(super) fn certificates(
    found: Vec<FoundCertificate>,
    options: &ImportOptions<'_>,
) -> Vec<ImportedItem> {
    let (mut lines, mut usable) = (Vec::new(), Vec::new());
    for certificate in found {
        let (from, what) = (certificate.from.clone(), certificate.name.clone());
        match check(certificate, options) {
            Ok(certificate) => usable.push(certificate),
            Err(error) => lines.push(ImportedItem {
                from,
                what,
                outcome: ImportOutcome::Skipped(error.to_string()),
            }),
        }
    }
    for certificate in &usable {
        let serves = |target: &&ImportTarget| certificate.facts.covers(&target.domain);
        let targets: Vec<_> = options.targets.iter().filter(serves).collect();
        let line = |what: String, outcome| ImportedItem {
            from: certificate.from.clone(),
            what,
            outcome,
        };
        if targets.is_empty() {
            let other = options
                .others
                .iter()
                .find(|other| certificate.facts.covers(other));
            let why = match other {
                Some(other) => format!("no CA is asked for {other}: its [tls] does not say `acme`"),
                None => "no domain of the configuration has this name".to_owned(),
            };
            lines.push(line(certificate.name.clone(), ImportOutcome::Skipped(why)));
        }
        for target in targets {
            let what = format!("{} at {}", target.domain, certificate.ca.host());
            let best = best(&usable, target, &certificate.ca, options.now);
            if best.is_some_and(|best| !std::ptr::eq(best, certificate)) {
                lines.push(line(
                    what,
                    ImportOutcome::Skipped("another that was found is better".into()),
                ));
            } else {
                lines.push(line(what, store(certificate, target, options)));
            }
        }
    }
    lines
}

/// Checks that a certificate can be served.
fn check(
    found: FoundCertificate,
    options: &ImportOptions<'_>,
) -> Result<Usable, UnusableCertificate> {
    let FoundCertificate {
        from,
        name,
        ca,
        chain,
        key,
    } = found;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|_| UnusableCertificate::NotPem)?;
    if chain.is_empty() {
        return Err(UnusableCertificate::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| UnusableCertificate::NoKey)?;
    let text = key_and_chain(&key, &chain);
    let signing = any_supported_type(&key).map_err(|_| UnusableCertificate::UnsupportedKey)?;
    let pair = CertifiedKey::new(chain, signing);
    pair.keys_match()
        .map_err(|_| UnusableCertificate::KeyOfAnother)?;
    let Certificate { key, facts } = Certificate::new(pair)?;
    if facts.not_after <= options.now {
        return Err(UnusableCertificate::Expired(facts.not_after));
    }
    let ca = ca.or_else(|| options.ca.cloned());
    let ca = ca.ok_or(UnusableCertificate::UnknownCa)?;
    Ok(Usable {
        from,
        name,
        ca,
        facts,
        defect: chain::check(&key.cert, options.now).err(),
        pem: text,
    })
}

fn key_and_chain(key: &PrivateKeyDer<'_>, chain: &[CertificateDer<'_>]) -> String {
    let section = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let chain = chain
        .iter()
        .map(|certificate| pem("CERTIFICATE", certificate));
    std::iter::once(pem(section, key.secret_der()))
        .chain(chain)
        .collect()
}

/// A certificate among others for the same target: valid ones rank higher, then those with more of
/// the names, then those whose chain clients can verify, then those that expire later.
type Rank = (bool, usize, bool, SystemTime);

fn rank(facts: &CertificateFacts, is_sound: bool, target: &ImportTarget, now: SystemTime) -> Rank {
    let names = target.names.iter();
    let covered = names.filter(|name| stored::has(facts, name)).count();
    (facts.is_valid(now), covered, is_sound, facts.not_after)
}

/// The best certificate that the CA issued for the target, the first one of equals.
fn best<'a>(
    usable: &'a [Usable],
    target: &ImportTarget,
    ca: &CaId,
    now: SystemTime,
) -> Option<&'a Usable> {
    let of_ca = usable
        .iter()
        .filter(|one| one.ca == *ca && one.facts.covers(&target.domain));
    of_ca
        .rev()
        .max_by_key(|one| rank(&one.facts, one.defect.is_none(), target, now))
}

fn store(
    certificate: &Usable,
    target: &ImportTarget,
    options: &ImportOptions<'_>,
) -> ImportOutcome {
    let state = StatePaths::new(options.state);
    let files = state.ca(&certificate.ca);
    let path = files.certificate(target.domain.as_str());
    let is_there = match path.try_exists() {
        Ok(is_there) => is_there,
        Err(error) => return unreadable(&path, &error),
    };
    if is_there {
        match files::load(&path, &path) {
            Ok(held) => {
                let is_sound = chain::check(&held.key.cert, options.now).is_ok();
                let found_is_sound = certificate.defect.is_none();
                if rank(&held.facts, is_sound, target, options.now)
                    >= rank(&certificate.facts, found_is_sound, target, options.now)
                {
                    return ImportOutcome::Unchanged;
                }
            }
            Err(error) => return ImportOutcome::Failed(format!("{error}; move it away first")),
        }
    }
    let remarks = remarks(certificate, target, options);
    if options.dry_run {
        return ImportOutcome::Imported(remarks);
    }
    let write = || -> std::io::Result<bool> {
        let Some(_held) = try_lock(&state.order_lock(target.domain.as_str()))? else {
            return Ok(false);
        };
        files.make_directories()?;
        atomic_write(&path, certificate.pem.as_bytes(), Access::Private)?;
        Ok(true)
    };
    match write() {
        Ok(true) => ImportOutcome::Imported(remarks),
        Ok(false) => {
            ImportOutcome::Failed("an order for it is under way: try again in a minute".into())
        }
        Err(error) => cannot_write(&path, &error),
    }
}

/// What the administrator should know of a certificate that is imported.
fn remarks(
    certificate: &Usable,
    target: &ImportTarget,
    options: &ImportOptions<'_>,
) -> Vec<String> {
    let facts = &certificate.facts;
    let mut remarks = vec![until(facts.not_after)];
    if options.now < facts.not_before {
        remarks.push(format!(
            "it is not valid before {}",
            Rfc3339(facts.not_before)
        ));
    }
    let missing = target.names.iter().filter(|name| !stored::has(facts, name));
    let missing: Vec<_> = missing.map(ToString::to_string).collect();
    if !missing.is_empty() {
        remarks.push(format!(
            "it lacks {}, so that another will be ordered",
            missing.join(", ")
        ));
    }
    if let Some(defect) = &certificate.defect {
        remarks.push(format!("{defect}, so that another will be ordered"));
    }
    if !options.authorities.contains(&certificate.ca) {
        remarks.push("no [[ca]] names its CA, so that another will renew it".to_owned());
    }
    remarks
}

/// Imports an account for each CA that has none yet.
pub(super) fn accounts(found: Vec<FoundAccount>, options: &ImportOptions<'_>) -> Vec<ImportedItem> {
    let mut lines = Vec::new();
    let mut usable: BTreeMap<CaId, Vec<(FoundAccount, StoredAccount, String)>> = BTreeMap::new();
    for account in found {
        let what = format!(
            "account {}",
            account.url.as_deref().unwrap_or("without a URL")
        );
        let mut skip = |from: &Path, why: String| {
            lines.push(ImportedItem {
                from: from.to_owned(),
                what: what.clone(),
                outcome: ImportOutcome::Skipped(why),
            });
        };
        let ca = account.ca.clone().or_else(|| options.ca.cloned());
        match (account.key.clone(), ca, account.url.clone()) {
            (Err(fault), _, _) => skip(&account.from, fault.to_string()),
            (_, None, _) => skip(
                &account.from,
                "nothing says at which CA it is: name it with --ca".into(),
            ),
            (_, _, None) => skip(&account.from, "it was never registered".into()),
            (Ok(key), Some(ca), Some(url)) => {
                let stored = StoredAccount {
                    directory: ca.clone(),
                    url,
                    contacts: account.contacts.clone(),
                    identities: Vec::new(),
                };
                usable.entry(ca).or_default().push((account, stored, key));
            }
        }
    }
    for mut accounts in usable.into_values() {
        accounts.sort_by_key(|(account, _, _)| std::cmp::Reverse(account.changed));
        for (index, (account, stored, key)) in accounts.into_iter().enumerate() {
            let outcome = match index {
                0 => store_account(&stored, &key, options),
                _ => ImportOutcome::Skipped("a newer one at the same CA was found".into()),
            };
            lines.push(ImportedItem {
                from: account.from,
                what: format!("account {}", stored.url),
                outcome,
            });
        }
    }
    lines
}

fn unreadable(path: &Path, error: &std::io::Error) -> ImportOutcome {
    ImportOutcome::Failed(format!("{} cannot be read: {error}", path.display()))
}

fn store_account(stored: &StoredAccount, key: &str, options: &ImportOptions<'_>) -> ImportOutcome {
    let files = StatePaths::new(options.state).ca(&stored.directory);
    let (path, key_path) = (files.account(), files.account_key());
    for path in [&path, &key_path] {
        match path.try_exists() {
            Ok(false) => {}
            Ok(true) => return ImportOutcome::Unchanged,
            Err(error) => return unreadable(path, &error),
        }
    }
    if options.dry_run {
        return ImportOutcome::Imported(Vec::new());
    }
    // The key first, so that an account never exists without its key.
    let written = files.make_directories().and_then(|()| {
        atomic_write(&key_path, key.as_bytes(), Access::Private)?;
        atomic_write(&path, &serde_json::to_vec_pretty(stored)?, Access::Private)
    });
    match written {
        Ok(()) => ImportOutcome::Imported(Vec::new()),
        Err(error) => cannot_write(&path, &error),
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> ImportOutcome {
    ImportOutcome::Failed(format!("cannot write {}: {error}", path.display()))
}
