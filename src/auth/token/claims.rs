//! The claims of a token, and the access that they grant.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::registry::name::RepositoryName;
use crate::registry::scope::{Resource, Right, Rights};

/// The claims of a token as they are signed: RFC 7519, and `access` as the distribution
/// specification's "Token Authentication Implementation" has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The issuing domain.
    pub(super) iss: String,
    /// The user; empty for a token without a login.
    pub(super) sub: String,
    /// The domain that the token is for, which is the issuing one.
    pub(super) aud: String,
    pub(super) exp: u64,
    pub(super) nbf: u64,
    pub(super) iat: u64,
    pub(super) jti: String,
    pub(super) access: Vec<AccessEntry>,
    /// The tag of the user's entry in the htpasswd file, so that the token ends with the entry.
    pub(super) entry: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccessEntry {
    #[serde(rename = "type")]
    pub(super) resource_type: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

/// Resources and the rights to each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenAccess(Vec<(Resource, Rights)>);

impl TokenAccess {
    /// Adds rights to a resource.
    pub fn add(&mut self, resource: Resource, rights: Rights) {
        match self.0.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, known)) => *known = known.and(rights),
            None => self.0.push((resource, rights)),
        }
    }

    /// The rights to a repository.
    pub fn rights(&self, repository: &RepositoryName) -> Rights {
        let is = |resource: &Resource| matches!(resource, Resource::Repository(name) if name == repository);
        self.0
            .iter()
            .find(|(resource, _)| is(resource))
            .map_or(Rights::NONE, |(_, rights)| *rights)
    }

    /// Whether the token grants to pull from a repository.
    pub fn may_pull(&self, repository: &RepositoryName) -> bool {
        self.rights(repository).has(Right::Pull)
    }

    /// Whether the token grants any access to the catalog.
    pub fn has_catalog(&self) -> bool {
        self.0
            .iter()
            .any(|(resource, rights)| *resource == Resource::Catalog && *rights != Rights::NONE)
    }

    /// The resources with their rights, in the order of their addition.
    pub fn iter(&self) -> impl Iterator<Item = (&Resource, Rights)> {
        self.0.iter().map(|(resource, rights)| (resource, *rights))
    }

    /// As scopes that are separated by spaces.
    pub fn to_scopes(&self) -> String {
        let scopes = self.iter().map(|(resource, rights)| resource.scope(rights));
        scopes.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn to_entries(&self) -> Vec<AccessEntry> {
        let entry = |(resource, rights): (&Resource, Rights)| {
            let (resource_type, name) = resource.type_and_name();
            AccessEntry {
                resource_type: resource_type.to_owned(),
                name: name.to_owned(),
                actions: resource
                    .actions(rights)
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            }
        };
        self.iter().map(entry).collect()
    }

    /// Leaves out unknown resources and rights, which grant nothing.
    pub(super) fn from_entries(entries: &[AccessEntry]) -> Self {
        let mut access = Self::default();
        for entry in entries {
            let Some(resource) = Resource::from_type_and_name(&entry.resource_type, &entry.name)
            else {
                continue;
            };
            let known = |word: &String| match word.as_str() {
                "*" => Rights::ALL,
                word => Right::ALL
                    .into_iter()
                    .filter(|right| right.as_str() == word)
                    .collect(),
            };
            access.add(
                resource,
                entry
                    .actions
                    .iter()
                    .map(known)
                    .fold(Rights::NONE, Rights::and),
            );
        }
        access
    }
}

/// Seconds since 1970 (RFC 7519 §2, "NumericDate").
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Resource {
        Resource::Repository(RepositoryName::parse(name).unwrap())
    }

    #[test]
    fn rights_are_merged_and_read_back_from_the_claims() {
        let mut access = TokenAccess::default();
        access.add(repository("a"), Right::Pull.into());
        access.add(repository("b"), Rights::NONE);
        access.add(repository("a"), Right::Push.into());
        access.add(Resource::Catalog, Rights::ALL);
        let entries = access.to_entries();
        let text = serde_json::to_string(&entries).unwrap();
        assert_eq!(
            text,
            r#"[{"type":"repository","name":"a","actions":["pull","push"]},{"type":"repository","name":"b","actions":[]},{"type":"registry","name":"catalog","actions":["*"]}]"#
        );
        assert_eq!(TokenAccess::from_entries(&entries), access);
        let name = |name| RepositoryName::parse(name).unwrap();
        assert!(
            access.may_pull(&name("a"))
                && !access.may_pull(&name("b"))
                && !access.may_pull(&name("c"))
        );
        assert!(access.has_catalog() && !access.rights(&name("a")).has(Right::Delete));
    }

    #[test]
    fn no_rights_to_the_catalog_grant_no_access() {
        let mut access = TokenAccess::default();
        access.add(Resource::Catalog, Rights::NONE);
        assert!(!access.has_catalog());
    }
}
