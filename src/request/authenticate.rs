//! Checks the password of an admitted login against the users of the virtual host.

use std::sync::Arc;

use http::HeaderMap;

use super::admit;
use super::rejection::Rejection;
use super::site::Site;
use super::target::RequestTarget;
use crate::auth::basic;
use crate::auth::token::{TokenAccess, Verified};
use crate::auth::verify::{LoginAdmission, Verifier};
use crate::auth::{Identity, UserName};
use crate::config::vhost::AnonymousAccess;
use crate::registry::call::Call;

/// The user of a request, and the access of its token.
pub(crate) struct Authenticated {
    pub(crate) identity: Identity,
    /// The access that the token was issued for. Without a token the rules alone decide.
    pub(crate) token: Option<Arc<TokenAccess>>,
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

/// Checks the password.
///
/// Errors: 401 with the challenge for a wrong password; 503 when the password queue is full; 429
/// when other requests used up the tries of the address meanwhile.
pub(crate) async fn authenticate(
    verifier: &Verifier,
    site: &Site,
    admission: LoginAdmission,
) -> Result<Identity, Rejection> {
    let pending = match admission {
        LoginAdmission::Remembered(user) => return Ok(Identity::User(user)),
        LoginAdmission::Pending(pending) => pending,
    };
    let claimed = pending.claimed_name();
    // Boxed to keep this rare, large future out of every request's future.
    match Box::pin(verifier.verify(*pending)).await {
        Ok(user) => Ok(Identity::User(user)),
        Err(error) => Err(admit::rejection(error, site).of_login(&error, claimed)),
    }
}

/// The name that the log shows for an identity.
pub(crate) fn user_of(identity: &Identity) -> Option<&UserName> {
    match identity {
        Identity::User(user) => Some(&user.name),
        Identity::Anonymous => None,
    }
}

/// Whether a request is authorized as anonymous. Never a ping: clients decide by its response alone
/// whether they send a password. Never a page: a browser asks for a password only after a
/// challenge.
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

/// No credentials, or the empty pair that skopeo, podman and buildah send without any.
fn is_without_login(headers: &HeaderMap) -> bool {
    match admit::authorization(headers) {
        Ok(Some(value)) => {
            basic::parse(value.as_bytes()).is_ok_and(|credentials| credentials.is_empty())
        }
        Ok(None) => true,
        Err(_) => false,
    }
}
