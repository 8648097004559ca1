//! What stands in `Authorization` towards an upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret;

use crate::config::vhost::UpstreamAuthorization;

/// The decided form of [`UpstreamAuthorization`].
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// The header is taken off.
    None,
    /// The client's own stays.
    Client,
    /// moorgate's own, marked sensitive.
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

    /// Puts the right header, or none, in place of the client's.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => drop(headers.remove(header::AUTHORIZATION)),
            Self::Client => {}
            Self::Own(value) => drop(headers.insert(header::AUTHORIZATION, value.clone())),
        }
    }
}
