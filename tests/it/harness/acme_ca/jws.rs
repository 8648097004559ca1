//! What moorgate signs (RFC 8555 §6.2): each signature, nonce and URL is verified.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as B64, Engine};
use serde_json::Value;

use super::work::problem;
use super::{Answer, Shared};

impl Shared {
    /// The payload, and the account that signed it.
    pub(super) fn verified(&self, path: &str, body: &[u8]) -> Result<(Value, String), Box<Answer>> {
        let jws: Value = serde_json::from_slice(body).expect("a JWS");
        let part = |name: &str| B64.decode(jws[name].as_str().unwrap()).expect("base64url");
        let protected: Value = serde_json::from_slice(&part("protected")).unwrap();
        assert_eq!(protected["alg"], "ES256");
        assert_eq!(
            protected["url"],
            format!("{}{path}", self.url),
            "signed for another URL"
        );
        let mut state = self.state.lock().unwrap();
        if !state.nonces.remove(protected["nonce"].as_str().unwrap()) {
            return Err(Box::new(problem("badNonce", 400)));
        }
        let account = protected["kid"].as_str().unwrap_or_default().to_owned();
        let key = match &protected["jwk"] {
            Value::Null => match state.accounts.get(&account) {
                Some(key) => key.clone(),
                None => return Err(Box::new(problem("accountDoesNotExist", 400))),
            },
            jwk => {
                let half = |name: &str| B64.decode(jwk[name].as_str().unwrap()).unwrap();
                [vec![4], half("x"), half("y")].concat()
            }
        };
        let signed = format!(
            "{}.{}",
            jws["protected"].as_str().unwrap(),
            jws["payload"].as_str().unwrap()
        );
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key);
        public
            .verify(signed.as_bytes(), &part("signature"))
            .expect("the signature holds");
        let payload = part("payload");
        let payload = if payload.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&payload).unwrap()
        };
        if protected["kid"].is_null() {
            let url = format!("{}/account/{}", self.url, state.accounts.len());
            state.accounts.insert(url.clone(), key);
            return Ok((payload, url));
        }
        Ok((payload, account))
    }
}
