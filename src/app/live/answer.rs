//! What the answers of a registry mean.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::config::upstream::UpstreamAuthorization;

/// What is wrong, and what to do.
pub(super) type CauseAndHelp = (String, String);

/// Whether this is what a registry says to moorgate's first request.
pub(super) fn check_registry(
    status: StatusCode,
    headers: &HeaderMap,
    authorization: &UpstreamAuthorization,
) -> Result<(), CauseAndHelp> {
    let wants_tokens = wants_tokens(headers.get(header::WWW_AUTHENTICATE));
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let (cause, help) = match authorization {
        UpstreamAuthorization::Pass if wants_tokens => (
            "this registry wants tokens, which clients cannot get through moorgate".to_owned(),
            "set `username` and `password` in [upstream], with which moorgate gets them",
        ),
        UpstreamAuthorization::Login(_) if is_refused => (
            format!("this registry refuses moorgate's own login ({status})"),
            "give it the right to use the registry",
        ),
        UpstreamAuthorization::Strip if is_refused => (
            format!("this registry demands a login ({status})"),
            "set `username` and `password` in [upstream], or authorization = \"pass\"",
        ),
        UpstreamAuthorization::Pass if is_refused => return Ok(()),
        _ if status.is_success() => return Ok(()),
        _ => (
            format!("no registry answers there: {status} to a request of /v2/"),
            "name the registry itself, with the path before /v2/ if it has one",
        ),
    };
    Err((cause, help.to_owned()))
}

fn wants_tokens(challenge: Option<&HeaderValue>) -> bool {
    let challenge = challenge.and_then(|value| value.to_str().ok());
    challenge.is_some_and(|text| text.to_ascii_lowercase().starts_with("bearer"))
}

/// Whether a status means that the registry does not know the call.
pub(super) fn is_without_route(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

/// The strings of a list in a document.
pub(super) fn strings(body: &[u8], key: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let list = document.get(key).and_then(|list| list.as_array());
    let texts = list.into_iter().flatten().filter_map(|text| text.as_str());
    texts.map(str::to_owned).collect()
}

/// The message of a registry's error.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = document.pointer("/errors/0/message")?.as_str()?;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    Some(plain.take(MAX_MESSAGE_LENGTH).collect())
}

pub(super) const CORRECT: &str = "correct it and check again";
pub(super) const SEE_LOG: &str = "see its log, or correct the URL";
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_MESSAGE_LENGTH: usize = 300;
