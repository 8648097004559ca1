//! Secrets in configuration files: `"literal"`, `{ env = "NAME" }` or `{ file = "PATH" }`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml::de::{DeTable, DeValue};

use super::source::open_regular;
use super::values::InvalidValue;

/// Where a secret is, with the absolute path of a file. Read when it is needed, so that a file may
/// change.
#[derive(Clone, Debug)]
pub struct SecretSource(RawSecret);

impl SecretSource {
    /// A secret that never changes.
    #[cfg(test)]
    pub(crate) fn literal(secret: &str) -> Self {
        Self(RawSecret::Literal(SecretString::from(secret)))
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
        match &self.0 {
            RawSecret::File(path) => Some(path),
            RawSecret::Literal(_) | RawSecret::Environment(_) => None,
        }
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

/// Parses the setting; the secret itself is read by [`RawSecret::reveal`].
pub(super) fn setting(value: &DeValue<'_>) -> Result<RawSecret, InvalidValue> {
    let raw = match value {
        DeValue::String(text) => Some(RawSecret::Literal(SecretString::from(text.as_ref()))),
        DeValue::Table(table) => named(table),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => None,
    };
    raw.ok_or_else(|| {
        InvalidValue::new(
            "is not a secret",
            "write a string in quotes, { env = \"NAME\" } or { file = \"PATH\" }",
        )
    })
}

fn named(table: &DeTable<'_>) -> Option<RawSecret> {
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return None;
    };
    match (key.get_ref().as_ref(), value.get_ref()) {
        ("env", DeValue::String(name)) => Some(RawSecret::Environment(name.to_string())),
        ("file", DeValue::String(path)) => Some(RawSecret::File(PathBuf::from(path.as_ref()))),
        _ => None,
    }
}

impl RawSecret {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<RawSecret, InvalidValue> {
        let value = DeValue::parse(toml).expect("toml");
        setting(value.get_ref())
    }

    fn reveal(raw: &RawSecret) -> Result<String, String> {
        let secret = raw
            .reveal(Path::to_owned)
            .map_err(|error| error.to_string())?;
        Ok(secret.expose_secret().to_owned())
    }

    #[test]
    fn a_secret_is_a_literal_a_variable_or_a_file() {
        assert_eq!(
            reveal(&read("'s3cret'").expect("literal")).as_deref(),
            Ok("s3cret")
        );
        let path = std::env::var("PATH").expect("a variable that is always set");
        assert_eq!(
            reveal(&read("{ env = 'PATH' }").expect("variable")),
            Ok(path)
        );
        let directory = tempfile::tempdir().expect("directory");
        for (content, secret) in [
            ("s3cret", "s3cret"),
            ("s3cret\r\nmore\n", "s3cret"),
            (" a b \n", " a b "),
        ] {
            std::fs::write(directory.path().join("password"), content).expect("written");
            let raw = read("{ file = 'password' }").expect("file");
            let got = raw
                .reveal(|path| directory.path().join(path))
                .expect("revealed");
            assert_eq!(got.expose_secret(), secret);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for toml in [
            "1",
            "true",
            "['a']",
            "{}",
            "{ env = 'A', file = 'b' }",
            "{ env = 1 }",
            "{ value = 's3cret' }",
        ] {
            assert!(!read(toml).expect_err(toml).to_string().contains("s3cret"));
        }
    }

    #[test]
    fn a_secret_that_cannot_be_had_says_why_and_never_what() {
        let missing = read("{ env = 'MOORGATE_TEST_IS_NOT_SET' }").expect("variable");
        assert_eq!(
            reveal(&missing).expect_err("not set"),
            "names the environment variable `MOORGATE_TEST_IS_NOT_SET`, which is not set"
        );
        let missing = read("{ file = '/nowhere/at/all' }").expect("file");
        assert!(
            reveal(&missing)
                .expect_err("missing")
                .starts_with("names the file `/nowhere/at/all`")
        );
        assert_eq!(
            reveal(&read("''").expect("literal")).expect_err("empty"),
            "is empty"
        );
        assert_eq!(
            reveal(&read("\"s3\\tcret\"").expect("literal")).expect_err("a tab"),
            "holds a control character"
        );
        assert!(!format!("{:?}", read("'s3cret'")).contains("s3cret"));
    }
}
