//! The access of a token: the requested scopes, as far as the access rules allow them now.

use std::net::IpAddr;

use crate::auth::UserName;
use crate::auth::policy::{Policy, Principal};
use crate::auth::token::TokenAccess;
use crate::registry::action::Action;
use crate::registry::scope::{Resource, Right, Rights, Scope};

/// The allowed part of the scopes. An empty one is no error.
pub(super) fn granted(
    policy: &Policy,
    user: Option<&UserName>,
    client: IpAddr,
    scopes: &[Scope],
) -> TokenAccess {
    let principal = Principal {
        user: user.map(UserName::as_str),
        client,
    };
    let mut access = TokenAccess::default();
    for scope in scopes {
        let Some(resource) = scope.resource() else {
            continue;
        };
        let rights = match &resource {
            Resource::Catalog if policy.may_somewhere(principal, Action::Catalog) => scope.rights(),
            Resource::Catalog => Rights::NONE,
            Resource::Repository(name) => {
                let may = |action: &Action| {
                    policy
                        .decide(principal, *action, name.as_str(), None)
                        .allowed
                };
                scope
                    .rights()
                    .iter()
                    .filter(|right: &Right| right.actions().iter().any(may))
                    .collect()
            }
        };
        if rights != Rights::NONE {
            access.add(resource, rights);
        }
    }
    access
}
