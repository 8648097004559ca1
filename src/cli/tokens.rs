//! `moorgate tokens`: which refresh tokens there are, and taking them back.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use crate::admin::control::{Command, Which};
use crate::auth::token::refresh::{self, Record};

/// What is done with refresh tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokensCommand {
    /// List them: id, user, domain, client, when made, last used, and until when they are good.
    List {
        /// Print a JSON array instead.
        #[arg(long)]
        json: bool,
    },
    /// Take some back; whoever held one has to log in again.
    Revoke {
        /// Which.
        #[command(flatten)]
        which: Options,
        /// At this domain only.
        #[arg(long)]
        domain: Option<String>,
    },
}

/// Which are taken back.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false)]
pub struct Options {
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
pub fn list(state: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let tokens = refresh::list(state, SystemTime::now())?;
    if json {
        let tokens: Vec<_> = tokens.iter().map(|(id, record)| object(id, record)).collect();
        writeln!(out, "{:#}", json!(tokens))?;
        return Ok(());
    }
    if tokens.is_empty() {
        eprintln!("there are no refresh tokens");
    }
    for (id, record) in &tokens {
        writeln!(out, "{}", line(id, record)?)?;
    }
    Ok(())
}

/// Asks the running process to forget them.
pub fn revoke(config: &Path, which: Options, domain: Option<String>) -> anyhow::Result<ExitCode> {
    let which = match (which.id, which.user) {
        (Some(id), _) => Which::Id(id),
        (None, Some(user)) => Which::User(user),
        (None, None) => Which::All,
    };
    super::ask(config, &Command::RevokeTokens { which, domain })
}

fn line(id: &str, record: &Record) -> anyhow::Result<String> {
    let Record { domain, user, entry: _, client, created, used, expires } = record;
    let [created, used, expires] = [time(*created)?, time(*used)?, time(*expires)?];
    let client = if client.is_empty() { "-" } else { client };
    Ok(format!("{id}  {user}  {domain}  {client}  made {created}  used {used}  until {expires}"))
}

fn object(id: &str, record: &Record) -> serde_json::Value {
    let Record { domain, user, entry: _, client, created, used, expires } = record;
    let [created, used, expires] = [created, used, expires].map(|at| time(*at).ok());
    json!({
        "id": id, "user": user, "domain": domain, "client": client,
        "created": created, "used": used, "expires": expires,
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
        let record = Record {
            domain: "ci.test".to_owned(),
            user: "alice".to_owned(),
            entry: "s3cret".to_owned(),
            client: String::new(),
            created: 1_700_000_000,
            used: 1_700_000_060,
            expires: 1_707_776_060,
        };
        insta::assert_snapshot!(line("0a1b2c3d4e5f", &record).expect("a time"), @"0a1b2c3d4e5f  alice  ci.test  -  made 2023-11-14T22:13:20Z  used 2023-11-14T22:14:20Z  until 2024-02-12T22:14:20Z");
        insta::assert_snapshot!(format!("{:#}", object("0a1b2c3d4e5f", &record)), @r#"
        {
          "client": "",
          "created": "2023-11-14T22:13:20Z",
          "domain": "ci.test",
          "expires": "2024-02-12T22:14:20Z",
          "id": "0a1b2c3d4e5f",
          "used": "2023-11-14T22:14:20Z",
          "user": "alice"
        }
        "#);
    }
}
