//! Passwords: who is asking, and whether it is true; and what they may do then.
//!
//! [`basic`] reads what the client says, [`UsersFile`] knows whom to believe, [`verify`] compares
//! the two without letting a stranger spend more of the processor than one low-priority thread has.
//! [`policy`] knows the access rules, and [`token`] gives and verifies what stands for a password.

pub mod basic;
mod hash;
pub mod htpasswd;
pub mod lockout;
pub mod policy;
pub mod token;
pub mod upload_session;
mod users_file;
pub mod verify;

mod cache;
mod gate;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub(crate) use hash::{BcryptHash, BcryptKey, Cost};
pub use users_file::{HtpasswdError, Refreshed, UsersFile};

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Somebody who knew the password.
    User(UserName),
    /// Anybody.
    Anonymous,
}

/// The name of a user, in a form that an htpasswd file can hold and a client can send. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// Why a text is not a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// Nothing there.
    #[error("the user name is empty")]
    Empty,
    /// Over 255 bytes, which is also the bound of Apache's `htpasswd`.
    #[error("the user name is longer than 255 bytes")]
    TooLong,
    /// A colon ends the name, in the file (RFC 7617 §2) and on the wire.
    #[error("the user name has a colon")]
    Colon,
    /// RFC 7617 §2 forbids them.
    #[error("the user name has a control character")]
    Control,
    /// It would be trimmed away, or make the line a comment.
    #[error("the user name begins or ends with white space, or begins with `#`")]
    Edge,
}

impl UserName {
    /// Checks a name. Upper and lower case are different users, as with `htpasswd`.
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

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `str` hashes and compares like the name that holds it, so that a map can be asked with what was
/// sent.
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
