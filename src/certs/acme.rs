//! An ACME client (RFC 8555): a session with one CA, and the orders in it. This module alone uses
//! `instant_acme`, and adds what the library lacks: alternate chains, Retry-After, bounded waits.

/// Repeats a request while the CA refuses only its nonce (RFC 8555 §6.5), for as long as
/// [`NonceRetries`](nonce::NonceRetries) allows. The library gives up after three.
macro_rules! retry_bad_nonce {
    ($request:expr) => {{
        let mut retries = crate::certs::acme::nonce::NonceRetries::new();
        loop {
            let result = $request.await;
            let is_refused = result
                .as_ref()
                .is_err_and(crate::certs::acme::problem::is_bad_nonce);
            if !is_refused || !retries.pause().await {
                break result;
            }
        }
    }};
}

mod connection;
mod counting;
mod dial;
mod error;
mod nonce;
mod order;
mod problem;
mod transport;

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use instant_acme::{
    AccountBuilder, CertificateIdentifier, ExternalAccountKey, Identifier, NewAccount,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret;

pub(super) use self::connection::{ExchangeError, HttpConnection};
pub(super) use self::error::{AcmeError, CountedRequestError, FailedAuthorization, Quoted, join};
pub(super) use self::order::{Authorization, Challenge, Order, OrderStatus};
use self::transport::{AcmeHttpClient, Transport};
use crate::certs::state::paths::{CaId, StoredAccount};
use crate::certs::state::storage::Account;
use crate::config::acme::{CaSettings, CertifiedName};
use crate::state_file::run_blocking;

/// A session with one CA under one account.
pub(super) struct AcmeSession {
    account: instant_acme::Account,
    transport: Arc<Transport>,
}

/// The fields of the directory object that the library does not expose (RFC 8555 §7.1.1, RFC 9773
/// §4.1).
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Directory {
    renewal_info: Option<String>,
    meta: Meta,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    caa_identities: Vec<String>,
}

/// The content of a newOrder request (RFC 8555 §7.4).
pub(super) struct NewOrder<'a> {
    pub(super) names: &'a [CertifiedName],
    pub(super) profile: Option<&'a str>,
    /// The certificate that the new one replaces (RFC 9773 §5).
    pub(super) replaces: Option<&'a CertificateDer<'static>>,
}

/// The renewal information of a certificate (RFC 9773 §4.2).
#[derive(Clone, Debug)]
pub(super) struct RenewalInfo {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    /// The URL of a page that explains the window.
    pub(super) explanation: Option<String>,
    /// When to fetch it again, if the CA says so.
    pub(super) retry_at: Option<SystemTime>,
}

impl AcmeSession {
    /// Opens a session with an existing account. That the CA does not know the account shows at the
    /// first request.
    pub(super) async fn open(ca: &CaSettings, account: &Account) -> Result<Self, AcmeError> {
        let transport = transport(ca).await?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(account.key.as_bytes());
        let key = key.map_err(|_| AcmeError::AccountKey)?;
        let builder = builder(&transport);
        let url = account.stored.url.clone();
        let opened = builder
            .from_parts(url, key, ca.directory.url().to_owned())
            .await;
        let account = opened.map_err(|error| match error {
            instant_acme::Error::KeyRejected | instant_acme::Error::Crypto => AcmeError::AccountKey,
            other => AcmeError::from_library(other, &transport),
        })?;
        Ok(Self { account, transport })
    }

