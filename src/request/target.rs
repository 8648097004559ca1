//! The parsed target of a request: a registry call, or a page beside the registry.

use std::sync::Arc;

use http::Method;

use crate::registry::call::Call;

/// What a request is for.
#[derive(Debug)]
pub(crate) enum RequestTarget {
    /// A call of the registry protocol.
    Call(Arc<Call>),
    /// Anything outside `/v2/`.
    Page(PageAccess),
}

impl RequestTarget {
    /// The registry call, unless it is a page.
    pub(crate) fn call(&self) -> Option<&Arc<Call>> {
        match self {
            Self::Call(call) => Some(call),
            Self::Page(_) => None,
        }
    }
}

/// How a page is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageAccess {
    Read,
    /// The method may change something.
    Change,
}

impl PageAccess {
    /// Unknown methods count as unsafe (RFC 9110 §9.2.1).
    pub(crate) fn from_method(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Read,
            _ => Self::Change,
        }
    }
}

/// The endpoints beside registry and pages, where a site issues tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenEndpoint {
    /// Issues tokens.
    Token,
    /// Shows the public keys.
    Keys,
}

/// The path of [`TokenEndpoint::Token`].
pub(crate) const TOKEN_PATH: &str = "/token";
