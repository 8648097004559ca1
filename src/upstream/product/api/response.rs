//! A response of a product's own API, and what it says beside its status.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use crate::registry::challenge::challenges;
use crate::registry::link::links;

/// A response of an API.
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ApiResponse {
    /// The seconds to wait, if the API takes no more requests for now; the inner value is `None`
    /// where it does not say how long.
    pub(super) fn throttled(&self) -> Option<Option<u16>> {
        let number = |name: &str| {
            let value = self.headers.get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let seconds = |seconds: u64| u16::try_from(seconds).unwrap_or(u16::MAX);
        let until = |moment: u64| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            seconds(moment.saturating_sub(now.unwrap_or_default().as_secs()))
        };
        let retry_after = number("retry-after").map(seconds);
        let is_spent = number("x-ratelimit-remaining") == Some(0);
        let is_named = || {
            let name = self.error_type();
            name.is_some_and(|name| THROTTLING_TYPES.contains(&&*name))
        };
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {}
            // GitHub's limits, beside its refusals.
            StatusCode::FORBIDDEN if is_spent || retry_after.is_some() => {}
            StatusCode::BAD_REQUEST if is_named() => {}
            _ => return None,
        }
        let reset = ["x-retry-after", "x-ratelimit-reset"];
        let reset = reset.iter().find_map(|name| number(name)).map(until);
        Some(retry_after.or(reset))
    }

    /// Whether the API does not accept the credentials.
    pub(super) fn refuses_credentials(&self) -> bool {
        let is_named = || {
            let name = self.error_type();
            name.is_some_and(|name| CREDENTIAL_TYPES.contains(&&*name))
        };
        match self.status {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => is_named(),
            _ => false,
        }
    }

    /// Whether it accepts them, but not for this (RFC 6750 §3.1).
    pub(super) fn lacks_right(&self) -> bool {
        let values = self.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        values
            .flat_map(challenges)
            .any(|challenge| challenge.parameter("error") == Some("insufficient_scope"))
    }

    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body).map_err(|_| ApiError::Invalid)
    }

    /// Whether a `Link` leads to a next page.
    pub(crate) fn has_next(&self) -> bool {
        let values = self.headers.get_all(header::LINK).iter();
        let mut links = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(links)
            .flatten();
        links.any(|link| link.has_relation("next"))
    }

    /// The document of a list. Errors: the API refuses it.
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.status != StatusCode::OK {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).map_err(|_| ApiError::Invalid)
    }

    /// The type of an error of AWS, without what stands around it.
    pub(crate) fn error_type(&self) -> Option<String> {
        let named = self.headers.get("x-amzn-errortype");
        let named = named.and_then(|named| Some(named.to_str().ok()?.to_owned()));
        let written = || {
            let document: Value = serde_json::from_slice(&self.body).ok()?;
            Some(document.get("__type")?.as_str()?.to_owned())
        };
        let name = named.or_else(written)?;
        let name = name.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    /// What the API says of a status that the dialect does not expect: not there, not allowed, or
    /// anything else.
    pub(crate) fn refusal(&self) -> ApiError {
        let message = self.message();
        match self.status {
            StatusCode::NOT_FOUND => ApiError::NotFound,
            StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED => ApiError::Denied(message),
            status => ApiError::Unexpected { status, message },
        }
    }

    /// The message of its error, wherever the product puts it.
    pub(crate) fn message(&self) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let places = [
            "/errors/0/message",
            "/message",
            "/Message",
            "/detail",
            "/error/message",
            "/error",
        ];
        let text = places
            .iter()
            .find_map(|place| document.pointer(place)?.as_str())
            .unwrap_or("it does not say why");
        readable(text)
    }
}

/// A foreign text, short and without what a terminal or a log would act on.
pub(crate) fn readable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_MESSAGE_LENGTH).collect()
}

const MAX_MESSAGE_LENGTH: usize = 500;

/// The types of AWS's errors that say that a caller asks too often.
const THROTTLING_TYPES: [&str; 4] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
];
/// Those that say that the keys or the signature are not accepted.
const CREDENTIAL_TYPES: [&str; 7] = [
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, header: Option<(&'static str, &str)>, body: &str) -> ApiResponse {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().expect("a value"));
        }
        ApiResponse {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn the_type_of_an_error_of_aws_is_read_in_all_its_forms() {
        let header = |value| Some(("x-amzn-errortype", value));
        for (header, body) in [
            (None, r#"{"__type":"ServerException","message":"m"}"#),
            (None, r#"{"__type":"com.amazonaws.ecr#ServerException"}"#),
            (header("ServerException:http://internal.amazon.com/"), ""),
            (header("ServerException:"), "{}"),
            (header("com.amazonaws.ecr#ServerException"), "<html>"),
        ] {
            let found = response(400, header, body).error_type();
            assert_eq!(
                found.as_deref(),
                Some("ServerException"),
                "{header:?} {body}"
            );
        }
        for body in ["", "[]", "{}", r#"{"__type":5}"#, r#"{"__type":""}"#] {
            assert_eq!(response(400, None, body).error_type(), None, "{body}");
        }
    }

    #[test]
    fn throttling_and_refused_credentials_are_told_from_other_refusals() {
        let typed = |name: &str| {
            let response = response(400, None, &format!(r#"{{"__type":"{name}"}}"#));
            (
                response.throttled().is_some(),
                response.refuses_credentials(),
            )
        };
        assert_eq!(typed("ThrottlingException"), (true, false));
        assert_eq!(typed("UnrecognizedClientException"), (false, true));
        assert_eq!(typed("AccessDeniedException"), (false, false));
        assert!(response(401, None, "").refuses_credentials());
        assert!(!response(403, None, "").refuses_credentials());
    }
}
