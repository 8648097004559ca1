//! `moorgate tokens`: which refresh tokens there are, and taking them back.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use crate::admin::control::{ControlCommand, TokenSelection};
use crate::auth::htpasswd::Htpasswd;
use crate::auth::token::refresh::{self, RefreshTokenRecord};
use crate::auth::token::{self, EntryKey};
use crate::auth::{HtpasswdError, UsersFile};
use crate::config::snapshot::Snapshot;

/// What is done with refresh tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokensCommand {
    /// List them: id, user, domain, client, when made, last used, until when, and which are no
    /// longer good.
    List {
        /// Print a JSON array instead.
        #[arg(long)]
        json: bool,
    },
    /// Take some back; whoever held one has to log in again.
    Revoke {
        /// Which.
        #[command(flatten)]
        which: RevokeOptions,
        /// At this domain only.
        #[arg(long)]
        domain: Option<String>,
    },
}

/// Which are taken back.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false)]
pub struct RevokeOptions {
    /// The one that `moorgate tokens list` shows with this id.
    #[arg(group = "which")]
    id: Option<String>,
    /// All of a user.
    #[arg(long, group = "which")]
    user: Option<String>,
    /// All.
    #[arg(long, group = "which")]
    all: bool,
}

/// Lists the tokens that the state directory holds, whether moorgate runs or not.
pub fn list(snapshot: &Snapshot, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let tokens = refresh::list(&snapshot.state, SystemTime::now())?;
    let holders = Holders::read(snapshot)?;
    let tokens: Vec<_> = tokens
        .iter()
        .map(|(id, record)| (id, record, !holders.are_over(record)))
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

/// Who may hold a token that is good.
struct Holders {
    /// By domain that gives tokens; none where it cannot be told.
    users: HashMap<String, Option<Arc<Htpasswd>>>,
    entry_key: Option<EntryKey>,
}

impl Holders {
    fn read(snapshot: &Snapshot) -> anyhow::Result<Self> {
        let hosts = snapshot
            .domains
            .iter()
            .filter(|host| host.auth.mode.tokens().is_some());
        let users = hosts.map(|host| {
            let users = match UsersFile::open(&host.auth.htpasswd) {
                Ok(file) => Some(file.current()),
                Err(HtpasswdError::NoUsers { .. }) => Some(Arc::new(Htpasswd::parse(b""))),
                // A running process goes on with those that it has read before.
                Err(_) => None,
            };
            (host.domain.to_string(), users)
        });
        Ok(Self {
            users: users.collect(),
            entry_key: token::read_entry_key(&snapshot.state)?,
        })
    }

    /// Whether a token's domain gives none, or its user is gone or has another entry.
    fn are_over(&self, record: &RefreshTokenRecord) -> bool {
        let Some(users) = self.users.get(&record.domain) else {
            return true;
        };
        let (Some(users), Some(entry_key)) = (users, &self.entry_key) else {
            return false;
        };
        let user = users.claim(&record.user).user;
        user.is_none_or(|user| entry_key.tag(&record.domain, user, users) != record.entry)
    }
}

/// Asks the running process to forget them.
pub fn revoke(
    config: &Path,
    which: RevokeOptions,
    domain: Option<String>,
) -> anyhow::Result<ExitCode> {
    let which = match (which.id, which.user) {
        (Some(id), _) => TokenSelection::Id(id),
        (None, Some(user)) => TokenSelection::User(user),
        (None, None) => TokenSelection::All,
    };
    super::send_command(config, &ControlCommand::RevokeTokens { which, domain })
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
        "  no longer good: the user or the password has changed"
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
            over.ends_with("  no longer good: the user or the password has changed"),
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
