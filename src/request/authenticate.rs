//! Who is asking: the password of a login that was admitted, checked against the virtual host's
//! users.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::admit;
use super::rejection::Rejection;
use super::site::Site;
use super::target::RequestTarget;
use crate::auth::basic;
use crate::auth::token::{Access, Verified};
use crate::auth::verify::{Entry, Verifier};
use crate::auth::{Identity, UserName};
use crate::config::vhost::AnonymousAccess;
use crate::registry::call::Call;

/// Who is asking, and by what that is known.
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    /// What the token was given for; none without one, for then nothing but the rules counts.
    pub(crate) token: Option<Arc<Access>>,
}

impl From<Identity> for Authenticated {
    fn from(identity: Identity) -> Self {
        Self {
            identity,
            token: None,
        }
    }
}

impl From<Verified> for Authenticated {
    fn from(Verified { user, access }: Verified) -> Self {
        Self {
            identity: user.map_or(Identity::Anonymous, Identity::User),
            token: Some(access),
        }
    }
}

/// Finds out who is asking.
///
/// Errors: 401 with the challenge for a wrong password; 503 when too many passwords are being
/// checked; 429 when others of the same address used up its tries meanwhile.
pub(crate) async fn authenticate(
    verifier: &Verifier,
    site: &Site,
    entry: Entry,
) -> Result<Identity, Rejection> {
    let admitted = match entry {
        Entry::Remembered(user) => return Ok(Identity::User(user)),
        Entry::Admitted(admitted) => admitted,
    };
    // Seldom, and large: every request would carry its room otherwise.
    match Box::pin(verifier.verify(*admitted)).await {
        Ok(user) => Ok(Identity::User(user)),
        Err(error) => Err(admit::rejection(error, site)),
    }
}

/// The name that the log shows for an identity.
pub(crate) fn user_of(identity: &Identity) -> Option<&UserName> {
    match identity {
        Identity::User(user) => Some(user),
        Identity::Anonymous => None,
    }
}

/// Whether a request is to be judged as that of nobody in particular. Never the ping: clients
/// choose by its answer alone whether they ever send a password. Never a page: a browser asks for a
/// password only if told.
pub(crate) fn is_anonymous_request(
    site: &Site,
    subject: &RequestTarget,
    headers: &HeaderMap,
) -> bool {
    let may_be = site.host.auth.anonymous == AnonymousAccess::Pull;
    let is_call = match subject {
        RequestTarget::Call(call) => !matches!(**call, Call::Ping { .. }),
        RequestTarget::Page(_) => false,
    };
    may_be && is_call && is_without_login(headers)
}

/// No credentials, or the empty pair that skopeo and its kin send when they have nothing else to
/// send.
fn is_without_login(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return true };
    all.next().is_none()
        && basic::parse(value.as_bytes()).is_ok_and(|credentials| credentials.is_empty())
}
