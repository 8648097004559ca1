//! `tokens revoke`: takes refresh tokens back, for this process at once and in the file for all.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::app::App;
use crate::auth::token::refresh::Revoked;
use crate::clock::time_of_day;

/// Which refresh tokens are taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Which {
    /// The one with this id.
    Id(String),
    /// All of a user.
    User(String),
    /// All.
    All,
}

pub(super) async fn revoke(app: &App, which: &Which, domain: Option<&str>) -> Reply {
    let sites = app.gate().sites.load_full();
    let Some(tokens) = crate::app::tokens::from_sites(&sites) else {
        return Reply::failed("no domain gives tokens: none has mode = \"token\" in [auth]");
    };
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
    let (revoked, of) = match which {
        Which::Id(id) => (Revoked::Id(id), format!("with the id {id}")),
        Which::User(user) => (Revoked::User(user), format!("of {user}")),
        Which::All => (Revoked::All, "at all".to_owned()),
    };
    match tokens
        .refresh()
        .revoke(&revoked, domain, time_of_day())
        .await
    {
        Ok(0) if *which == Which::All => Reply::done("there was no refresh token"),
        Ok(0) => Reply::failed(format!(
            "there is no refresh token {of}; `moorgate tokens list` shows all"
        )),
        Ok(count) => {
            tracing::info!(?which, domain, count, "refresh tokens revoked");
            let s = if count == 1 { "" } else { "s" };
            Reply::done(format!("{count} refresh token{s} revoked"))
        }
        Err(error) => Reply::failed(error.to_string()),
    }
}
