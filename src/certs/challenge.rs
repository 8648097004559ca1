//! The responses to ACME challenges, read by the plain listeners and by TLS handshakes. They are also
//! in files, so that another process on the same state directory can give them.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use dashmap::DashMap;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::certs::library_error;
use crate::state_file::{Access, atomic_write};

/// All responses of this process, and of others on the same directory.
#[derive(Debug)]
pub struct Challenges {
    /// Key authorizations by token.
    http: DashMap<Box<str>, Arc<str>>,
    /// Certificates by the server name of the handshake.
    handshakes: DashMap<Box<str>, Arc<CertifiedKey>>,
    directory: Option<PathBuf>,
    /// Bounds how many files are read at once: anybody can request tokens that do not exist.
    file_lookups: Semaphore,
}

/// A response that is in place until this is dropped.
#[must_use = "the response is removed when this is dropped"]
#[derive(Debug)]
pub struct ChallengeResponse {
    challenges: Arc<Challenges>,
    kind: ChallengeResponseKind,
    key: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChallengeResponseKind {
    Http,
    Handshake,
}

/// Why a response cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeResponseError {
    /// The token is not base64url, or too short (RFC 8555 §8.3).
    #[error("the token of the challenge is invalid")]
    Token,
    /// The name is not valid in a certificate, or there is no randomness.
    #[error("the certificate of the challenge cannot be created: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the key of the challenge cannot be used: {}", library_error::tls(.0))]
    Key(#[from] rustls::Error),
    #[error("the response to the challenge cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Default for Challenges {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Challenges {
    /// `directory` is shared with other processes, and need not exist yet.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self {
            http: DashMap::new(),
            handshakes: DashMap::new(),
            directory,
            file_lookups: Semaphore::new(MAX_FILE_LOOKUPS),
        }
    }

    /// Puts the response to an http-01 challenge in place (RFC 8555 §8.3). Writes a file, which is
    /// removed with the response.
    pub fn answer_http(
        self: &Arc<Self>,
        token: &str,
        content: &str,
    ) -> Result<ChallengeResponse, ChallengeResponseError> {
        if !is_token(token) {
            return Err(ChallengeResponseError::Token);
        }
        self.share(ChallengeResponseKind::Http, token, content)?;
        self.http.insert(token.into(), content.into());
        Ok(ChallengeResponse {
            challenges: self.clone(),
            kind: ChallengeResponseKind::Http,
            key: token.into(),
        })
    }

    /// Puts the response to a tls-alpn-01 challenge of a name or an address in place (RFC 8737 §3),
    /// with a file as for http-01. `digest` is the SHA-256 of the key authorization.
    pub fn answer_handshake(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<ChallengeResponse, ChallengeResponseError> {
        let key = server_name(name);
        let certificate = certificate(name, digest)?;
        let shared = format!("{name} {}", BASE64_URL_SAFE_NO_PAD.encode(digest));
        self.share(ChallengeResponseKind::Handshake, &key, &shared)?;
        self.handshakes.insert(key.clone(), Arc::new(certificate));
        Ok(ChallengeResponse {
            challenges: self.clone(),
            kind: ChallengeResponseKind::Handshake,
            key,
        })
    }

    /// The key authorization for a token, of this or another process.
    pub async fn find_http(&self, token: &str) -> Option<Arc<str>> {
        if let Some(found) = self.http.get(token) {
            return Some(found.clone());
        }
        if !is_token(token) {
            return None;
        }
        self.shared(ChallengeResponseKind::Http, token)
            .await
            .map(Arc::from)
    }

    /// The certificate for a handshake with `acme-tls/1`, of this process.
    pub fn find_handshake(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        self.handshakes.get(server_name).map(|found| found.clone())
    }

    /// The certificate for a handshake with `acme-tls/1`, of another process.
    pub async fn find_shared_handshake(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if server_name.starts_with('.')
            || server_name.len() > 253
            || !server_name.bytes().all(is_name)
        {
            return None;
        }
        let shared = self
            .shared(ChallengeResponseKind::Handshake, server_name)
            .await?;
        let (name, digest) = shared.split_once(' ')?;
        let digest = BASE64_URL_SAFE_NO_PAD.decode(digest).ok()?;
        certificate(name, &digest).ok().map(Arc::new)
    }

    async fn shared(&self, kind: ChallengeResponseKind, key: &str) -> Option<String> {
        let path = self.path(kind, key)?;
        // A CA validates from several places at once, and several names: those wait for a permit.
        let _permit = timeout(FILE_LOOKUP_TIMEOUT, self.file_lookups.acquire())
            .await
            .ok()?
            .ok()?;
        tokio::fs::read_to_string(path).await.ok()
    }

    fn share(&self, kind: ChallengeResponseKind, key: &str, content: &str) -> io::Result<()> {
        match self.path(kind, key) {
            Some(path) => atomic_write(&path, content.as_bytes(), Access::Private),
            None => Ok(()),
        }
    }

    fn path(&self, kind: ChallengeResponseKind, key: &str) -> Option<PathBuf> {
        let prefix = match kind {
            ChallengeResponseKind::Http => "http",
            ChallengeResponseKind::Handshake => "handshake",
        };
        Some(self.directory.as_ref()?.join(format!("{prefix}-{key}")))
    }
}

