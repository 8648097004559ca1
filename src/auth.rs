//! Authentication of users and the access rules.
//!
//! [`basic`] parses the credentials of a request, [`UsersFile`] has the users, and [`verify`] checks
//! a password at a bounded cost: hashing runs on low-priority threads. [`policy`] evaluates the
//! access rules, [`token`] issues and verifies the tokens that replace a password.

pub mod basic;
mod hash;
pub(crate) mod htpasswd;
pub(crate) mod lockout;
pub(crate) mod policy;
pub(crate) mod running;
pub(crate) mod token;
pub(crate) mod upload_session;
mod users_file;
pub(crate) mod verify;

mod cache;
mod credential_tag;
mod password_cache;
mod password_queue;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub(crate) use hash::{BcryptHash, BcryptKey, Cost};
use running::RunningRequests;
pub(crate) use users_file::{HtpasswdError, Refreshed, UsersFile};

/// The identity that a request is authenticated as.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// A user whose password or token was verified.
    User(KnownUser),
    /// A client without a login.
    Anonymous,
}

/// A user of an htpasswd file, and its requests in flight.
#[derive(Clone, Debug)]
pub struct KnownUser {
    pub name: UserName,
    pub(crate) running: Arc<RunningRequests>,
}

/// A user name that an htpasswd file can contain and a client can send. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    #[error("the user name is empty")]
    Empty,
    /// Over 255 bytes, which is also the bound of Apache's `htpasswd`.
    #[error("the user name is longer than 255 bytes")]
    TooLong,
    /// A colon ends the name, in the file (RFC 7617 §2) and on the wire.
    #[error("the user name has a colon")]
    Colon,
    /// RFC 7617 §2 forbids control characters.
    #[error("the user name has a control character")]
    Control,
    /// Readers of an htpasswd file trim white space and take a line with `#` for a comment.
    #[error("the user name begins or ends with white space, or begins with `#`")]
    Edge,
}

impl UserName {
    /// Parses a name. Names are case-sensitive, as with `htpasswd`.
    pub fn new(name: &str) -> Result<Self, UserNameError> {
        if name.is_empty() {
            return Err(UserNameError::Empty);
        }
        if name.len() > 255 {
            return Err(UserNameError::TooLong);
        }
        if name.contains(':') {
            return Err(UserNameError::Colon);
        }
        if name.chars().any(char::is_control) {
            return Err(UserNameError::Control);
        }
        // A byte order mark at the start of a file is no part of the first name.
        if name != name.trim() || name.starts_with(['#', '\u{feff}']) {
            return Err(UserNameError::Edge);
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A map of users can be searched by the bytes that a client sent: `str` hashes and compares as
/// the name does.
impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_survives_a_file_and_a_header() {
        for name in ["ci", "CI-bot", "a b", "jörg@example.com", "a#b"] {
            assert_eq!(UserName::new(name).expect(name).as_str(), name);
        }
        assert_eq!(UserName::new(""), Err(UserNameError::Empty));
        assert_eq!(UserName::new(&"a".repeat(256)), Err(UserNameError::TooLong));
        assert_eq!(UserName::new("a:b"), Err(UserNameError::Colon));
        assert_eq!(UserName::new("a\0b"), Err(UserNameError::Control));
        for name in [" a", "a ", "\u{a0}a", "#a", "\u{feff}a"] {
            assert_eq!(UserName::new(name), Err(UserNameError::Edge), "{name:?}");
        }
    }
}
