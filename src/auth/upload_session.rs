//! Binds upload sessions to their users: the session id that a client receives ends with a tag over
//! domain, user and repository. Only the key is stored, so that sessions survive a restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::UserName;
use crate::crypto::{self, TagKey};
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::{ReplicaId, UploadId};
use crate::state_file::{Access, FileLock, LOCK_TIMEOUT, atomic_write, private_directory};

/// The key under which sessions are tagged.
#[derive(Clone)]
pub struct SessionKey(Arc<TagKey>);

/// The domain and user that sessions are bound to.
#[derive(Clone, Debug)]
pub struct SessionOwner {
    key: SessionKey,
    domain: Arc<str>,
    user: UserName,
}

impl SessionKey {
    /// Reads the key below the state directory, or generates it. Blocks on the disk, and for
    /// [`LOCK_TIMEOUT`] at most on other processes that do the same.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        if let Some(key) = Self::read(&path)? {
            return Ok(key);
        }
        private_directory(state)?;
        let _lock = FileLock::acquire_beside(&path, LOCK_TIMEOUT)?;
        if let Some(key) = Self::read(&path)? {
            return Ok(key);
        }
        let key = crypto::random_secret::<KEY_BYTES>()?;
        atomic_write(&path, &*key, Access::Private)?;
        Ok(Self::new(&*key))
    }

    /// Whether [`Self::open`] can use the key that is there. Creates nothing.
    pub(crate) fn check(state: &Path) -> io::Result<()> {
        Self::read(&state.join(FILE)).map(drop)
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(key) if key.len() == KEY_BYTES => Ok(Some(Self::new(&key))),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is not a key",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A key in memory: all sessions end with the process.
    pub fn ephemeral() -> io::Result<Self> {
        Ok(Self(Arc::new(TagKey::random()?)))
    }

    fn new(key: &[u8]) -> Self {
        Self(Arc::new(TagKey::new(key)))
    }

    /// The id of the replica at an address: the same after a restart, and at any place in `urls`.
    pub(crate) fn replica(&self, domain: &str, url: &str) -> ReplicaId {
        let fields = [REPLICA_FIELD, domain.as_bytes(), url.as_bytes()];
        ReplicaId::from_tag(&crypto::keyed_tag(&self.0, &fields))
    }

    /// The owner of the sessions of a user.
    pub fn owner(&self, domain: &str, user: UserName) -> SessionOwner {
        SessionOwner {
            key: self.clone(),
            domain: domain.into(),
            user,
        }
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey")
    }
}

impl SessionOwner {
    /// The session id for the owner. `None` if it is too long.
    pub fn bind(&self, repository: &RepositoryName, session: &UploadId) -> Option<UploadId> {
        let tag = self.tag(repository, session.as_str());
        UploadId::parse(&format!("{session}{SEPARATOR}{tag}")).ok()
    }

    /// The session id of the registry, if `bound` belongs to the owner.
    pub fn unbind(&self, repository: &RepositoryName, bound: &UploadId) -> Option<UploadId> {
        let (session, tag) = bound.as_str().rsplit_once(SEPARATOR)?;
        let own = self.tag(repository, session);
        if crypto::equal_in_constant_time(own.as_bytes(), tag.as_bytes()) {
            UploadId::parse(session).ok()
        } else {
            None
        }
    }

    fn tag(&self, repository: &RepositoryName, session: &str) -> String {
        let fields = [
            &*self.domain,
            self.user.as_str(),
            repository.as_str(),
            session,
        ];
        crypto::keyed_tag_text(&self.key.0, &fields.map(str::as_bytes))
    }
}

/// The name of the file of the key below the state directory.
pub(crate) const FILE: &str = "upload-sessions.key";
const KEY_BYTES: usize = 32;
/// The tag of a session has four fields, so that none is the tag of a replica.
const REPLICA_FIELD: &[u8] = b"replica";
/// Separates the session id of the registry from the tag. Registries use UUIDs and base64; a session
/// id may contain the separator, as the last one counts.
const SEPARATOR: char = '~';

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn owner(key: &SessionKey, domain: &str, user: &str) -> SessionOwner {
        key.owner(domain, UserName::new(user).unwrap())
    }

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[test]
    fn a_session_is_its_owners_alone_and_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let key = SessionKey::open(&state).unwrap();
        let session = UploadId::parse("3f1c6f6e-8d5e_=.~a").unwrap();
        let bound = owner(&key, "ci.test", "alice")
            .bind(&name("a"), &session)
            .unwrap();
        let again = SessionKey::open(&state).unwrap();
        assert_eq!(
            owner(&again, "ci.test", "alice").unbind(&name("a"), &bound),
            Some(session.clone())
        );
        for (domain, user, repository) in [
            ("ci.test", "bob", "a"),
            ("other.test", "alice", "a"),
            ("ci.test", "alice", "b"),
        ] {
            assert_eq!(
                owner(&key, domain, user).unbind(&name(repository), &bound),
                None,
                "{user}"
            );
        }
        assert_eq!(
            owner(&key, "ci.test", "alice").unbind(&name("a"), &session),
            None,
            "without a tag"
        );
        let other = SessionKey::open(&directory.path().join("other")).unwrap();
        assert_eq!(
            owner(&other, "ci.test", "alice").unbind(&name("a"), &bound),
            None
        );
        let mode = std::fs::metadata(state.join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(state.join(FILE), "short").unwrap();
        assert!(
            SessionKey::open(&state).is_err(),
            "not replaced: sessions would be lost silently"
        );
    }

    #[test]
    fn fields_have_borders() {
        let key = SessionKey::new(&[7; KEY_BYTES]);
        let session = UploadId::parse("1").unwrap();
        let bound = owner(&key, "ci", "alice")
            .bind(&name("a"), &session)
            .unwrap();
        assert_eq!(owner(&key, "cia", "lice").unbind(&name("a"), &bound), None);
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_session(text in "[A-Za-z0-9_=.~-]{1,60}") {
            let alice = owner(&SessionKey::new(&[7; KEY_BYTES]), "ci", "alice");
            if let Ok(session) = UploadId::parse(&text) {
                prop_assert_eq!(alice.unbind(&name("a"), &session), None);
                let bound = alice.bind(&name("a"), &session).unwrap();
                prop_assert_eq!(alice.unbind(&name("a"), &bound), Some(session));
            }
        }
    }
}
