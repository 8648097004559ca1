//! Requests as the player reads them, and as it records them.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

/// The server that a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    Registry,
    Api,
    Storage,
}

impl Recipient {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Api => "api",
            Self::Storage => "storage",
        }
    }
}

/// A request, whole.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    pub to: Recipient,
    pub method: Method,
    /// Path and query, byte by byte.
    pub target: String,
    /// With the credentials.
    pub headers: HeaderMap,
    /// Of a request to the registry, only that of a manifest or of a token request is recorded.
    pub body: Bytes,
    /// How long the body was.
    pub length: usize,
}

impl RecordedRequest {
    pub fn new(to: Recipient, parts: Parts, body: Bytes) -> Self {
        let target = parts.uri.path_and_query();
        Self {
            to,
            method: parts.method,
            target: target.map(|target| target.as_str().to_owned()).unwrap(),
            headers: parts.headers,
            length: body.len(),
            body,
        }
    }

    /// Without the body of a blob.
    pub fn to_record(&self) -> Self {
        let is_blob = self.to == Recipient::Registry && self.path().contains("/blobs/");
        let mut recorded = self.clone();
        if is_blob {
            recorded.body = Bytes::new();
        }
        recorded
    }

    /// `registry POST /v2/a/blobs/uploads/`; a call of ECR's API by its action: `api
    /// CreateRepository`.
    pub fn line(&self) -> String {
        let to = self.to.as_str();
        match self.action() {
            Some(action) => format!("{to} {action}"),
            None => format!("{to} {} {}", self.method, self.target),
        }
    }

    /// The action of a call of ECR's API.
    pub fn action(&self) -> Option<&str> {
        let target = self.header("x-amz-target")?;
        target.split_once('.').map(|(_, action)| action)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// The values of a parameter, of the query or of a form.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let is_form = self
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let form = std::str::from_utf8(&self.body).ok().filter(|_| is_form);
        [query, form.unwrap_or_default()]
            .iter()
            .flat_map(|text| text.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| decoded(&value.replace('+', " ")))
            .collect()
    }

    /// What stands behind the question mark.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).into_iter().next()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A part of a URL as the text that it stands for.
pub fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
