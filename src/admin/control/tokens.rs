//! `tokens revoke`: revokes refresh tokens, in this process at once and in the file for all others.

use serde::{Deserialize, Serialize};

use super::ControlReply;
use crate::app::App;
use crate::auth::token::refresh::Revoked;
use crate::clock::time_of_day;

/// The refresh tokens to revoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TokenSelection {
    /// By id.
    Id(String),
    /// All tokens of a user.
    User(String),
    All,
}

pub(super) async fn revoke(
    app: &App,
    which: &TokenSelection,
    domain: Option<&str>,
) -> ControlReply {
    let sites = app.gateway().sites.load_full();
    let Some(tokens) = crate::app::tokens::from_sites(&sites) else {
        return ControlReply::failed("no domain gives tokens: none has mode = \"token\" in [auth]");
    };
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
    let (revoked, of) = match which {
        TokenSelection::Id(id) => (Revoked::Id(id), format!("with the id {id}")),
        TokenSelection::User(user) => (Revoked::User(user), format!("of {user}")),
        TokenSelection::All => (Revoked::All, "at all".to_owned()),
    };
    match tokens
        .refresh_tokens()
        .revoke(&revoked, domain, time_of_day())
        .await
    {
        Ok(0) if *which == TokenSelection::All => ControlReply::done("there was no refresh token"),
        Ok(0) => ControlReply::failed(format!(
            "there is no refresh token {of}; `moorgate tokens list` shows all"
        )),
        Ok(count) => {
            tracing::info!(?which, domain, count, "refresh tokens revoked");
            let s = if count == 1 { "" } else { "s" };
            ControlReply::done(format!("{count} refresh token{s} revoked"))
        }
        Err(error) => ControlReply::failed(error.to_string()),
    }
}
