//! `unlock`: gives users and addresses the tries back that wrong passwords have used up.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Reply;
use crate::app::App;

/// Who has its tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Whom {
    /// A user, as typed by whoever logs in.
    User(String),
    /// An address, and all that share its budget.
    Address(IpAddr),
    /// Everybody.
    All,
}

pub(super) fn unlock(app: &App, whom: &Whom, domain: Option<&str>) -> Reply {
    let lockout = app.gate().verifier.lockout();
    let now = Instant::now();
    let reply = match whom {
        Whom::User(user) => unlock_user(app, user, domain, now),
        Whom::Address(_) | Whom::All if domain.is_some() => {
            return Reply::refused(
                "a domain goes with a user only: addresses are counted for all domains together",
            );
        }
        Whom::Address(address) => match lockout.unlock_address(*address, now) {
            true => Reply::done(format!("{address} has all its tries again")),
            false => Reply::done(format!("nothing was counted against {address}")),
        },
        Whom::All => {
            lockout.unlock_all(now);
            Reply::done("everybody has all tries again")
        }
    };
    tracing::info!(?whom, domain, "unlock: {}", reply.text);
    reply
}

fn unlock_user(app: &App, user: &str, domain: Option<&str>, now: Instant) -> Reply {
    let lockout = app.gate().verifier.lockout();
    let sites = app.gate().sites.load();
    let all: Vec<&str> = sites
        .all
        .iter()
        .map(|site| site.host.domain.as_str())
        .collect();
    if let Some(domain) = domain.filter(|domain| !all.contains(domain)) {
        return Reply::failed(format!(
            "there is no domain {domain}; there are: {}",
            all.join(", ")
        ));
    }
    let asked = all
        .into_iter()
        .filter(|name| domain.is_none_or(|domain| domain == *name));
    let unlocked: Vec<&str> = asked
        .filter(|name| lockout.unlock_user(name, user, now))
        .collect();
    match unlocked.is_empty() {
        true => Reply::done(format!("nothing was counted against {user}")),
        false => Reply::done(format!(
            "{user} has all tries again at {}",
            unlocked.join(", ")
        )),
    }
}
