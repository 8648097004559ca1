//! Answers about a repository that the asker may not see: what the registry says of one that does not
//! exist, in its own words, with the name that was asked for.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Limited};

use super::authorize::Terms;
use super::body::ResponseBody;
use super::reject::Rejection;
use super::route::Route;
use crate::registry::call::{Call, Read};

/// The longest answer about something that is not there.
const MOST: usize = 64 * 1024;

/// Puts the name that was asked for in place of the one that the registry was asked about.
pub(crate) async fn restore(
    route: &Route,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let (Terms::Hidden(asked), Some(call)) = (route.terms(), route.call()) else { return Ok(response) };
    let Some(stand_in) = call.repository() else { return Ok(response) };
    let (stand_in, asked) = (stand_in.as_str(), asked.as_str());
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, MOST).collect().await;
    let body = collected.map_err(|_| Rejection::upstream_does_not_tell())?.to_bytes();
    let body = match std::str::from_utf8(&body) {
        Ok(text) => Bytes::from(text.replace(stand_in, asked)),
        Err(_) => body,
    };
    for value in parts.headers.values_mut() {
        let Some(text) = value.to_str().ok().filter(|text| text.contains(stand_in)) else { continue };
        if let Ok(restored) = HeaderValue::try_from(text.replace(stand_in, asked)) {
            *value = restored;
        }
    }
    let is_head =
        matches!(call, Call::ManifestRead { read: Read::Head, .. } | Call::BlobRead { read: Read::Head, .. });
    let body = ResponseBody::own(body, is_head);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.own_length()));
    Ok(Response::from_parts(parts, body))
}
