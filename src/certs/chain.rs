//! Checks that each certificate of a chain is issued by the one that follows it (RFC 8555 §9.1), so
//! that a client that knows the last one's issuer can verify the first.

use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::inspect::{Rfc3339, system_time};
use crate::certs::roots;

/// Why clients cannot follow a chain to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainDefect {
    #[error("certificate {0} of the chain is not valid X.509")]
    NotX509(usize),
    #[error("{upper} does not sign {lower} in the chain: its issuer is {issuer}")]
    Order {
        lower: String,
        issuer: String,
        upper: String,
    },
    #[error("{upper} has not signed {lower}, though it has the name of its issuer")]
    Signature { lower: String, upper: String },
    #[error("{issuer}, which has issued the certificate, expired on {}", Rfc3339(*at))]
    IssuerExpired { issuer: String, at: SystemTime },
}

/// Checks a chain, leaf first. A chain of one certificate has no defect: its issuer may be a root
/// that clients have.
pub(crate) fn check(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), ChainDefect> {
    let mut parsed = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        let read = X509Certificate::from_der(der);
        let (_, certificate) = read.map_err(|_| ChainDefect::NotX509(index + 1))?;
        parsed.push(certificate);
    }
    for pair in parsed.windows(2) {
        if let [lower, upper] = pair {
            check_pair(lower, upper)?;
        }
    }
    // Of those above, clients may have another certificate with the same key, as after the end of
    // a cross-signed root.
    let Some(issuer) = parsed.get(1) else {
        return Ok(());
    };
    match system_time(issuer.validity().not_after) {
        Ok(at) if at <= now => Err(ChainDefect::IssuerExpired {
            issuer: issuer.subject().to_string(),
            at,
        }),
        _ => Ok(()),
    }
}

/// The issuer of a certificate that comes without its chain: it did not sign itself, and no root of
/// this system did.
pub(crate) fn absent_issuer(chain: &[CertificateDer<'_>]) -> Option<String> {
    let [leaf] = chain else {
        return None;
    };
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let issuer = leaf.issuer();
    let roots = roots::of_system().map(|store| store.roots);
    // A trust anchor has the content of the name, without its DER header.
    let is_root = roots.is_ok_and(|roots| {
        let mut subjects = roots.iter().map(|root| root.subject.as_ref());
        subjects.any(|subject| issuer.as_raw().ends_with(subject))
    });
    (issuer.as_raw() != leaf.subject().as_raw() && !is_root).then(|| issuer.to_string())
}

fn check_pair(lower: &X509Certificate<'_>, upper: &X509Certificate<'_>) -> Result<(), ChainDefect> {
    if lower.issuer().as_raw() != upper.subject().as_raw() {
        return Err(ChainDefect::Order {
            lower: subject(lower),
            issuer: lower.issuer().to_string(),
            upper: subject(upper),
        });
    }
    if is_signed(lower, upper) == Some(false) {
        return Err(ChainDefect::Signature {
            lower: subject(lower),
            upper: subject(upper),
        });
    }
    Ok(())
}

/// Whether the key of one certificate has signed the other; `None`: by an algorithm that is not
/// known here, which says nothing about what clients know.
fn is_signed(lower: &X509Certificate<'_>, upper: &X509Certificate<'_>) -> Option<bool> {
    let key = upper.public_key();
    let signature_prefix = oid_der(lower.signature_algorithm.algorithm.as_bytes());
    let key_prefix = oid_der(key.algorithm.algorithm.as_bytes());
    let algorithms = default_provider().signature_verification_algorithms.all;
    // The parameters of the algorithms are left out of the comparison: with wrong ones, the
    // signature is not verified.
    let known = algorithms.iter().filter(|algorithm| {
        let (signature, key) = (algorithm.signature_alg_id(), algorithm.public_key_alg_id());
        signature.starts_with(&signature_prefix) && key.starts_with(&key_prefix)
    });
    let mut known = known.peekable();
    known.peek()?;
    Some(known.any(|algorithm| {
        let verified = algorithm.verify_signature(
            &key.subject_public_key.data,
            lower.tbs_certificate.as_ref(),
            &lower.signature_value.data,
        );
        verified.is_ok()
    }))
}

/// An object identifier in DER: those of algorithms are shorter than 128 bytes.
fn oid_der(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[0x06, length], content].concat()
}

/// The subject, or the names of a leaf without one.
fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    if !subject.is_empty() {
        return subject;
    }
    "the certificate".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// A CA with a new key, valid until `end`.
    fn ca(name: &str, end: SystemTime) -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("made");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = end.into();
        let certificate = params.self_signed(&key).expect("signed").into();
        (Issuer::new(params, key), certificate)
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("made");
        let mut params = CertificateParams::new(vec!["a.example.com".to_owned()]).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.signed_by(&key, issuer).expect("signed").into()
    }

    #[test]
    fn each_certificate_is_issued_by_the_next() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let later = now + Duration::from_secs(1000);
        let (issuer, certificate) = ca("One", later);
        let (_, namesake) = ca("One", later);
        let (_, other) = ca("Other", later);
        let leaf = leaf(&issuer);
        let found = |chain: &[&CertificateDer<'static>], now| {
            let chain: Vec<_> = chain.iter().map(|one| (*one).clone()).collect();
            check(&chain, now).err().map(|defect| defect.to_string())
        };
        assert_eq!(found(&[&leaf, &certificate], now), None);
        assert_eq!(found(&[&leaf], now), None);
        assert_eq!(found(&[&leaf, &certificate, &certificate], now), None);
        let broken = CertificateDer::from(&b"no"[..]);
        let defects = [
            found(&[&leaf, &other], now),
            found(&[&leaf, &namesake], now),
            found(&[&leaf, &certificate, &other], now),
            found(&[&leaf, &broken], now),
            found(&[&leaf, &certificate], later),
        ];
        let defects = defects.map(|defect| defect.expect("a defect")).join("\n");
        insta::assert_snapshot!(defects, @r"
        CN=Other does not sign the certificate in the chain: its issuer is CN=One
        CN=One has not signed the certificate, though it has the name of its issuer
        CN=Other does not sign CN=One in the chain: its issuer is CN=One
        certificate 2 of the chain is not valid X.509
        CN=One, which has issued the certificate, expired on 2033-05-18T03:50:00Z
        ");
    }
}
