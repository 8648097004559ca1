//! The access of tokens for many repositories. Such a token has the id of its list, since the list
//! would not fit into the head of a request.
//!
//! Lists are in memory and, for tokens of users, in files below `state`. A list that is lost grants
//! nothing: its client gets 401 with a challenge, and asks for another token.

mod files;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Bearer;
use super::claims::{AccessEntry, TokenAccess};
use crate::crypto;
use crate::state_file::run_blocking;
use files::{AccessListFiles, ListOwner};

/// Lists of granted access.
pub(super) struct AccessLists {
    of_users: Mutex<RecentLists>,
    /// Apart from the others, so that clients without a login displace none of them.
    anonymous: Mutex<RecentLists>,
    files: Arc<AccessListFiles>,
    /// Bounds the threads that wait for a slow disk.
    disk_permits: Arc<Semaphore>,
}

/// The hash of a list, its domain and its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListId([u8; 32]);

/// A list that is too long for a token.
pub(super) struct AccessList {
    pub(super) id: ListId,
    /// `None` without a login.
    owner: Option<ListOwner>,
    access: Arc<TokenAccess>,
    /// The content of its file, of which the id is the hash.
    text: Vec<u8>,
}

/// The lists of the tokens that were issued or used last.
struct RecentLists {
    lists: HashMap<ListId, RecentList>,
    max: usize,
}

struct RecentList {
    access: Arc<TokenAccess>,
    /// When the last of its tokens expires, in seconds since 1970.
    until: u64,
}

impl AccessLists {
    pub(super) fn new(state: &Path) -> Self {
        Self {
            of_users: Mutex::new(RecentLists::new(MAX_USER_LISTS)),
            anonymous: Mutex::new(RecentLists::new(MAX_ANONYMOUS_LISTS)),
            files: Arc::new(AccessListFiles::new(state)),
            disk_permits: Arc::new(Semaphore::new(MAX_DISK_THREADS)),
        }
    }

    /// The access of a list that is in memory.
    pub(super) fn get(&self, id: &ListId, of_user: bool) -> Option<Arc<TokenAccess>> {
        let recent = self.recent(of_user);
        let lists = recent.lock().unwrap_or_else(PoisonError::into_inner);
        lists.lists.get(id).map(|list| list.access.clone())
    }

    /// Holds a list in memory for a token that expires at `until`.
    pub(super) fn remember(&self, list: AccessList, until: u64) {
        let AccessList {
            id, owner, access, ..
        } = list;
        let recent = self.recent(owner.is_some());
        let mut lists = recent.lock().unwrap_or_else(PoisonError::into_inner);
        lists.insert(id, RecentList { access, until });
    }

    /// Writes a list, unless it has no user. Logs an error: the token is good in this process then.
    pub(super) async fn write(&self, list: AccessList, now: SystemTime) {
        let AccessList {
            id, owner, text, ..
        } = list;
        let Some(owner) = owner else { return };
        let written = self.on_disk(move |files| files.write(&id, &owner, &text, now));
        let error = match written.await {
            Some(Ok(())) => return,
            Some(Err(error)) => error.to_string(),
            None => "the disk is too slow".to_owned(),
        };
        tracing::warn!(
            error,
            "list of a token could not be written: a restart loses it"
        );
    }

    /// Reads the list of a user's token into memory, if there is one.
    pub(super) async fn read(&self, id: ListId, domain: &str, user: &str, until: u64) {
        let owner = ListOwner::new(domain, user);
        let read = self.on_disk(move |files| {
            let text = files.read(&id, &owner)?;
            AccessList::parse(id, owner, text)
        });
        if let Some(Some(list)) = read.await {
            self.remember(list, until);
        }
    }

    /// The result of work on the files, unless the disk takes too long.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AccessListFiles) -> T + Send + 'static,
    ) -> Option<T> {
        let (files, permits) = (self.files.clone(), self.disk_permits.clone());
        let worked = async move {
            let permit = permits.acquire_owned().await.ok()?;
            let work = move || {
                // Moved here, since the work goes on when nobody waits for it any more.
                let _permit = permit;
                work(&files)
            };
            Some(run_blocking(work).await)
        };
        timeout(DISK_TIMEOUT, worked).await.ok().flatten()
    }

    fn recent(&self, of_user: bool) -> &Mutex<RecentLists> {
        if of_user {
            &self.of_users
        } else {
            &self.anonymous
        }
    }
}

impl AccessList {
    /// The list of a token, if it is too long for the token itself.
    pub(super) fn of_long(bearer: Bearer<'_>, access: &TokenAccess) -> Option<Self> {
        if !access.is_long() {
            return None;
        }
        let user = bearer.user.map(|(user, _)| user.as_str());
        let content = (bearer.domain, user, access.to_entries());
        let text = serde_json::to_vec(&content).expect("texts always serialize");
        Some(Self {
            id: ListId(crypto::sha256(&text)),
            owner: user.map(|user| ListOwner::new(bearer.domain, user)),
            access: Arc::new(access.clone()),
            text,
        })
    }

