//! The users of a site: passwords of all forms, joined by name, and the htpasswd file made of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::position::SourcePosition;
use super::report::{DirectiveOutcome, ImportReport};
use super::site::{ImportedPassword, ImportedUser};
use crate::auth::{BcryptHash, BcryptKey, Cost, UserName};

/// A password as version 2 stores it: a hash, in base64 or not, perhaps with the dollar signs
/// doubled for a compose file.
pub(super) fn hashed(written: &str) -> ImportedPassword {
    let decoded = STANDARD.decode(written).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let hash = decoded.unwrap_or_else(|| written.to_owned());
    let hash = if hash.starts_with("$$") {
        hash.replace("$$", "$")
    } else {
        hash
    };
    of_form(&hash)
}

/// A password of an htpasswd file, or of `basicauth` in version 1.
pub(super) fn of_form(hash: &str) -> ImportedPassword {
    let unusable = |kind: &str| ImportedPassword::Unusable(kind.to_owned());
    if BcryptHash::parse(hash.as_bytes()).is_ok() {
        return ImportedPassword::Bcrypt(hash.to_owned());
    }
    for (prefix, kind) in KINDS {
        if hash.starts_with(prefix) {
            return unusable(kind);
        }
    }
    unusable("no bcrypt hash")
}

/// A plain password, unless bcrypt would see less of it than the client sends.
pub(super) fn plain(password: &str) -> ImportedPassword {
    let problem = match password {
        "" => "an empty password",
        text if text.len() > BcryptKey::MAX => "a password of more than 72 bytes",
        text if text.chars().any(|c| c.is_ascii_control()) => "a password with a control character",
        _ => return ImportedPassword::Plain(SecretString::from(password)),
    };
    ImportedPassword::Unusable(problem.to_owned())
}

/// An entry of an htpasswd file of version 1, which also takes plain passwords.
pub(super) fn of_file_entry(hash: &str) -> ImportedPassword {
    match of_form(hash) {
        ImportedPassword::Unusable(_) if !hash.starts_with('$') && !hash.starts_with('{') => {
            plain(hash)
        }
        other => other,
    }
}

/// Each name once. The first password of a name counts.
pub(super) fn merged(users: Vec<ImportedUser>, report: &mut ImportReport) -> Vec<ImportedUser> {
    let mut merged: Vec<ImportedUser> = Vec::new();
    for user in users {
        let decision = match merged.iter().find(|other| other.name == user.name) {
            None if UserName::new(&user.name).is_err() => {
                "no htpasswd file can hold this user name: left out".to_owned()
            }
            None => {
                if let ImportedPassword::Unusable(kind) = &user.password {
                    let text = format!(
                        "`{}` has {kind}, and moorgate accepts bcrypt only: set a password with `moorgate htpasswd`",
                        user.name
                    );
                    report.add_at(&user.at, user_text(&user), DirectiveOutcome::Decision, text);
                }
                merged.push(user);
                continue;
            }
            Some(other) if is_same(&other.password, &user.password) => continue,
            Some(other) => {
                format!(
                    "a user has one password at a domain: the one at {} counts",
                    other.at
                )
            }
        };
        report.add_at(
            &user.at,
            user_text(&user),
            DirectiveOutcome::Decision,
            decision,
        );
    }
    merged
}

fn user_text(user: &ImportedUser) -> String {
    super::report::one_line(&format!("user {}", user.name))
}

fn is_same(one: &ImportedPassword, other: &ImportedPassword) -> bool {
    match (one, other) {
        (ImportedPassword::Bcrypt(one), ImportedPassword::Bcrypt(other)) => one == other,
        (ImportedPassword::Plain(one), ImportedPassword::Plain(other)) => {
            one.expose_secret() == other.expose_secret()
        }
        (ImportedPassword::Unusable(one), ImportedPassword::Unusable(other)) => one == other,
        _ => false,
    }
}

/// The text of an htpasswd file. A file must have a user, or moorgate does not start: where there is
/// none, one is made whose password nobody knows.
pub(super) fn htpasswd(users: &[ImportedUser], name: &str) -> Option<String> {
    let mut text = format!("# Users of {name}, imported from Caddy.\n");
    let mut count = 0;
    for user in users {
        let entry = match &user.password {
            ImportedPassword::Bcrypt(hash) => hash.clone(),
            ImportedPassword::Plain(password) => generate(password.expose_secret().as_bytes())?,
            ImportedPassword::Unusable(kind) => {
                text.push_str(&format!(
                    "# {}: {kind}; set a password with `moorgate htpasswd`\n",
                    user.name
                ));
                continue;
            }
        };
        count += 1;
        text.push_str(&format!("{}:{entry}\n", user.name));
    }
    if count == 0 {
        let random: [u8; 32] = crate::crypto::random().ok()?;
        let password = data_encoding::HEXLOWER.encode(&random);
        text.push_str("# Nobody knows this password: remove the line when there is a user.\n");
        text.push_str(&format!("{NOBODY}:{}\n", generate(password.as_bytes())?));
    }
    Some(text)
}

fn generate(password: &[u8]) -> Option<String> {
    let hash = BcryptHash::generate(&BcryptKey::new(password), Cost::DEFAULT)?;
    Some(hash.to_string())
}

/// A user of a given name, with the password of a place.
pub(super) fn user(name: &str, password: ImportedPassword, at: &SourcePosition) -> ImportedUser {
    ImportedUser {
        name: name.to_owned(),
        password,
        at: at.clone(),
    }
}

const NOBODY: &str = "nobody";

const KINDS: &[(&str, &str)] = &[
    ("$argon2", "an argon2 hash"),
    ("$scrypt", "a scrypt hash"),
    ("$2", "a damaged bcrypt hash"),
    ("$apr1$", "an MD5 hash ($apr1$)"),
    ("{SHA}", "a SHA-1 hash ({SHA})"),
    ("{SSHA}", "a SHA-1 hash ({SSHA})"),
    ("$", "a crypt hash"),
    ("{", "a hash of an unknown kind"),
];
