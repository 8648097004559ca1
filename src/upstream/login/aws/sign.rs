//! Signature version 4 of AWS ("AWS Signature Version 4 for API requests"), for requests without a
//! query.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::crypto::{hex, sha256_hex};

/// Keys that sign requests to AWS.
pub(super) struct SigningKeys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: SecretString,
    /// Of temporary keys.
    pub(super) session_token: Option<SecretString>,
}

/// A request that is to be signed.
pub(super) struct UnsignedRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// All headers that are signed, with `host` and `x-amz-date`: names in lower case and in order.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Where a signature counts.
pub(super) struct SigningScope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// The value of `x-amz-date`.
pub(super) fn date(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl SigningKeys {
    /// The value of `Authorization`. `date`: that of `x-amz-date`.
    pub(super) fn authorization(
        &self,
        request: &UnsignedRequest<'_>,
        scope: &SigningScope<'_>,
        date: &str,
    ) -> String {
        let UnsignedRequest {
            method,
            path,
            headers,
            body,
        } = request;
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let body = sha256_hex(body);
        let canonical =
            sha256_hex(format!("{method}\n{path}\n\n{lines}\n{names}\n{body}").as_bytes());
        let SigningScope { region, service } = scope;
        let day = date.split('T').next().unwrap_or_default();
        let credential = format!("{day}/{region}/{service}/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{credential}\n{canonical}");
        let signature = hex(self.key(day, scope, &text).as_ref());
        let id = &self.access_key_id;
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/{credential}, SignedHeaders={names}, Signature={signature}"
        )
    }

    /// The signature of a text by the key that is derived for a day and a scope.
    fn key(&self, day: &str, scope: &SigningScope<'_>, text: &str) -> hmac::Tag {
        let sign = |key: &[u8], data: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
        };
        let first = format!("AWS4{}", self.secret_access_key.expose_secret());
        let parts = [scope.region, scope.service, "aws4_request", text];
        let of_day = sign(first.as_bytes(), day);
        parts
            .iter()
            .fold(of_day, |key, part| sign(key.as_ref(), part))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys() -> SigningKeys {
        SigningKeys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        }
    }

    const DATE: &str = "20150830T123600Z";

    fn signature(request: &UnsignedRequest<'_>, scope: &SigningScope<'_>) -> (String, String) {
        let text = keys().authorization(request, scope, DATE);
        let (head, signature) = text.split_once(", Signature=").expect("a signature");
        let (_, names) = head.split_once("SignedHeaders=").expect("names");
        (names.to_owned(), signature.to_owned())
    }

    /// Vectors of the test suite that AWS publishes for signature version 4.
    #[test]
    fn published_vectors_are_signed_as_published() {
        let scope = SigningScope {
            region: "us-east-1",
            service: "service",
        };
        let plain: &[_] = &[("host", "example.amazonaws.com"), ("x-amz-date", DATE)];
        let form: &[_] = &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-date", DATE),
        ];
        for (name, method, headers, body, expected) in [
            (
                "get-vanilla",
                "GET",
                plain,
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                "POST",
                plain,
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                form,
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let request = UnsignedRequest {
                method,
                path: "/",
                headers,
                body: body.as_bytes(),
            };
            let (names, found) = signature(&request, &scope);
            assert_eq!(found, expected, "{name}");
            assert!(names.ends_with("host;x-amz-date"), "{names}");
        }
    }

    #[test]
    fn a_request_for_the_password_of_ecr_is_signed() {
        let scope = SigningScope {
            region: "eu-central-1",
            service: "ecr",
        };
        let request = UnsignedRequest {
            method: "POST",
            path: "/",
            headers: &[
                ("content-type", "application/x-amz-json-1.1"),
                ("host", "api.ecr.eu-central-1.amazonaws.com"),
                ("x-amz-date", DATE),
                ("x-amz-security-token", "session"),
                (
                    "x-amz-target",
                    "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
                ),
            ],
            body: b"{}",
        };
        let (names, found) = signature(&request, &scope);
        assert_eq!(
            names,
            "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
        );
        // Computed apart, by Python's hmac and hashlib.
        assert_eq!(
            found,
            "704ff448a0c58f0fb96c862b54d09f92e50f9ddbe6fad1c2da34c0e9575c883f"
        );
    }

    #[test]
    fn the_date_has_the_form_of_the_specification() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        assert_eq!(date(time), DATE);
    }
}