impl Drop for ChallengeResponse {
    fn drop(&mut self) {
        let Self {
            challenges,
            kind,
            key,
        } = self;
        match kind {
            ChallengeResponseKind::Http => drop(challenges.http.remove(key.as_ref())),
            ChallengeResponseKind::Handshake => drop(challenges.handshakes.remove(key.as_ref())),
        }
        if let Some(path) = challenges.path(*kind, key) {
            // The challenge is over: a file that stays does no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether it is base64url of a valid length, and so a safe file name.
fn is_token(token: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (MIN_TOKEN_LENGTH..=MAX_TOKEN_LENGTH).contains(&token.len()) && token.bytes().all(is_base64url)
}

/// The server name of a CA's handshake: for an address, its reverse name (RFC 8738 §6).
pub(super) fn server_name(name: &str) -> Box<str> {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa").into()
        }
        Ok(IpAddr::V6(address)) => {
            let bytes = address.octets();
            let nibbles = bytes
                .iter()
                .rev()
                .map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            format!("{}ip6.arpa", nibbles.collect::<String>()).into()
        }
        Err(_) => name.into(),
    }
}

/// A self-signed certificate for the name, with the digest in a critical extension (RFC 8737 §3).
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, ChallengeResponseError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let key = any_supported_type(&PrivateKeyDer::from(key))?;
    Ok(CertifiedKey::new(vec![certificate.into()], key))
}

/// RFC 8555 §8.3 wants at least 128 bits, 22 characters; CAs send 43.
const MIN_TOKEN_LENGTH: usize = 22;
const MAX_TOKEN_LENGTH: usize = 200;
const MAX_FILE_LOOKUPS: usize = 4;
/// CAs wait for ten seconds.
const FILE_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "token-of-more-than-22-characters";

    fn shared() -> (tempfile::TempDir, [Arc<Challenges>; 2]) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().to_owned();
        (
            directory,
            [(); 2].map(|()| Arc::new(Challenges::new(Some(path.clone())))),
        )
    }

    #[tokio::test]
    async fn both_processes_respond_until_the_response_is_dropped() {
        let (directory, [one, other]) = shared();
        let http = one.answer_http(TOKEN, "content").expect("in place");
        let handshake = one
            .answer_handshake("a.example.com", &[7; 32])
            .expect("in place");
        for process in [&one, &other] {
            assert_eq!(process.find_http(TOKEN).await.as_deref(), Some("content"));
        }
        assert!(one.find_handshake("a.example.com").is_some());
        assert!(other.find_handshake("a.example.com").is_none());
        assert!(other.find_shared_handshake("a.example.com").await.is_some());
        assert!(other.find_shared_handshake("b.example.com").await.is_none());
        drop((http, handshake));
        assert_eq!(one.find_http(TOKEN).await, None);
        assert_eq!(other.find_http(TOKEN).await, None);
        assert!(other.find_shared_handshake("a.example.com").await.is_none());
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("listed").count(),
            0
        );
    }

    #[tokio::test]
    async fn many_requests_at_once_get_the_response_of_another_process() {
        let (_directory, [one, other]) = shared();
        let _answer = one.answer_http(TOKEN, "content").expect("in place");
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let other = other.clone();
            requests.spawn(async move { other.find_http(TOKEN).await });
        }
        let found = requests.join_all().await;
        assert_eq!(found.iter().flatten().count(), 40);
    }

    #[tokio::test]
    async fn no_token_or_name_reads_files_outside_the_directory() {
        let (directory, [one, _]) = shared();
        std::fs::write(
            directory.path().join("secret-that-is-long-enough"),
            "secret",
        )
        .expect("written");
        std::fs::create_dir(directory.path().join("http-x")).expect("made");
        for token in [
            "x/../secret-that-is-long-enough",
            "../secret-that-is-long-enough",
            "",
            "short",
        ] {
            assert_eq!(one.find_http(token).await, None, "{token}");
            assert!(one.find_shared_handshake(token).await.is_none(), "{token}");
        }
    }

    #[test]
    fn addresses_have_their_reverse_names_as_server_names() {
        assert_eq!(&*server_name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let v6 = server_name("2001:db8::1");
        assert!(
            v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"),
            "{v6}"
        );
        assert_eq!(&*server_name("a.example.com"), "a.example.com");
    }
}
