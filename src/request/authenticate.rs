//! Who is asking: the password of a login that was admitted, checked against the virtual host's
//! users.

use std::sync::Arc;

use super::admit;
use super::reject::Rejection;
use super::site::Site;
use crate::auth::token::{Access, Verified};
use crate::auth::verify::{Entry, Verifier};
use crate::auth::{Identity, UserName};

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
