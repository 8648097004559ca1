//! The access of a token: the requested scopes, as far as the access rules allow them now.

use std::net::IpAddr;

use super::form::split_scopes;
use crate::auth::UserName;
use crate::auth::policy::{Policy, Principal};
use crate::auth::token::TokenAccess;
use crate::registry::action::Action;
use crate::registry::scope::{Resource, Right, Rights, Scope};

/// The allowed part of the scopes. An empty one is no error.
///
/// Other requests of the thread are served between the decisions about many scopes.
pub(super) async fn granted(
    policy: &Policy,
    user: Option<&UserName>,
    client: IpAddr,
    scopes: &str,
) -> TokenAccess {
    let principal = Principal {
        user: user.map(UserName::as_str),
        client,
    };
    let requested = split_scopes(scopes).filter_map(|scope| {
        let scope = Scope::parse(scope).ok()?;
        Some((scope.resource()?, scope.rights()))
    });
    // Each resource once: a decision costs more than finding the duplicates.
    let requested: TokenAccess = requested.collect();
    let mut granted = Vec::new();
    for (at, (resource, rights)) in requested.iter().enumerate() {
        if at % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let rights = allowed(policy, principal, resource, rights);
        if rights != Rights::NONE {
            granted.push((resource.clone(), rights));
        }
    }
    granted.into_iter().collect()
}

fn allowed(
    policy: &Policy,
    principal: Principal<'_>,
    resource: &Resource,
    requested: Rights,
) -> Rights {
    match resource {
        Resource::Catalog if policy.may_somewhere(principal, Action::Catalog) => requested,
        Resource::Catalog => Rights::NONE,
        Resource::Repository(name) => {
            let may = |action: &Action| {
                policy
                    .decide(principal, *action, name.as_str(), None)
                    .allowed
            };
            let rights = requested.iter();
            rights
                .filter(|right: &Right| right.actions().iter().any(may))
                .collect()
        }
    }
}

const DECISIONS_AT_ONCE: usize = 64;
