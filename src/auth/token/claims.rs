//! The claims of a token, and the access that they grant.

use std::cmp::Ordering;
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
    /// Empty if it is too long for a token.
    pub(super) access: Vec<AccessEntry>,
    /// The id of the list that has the access, if it is too long for a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access_list: Option<String>,
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

/// Resources and the rights to each of them, in the order of the resources and each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenAccess(Vec<(Resource, Rights)>);

impl TokenAccess {
    /// Adds rights to a resource.
    pub fn add(&mut self, resource: Resource, rights: Rights) {
        match self.0.binary_search_by(|(known, _)| known.cmp(&resource)) {
            Ok(at) => {
                if let Some((_, known)) = self.0.get_mut(at) {
                    *known = known.and(rights);
                }
            }
            Err(at) => self.0.insert(at, (resource, rights)),
        }
    }

    /// The rights to a repository.
    pub fn rights(&self, repository: &RepositoryName) -> Rights {
        let found = self.0.binary_search_by(|(resource, _)| match resource {
            Resource::Catalog => Ordering::Less,
            Resource::Repository(name) => name.cmp(repository),
        });
        let found = found.ok().and_then(|at| self.0.get(at));
        found.map_or(Rights::NONE, |(_, rights)| *rights)
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

    /// Whether it is too long for a token.
    pub(super) fn is_long(&self) -> bool {
        let claim = |(resource, _): &(Resource, Rights)| {
            resource.type_and_name().1.len() + MAX_CLAIM_FRAME_BYTES
        };
        self.0.iter().map(claim).sum::<usize>() > MAX_CLAIM_BYTES
    }

    /// The resources with their rights, in their order.
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
        let known = |word: &String| match word.as_str() {
            "*" => Rights::ALL,
            word => Right::ALL
                .into_iter()
                .filter(|right| right.as_str() == word)
                .collect(),
        };
        let entry = |entry: &AccessEntry| {
            let resource = Resource::from_type_and_name(&entry.resource_type, &entry.name)?;
            let rights = entry.actions.iter().map(known);
            Some((resource, rights.fold(Rights::NONE, Rights::and)))
        };
        entries.iter().filter_map(entry).collect()
    }
}

impl FromIterator<(Resource, Rights)> for TokenAccess {
    /// Adds all rights, at a cost that many resources do not multiply.
    fn from_iter<I: IntoIterator<Item = (Resource, Rights)>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|(resource, rights), (kept, all_rights)| {
            let is_same = resource == kept;
            if is_same {
                *all_rights = all_rights.and(*rights);
            }
            is_same
        });
        Self(all)
    }
}

/// In a token they become 5.5 KiB, beside some hundred bytes of other claims: a front may accept no
/// more than 8 KiB in a line of a head.
const MAX_CLAIM_BYTES: usize = 4096;
/// What a claim has beside the name: type, all actions, and JSON.
const MAX_CLAIM_FRAME_BYTES: usize = 70;

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
            r#"[{"type":"registry","name":"catalog","actions":["*"]},{"type":"repository","name":"a","actions":["pull","push"]},{"type":"repository","name":"b","actions":[]}]"#
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
    fn it_is_the_same_in_whichever_order_it_is_collected() {
        let pairs = [
            (repository("b"), Rights::from(Right::Pull)),
            (Resource::Catalog, Rights::NONE),
            (repository("a"), Rights::NONE),
            (repository("b"), Right::Delete.into()),
            (Resource::Catalog, Rights::ALL),
            (repository("a/b"), Right::Push.into()),
            (repository("a"), Right::Pull.into()),
        ];
        let mut added = TokenAccess::default();
        for (resource, rights) in pairs.clone() {
            added.add(resource, rights);
        }
        assert_eq!(pairs.clone().into_iter().collect::<TokenAccess>(), added);
        assert_eq!(pairs.into_iter().rev().collect::<TokenAccess>(), added);
        assert_eq!(
            added.to_scopes(),
            "registry:catalog:* repository:a:pull repository:a/b:push repository:b:pull,delete"
        );
        for (name, rights) in [("a", 1), ("a/b", 1), ("b", 2), ("c", 0), ("0", 0)] {
            let name = RepositoryName::parse(name).unwrap();
            assert_eq!(added.rights(&name).iter().count(), rights, "{name}");
        }
    }

    #[test]
    fn no_rights_to_the_catalog_grant_no_access() {
        let mut access = TokenAccess::default();
        access.add(Resource::Catalog, Rights::NONE);
        assert!(!access.has_catalog());
    }
}
