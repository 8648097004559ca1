//! What is asked of a CA and what it has sent: the signing request, the chain that is wanted, and
//! whether it is what was asked for.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::Certificate;
use crate::certs::acme::Session;
use crate::certs::inspect::CertificateFacts;
use crate::config::acme::CertifiedName;

/// A signing request in DER for these names, with a key in PEM. The subject is empty: the CA
/// decides.
pub(crate) fn signing_request(key: &str, names: &[CertifiedName]) -> Result<Vec<u8>, String> {
    let make = || {
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
    };
    make().map_err(|error: rcgen::Error| format!("the signing request cannot be made: {error}"))
}

/// The chain whose topmost issuer has the wanted name, or else the CA's own choice.
pub(crate) async fn preferred(chain: String, session: &Session, wanted: Option<&str>) -> String {
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
                "the CA offers no chain below this issuer, its own choice is used"
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

/// What the leaf of a chain says that can be served: in order, for this key, and with all names
/// that were asked for.
pub(crate) fn check(
    key: &str,
    chain: &str,
    names: &[CertifiedName],
) -> Result<CertificateFacts, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain: Vec<CertificateDer<'static>> = parsed.map_err(|_| "the chain is not PEM")?;
    for pair in chain.windows(2) {
        let [lower, upper] = pair else { continue };
        let read = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
        let (Ok(lower), Ok(upper)) = (read(lower), read(upper)) else {
            return Err("the chain holds what is not X.509".to_owned());
        };
        if lower.issuer().as_raw() != upper.subject().as_raw() {
            return Err(format!(
                "{} does not sign {} in the chain",
                upper.subject(),
                lower.subject()
            ));
        }
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "our key is not PEM")?;
    let key = any_supported_type(&key).map_err(|error| error.to_string())?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match()
        .map_err(|_| "the certificate is for another key")?;
    let certificate = Certificate::new(pair).map_err(|error| error.to_string())?;
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
        Some(missing) => Err(format!("the certificate lacks {missing}")),
        None => Ok(certificate.facts),
    }
}
