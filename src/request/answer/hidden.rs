//! Answers about a repository that the asker may not see: what the registry says of one that does
//! not exist, in its own words, with the name that was asked for.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, Limited};

use crate::registry::call::{Read, RepositoryCall};
use crate::request::body::ResponseBody;
use crate::request::obligations::Obligations;
use crate::request::rejection::Rejection;
use crate::request::route::Route;

/// The longest answer about something that is not there.
const MOST: usize = 64 * 1024;

/// What would make an answer something else than its words as they are.
const NOT_FOR_WORDS: [header::HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// Makes a request one for the words of the answer, which are needed to put the right name into
/// them: also of HEAD, whose answer tells their length.
pub(crate) fn ask_for_words(parts: &mut Parts) {
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    for name in NOT_FOR_WORDS {
        parts.headers.remove(name);
    }
    parts.headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
}

/// Puts the name that was asked for in place of the one that the registry was asked about.
pub(crate) async fn restore(
    route: &Route,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let (Obligations::Hidden(asked), Some(call)) = (route.obligations(), route.call()) else {
        return Ok(response);
    };
    let Some(stand_in) = call.repository() else {
        return Ok(response);
    };
    let (stand_in, asked) = (stand_in.as_str(), asked.as_str());
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Rejection::upstream_does_not_tell());
    }
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, MOST).collect().await;
    let body = collected
        .map_err(|_| Rejection::upstream_does_not_tell())?
        .to_bytes();
    let body = match std::str::from_utf8(&body) {
        Ok(text) => Bytes::from(text.replace(stand_in, asked)),
        Err(_) => body,
    };
    for value in parts.headers.values_mut() {
        let Some(text) = value.to_str().ok().filter(|text| text.contains(stand_in)) else {
            continue;
        };
        if let Ok(restored) = HeaderValue::try_from(text.replace(stand_in, asked)) {
            *value = restored;
        }
    }
    let read = call.operation().and_then(RepositoryCall::content_read);
    let is_head = read == Some(Read::Head);
    let body = ResponseBody::own(body, is_head);
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.own_length()));
    Ok(Response::from_parts(parts, body))
}