    /// Opens a session with a new account and a new key. Agrees to the terms of service, as the
    /// administrator does who writes `acme`.
    pub(super) async fn register(
        ca: &CaSettings,
        id: &CaId,
        contacts: &[String],
    ) -> Result<(Self, Account), CountedRequestError> {
        let transport = transport(ca).await.map_err(CountedRequestError::unsent)?;
        let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
        let request = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let binding = ca.binding.as_ref().map(|binding| {
            let key = BASE64_URL_SAFE_NO_PAD
                .decode(binding.hmac_key.expose_secret())
                .unwrap_or_default();
            ExternalAccountKey::new(binding.key_id.clone(), &key)
        });
        let directory = || ca.directory.url().to_owned();
        let created =
            retry_bad_nonce!(builder(&transport).create(&request, directory(), binding.as_ref()));
        let (account, credentials) = created.map_err(|error| CountedRequestError {
            may_count: transport.last_response().last_post.may_count(),
            error: AcmeError::from_library(error, &transport),
        })?;
        let session = Self { account, transport };
        let stored = StoredAccount {
            directory: id.clone(),
            url: session.account_url().to_owned(),
            contacts: contacts.to_vec(),
            identities: session.dns_identities(),
        };
        let key = pem("PRIVATE KEY", credentials.private_key().secret_pkcs8_der());
        Ok((session, Account { stored, key }))
    }

    /// Replaces the contacts of the account (RFC 8555 §7.3.2).
    pub(super) async fn update_contacts(&self, contacts: &[String]) -> Result<(), AcmeError> {
        let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
        retry_bad_nonce!(self.account.update_contacts(&contact)).map_err(|error| self.error(error))
    }

    /// The time by the CA's clock, as of its last response.
    pub(super) fn ca_time(&self) -> Option<SystemTime> {
        self.transport.last_response().date
    }

    pub(super) fn account_url(&self) -> &str {
        self.account.id()
    }

    /// Whether the CA offers renewal information, and with it `replaces` in orders (RFC 9773).
    pub(super) fn supports_renewal_info(&self) -> bool {
        self.directory().renewal_info.is_some()
    }

    /// The CA's own `caaIdentities` (RFC 8555 §7.1.1), in lower case.
    pub(super) fn dns_identities(&self) -> Vec<String> {
        let all = self.directory().meta.caa_identities;
        all.into_iter()
            .map(|identity| identity.to_ascii_lowercase())
            .collect()
    }

    fn directory(&self) -> Directory {
        serde_json::from_slice(&self.transport.last_response().directory.unwrap_or_default())
            .unwrap_or_default()
    }

    /// Places an order.
    pub(super) async fn order(&self, request: &NewOrder<'_>) -> Result<Order, CountedRequestError> {
        // Earlier requests of the session say nothing about this one.
        self.transport.forget_last_post();
        self.ensure_profile(request.profile)
            .map_err(CountedRequestError::unsent)?;
        let names: Vec<Identifier> = request.names.iter().map(identifier).collect();
        let mut order = instant_acme::NewOrder::new(&names);
        if let Some(profile) = request.profile {
            order = order.profile(profile);
        }
        let replaced = request
            .replaces
            .and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        let replaces = replaced.is_some();
        if let Some(replaced) = replaced {
            order = order.replaces(replaced);
        }
        let error = match retry_bad_nonce!(self.account.new_order(&order)) {
            Ok(order) => {
                return Ok(Order::new(
                    order,
                    self.account.key_thumbprint(),
                    self.transport.clone(),
                ));
            }
            // The CA has placed the order without echoing `replaces` (RFC 9773 §5).
            Err(instant_acme::Error::Other(error))
                if error.to_string().starts_with(REPLACES_NOT_ECHOED) =>
            {
                return self.resume_placed().await;
            }
            Err(instant_acme::Error::Unsupported(_)) if replaces => AcmeError::ReplacesUnsupported,
            Err(error) => self.error(error).into_refused_replacement(replaces),
        };
        Err(CountedRequestError {
            error,
            may_count: self.transport.last_response().last_post.may_count(),
        })
    }

    /// Fetches the order that the last response named.
    async fn resume_placed(&self) -> Result<Order, CountedRequestError> {
        let resumed = match self.transport.last_response().location {
            Some(url) => self.resume(&url).await,
            None => Err(AcmeError::NoOrderUrl),
        };
        resumed.map_err(|error| CountedRequestError {
            error,
            may_count: true,
        })
    }

