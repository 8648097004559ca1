//! Turns rejections into responses, and builds small JSON responses.

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body;

use super::body::ResponseBody;
use super::conn_info::{ConnInfo, Protocol};
use super::headers::API_VERSION;
use super::record::RequestRecord;
use super::rejection::{Extra, Rejection, UploadProgress};
use crate::registry::call::{Read, is_api};
use crate::registry::error_code::{error_body, token_error_body};

/// The facts of a request that decide the form of an error response. Copied from the request before
/// the steps consume it.
#[derive(Clone, Debug)]
pub(crate) struct ResponseFormat {
    method: Method,
    /// Whether registry clients read the response, and not people.
    api: bool,
    /// HTTP/2 resets only the stream; an HTTP/1.1 connection with an unread body must be closed.
    http1: bool,
    has_body: bool,
    /// The number of open requests of the connection, including this one.
    open_requests: u32,
}

/// The number of unread error responses with a body on one connection. Unauthenticated clients that
/// read none get only headers beyond it, which flow control does not hold back in memory.
const MAX_REFUSALS_WITH_BODY: u32 = 16;

impl ResponseFormat {
    pub(crate) fn from_request(
        conn: &ConnInfo,
        request: &Request<impl Body>,
        open_requests: u32,
    ) -> Self {
        Self {
            method: request.method().clone(),
            api: is_api(request.uri().path()),
            http1: conn.protocol == Protocol::Http1,
            has_body: !request.body().is_end_stream(),
            open_requests,
        }
    }

    /// The response to a rejected request. Logs errors of upstreams and stores.
    pub(crate) fn refuse(
        &self,
        mut rejection: Rejection,
        record: &mut RequestRecord,
    ) -> Response<ResponseBody> {
        record.rejected(rejection.take_refusal());
        rejection.log(record.domain());
        let headers_only =
            self.open_requests > MAX_REFUSALS_WITH_BODY && record.is_unauthenticated();
        self.response(rejection, headers_only)
    }

    fn response(&self, rejection: Rejection, headers_only: bool) -> Response<ResponseBody> {
        let close = self.http1 && rejection.closes_connection(self.has_body);
        let (kind, text) = if headers_only {
            ("text/plain", String::new())
        } else {
            content(&rejection, self.api)
        };
        let mut response = Response::new(ResponseBody::own(text, self.method == Method::HEAD));
        *response.status_mut() = rejection.status.into();
        let length = response.body().own_length();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if self.api {
            headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let (name, value) = match rejection.extra {
            Extra::None | Extra::BearerError(_) => return response,
            Extra::Challenge(value) => (header::WWW_AUTHENTICATE, value),
            Extra::Allow(methods) => (header::ALLOW, HeaderValue::from_static(methods)),
            Extra::RetryAfter(seconds) => (header::RETRY_AFTER, HeaderValue::from(seconds)),
            Extra::UploadProgress(progress) => {
                let UploadProgress { location, range } = *progress;
                headers.insert(header::LOCATION, location);
                (header::RANGE, range)
            }
            Extra::ContentRange(value) => (header::CONTENT_RANGE, value),
        };
        headers.insert(name, value);
        response
    }
}

/// A response of moorgate itself without a body.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own("", false));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// A small response of this media type.
pub(crate) fn json(bytes: Vec<u8>, media_type: &str, read: Read) -> Response<ResponseBody> {
    let length = bytes.len();
    let mut response = Response::new(ResponseBody::own(bytes, read == Read::Head));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    // Clients choose media types of manifests: one that is no header value is replaced.
    let media_type = HeaderValue::try_from(media_type);
    headers.insert(
        header::CONTENT_TYPE,
        media_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    response
}

/// The media type and the text of an error response.
fn content(rejection: &Rejection, api: bool) -> (&'static str, String) {
    const JSON: &str = "application/json";
    let message = &rejection.message;
    match rejection.oauth {
        Some(error) => (
            JSON,
            token_error_body(error.as_str(), rejection.code, message),
        ),
        None if api => (JSON, error_body(rejection.code, message, None)),
        None => (
            "text/html; charset=utf-8",
            page(rejection.status.into(), message),
        ),
    }
}

/// An HTML page.
fn page(status: StatusCode, message: &str) -> String {
    let title = status.canonical_reason().unwrap_or("Error");
    let message = escape_html(message);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1><p>{message}</p></body></html>\n"
    )
}

/// Escapes text for HTML content and quoted attributes.
fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_escapes_the_message() {
        let page = page(StatusCode::FORBIDDEN, "a<script>&\"b\"'c'</script>");
        assert!(
            page.contains("<p>a&lt;script&gt;&amp;&quot;b&quot;&#39;c&#39;&lt;/script&gt;</p>"),
            "{page}"
        );
    }
}
