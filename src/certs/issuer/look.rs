//! What can be found out about a domain before a CA is asked: where its name leads, and what is served
//! there.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::on_disk;
use crate::certs::challenge::Challenges;
use crate::certs::dns::{Kind, Resolver, property};
use crate::certs::inspect::CertificateFacts;
use crate::config::acme::{CertifiedName, ChallengeKind};
use crate::registry::host::HostName;

/// What is wrong with the names, in words; nothing where all leads here. It is no proof, and no reason to give up:
/// the CA may see another part of the network.
pub(super) async fn findings(
    challenges: &Arc<Challenges>,
    names: &[CertifiedName],
    kinds: &[ChallengeKind],
    identity: Option<&str>,
) -> Vec<String> {
    let mut findings = Vec::new();
    let resolver = on_disk(Resolver::system).await;
    for name in names.iter().filter(|name| name.base().ip().is_none()) {
        findings.extend(match identity {
            Some(identity) => forbidden(&resolver, name, identity).await,
            None => None,
        });
    }
    for name in names.iter().filter(|name| !name.is_wildcard()) {
        let base = name.base();
        if base.ip().is_none() && !resolves(base).await {
            findings.push(format!("{base} does not resolve on this machine"));
            continue;
        }
        if kinds.contains(&ChallengeKind::Http01)
            && let Err(reason) = leads_here(challenges, base, HTTP).await
        {
            findings.push(format!("http://{base}/ does not lead here: {reason}"));
        }
    }
    findings
}

/// What the CAA records of a name or of the domains above it say against a CA (RFC 8659 §3). What cannot be looked up
/// is the CA's to find out.
async fn forbidden(resolver: &Resolver, name: &CertifiedName, identity: &str) -> Option<String> {
    let mut domain = name.base().as_str();
    loop {
        let records = resolver.records(domain, Kind::Caa).await.ok()?;
        if !records.is_empty() {
            let properties: Vec<_> = records.iter().filter_map(|data| property(data)).collect();
            let allowed = allowed(&properties, name.is_wildcard())?;
            let words =
                if allowed.is_empty() { "no CA".to_owned() } else { format!("only {}", allowed.join(", ")) };
            let is_allowed = allowed.iter().any(|allowed| allowed == identity);
            return (!is_allowed)
                .then(|| format!("the CAA records of {domain} allow {words}, not {identity}"));
        }
        (_, domain) = domain.split_once('.')?;
    }
}

/// The CAs that may issue; `None`: any may.
fn allowed(properties: &[(String, String)], wildcard: bool) -> Option<Vec<String>> {
    let of = |tag: &str| {
        let values = properties.iter().filter(|(its, _)| its == tag);
        values
            .map(|(_, value)| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
            .collect()
    };
    let (issue, wild): (Vec<String>, Vec<String>) = (of("issue"), of("issuewild"));
    let decides = if wildcard && !wild.is_empty() { wild } else { issue };
    (!decides.is_empty()).then(|| decides.into_iter().filter(|domain| !domain.is_empty()).collect())
}

/// Fetches a token of our own through the public name, as the CA will.
async fn leads_here(challenges: &Arc<Challenges>, name: &HostName, port: u16) -> Result<(), String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "there is no randomness")?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = challenges.answer_http(&token, &token).map_err(|error| error.to_string())?;
    let fetched = timeout(PATIENCE, fetch(name, port, &token)).await;
    drop(answer);
    match fetched {
        Err(_) => Err("nobody answers".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(text)) if text.ends_with(&format!("\r\n\r\n{token}")) => Ok(()),
        Ok(Ok(_)) => Err("another server answers".to_owned()),
    }
}

async fn resolves(name: &HostName) -> bool {
    let found = timeout(PATIENCE, lookup_host((name.as_str(), HTTP))).await;
    found.is_ok_and(|found| found.is_ok_and(|mut all| all.next().is_some()))
}

async fn fetch(name: &HostName, port: u16, token: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((name.as_str(), port)).await?;
    let host = name.authority(port, HTTP);
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The certificate that is served under a name at its public address, if the public trusts it.
pub(super) async fn served(name: &HostName) -> Option<CertificateFacts> {
    let connector = on_disk(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.ok()?.with_root_certificates(roots).with_no_client_auth();
        Some(TlsConnector::from(Arc::new(config)))
    });
    let (connector, server) = (connector.await?, ServerName::try_from(name.as_str().to_owned()).ok()?);
    let connect = async {
        let tcp = TcpStream::connect((name.as_str(), 443)).await.ok()?;
        let stream = connector.connect(server, tcp).await.ok()?;
        let leaf = stream.get_ref().1.peer_certificates()?.first()?.clone();
        CertificateFacts::read(&leaf).ok()
    };
    timeout(PATIENCE, connect).await.ok().flatten()
}

const HTTP: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What is found about 127.0.0.1 when its server answers so.
    async fn found(answer: impl AsyncFn(&Challenges, &str) -> String) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let (challenges, name) =
            (Arc::new(Challenges::default()), HostName::parse("127.0.0.1").expect("a host"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.expect("read");
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let token = request.split(['/', ' ']).nth(4).expect("a token");
            let body = answer(&challenges, token).await;
            let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await.expect("written");
        };
        let (found, ()) = tokio::join!(leads_here(&challenges, &name, port), serve);
        found
    }

    #[test]
    fn caa_records_allow_some_all_or_none() {
        let allowed = |wildcard, properties: &[(&str, &str)]| {
            let all: Vec<_> =
                properties.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect();
            allowed(&all, wildcard).map(|domains| domains.join(" "))
        };
        let two = [("issue", "letsencrypt.org; x=y"), ("issue", "PKI.goog"), ("issuewild", ";")];
        assert_eq!(allowed(false, &two).as_deref(), Some("letsencrypt.org pki.goog"));
        assert_eq!(allowed(true, &two).as_deref(), Some(""));
        assert_eq!(allowed(true, &two[..2]).as_deref(), Some("letsencrypt.org pki.goog"));
        assert_eq!(allowed(false, &[("iodef", "mailto:a@example.com")]), None);
    }

    #[tokio::test]
    async fn a_name_that_leads_here_shows_our_own_token() {
        let ours = found(async |challenges, token| {
            challenges.find_http(token).await.map_or_else(String::new, |content| content.to_string())
        });
        assert_eq!(ours.await, Ok(()));
        let parked = found(async |_, _| "this domain is for sale".to_owned());
        assert_eq!(parked.await, Err("another server answers".to_owned()));
    }
}
