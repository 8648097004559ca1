//! Whether who asks may have what is asked for. The proof is a [`Grant`], and nothing goes on without.

use super::classify::Subject;
use super::reject::Rejection;
use crate::auth::Identity;

/// The proof that this identity may have this subject. Only [`authorize`] makes one.
#[derive(Debug)]
pub(crate) struct Grant {
    subject: Subject,
}

impl Grant {
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }
}

/// Decides. Every user of the htpasswd may do everything, and nobody else anything.
pub(crate) fn authorize(identity: Identity, subject: Subject) -> Result<Grant, Rejection> {
    match identity {
        Identity::User(_) => Ok(Grant { subject }),
        Identity::Anonymous => Err(Rejection::denied("this needs a login")),
    }
}
