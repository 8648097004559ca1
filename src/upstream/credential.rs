//! The `Authorization` header of requests to an upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret;

use crate::config::vhost::UpstreamAuthorization;

/// The header value that [`UpstreamAuthorization`] leads to.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// The header is removed.
    None,
    /// The client's header is passed on.
    Client,
    /// The configured header, marked sensitive.
    Own(HeaderValue),
}

impl Credential {
    pub(crate) fn new(authorization: &UpstreamAuthorization) -> Self {
        match authorization {
            UpstreamAuthorization::Strip => Self::None,
            UpstreamAuthorization::Pass => Self::Client,
            UpstreamAuthorization::Basic { username, password } => {
                let pair = format!("{username}:{}", password.expose_secret());
                let text = format!("Basic {}", STANDARD.encode(pair));
                let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
                value.set_sensitive(true);
                Self::Own(value)
            }
        }
    }

    /// Replaces, removes or keeps the client's header.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {
                headers.remove(header::AUTHORIZATION);
            }
            Self::Client => {}
            Self::Own(value) => {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
        }
    }
}
