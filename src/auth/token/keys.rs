//! The keys that sign tokens: generated below `state`, shared by all processes that use it, and
//! rotated.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::claims::seconds;
use super::entry_key::EntryKey;
use crate::crypto;
use crate::state_file::{Access, FileLock, LOCK_TIMEOUT, atomic_write, private_directory};

/// The algorithm of every token (RFC 7518 §3.4), whatever the header of a token says.
pub(super) const ALGORITHM: Algorithm = Algorithm::ES256;

/// The valid keys.
pub(super) struct Keys {
    /// The oldest first, at least one.
    all: Vec<SigningKey>,
    pub(super) entry_key: EntryKey,
}

/// A key pair and its id.
pub(super) struct SigningKey {
    made: u64,
    /// The RFC 7638 thumbprint of the public key.
    pub(super) id: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: DecodingKey,
    public: Jwk,
}

/// Why keys cannot be read or generated.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("the token keys in {path} cannot be used: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "{0} has no token keys; without the file new ones are generated, and all users have to log in again"
    )]
    Damaged(PathBuf),
    #[error("the system has no randomness for a key")]
    NoRandomness,
}

/// The content of the file. It has no `Debug`: it contains private keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    entry_key: String,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    made: u64,
    pkcs8: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        let texts = self
            .keys
            .iter_mut()
            .map(|key| &mut key.pkcs8)
            .chain([&mut self.entry_key]);
        texts.for_each(secrecy::zeroize::Zeroize::zeroize);
    }
}

impl Keys {
    /// Reads the keys below the state directory, and generates the next one if it is due. Of several
    /// processes that do so at once, one generates the key and the others read it. Blocks on the disk,
    /// and for [`LOCK_TIMEOUT`] at most on the other processes.
    pub(super) fn open(state: &Path, now: SystemTime) -> Result<Self, KeysError> {
        let path = path(state);
        let io = |cause| KeysError::Io {
            path: path.clone(),
            cause,
        };
        private_directory(state).map_err(io)?;
        let _lock = FileLock::acquire_beside(&path, LOCK_TIMEOUT).map_err(io)?;
        let stored = match stored(&path) {
            Ok(stored) => Some(stored),
            Err(KeysError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let exists = stored.is_some();
        let mut stored = match stored {
            Some(stored) => stored,
            None => Stored {
                entry_key: random_key()?,
                keys: Vec::new(),
            },
        };
        // Checked before the file is replaced.
        if Self::from_stored(&stored).is_none() && exists {
            return Err(KeysError::Damaged(path));
        }
        if rotate(&mut stored.keys, seconds(now))? || !exists {
            let text =
                Zeroizing::new(serde_json::to_vec_pretty(&stored).expect("texts always serialize"));
            atomic_write(&path, &text, Access::Private).map_err(io)?;
        }
        Self::from_stored(&stored).ok_or(KeysError::Damaged(path))
    }

    fn from_stored(stored: &Stored) -> Option<Self> {
        let entry_key = Zeroizing::new(STANDARD.decode(&stored.entry_key).ok()?);
        if entry_key.len() < 32 {
            return None;
        }
        let entry_key = EntryKey::new(&entry_key);
        let all: Vec<SigningKey> = stored
            .keys
            .iter()
            .map(SigningKey::from_stored)
            .collect::<Option<_>>()?;
        (!all.is_empty()).then_some(Self { all, entry_key })
    }

    /// Whether the next key is due.
    pub(super) fn needs_rotation(&self, now: SystemTime) -> bool {
        let newest = self.all.last().map_or(0, |key| key.made);
        is_due(newest, seconds(now))
    }

    /// Whether the key ids are equal.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let ids = |keys: &Self| {
            keys.all
                .iter()
                .map(|key| key.id.clone())
                .collect::<Vec<_>>()
        };
        ids(self) == ids(other)
    }

    /// The signing key: the newest that every process has had the time to read.
    pub(super) fn signing(&self, now: SystemTime) -> &SigningKey {
        let known = |key: &&SigningKey| key.made.saturating_add(LEAD.as_secs()) <= seconds(now);
        let key = self.all.iter().rev().find(known).or(self.all.first());
        key.expect("there is at least one key")
    }

    /// The key with an id.
    pub(super) fn find(&self, id: &str) -> Option<&SigningKey> {
        self.all.iter().find(|key| key.id == id)
    }

    /// The public keys, as a JSON web key set (RFC 7517 §5).
    pub(super) fn public(&self) -> Vec<&Jwk> {
        self.all.iter().map(|key| &key.public).collect()
    }
}