    /// Fetches an existing order of the account.
    pub(super) async fn resume(&self, url: &str) -> Result<Order, AcmeError> {
        match retry_bad_nonce!(self.account.order(url.to_owned())) {
            Ok(order) => Ok(Order::new(
                order,
                self.account.key_thumbprint(),
                self.transport.clone(),
            )),
            Err(error) => Err(self.error(error).into_missing_order()),
        }
    }

    /// Fetches the renewal information of a certificate; `None`: the CA offers none.
    pub(super) async fn renewal_info(
        &self,
        leaf: &CertificateDer<'static>,
    ) -> Result<Option<RenewalInfo>, AcmeError> {
        let Ok(id) = CertificateIdentifier::try_from(leaf) else {
            return Ok(None);
        };
        match self.account.renewal_info(&id).await {
            Ok((info, _)) => Ok(Some(RenewalInfo {
                start: info.suggested_window.start.into(),
                end: info.suggested_window.end.into(),
                explanation: info.explanation_url.filter(|url| is_web_page(url)),
                retry_at: self.transport.last_response().retry_after,
            })),
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Fetches the alternate chains of the certificate that was downloaded last (RFC 8555 §7.4.2),
    /// without those that cannot be fetched.
    pub(super) async fn alternates(&self) -> Vec<String> {
        let mut chains = Vec::new();
        for url in self.transport.last_response().alternates {
            // The library cannot fetch a chain by its URL, but it can fetch any URL as an order.
            // The response is not an order, and the transport has recorded it.
            let _ = retry_bad_nonce!(self.account.order(url.clone()));
            let chain = self
                .transport
                .last_response()
                .chain
                .and_then(|chain| String::from_utf8(chain.to_vec()).ok());
            chains.extend(chain);
        }
        chains
    }

    /// Fails for a profile that the CA does not offer: it would be refused only after the order has
    /// used up some of a limit.
    fn ensure_profile(&self, profile: Option<&str>) -> Result<(), AcmeError> {
        let Some(wanted) = profile else {
            return Ok(());
        };
        let mut offered: Vec<String> = self
            .account
            .profiles()
            .map(|profile| profile.name.to_owned())
            .collect();
        if offered.iter().any(|profile| profile == wanted) {
            return Ok(());
        }
        offered.sort();
        Err(AcmeError::NoProfile {
            wanted: wanted.to_owned(),
            offered,
        })
    }

    fn error(&self, error: instant_acme::Error) -> AcmeError {
        AcmeError::from_library(error, &self.transport)
    }
}

async fn transport(ca: &CaSettings) -> Result<Arc<Transport>, AcmeError> {
    let roots = ca.roots.clone();
    let made = run_blocking(move || Transport::new(roots.as_deref())).await;
    Ok(Arc::new(made?))
}

fn builder(transport: &Arc<Transport>) -> AccountBuilder {
    instant_acme::Account::builder_with_http(Box::new(AcmeHttpClient(transport.clone())))
}

/// Whether a text is a URL that may be shown to people: short, and without control characters.
fn is_web_page(url: &str) -> bool {
    let parsed = url.parse::<http::Uri>().ok();
    let scheme = parsed.as_ref().and_then(http::Uri::scheme_str);
    matches!(scheme, Some("https" | "http")) && url.len() <= MAX_EXPLANATION_BYTES
}

fn identifier(name: &CertifiedName) -> Identifier {
    match name.base().ip() {
        Some(address) => Identifier::Ip(address),
        None => Identifier::Dns(name.to_string()),
    }
}

/// Encodes as PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
    }
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

const MAX_EXPLANATION_BYTES: usize = 500;
/// The start of the library's error for an order that comes back without `replaces`.
const REPLACES_NOT_ECHOED: &str = "replaces field mismatch";