    /// The list of a file, unless it was changed.
    fn parse(id: ListId, owner: ListOwner, text: Vec<u8>) -> Option<Self> {
        if crypto::sha256(&text) != id.0 {
            return None;
        }
        let content: (String, Option<String>, Vec<AccessEntry>) =
            serde_json::from_slice(&text).ok()?;
        Some(Self {
            id,
            owner: Some(owner),
            access: Arc::new(TokenAccess::from_entries(&content.2)),
            text,
        })
    }
}

impl ListId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        crypto::from_hex(text).map(Self)
    }
}

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crypto::hex(&self.0))
    }
}

impl RecentLists {
    fn new(max: usize) -> Self {
        let lists = HashMap::new();
        Self { lists, max }
    }

    /// Adds a list, in place of the one whose tokens expire first if there are too many.
    fn insert(&mut self, id: ListId, list: RecentList) {
        if let Some(known) = self.lists.get_mut(&id) {
            known.until = known.until.max(list.until);
            return;
        }
        if self.lists.len() >= self.max {
            let first = self.lists.iter().min_by_key(|(_, list)| list.until);
            if let Some(first) = first.map(|(id, _)| *id) {
                self.lists.remove(&first);
            }
        }
        self.lists.insert(id, list);
    }
}

/// A list of a form's 64 KiB takes 100 KiB with names as they are usual, and 300 KiB with the
/// shortest: 20 MiB in all. Others are in files.
const MAX_USER_LISTS: usize = 64;
/// 5 MiB. Beyond that, clients get 401 and ask again.
const MAX_ANONYMOUS_LISTS: usize = 16;
const MAX_DISK_THREADS: usize = 2;
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserName;
    use crate::registry::name::RepositoryName;
    use crate::registry::scope::{Resource, Right};

    fn access(count: usize, prefix: &str) -> TokenAccess {
        let pair = |number| {
            let name = RepositoryName::parse(&format!("{prefix}/{number}")).expect("a name");
            (Resource::Repository(name), Right::Pull.into())
        };
        (0..count).map(pair).collect()
    }

    fn list(user: Option<&UserName>, prefix: &str) -> AccessList {
        let bearer = Bearer {
            domain: "ci.test",
            user: user.map(|user| (user, "entry")),
        };
        AccessList::of_long(bearer, &access(100, prefix)).expect("a long list")
    }

    #[test]
    fn a_list_is_what_does_not_fit_into_a_token() {
        let bearer = Bearer {
            domain: "ci.test",
            user: None,
        };
        for (count, is_long) in [(0, false), (40, false), (80, true)] {
            let list = AccessList::of_long(bearer, &access(count, "a"));
            assert_eq!(list.is_some(), is_long, "{count}");
        }
    }

    #[test]
    fn the_id_of_a_list_is_that_of_its_domain_user_and_content() {
        let [alice, bob] = ["alice", "bob"].map(|name| UserName::new(name).expect("a name"));
        let other_domain = Bearer {
            domain: "other.test",
            user: Some((&alice, "entry")),
        };
        let other_domain = AccessList::of_long(other_domain, &access(100, "a")).expect("long");
        let ids = [
            list(Some(&alice), "a").id,
            list(Some(&alice), "b").id,
            list(Some(&bob), "a").id,
            list(None, "a").id,
            other_domain.id,
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id));
            assert_eq!(ListId::parse(&id.to_string()), Some(*id));
        }
        assert_eq!(list(Some(&alice), "a").id, ids[0]);
    }

    #[test]
    fn lists_in_memory_are_bounded_and_anonymous_ones_displace_none_of_users() {
        let state = tempfile::tempdir().expect("a directory");
        let lists = AccessLists::new(state.path());
        let alice = UserName::new("alice").expect("a name");
        let first = list(Some(&alice), "first").id;
        lists.remember(list(Some(&alice), "first"), 1);
        for number in 0..100 {
            lists.remember(list(None, &format!("anonymous{number}")), 1000);
        }
        assert!(lists.get(&first, true).is_some());
        assert!(lists.get(&first, false).is_none());
        let count = |recent: &Mutex<RecentLists>| recent.lock().expect("no panic").lists.len();
        assert_eq!(count(&lists.anonymous), MAX_ANONYMOUS_LISTS);
        // Its last token expires after those of the others.
        lists.remember(list(Some(&alice), "first"), 500);
        for number in 0..100 {
            lists.remember(list(Some(&alice), &format!("other{number}")), 100 + number);
        }
        assert_eq!(count(&lists.of_users), MAX_USER_LISTS);
        assert!(lists.get(&first, true).is_some());
    }
}
