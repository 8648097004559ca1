//! The signing request to a CA, and the chain that it has issued: chosen among the alternates, and
//! checked against the request and the time.

use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::Certificate;
use crate::certs::acme::AcmeSession;
use crate::certs::chain::{self, ChainDefect};
use crate::certs::inspect::{CertificateFacts, Rfc3339};
use crate::certs::orders::clock::ClockReading;
use crate::certs::renewal::{Seed, Validity, renewal};
use crate::config::acme::CertifiedName;

/// A certificate as a CA has issued it.
pub(super) struct IssuedCertificate {
    pub(super) facts: CertificateFacts,
    /// Why it is not as it should be, if it is not.
    pub(super) defect: Option<IssuedDefect>,
}

/// Why what a CA sent in place of a certificate cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssuedError {
    #[error("it contains no certificate in PEM")]
    NoCertificate,
    #[error("its PEM is damaged")]
    NotPem,
    #[error("its first certificate is not valid X.509")]
    NotX509,
    #[error("the certificate is for another key than the order's")]
    OtherKey,
    #[error("the stored key of the order is damaged")]
    DamagedKey,
}

/// Why a certificate for the right key is not put in force in place of a good one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IssuedDefect {
    #[error("it is not valid before {}", Rfc3339(*.0))]
    NotYetValid(SystemTime),
    #[error("it ended on {}", Rfc3339(*.0))]
    Expired(SystemTime),
    #[error("it lacks the name {0}")]
    MissingName(String),
    #[error(transparent)]
    Chain(#[from] ChainDefect),
    /// It would be ordered again and again.
    #[error("it ends on {}, so that its renewal is due already", Rfc3339(*.0))]
    RenewalDue(SystemTime),
}

impl IssuedCertificate {
    /// Whether serving it is better than serving what is there. A certificate with a defect is where
    /// nothing valid is there, and it is valid itself: by one of the clocks, as clients need not share
    /// a wrong one. One that is to be renewed at once is if it ends later.
    pub(super) fn is_better_than(
        &self,
        served: Option<&CertificateFacts>,
        now: ClockReading,
    ) -> bool {
        let Some(defect) = &self.defect else {
            return true;
        };
        let valid = |facts: &&CertificateFacts| facts.is_valid(now.ours);
        let Some(served) = served.filter(valid) else {
            let times = [Some(now.ours), now.of_the_ca].into_iter().flatten();
            return times.into_iter().any(|at| self.facts.is_valid(at));
        };
        matches!(defect, IssuedDefect::RenewalDue(_)) && served.not_after < self.facts.not_after
    }
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

/// Reads a chain in PEM, and finds what is wrong with it for this key and these names.
pub(super) fn examine(
    key: &str,
    chain: &str,
    names: &[CertifiedName],
    now: SystemTime,
) -> Result<IssuedCertificate, IssuedError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain: Vec<CertificateDer<'static>> = parsed.map_err(|_| IssuedError::NotPem)?;
    if chain.is_empty() {
        return Err(IssuedError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| IssuedError::DamagedKey)?;
    let key = any_supported_type(&key).map_err(|_| IssuedError::DamagedKey)?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(IssuedError::OtherKey),
        Err(_) => return Err(IssuedError::NotX509),
    }
    let certificate = Certificate::new(pair).map_err(|_| IssuedError::NotX509)?;
    let defect = defect(&certificate, names, now).err();
    Ok(IssuedCertificate {
        facts: certificate.facts,
        defect,
    })
}

fn defect(
    certificate: &Certificate,
    names: &[CertifiedName],
    now: SystemTime,
) -> Result<(), IssuedDefect> {
    let facts = &certificate.facts;
    if facts.not_after <= now {
        return Err(IssuedDefect::Expired(facts.not_after));
    }
    let covered: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
    let missing = names
        .iter()
        .map(ToString::to_string)
        .find(|name| !covered.contains(name));
    if let Some(missing) = missing {
        return Err(IssuedDefect::MissingName(missing));
    }
    chain::check(&certificate.key.cert, now)?;
    // Last of those that do not pass by themselves.
    if now < facts.not_before {
        return Err(IssuedDefect::NotYetValid(facts.not_before));
    }
    let life = Validity {
        not_before: facts.not_before,
        not_after: facts.not_after,
    };
    if renewal(life, None, Seed::of(&facts.serial)).at <= now {
        return Err(IssuedDefect::RenewalDue(facts.not_after));
    }
    Ok(())
}
