//! The origin of a request, as its client knows it, before the paths of the response.

use std::fmt;

use http::{HeaderMap, Uri, header};

use crate::config::vhost::LocationForm;

/// `https://` with the host and port that the client named, or nothing where the domain wants
/// references without them. Displayed before a path, it makes a `Location`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicOrigin<'a>(Option<&'a str>);

impl<'a> PublicOrigin<'a> {
    pub(crate) fn new(form: LocationForm, host: &'a str) -> Self {
        Self(match form {
            LocationForm::Absolute => Some(host).filter(|host| !host.is_empty()),
            LocationForm::Relative => None,
        })
    }
}

impl fmt::Display for PublicOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(host) => write!(f, "https://{host}"),
            None => Ok(()),
        }
    }
}

/// The host and port of a request that has been located, as they were received. What a proxy in
/// front says in `X-Forwarded-Host` does not count: many pass on what a client has written there.
pub(crate) fn received_host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> &'r str {
    let header = headers.get(header::HOST);
    header
        .and_then(|host| host.to_str().ok())
        .or_else(|| uri.authority().map(|authority| authority.as_str()))
        .unwrap_or_default()
}
