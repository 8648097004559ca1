//! The parser for secrets: `"literal"`, `{ env = "NAME" }` or `{ file = "PATH" }`.

use std::path::PathBuf;

use secrecy::SecretString;
use toml::de::{DeTable, DeValue};

use super::InvalidValue;
use crate::config::secret::RawSecret;

/// Parses the setting; the secret itself is read by [`RawSecret::source`].
pub(in crate::config) fn secret(value: &DeValue<'_>) -> Result<RawSecret, InvalidValue> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::*;

    fn read(toml: &str) -> Result<RawSecret, InvalidValue> {
        let value = DeValue::parse(toml).expect("toml");
        secret(value.get_ref())
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
