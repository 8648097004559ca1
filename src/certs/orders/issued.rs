//! The signing request to a CA, and the chain that it has issued: chosen among the alternates, and
//! checked against the request.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::Certificate;
use crate::certs::acme::AcmeSession;
use crate::certs::inspect::{CertificateFacts, InspectError};
use crate::config::acme::CertifiedName;

/// Why an issued chain cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssuedError {
    #[error("the chain is not PEM")]
    NotPem,
    #[error("the chain contains a certificate that is not X.509")]
    NotX509,
    #[error("{upper} does not sign {lower} in the chain")]
    Order { upper: String, lower: String },
    #[error("our key is not PEM")]
    KeyNotPem,
    #[error(transparent)]
    Key(#[from] rustls::Error),
    #[error("the certificate is for another key")]
    OtherKey,
    #[error(transparent)]
    Leaf(#[from] InspectError),
    #[error("the certificate lacks {0}")]
    MissingName(String),
}

/// Creates a signing request in DER for these names from a key in PEM. The subject is empty, as CAs
/// decide on it.
pub(super) fn signing_request(key: &str, names: &[CertifiedName]) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        params.subject_alt_names.push(match name.base().ip() {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(name.to_string().try_into()?),
        });
    }
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// The chain whose topmost issuer has this common name, or else the CA's default chain.
pub(super) async fn preferred(
    chain: String,
    session: &AcmeSession,
    wanted: Option<&str>,
) -> String {
    let Some(wanted) = wanted else { return chain };
    if top_issuer(&chain).as_deref() == Some(wanted) {
        return chain;
    }
    let alternates = session.alternates().await;
    match alternates
        .into_iter()
        .find(|other| top_issuer(other).as_deref() == Some(wanted))
    {
        Some(other) => other,
        None => {
            tracing::warn!(
                wanted,
                "CA offers no chain with the preferred issuer, using its default chain"
            );
            chain
        }
    }
}

fn top_issuer(chain: &str) -> Option<String> {
    let last = CertificateDer::pem_slice_iter(chain.as_bytes())
        .filter_map(Result::ok)
        .last()?;
    let (_, certificate) = X509Certificate::from_der(&last).ok()?;
    let name = certificate
        .issuer()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    Some(name)
}

/// Checks that a chain in PEM is in order, for this key, and has all these names. Returns the facts
/// of its leaf.
pub(super) fn check(
    key: &str,
    chain: &str,
    names: &[CertifiedName],
) -> Result<CertificateFacts, IssuedError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain: Vec<CertificateDer<'static>> = parsed.map_err(|_| IssuedError::NotPem)?;
    for pair in chain.windows(2) {
        let [lower, upper] = pair else { continue };
        let read = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
        let (Ok(lower), Ok(upper)) = (read(lower), read(upper)) else {
            return Err(IssuedError::NotX509);
        };
        if lower.issuer().as_raw() != upper.subject().as_raw() {
            return Err(IssuedError::Order {
                upper: upper.subject().to_string(),
                lower: lower.subject().to_string(),
            });
        }
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| IssuedError::KeyNotPem)?;
    let key = any_supported_type(&key)?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|_| IssuedError::OtherKey)?;
    let certificate = Certificate::new(pair)?;
    let covered: Vec<String> = certificate
        .facts
        .names
        .iter()
        .map(ToString::to_string)
        .collect();
    match names
        .iter()
        .find(|name| !covered.contains(&name.to_string()))
    {
        Some(missing) => Err(IssuedError::MissingName(missing.to_string())),
        None => Ok(certificate.facts),
    }
}
