//! `unlock`: resets the limits on failed logins of users and addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ControlReply;
use crate::app::App;

/// Whose limits are reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UnlockTarget {
    /// A user name, as typed at the login.
    User(String),
    /// An address, and all that share its limit.
    Address(IpAddr),
    All,
}

pub(super) fn unlock(app: &App, target: &UnlockTarget, domain: Option<&str>) -> ControlReply {
    let lockout = app.gateway().verifier.lockout();
    let now = Instant::now();
    let reply = match target {
        UnlockTarget::User(user) => unlock_user(app, user, domain, now),
        UnlockTarget::Address(_) | UnlockTarget::All if domain.is_some() => {
            return ControlReply::refused(
                "a domain goes with a user only: addresses are counted for all domains together",
            );
        }
        UnlockTarget::Address(address) => {
            if lockout.unlock_address(*address, now) {
                ControlReply::done(format!("{address} has all its tries again"))
            } else {
                ControlReply::done(format!("nothing was counted against {address}"))
            }
        }
        UnlockTarget::All => {
            lockout.unlock_all(now);
            ControlReply::done("everybody has all tries again")
        }
    };
    tracing::info!(whom = ?target, domain, "unlock: {}", reply.text);
    reply
}

fn unlock_user(app: &App, user: &str, domain: Option<&str>, now: Instant) -> ControlReply {
    let lockout = app.gateway().verifier.lockout();
    let sites = app.gateway().sites.load();
    let all: Vec<&str> = sites
        .all
        .iter()
        .map(|site| site.host.domain.as_str())
        .collect();
    if let Some(domain) = domain.filter(|domain| !all.contains(domain)) {
        return ControlReply::failed(format!(
            "there is no domain {domain}; there are: {}",
            all.join(", ")
        ));
    }
    let candidates = all
        .into_iter()
        .filter(|name| domain.is_none_or(|domain| domain == *name));
    let unlocked: Vec<&str> = candidates
        .filter(|name| lockout.unlock_user(name, user, now))
        .collect();
    if unlocked.is_empty() {
        return ControlReply::done(format!("nothing was counted against {user}"));
    }
    ControlReply::done(format!(
        "{user} has all tries again at {}",
        unlocked.join(", ")
    ))
}
