//! Answers of the player, and the errors of the distribution specification.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::Refused;

/// An answer to be sent.
#[derive(Clone, Debug)]
pub struct PlayedAnswer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl PlayedAnswer {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With another value of a header that it has.
    pub fn replaced(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(own, _)| *own != name);
        self.header(name, value)
    }

    pub fn body(mut self, kind: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", kind)
    }

    pub fn json(status: u16, document: &Value) -> Self {
        Self::new(status).body(JSON, document.to_string())
    }

    /// An error of the distribution specification.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = json!({"code": code, "message": message});
        Self::json(status, &json!({ "errors": [error] }))
    }

    /// The same with a detail.
    pub fn error_about(status: u16, code: &str, message: &str, detail: &Value) -> Self {
        let error = json!({"code": code, "message": message, "detail": detail});
        Self::json(status, &json!({ "errors": [error] }))
    }

    /// A refusal in a product's own words.
    pub fn refused(refused: Refused, name: &str, tag: &str) -> Self {
        let message = refused
            .message
            .replace("{name}", name)
            .replace("{tag}", tag);
        Self::error(refused.status, refused.code, &message)
    }

    /// Where nothing is, as Go's servers say it.
    pub fn no_page() -> Self {
        Self::new(404)
            .body("text/plain; charset=utf-8", "404 page not found\n")
            .header("x-content-type-options", "nosniff")
    }

    /// As an answer of hyper. One to `HEAD` has the length of what `GET` would bring.
    pub fn into_response(self, is_head: bool) -> Response<Full<Bytes>> {
        let mut builder = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            builder = builder.header(*name, value.as_str());
        }
        let has_no_length = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED]
            .iter()
            .any(|status| *status == self.status);
        if !has_no_length {
            builder = builder.header("content-length", self.body.len());
        }
        let body = if is_head { Bytes::new() } else { self.body };
        builder.body(Full::new(body)).unwrap()
    }
}

pub const JSON: &str = "application/json; charset=utf-8";