/// Reads the entry key below a state directory, for commands. `None` if there is none; never generates
/// one.
pub(crate) fn read_entry_key(state: &Path) -> Result<Option<EntryKey>, KeysError> {
    let path = path(state);
    let stored = match stored(&path) {
        Ok(stored) => stored,
        Err(KeysError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let keys = Keys::from_stored(&stored).ok_or(KeysError::Damaged(path))?;
    Ok(Some(keys.entry_key))
}

fn stored(path: &Path) -> Result<Stored, KeysError> {
    let text = std::fs::read(path).map_err(|cause| KeysError::Io {
        path: path.to_owned(),
        cause,
    })?;
    serde_json::from_slice(&Zeroizing::new(text)).map_err(|_| KeysError::Damaged(path.to_owned()))
}

impl SigningKey {
    fn from_stored(stored: &StoredKey) -> Option<Self> {
        let pkcs8 = Zeroizing::new(STANDARD.decode(&stored.pkcs8).ok()?);
        let signing = EncodingKey::from_ec_der(&pkcs8);
        let mut public = Jwk::from_encoding_key(&signing, ALGORITHM).ok()?;
        let AlgorithmParameters::EllipticCurve(point) = &public.algorithm else {
            return None;
        };
        let verifying = DecodingKey::from_ec_components(&point.x, &point.y).ok()?;
        let id = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Some(Self {
            made: stored.made,
            id,
            signing,
            verifying,
            public,
        })
    }
}

/// Generates the next key if it is due, and drops the keys whose last tokens have expired. Returns
/// whether anything changed.
fn rotate(keys: &mut Vec<StoredKey>, now: u64) -> Result<bool, KeysError> {
    let newest = keys.iter().map(|key| key.made).max();
    if newest.is_some_and(|newest| !is_due(newest, now)) {
        return Ok(false);
    }
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let pkcs8 = made.map_err(|_| KeysError::NoRandomness)?;
    // A key from the future was made with a wrong clock and would never expire.
    keys.retain(|key| key.made <= now && now - key.made < (ROTATION + LEAD + OVERLAP).as_secs());
    keys.push(StoredKey {
        made: now,
        pkcs8: STANDARD.encode(pkcs8.as_ref()),
    });
    Ok(true)
}

/// Whether the next key is due. True as well if the newest key was made with a clock that was ahead.
fn is_due(newest: u64, now: u64) -> bool {
    now.saturating_sub(newest) >= ROTATION.as_secs() || newest.saturating_sub(now) > LEAD.as_secs()
}

fn random_key() -> Result<String, KeysError> {
    let key = crypto::random_secret::<32>().map_err(|_| KeysError::NoRandomness)?;
    Ok(STANDARD.encode(*key))
}

pub(super) fn path(state: &Path) -> PathBuf {
    state.join("token-keys.json")
}

/// The time from one key to the next.
const ROTATION: Duration = Duration::from_secs(30 * 86_400);
/// The time from the publication of a key to its first signature: other processes poll once a second,
/// and readers may cache the JWKS for minutes.
const LEAD: Duration = Duration::from_secs(3600);
/// How long a key verifies after the next one has begun to sign: the maximum lifetime of a token and
/// a day.
const OVERLAP: Duration = Duration::from_secs(2 * 86_400);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::auth::UserName;
    use crate::auth::htpasswd::Htpasswd;

    fn day(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + day * 86_400)
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let one = Keys::open(&state, day(0)).unwrap();
        let two = Keys::open(&state, day(1)).unwrap();
        assert_eq!(one.signing(day(1)).id, two.signing(day(1)).id);
        assert!(!one.needs_rotation(day(1)));
        let mode = std::fs::metadata(path(&state))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let nobody = Htpasswd::parse(b"");
        let alice = UserName::new("alice").expect("a name");
        let sign = |keys: &Keys| keys.entry_key.tag("ci.test", &alice, &nobody);
        assert_eq!(sign(&one), sign(&two));
    }

    #[test]
    fn of_processes_that_start_at_once_one_makes_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            Keys::open(directory.path(), day(0))
                .unwrap()
                .signing(day(0))
                .id
                .clone()
        };
        let ids: Vec<String> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn the_name_of_a_key_is_its_thumbprint() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path(), day(0)).unwrap();
        let shown = serde_json::to_value(keys.public()).unwrap();
        let text = |key: &str| shown[0][key].as_str().unwrap().to_owned();
        // RFC 7638 §3: the required members in lexicographic order, without white space.
        let members = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            text("x"),
            text("y")
        );
        let thumbprint = crypto::sha256(members.as_bytes());
        assert_eq!(text("kid"), URL_SAFE_NO_PAD.encode(thumbprint));
        assert_eq!(
            (text("alg"), text("use")),
            ("ES256".to_owned(), "sig".to_owned())
        );
        assert_eq!(
            shown[0].as_object().unwrap().len(),
            7,
            "nothing private: {shown}"
        );
    }

    #[test]
    fn keys_follow_one_another_and_old_ones_verify_as_long_as_their_tokens_live() {
        let directory = tempfile::tempdir().unwrap();
        let open = |day| Keys::open(directory.path(), day).unwrap();
        let hour = Duration::from_secs(3600);
        let first = open(day(0));
        assert!(first.needs_rotation(day(30)) && !first.needs_rotation(day(29)));
        let both = open(day(30));
        assert!(!both.needs_rotation(day(30)) && !both.same_as(&first));
        let old = first.signing(day(0)).id.clone();
        assert_eq!(both.public().len(), 2);
        assert_eq!(both.signing(day(30)).id, old, "the new one is shown first");
        let new = both.signing(day(30) + hour).id.clone();
        assert_ne!(new, old);
        assert!(both.find(&old).is_some(), "it verifies on");
        let third = open(day(60));
        assert!(third.find(&old).is_none() && third.find(&new).is_some());
    }

    #[test]
    fn a_clock_that_was_wrong_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let future = Keys::open(directory.path(), day(1000))
            .unwrap()
            .signing(day(1000))
            .id
            .clone();
        let now = Keys::open(directory.path(), day(0)).unwrap();
        assert_ne!(now.signing(day(0)).id, future);
        assert!(now.find(&future).is_none());
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "{}", "{\"entry_key\":\"AAAA\",\"keys\":[]}", "x"] {
            std::fs::write(path(directory.path()), text).unwrap();
            assert!(
                matches!(
                    Keys::open(directory.path(), day(0)),
                    Err(KeysError::Damaged(_))
                ),
                "{text}"
            );
            assert_eq!(
                std::fs::read_to_string(path(directory.path())).unwrap(),
                text
            );
        }
    }
}
