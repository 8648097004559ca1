//! Who is asking: the Basic credentials of the request, checked against the virtual host's users.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::reject::Rejection;
use super::site::Site;
use crate::auth::basic::{self, BasicError};
use crate::auth::verify::{Verifier, VerifyError};
use crate::auth::{Identity, UserName};

/// Finds out who is asking.
///
/// Errors: 401 with the challenge for no, wrong or foreign credentials; 400 for two of them, since
/// whoever stands behind might read the other one; 503 when too many passwords are being checked.
pub(crate) async fn authenticate(
    verifier: &Arc<Verifier>,
    site: &Arc<Site>,
    headers: &HeaderMap,
) -> Result<Identity, Rejection> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Err(Rejection::unauthorized(site, "log in to use this registry"));
    };
    if all.next().is_some() {
        return Err(Rejection::bad_request("the request has two Authorization headers"));
    }
    let credentials = match basic::parse(value.as_bytes()) {
        Ok(credentials) => credentials,
        Err(BasicError::NotBasic) => {
            return Err(Rejection::unauthorized(
                site,
                "log in with user and password: only Basic is accepted here",
            ));
        }
        Err(BasicError::Malformed) => {
            return Err(Rejection::unauthorized(
                site,
                "the Authorization header cannot be read: log in again",
            ));
        }
    };
    // skopeo and its kin send an empty pair when they have nothing else to send.
    if credentials.is_empty() {
        return Err(Rejection::unauthorized(site, "log in to use this registry"));
    }
    let users = site.users.current();
    let domain = site.host.domain.as_str();
    if let Some(user) = verifier.remembered(domain, &users, &credentials) {
        return Ok(Identity::User(user));
    }
    // Seldom, and large: every request would carry its room otherwise.
    match Box::pin(verifier.verify(domain, &users, &credentials)).await {
        Ok(user) => Ok(Identity::User(user)),
        Err(VerifyError::WrongPassword) => Err(Rejection::unauthorized(site, "wrong user name or password")),
        Err(VerifyError::Overloaded) => Err(Rejection::overloaded()),
    }
}

/// The name that the log shows for an identity.
pub(crate) fn user_of(identity: &Identity) -> Option<&UserName> {
    match identity {
        Identity::User(user) => Some(user),
        Identity::Anonymous => None,
    }
}
