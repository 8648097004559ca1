//! `moorgate certs`: lists the certificates of a configuration, and prints DNS records for
//! validation.

pub mod ca;
pub mod import;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{anyhow, ensure};

use crate::admin::control::client::{self, Addressees, ProcessReply};
use crate::admin::control::{ControlCommand, ControlReply, ReplyStatus};
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::certs::served::check;
use crate::certs::served::report;
use crate::certs::state::paths::{CaId, InvalidDirectoryUrl};
use crate::certs::state::storage::{Account, Storage};
use crate::config::acme::{AcmeDirectory, AcmeRequest, CaSettings};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::CertificateSource;

/// Lists the certificates of all domains: a few lines for each, or a JSON array. Asks the running
/// process; without one, reads the files and says so.
pub fn list(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    if let Ok(state) = crate::config::state(config) {
        let command = ControlCommand::Certs { json };
        match client::send(config, &state, Addressees::OfConfiguration, &command) {
            Ok(replies) => {
                for reply in &replies {
                    print_list(reply, replies.len() > 1)?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => eprintln!("{error}\nThis is what the files say:"),
        }
    }
    super::with_snapshot(config, |snapshot| {
        list_files(snapshot, json, &mut std::io::stdout())
    })
}

fn print_list(reply: &ProcessReply, one_of_several: bool) -> anyhow::Result<()> {
    let ControlReply { outcome, text } = &reply.reply;
    if *outcome != ReplyStatus::Done {
        return Err(anyhow!("{}: {text}", reply.process));
    }
    if one_of_several {
        eprintln!("{}:", reply.process);
    }
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn list_files(snapshot: &Snapshot, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let reports = check::reports(snapshot, SystemTime::now());
    let text = if json {
        serde_json::to_string_pretty(&reports)?
    } else {
        report::listing(&reports)
    };
    writeln!(out, "{text}")?;
    Ok(())
}

/// Prints a line of a zone file for each name and CA. Reports why a line cannot be printed; fails
/// if none can.
pub fn dns(snapshot: &Snapshot, domain: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let request = acme_request(snapshot, domain)?;
    let (addresses, names): (Vec<_>, Vec<_>) = request
        .names
        .iter()
        .partition(|name| name.base().ip().is_some());
    let mut problems: Vec<String> = Vec::new();
    problems.extend(
        addresses
            .iter()
            .map(|address| format!("no record in DNS proves the address {address}")),
    );
    let mut has_printed = false;
    for ca in snapshot
        .acme
        .authorities
        .iter()
        .filter(|_| !names.is_empty())
    {
        let (issuer, account) = match identity_and_account(snapshot, ca) {
            Ok(known) => known,
            Err(error @ (IdentityError::NoAccount(_) | IdentityError::NoDnsIdentity(_))) => {
                problems.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for name in &names {
            let PersistRecord { name, value } =
                PersistRecord::new(name, &issuer, &account.stored.url);
            writeln!(out, "{name}. IN TXT \"{value}\"")?;
            has_printed = true;
        }
    }
    let problems = problems.join("\n");
    ensure!(has_printed, problems);
    if !problems.is_empty() {
        eprintln!("{problems}");
    }
    Ok(())
}

/// Why the record for a CA cannot be printed.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("there is no account at {0} yet: moorgate makes it when it first runs")]
    NoAccount(AcmeDirectory),
    #[error(
        "{0} has not said under which domain it stands in DNS; with \"dns-persist-01\" in `challenges`, the error \
         that `moorgate certs` shows names the record where the CA offers that challenge"
    )]
    NoDnsIdentity(AcmeDirectory),
    #[error(transparent)]
    Directory(#[from] InvalidDirectoryUrl),
    #[error(transparent)]
    Storage(#[from] std::io::Error),
}

/// The domain that identifies a CA in DNS, and the account there.
fn identity_and_account(
    snapshot: &Snapshot,
    ca: &CaSettings,
) -> Result<(String, Account), IdentityError> {
    let account = Storage::below(&snapshot.state).account(&CaId::new(ca.directory.url())?)?;
    let account = account.ok_or_else(|| IdentityError::NoAccount(ca.directory.clone()))?;
    let known = ca.directory.dns_identity().map(str::to_owned);
    let issuer = known
        .or_else(|| account.stored.identities.first().cloned())
        .ok_or_else(|| IdentityError::NoDnsIdentity(ca.directory.clone()))?;
    Ok((issuer, account))
}

/// The ACME request of the domain with this name or alias.
fn acme_request<'s>(snapshot: &'s Snapshot, domain: &str) -> anyhow::Result<&'s AcmeRequest> {
    let hosts = &snapshot.domains;
    let host = hosts.iter().find(|host| host.domain.as_str() == domain);
    let host = host.or_else(|| {
        hosts
            .iter()
            .find(|host| host.names().any(|name| name.as_str() == domain))
    });
    let host = host.ok_or_else(|| anyhow!("there is no domain {domain}"))?;
    match &host.certificate {
        CertificateSource::Acme(request) => Ok(request),
        CertificateSource::Files { .. } | CertificateSource::Internal => Err(anyhow!(
            "no CA is asked for the certificate of {domain}: its [tls] does not say `acme`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::state::paths::StoredAccount;
    use crate::certs::testing::{self, host, pair, snapshot};
    use crate::config::acme::{CertifiedName, Fallback};

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
        list_files(&snapshot, false, &mut text).expect("listed");
        let text = String::from_utf8(text).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("a.example.com  files  until 20"),
            "{text}"
        );
        assert!(lines[0].ends_with("for a.example.com"), "{text}");
        assert_eq!(lines[1], "b.example.com  internal");

        let mut json = Vec::new();
        list_files(&snapshot, true, &mut json).expect("listed");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json[0]["domain"], "a.example.com");
        assert_eq!(json[0]["names"][0], "a.example.com");
        assert_eq!(json[1]["source"], "internal");
        assert!(json[1]["problem"].is_null());
    }

    #[test]
    fn the_records_of_a_domain_are_lines_of_a_zone_file() {
        let directory = tempfile::tempdir().expect("directory");
        let names =
            ["a.example.com", "b.example.com"].map(|name| CertifiedName::Host(testing::name(name)));
        let names = names
            .into_iter()
            .chain([CertifiedName::Wildcard(testing::name("example.com"))])
            .collect();
        let request = AcmeRequest {
            contact: None,
            names,
            profile: None,
            fallback: Fallback::Refuse,
        };
        let acme = CertificateSource::Acme(request);
        let mut snapshot = snapshot(
            directory.path(),
            vec![host(&["a.example.com", "b.example.com"], &[443], acme)],
        );
        let mut out = Vec::new();
        let error = dns(&snapshot, "a.example.com", &mut out)
            .expect_err("no account")
            .to_string();
        assert!(
            error.starts_with("there is no account at letsencrypt-staging yet"),
            "{error}"
        );

        let ca = CaId::new(snapshot.acme.authorities[0].directory.url()).expect("a URL");
        let url = "https://ca.example/account/1".to_owned();
        let account = Account {
            stored: StoredAccount {
                directory: ca,
                url,
                contacts: Vec::new(),
                identities: Vec::new(),
            },
            key: String::new(),
        };
        let storage = Storage::below(directory.path());
        storage.write_account(&account).expect("written");
        dns(&snapshot, "a.example.com", &mut out).expect("printed");
        insta::assert_snapshot!(String::from_utf8(out.clone()).expect("UTF-8"), @r#"
        _validation-persist.a.example.com. IN TXT "letsencrypt.org; accounturi=https://ca.example/account/1"
        _validation-persist.b.example.com. IN TXT "letsencrypt.org; accounturi=https://ca.example/account/1"
        _validation-persist.example.com. IN TXT "letsencrypt.org; accounturi=https://ca.example/account/1; policy=wildcard"
        "#);
        // Of a CA that is not known, only its own word tells; of the others it is printed anyway.
        // An alias will do.
        let other = CaSettings::new(AcmeDirectory::at("https://ca.example.com/acme/directory"));
        let directory = CaId::new(other.directory.url()).expect("a URL");
        snapshot.acme.authorities.insert(0, other);
        let mut account = Account {
            stored: StoredAccount {
                directory,
                ..account.stored
            },
            ..account
        };
        storage.write_account(&account).expect("written");
        let mut again = Vec::new();
        dns(&snapshot, "b.example.com", &mut again).expect("printed");
        assert_eq!(again, out);
        snapshot.acme.authorities.truncate(1);
        let error = dns(&snapshot, "a.example.com", &mut out)
            .expect_err("nothing")
            .to_string();
        assert!(
            error.starts_with("https://ca.example.com/acme/directory has not said"),
            "{error}"
        );
        account.stored.identities =
            vec!["ca.example.com".to_owned(), "other.example.com".to_owned()];
        storage.write_account(&account).expect("written");
        let mut its = Vec::new();
        dns(&snapshot, "a.example.com", &mut its).expect("printed");
        let expected = String::from_utf8(out)
            .expect("UTF-8")
            .replace("letsencrypt.org", "ca.example.com");
        assert_eq!(String::from_utf8(its).expect("UTF-8"), expected);
        assert!(dns(&snapshot, "c.example.com", &mut Vec::new()).is_err());
    }

    #[test]
    fn an_address_has_no_record() {
        let directory = tempfile::tempdir().expect("directory");
        let names = vec![CertifiedName::Host(testing::name("192.0.2.1"))];
        let request = AcmeRequest {
            contact: None,
            names,
            profile: None,
            fallback: Fallback::Refuse,
        };
        let hosts = vec![host(
            &["192.0.2.1"],
            &[443],
            CertificateSource::Acme(request),
        )];
        let snapshot = snapshot(directory.path(), hosts);
        let error = dns(&snapshot, "192.0.2.1", &mut Vec::new())
            .expect_err("nothing")
            .to_string();
        assert_eq!(error, "no record in DNS proves the address 192.0.2.1");
    }
}
