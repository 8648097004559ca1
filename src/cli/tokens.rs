//! `moorgate tokens`: lists and revokes refresh tokens.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use super::ProcessOptions;
use crate::admin::control::{ControlCommand, TokenSelection};
use crate::auth::htpasswd::Htpasswd;
use crate::auth::token::refresh::{self, RefreshTokenRecord};
use crate::auth::token::{self, EntryKey};
use crate::auth::{HtpasswdError, UsersFile};
use crate::config::snapshot::Snapshot;

/// The subcommands of `moorgate tokens`.
#[derive(Debug, clap::Subcommand)]
pub enum TokensCommand {
    /// List refresh tokens: id, user, domain, client, times of issue, last use and expiry, and
    /// which are no longer valid.
    List {
        /// Print a JSON array instead.
        #[arg(long)]
        json: bool,
    },
    /// Revoke refresh tokens; their clients have to log in again.
    Revoke {
        #[command(flatten)]
        which: RevokeOptions,
        /// Only at this domain.
        #[arg(long)]
        domain: Option<String>,
        #[command(flatten)]
        processes: ProcessOptions,
    },
}

/// The tokens to revoke.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false)]
pub struct RevokeOptions {
    /// The token with this id in `moorgate tokens list`.
    #[arg(group = "which")]
    id: Option<String>,
    /// All tokens of a user.
    #[arg(long, group = "which")]
    user: Option<String>,
    /// All tokens.
    #[arg(long, group = "which")]
    all: bool,
}

/// Lists the tokens in the state directory, whether moorgate runs or not.
pub fn list(snapshot: &Snapshot, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let tokens = refresh::list(&snapshot.state, SystemTime::now())?;
    let users = TokenUsers::read(snapshot)?;
    let tokens: Vec<_> = tokens
        .iter()
        .map(|(id, record)| (id, record, users.is_valid(record)))
        .collect();
    if json {
        let tokens: Vec<_> = tokens
            .iter()
            .map(|(id, record, good)| object(id, record, *good))
            .collect();
        writeln!(out, "{:#}", json!(tokens))?;
        return Ok(());
    }
    if tokens.is_empty() {
        eprintln!("there are no refresh tokens");
    }
    for (id, record, good) in &tokens {
        writeln!(out, "{}", line(id, record, *good)?)?;
    }
    Ok(())
}

/// The users of all domains, to tell which tokens are still valid.
struct TokenUsers {
    /// By domain that accepts refresh tokens; `None` if the htpasswd file cannot be read.
    users: HashMap<String, Option<Arc<Htpasswd>>>,
    entry_key: Option<EntryKey>,
}

impl TokenUsers {
    fn read(snapshot: &Snapshot) -> anyhow::Result<Self> {
        let hosts = snapshot.domains.iter().filter(|host| {
            let settings = host.auth.mode.tokens();
            settings.is_some_and(|settings| settings.refresh_lifetime.is_some())
        });
        let users = hosts.map(|host| {
            let users = match UsersFile::open(&host.auth.htpasswd) {
                Ok(file) => Some(file.current()),
                Err(HtpasswdError::NoUsers { .. }) => Some(Arc::new(Htpasswd::parse(b""))),
                // A running process continues with the users that it has read before.
                Err(_) => None,
            };
            (host.domain.to_string(), users)
        });
        Ok(Self {
            users: users.collect(),
            entry_key: token::read_entry_key(&snapshot.state)?,
        })
    }

    /// Whether the domain of a token accepts refresh tokens and its user has the same entry as at the
    /// login.
    fn is_valid(&self, record: &RefreshTokenRecord) -> bool {
        let Some(users) = self.users.get(&record.domain) else {
            return false;
        };
        let (Some(users), Some(entry_key)) = (users, &self.entry_key) else {
            return true;
        };
        let user = users.claim(&record.user).user;
        user.is_some_and(|user| entry_key.tag(&record.domain, user, users) == record.entry)
    }
}

pub(super) fn revocation(which: RevokeOptions, domain: Option<String>) -> ControlCommand {
    let which = match (which.id, which.user) {
        (Some(id), _) => TokenSelection::Id(id),
        (None, Some(user)) => TokenSelection::User(user),
        (None, None) => TokenSelection::All,
    };
    ControlCommand::RevokeTokens { which, domain }
}

fn line(id: &str, record: &RefreshTokenRecord, good: bool) -> anyhow::Result<String> {
    let RefreshTokenRecord {
        domain,
        user,
        entry: _,
        client,
        created,
        used,
        expires,
    } = record;
    let [created, used, expires] = [time(*created)?, time(*used)?, time(*expires)?];
    let client = if client.is_empty() { "-" } else { client };
    let over = if good {
        ""
    } else {
        "  no longer valid: the user or the password has changed, or the domain accepts none"
    };
    Ok(format!(
        "{id}  {user}  {domain}  {client}  made {created}  used {used}  until {expires}{over}"
    ))
}

fn object(id: &str, record: &RefreshTokenRecord, good: bool) -> serde_json::Value {
    let RefreshTokenRecord {
        domain,
        user,
        entry: _,
        client,
        created,
        used,
        expires,
    } = record;
    let [created, used, expires] = [created, used, expires].map(|at| time(*at).ok());
    json!({
        "id": id, "user": user, "domain": domain, "client": client,
        "created": created, "used": used, "expires": expires, "good": good,
    })
}

fn time(seconds: u64) -> anyhow::Result<String> {
    let seconds = i64::try_from(seconds).context("no such time")?;
    Ok(Timestamp::from_second(seconds)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_an_object_tell_all_but_what_is_secret() {
        let record = RefreshTokenRecord {
            domain: "ci.test".to_owned(),
            user: "alice".to_owned(),
            entry: "s3cret".to_owned(),
            client: String::new(),
            created: 1_700_000_000,
            used: 1_700_000_060,
            expires: 1_707_776_060,
        };
        insta::assert_snapshot!(line("0a1b2c3d4e5f", &record, true).expect("a time"), @"0a1b2c3d4e5f  alice  ci.test  -  made 2023-11-14T22:13:20Z  used 2023-11-14T22:14:20Z  until 2024-02-12T22:14:20Z");
        let over = line("0a1b2c3d4e5f", &record, false).expect("a time");
        assert!(
            over.ends_with("  no longer valid: the user or the password has changed, or the domain accepts none"),
            "{over}"
        );
        insta::assert_snapshot!(format!("{:#}", object("0a1b2c3d4e5f", &record, true)), @r#"
        {
          "client": "",
          "created": "2023-11-14T22:13:20Z",
          "domain": "ci.test",
          "expires": "2024-02-12T22:14:20Z",
          "good": true,
          "id": "0a1b2c3d4e5f",
          "used": "2023-11-14T22:14:20Z",
          "user": "alice"
        }
        "#);
    }
}
