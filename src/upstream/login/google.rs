//! Access tokens of Google: for the signed word of a service account (RFC 7523), or from the
//! metadata server of the machine. Its registries take them as they are.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::bearer;
use super::error::LoginError;
use super::hosts::ServiceUrl;
use super::service::{ServiceClient, ServiceRequest};
use super::token::UpstreamToken;
use crate::clock::time_of_day;
use crate::config::secret::SecretSource;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// A login at registries of Google.
pub(super) struct GoogleLogin {
    account: GoogleAccount,
    url: ServiceUrl,
    credential: String,
}

/// Whose tokens they are.
enum GoogleAccount {
    /// That of a key file, JSON.
    Key(SecretSource),
    Machine,
}

/// What a key file says of its account.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
}

impl GoogleLogin {
    /// The login of a key file. Errors: it cannot be read, or has no key that signs.
    pub(super) fn of_key(
        key: &SecretSource,
        endpoint: Option<&UpstreamUrl>,
    ) -> Result<Self, &'static str> {
        let file = key
            .read_whole()
            .map_err(|_| "the key file cannot be read")?;
        assertion(&file, "", time_of_day())?;
        let url = match endpoint {
            Some(url) if url.base_path.is_empty() => ServiceUrl::new(url, "/token"),
            Some(url) => ServiceUrl::new(url, ""),
            None => ServiceUrl::new(&usual(Scheme::Https, "oauth2.googleapis.com")?, "/token"),
        };
        let shown = key.file().map(|path| format!(" {}", path.display()));
        Ok(Self {
            account: GoogleAccount::Key(key.clone()),
            url: url.ok_or(NO_URL)?,
            credential: format!("the service account key{}", shown.unwrap_or_default()),
        })
    }

    pub(super) fn of_machine(endpoint: Option<&UpstreamUrl>) -> Result<Self, &'static str> {
        let usual = usual(Scheme::Http, "169.254.169.254")?;
        let url = ServiceUrl::new(endpoint.unwrap_or(&usual), METADATA_PATH);
        Ok(Self {
            account: GoogleAccount::Machine,
            url: url.ok_or(NO_URL)?,
            credential: "the service account of this machine".to_owned(),
        })
    }

    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    /// An access token.
    pub(super) async fn exchange(
        &self,
        client: &ServiceClient,
    ) -> Result<UpstreamToken, LoginError> {
        let begun = Instant::now();
        let request = match &self.account {
            GoogleAccount::Key(key) => {
                let assertion = self.assertion(key).await?;
                let fields = [("grant_type", JWT_BEARER), ("assertion", &assertion)];
                ServiceRequest::form(self.url.clone(), &fields)
            }
            GoogleAccount::Machine => {
                let mut request = ServiceRequest::get(self.url.clone());
                let name = HeaderName::from_static("metadata-flavor");
                request
                    .headers
                    .insert(name, HeaderValue::from_static("Google"));
                request
            }
        };
        let service = self.url.origin.to_string();
        let answer = client.send(request).await?;
        if !answer.status.is_success() {
            return Err(LoginError::ExchangeRefused {
                service,
                credential: self.credential.clone(),
                answer: answer.status.to_string(),
            });
        }
        bearer::token(&answer.body, begun).map_err(|why| LoginError::Unusable { service, why })
    }

    async fn assertion(&self, key: &SecretSource) -> Result<String, LoginError> {
        let key = key.clone();
        let audience = format!("{}{}", self.url.origin, self.url.target);
        let signed = run_blocking(move || {
            let file = key.read_whole().map_err(|error| format!("it {error}"))?;
            assertion(&file, &audience, time_of_day()).map_err(str::to_owned)
        });
        signed.await.map_err(|why| LoginError::Unreadable {
            credential: self.credential.clone(),
            why,
        })
    }
}

/// What a service account signs to get a token.
fn assertion(file: &SecretString, audience: &str, now: SystemTime) -> Result<String, &'static str> {
    let KeyFile {
        client_email,
        private_key,
    } = serde_json::from_str(file.expose_secret()).map_err(|_| "it is no key file, JSON")?;
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let claims = json!({
        "iss": client_email,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": audience,
        "iat": since.as_secs(),
        "exp": (since + ASSERTION_LIFE).as_secs(),
    });
    let head = json!({ "alg": "RS256", "typ": "JWT" });
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&head), encode(&claims));
    let key = der(&private_key).ok_or("its private key is no PEM")?;
    let key = RsaKeyPair::from_pkcs8(&key).map_err(|_| "its private key is no RSA key")?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "its private key cannot sign")?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The content of a PEM document (RFC 7468).
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, content) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (content, _) = content.split_once("-----END PRIVATE KEY-----")?;
    let content: String = content.split_ascii_whitespace().collect();
    STANDARD.decode(content).ok()
}

fn usual(scheme: Scheme, host: &str) -> Result<UpstreamUrl, &'static str> {
    Ok(UpstreamUrl {
        scheme,
        host: HostName::parse(host).map_err(|_| NO_URL)?,
        port: scheme.default_port(),
        base_path: String::new(),
    })
}

const NO_URL: &str = "`endpoint` is no address of a service";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const ASSERTION_LIFE: Duration = Duration::from_hours(1);
