//! Secrets: a literal, an environment variable or a file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::source::open_regular;

/// Where a secret is, with the absolute path of a file. Read when it is needed, so that a file may
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource(RawSecret);

impl SecretSource {
    /// That of a file.
    pub(crate) fn of_file(path: PathBuf) -> Self {
        Self(RawSecret::File(path))
    }

    /// Reads the secret: of a file, the first line.
    pub(crate) fn read(&self) -> Result<SecretString, SecretError> {
        self.0.reveal(Path::to_owned)
    }

    /// Reads a secret of several lines.
    pub(crate) fn read_whole(&self) -> Result<SecretString, SecretError> {
        self.0.reveal_whole(Path::to_owned)
    }

    /// The file of the secret, whose changes count at once.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.file()
    }
}

/// A secret as written.
#[derive(Clone, Debug)]
pub(super) enum RawSecret {
    /// The secret itself.
    Literal(SecretString),
    /// The name of an environment variable.
    Environment(String),
    /// A file whose first line is the secret.
    File(PathBuf),
}

/// Equal is what is written, not what a file or variable holds.
impl PartialEq for RawSecret {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(other)) => {
                one.expose_secret() == other.expose_secret()
            }
            (Self::Environment(one), Self::Environment(other)) => one == other,
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Literal(_) | Self::Environment(_) | Self::File(_), _) => false,
        }
    }
}

impl Eq for RawSecret {}

/// Why a secret cannot be read. Never contains the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("names the environment variable `{0}`, which is not set")]
    NotSet(String),
    #[error("names the environment variable `{0}`, which is not UTF-8")]
    NotUnicode(String),
    #[error("names the file `{}`, which cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("is empty")]
    Empty,
    #[error("holds a control character")]
    Control,
}

impl SecretError {
    pub(crate) fn help(&self) -> &'static str {
        match self {
            Self::NotSet(_) => "set it where moorgate is started, or write { file = \"PATH\" }",
            Self::NotUnicode(_) => "write the secret in UTF-8",
            Self::Unreadable { cause, .. } => match cause.kind() {
                io::ErrorKind::InvalidData => "write the file in UTF-8",
                io::ErrorKind::PermissionDenied => {
                    "let moorgate's user read the file and enter its directory"
                }
                _ => "make the file; a relative path starts at the file that names it",
            },
            Self::Empty => "write the secret; of a file, the first line counts",
            Self::Control => "write it without tabs and other control characters",
        }
    }
}

impl RawSecret {
    /// The file of the secret, as written.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Literal(_) | Self::Environment(_) => None,
        }
    }

    /// Whether a literal looks like the name of a variable that was to be replaced: `$NAME`,
    /// `${NAME}`, `env:NAME`.
    pub(super) fn resembles_variable(&self) -> bool {
        let Self::Literal(secret) = self else {
            return false;
        };
        let text = secret.expose_secret();
        let name = match text.strip_prefix('$') {
            Some(name) => {
                let braced = name.strip_prefix('{');
                braced
                    .and_then(|name| name.strip_suffix('}'))
                    .or(Some(name))
            }
            None => text.strip_prefix("env:"),
        };
        name.is_some_and(|name| {
            let is_plain =
                |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            name.starts_with(|first: char| first.is_ascii_uppercase()) && name.bytes().all(is_plain)
        })
    }

    /// Where it is. `beside` resolves a relative path.
    pub(super) fn source(&self, beside: impl FnOnce(&Path) -> PathBuf) -> SecretSource {
        SecretSource(match self {
            Self::File(path) => Self::File(beside(path)),
            Self::Literal(_) | Self::Environment(_) => self.clone(),
        })
    }

    /// Reads the secret. `beside` resolves a relative path.
    pub(super) fn reveal(
        &self,
        beside: impl FnOnce(&Path) -> PathBuf,
    ) -> Result<SecretString, SecretError> {
        let text = self.text(beside)?;
        // Of a file, the first line counts.
        let secret = match self {
            Self::File(_) => {
                let line = text.expose_secret().split('\n').next().unwrap_or_default();
                SecretString::from(line.strip_suffix('\r').unwrap_or(line))
            }
            Self::Literal(_) | Self::Environment(_) => text,
        };
        if secret.expose_secret().is_empty() {
            return Err(SecretError::Empty);
        }
        if secret.expose_secret().chars().any(char::is_control) {
            return Err(SecretError::Control);
        }
        Ok(secret)
    }

    /// Reads a secret that may have several lines, such as a JSON document.
    fn reveal_whole(
        &self,
        beside: impl FnOnce(&Path) -> PathBuf,
    ) -> Result<SecretString, SecretError> {
        let text = self.text(beside)?;
        if text.expose_secret().trim().is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(text)
    }

    fn text(&self, beside: impl FnOnce(&Path) -> PathBuf) -> Result<SecretString, SecretError> {
        match self {
            Self::Literal(secret) => Ok(secret.clone()),
            Self::Environment(name) => from_environment(name),
            Self::File(path) => {
                let path = beside(path);
                content(&path).map_err(|cause| SecretError::Unreadable { path, cause })
            }
        }
    }
}

fn from_environment(name: &str) -> Result<SecretString, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.to_owned()))?;
    value
        .into_string()
        .map(SecretString::from)
        .map_err(|_| SecretError::NotUnicode(name.to_owned()))
}

fn content(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    open_regular(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

/// Far above any password, so that a log file named by mistake is not read as a whole.
const MAX_FILE: u64 = 64 * 1024;
