//! A request to a product's own API.

use http::{HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::registry::name::RepositoryName;
use crate::upstream::product::TokenNeed;

/// A request to an API.
pub(crate) struct ApiCall<'a> {
    pub(crate) method: Method,
    /// Below the base path, with the query.
    pub(crate) path: String,
    pub(crate) headers: &'a [(HeaderName, &'static str)],
    pub(crate) body: Option<Value>,
    pub(crate) authorization: ApiAuthorization,
    pub(crate) scope: ApiScope<'a>,
}

/// What a product wants in `Authorization`.
#[derive(Clone, Debug)]
pub(crate) enum ApiAuthorization {
    None,
    /// What the credential gives: user name and password, a token alone as `Bearer`, or what the
    /// login at the registry makes of its keys.
    Usual,
    /// The secret itself.
    Bearer,
    /// What [`ApiClient::session`](super::ApiClient::session) gave.
    Session(HeaderValue),
}

/// What a call needs to be allowed, where a token is for one repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ApiScope<'a> {
    /// Whatever the credential allows.
    Registry,
    Repository {
        name: &'a RepositoryName,
        need: TokenNeed,
    },
}

impl<'a> ApiCall<'a> {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: &[],
            body: None,
            authorization: ApiAuthorization::Usual,
            scope: ApiScope::Registry,
        }
    }

    pub(crate) fn bearing(self, authorization: ApiAuthorization) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    pub(crate) fn with_headers(self, headers: &'a [(HeaderName, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn with_body(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// For something in a repository.
    pub(crate) fn within(self, name: &'a RepositoryName, need: TokenNeed) -> Self {
        let scope = ApiScope::Repository { name, need };
        Self { scope, ..self }
    }
}

/// A name as one segment of a path.
pub(crate) fn path_segment(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, ENCODED).to_string()
}
