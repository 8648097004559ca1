//! Converts the private key of an account from the formats of other tools to PKCS#8 in PEM.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivateSec1KeyDer};
use serde_json::Value;

/// Why the key of an account cannot be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// moorgate signs only with ECDSA P-256. CAs do not object to a new account.
    #[error("its key is no ECDSA P-256 key, so that a new account will be made")]
    Kind,
    /// The key cannot be parsed.
    #[error("its key is damaged or behind a passphrase")]
    Damaged,
}

/// Converts PEM: PKCS#8, SEC1 or PKCS#1.
pub(super) fn from_pem(pem: &[u8]) -> Result<String, KeyFault> {
    from_der(&PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyFault::Damaged)?)
}

/// Converts base64 of DER without the lines of PEM, the format of Traefik.
pub(super) fn from_base64(text: &str) -> Result<String, KeyFault> {
    let der = BASE64_STANDARD
        .decode(text.trim())
        .map_err(|_| KeyFault::Damaged)?;
    from_der(&PrivateSec1KeyDer::from(der.clone()).into())
        .or_else(|_| from_der(&PrivatePkcs1KeyDer::from(der).into()))
}

/// Converts a JSON Web Key (RFC 7517), the format of certbot.
pub(super) fn from_jwk(key: &Value) -> Result<String, KeyFault> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    match (text("kty"), text("crv")) {
        (Some("EC"), Some("P-256")) => {}
        (Some(_), _) => return Err(KeyFault::Kind),
        (None, _) => return Err(KeyFault::Damaged),
    }
    let number = |name| -> Result<Vec<u8>, KeyFault> {
        let text = text(name).ok_or(KeyFault::Damaged)?;
        BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| KeyFault::Damaged)
    };
    // The uncompressed point of SEC 1 §2.3.3.
    let point = [vec![4], number("x")?, number("y")?].concat();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &number("d")?, &point);
    pkcs8(&pair.map_err(|_| KeyFault::Damaged)?)
}

fn from_der(key: &PrivateKeyDer<'_>) -> Result<String, KeyFault> {
    // Accepts PKCS#8 and SEC1; rejects everything that is no P-256 key.
    let pair =
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der());
    pkcs8(&pair.map_err(|_| KeyFault::Kind)?)
}

fn pkcs8(pair: &EcdsaKeyPair) -> Result<String, KeyFault> {
    let der = pair.to_pkcs8v1().map_err(|_| KeyFault::Damaged)?;
    Ok(pem("PRIVATE KEY", der.as_ref()))
}

/// Encodes a section of PEM (RFC 7468 §3) in lines of 64 characters.
pub(super) fn pem(section: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {section}-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str(&format!("\n-----END {section}-----\n"));
    out
}
