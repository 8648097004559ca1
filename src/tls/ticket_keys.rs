//! Encrypts session tickets under keys that a successor of the process can be given, so that its
//! clients resume their sessions. The keys are in memory only and replaced every six hours.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;
use secrecy::zeroize::Zeroizing;
use tokio::time::Instant;

use crate::crypto::{NoRandomness, random, random_secret};

/// The keys of the process: the current one encrypts, the previous one still decrypts.
pub(crate) struct TicketKeys(RwLock<Rotation>);

struct Rotation {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
    /// When the current key becomes the previous one.
    until: Instant,
}

struct TicketKey {
    id: KeyId,
    secret: KeySecret,
    cipher: RandomizedNonceKey,
}

/// Chosen at random. It stands at the head of each ticket.
type KeyId = [u8; ID_BYTES];
type KeySecret = Zeroizing<[u8; SECRET_BYTES]>;

/// The keys as one process passes them to another.
pub(crate) struct TicketSecrets {
    pub(crate) current: TicketSecret,
    pub(crate) previous: Option<TicketSecret>,
    /// How long the current key still encrypts.
    pub(crate) left: Duration,
}

/// One of them.
pub(crate) struct TicketSecret {
    pub(crate) id: KeyId,
    pub(crate) secret: KeySecret,
}

impl TicketKeys {
    pub(crate) fn random() -> Result<Self, NoRandomness> {
        Ok(Self(RwLock::new(Rotation {
            current: TicketKey::random()?,
            previous: None,
            until: Instant::now() + KEY_LIFETIME,
        })))
    }

    /// The keys, for a successor of the process.
    pub(crate) fn secrets(&self) -> TicketSecrets {
        self.rotate();
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TicketSecrets {
            current: keys.current.to_secret(),
            previous: keys.previous.as_deref().map(TicketKey::to_secret),
            left: keys.until.saturating_duration_since(Instant::now()),
        }
    }

    /// The keys of a predecessor.
    pub(crate) fn from_secrets(secrets: TicketSecrets) -> Result<Self, NoRandomness> {
        let TicketSecrets {
            current,
            previous,
            left,
        } = secrets;
        Ok(Self(RwLock::new(Rotation {
            current: TicketKey::from_secret(current)?,
            previous: previous.map(TicketKey::from_secret).transpose()?,
            until: Instant::now() + left.min(KEY_LIFETIME),
        })))
    }

    /// Replaces the current key when its time is over. Without randomness it stays until there is.
    fn rotate(&self) {
        let now = Instant::now();
        let until =
            |keys: &RwLock<Rotation>| keys.read().unwrap_or_else(PoisonError::into_inner).until;
        if now < until(&self.0) {
            return;
        }
        let Ok(next) = TicketKey::random() else {
            return;
        };
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if now < keys.until {
            // Another thread has replaced it.
            return;
        }
        let replaced = std::mem::replace(&mut keys.current, next);
        // After a long time without a handshake, its tickets have expired, too.
        keys.previous = (now < keys.until + KEY_LIFETIME).then_some(replaced);
        keys.until = now + KEY_LIFETIME;
    }

    fn with_id(&self, id: &[u8]) -> Option<Arc<TicketKey>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::iter::once(&keys.current).chain(&keys.previous);
        all.find(|key| key.id == id).cloned()
    }
}

impl TicketKey {
    fn random() -> Result<Arc<Self>, NoRandomness> {
        Self::from_secret(TicketSecret {
            id: random()?,
            secret: random_secret()?,
        })
    }

    fn from_secret(secret: TicketSecret) -> Result<Arc<Self>, NoRandomness> {
        let TicketSecret { id, secret } = secret;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*secret).map_err(|_| NoRandomness)?;
        Ok(Arc::new(Self { id, secret, cipher }))
    }

    fn to_secret(&self) -> TicketSecret {
        TicketSecret {
            id: self.id,
            secret: self.secret.clone(),
        }
    }
}

/// A ticket: the id of its key, a nonce, and the encrypted session with its tag. The key id is
/// authenticated, too.
impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    /// In seconds. Each ticket can be decrypted for as long at least, and twice as long at most.
    fn lifetime(&self) -> u32 {
        KEY_LIFETIME_SECONDS
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.rotate();
        let current = {
            let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
            keys.current.clone()
        };
        let mut sealed = Vec::with_capacity(session.len() + TAG_BYTES);
        sealed.extend_from_slice(session);
        let nonce = current
            .cipher
            .seal_in_place_append_tag(Aad::from(current.id), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(ID_BYTES + NONCE_BYTES + sealed.len());
        ticket.extend_from_slice(&current.id);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.rotate();
        let (id, rest) = ticket.split_at_checked(ID_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        if sealed.len() > MAX_SEALED_BYTES {
            return None;
        }
        let key = self.with_id(id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = sealed.to_vec();
        let opened = key
            .cipher
            .open_in_place(nonce, Aad::from(key.id), &mut session);
        let bytes = opened.ok()?.len();
        session.truncate(bytes);
        Some(session)
    }
}

/// Omits the keys.
impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// At most 2^32 random nonces may be used with one key (NIST SP 800-38D §8.3): 200,000 handshakes
/// each second.
const KEY_LIFETIME: Duration = Duration::from_secs(KEY_LIFETIME_SECONDS as u64);
const KEY_LIFETIME_SECONDS: u32 = 6 * 60 * 60;
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Far more than any session of ours: a client has no certificate that it would contain.
const MAX_SEALED_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_decrypted_until_its_key_is_the_one_before_the_previous() {
        let keys = TicketKeys::random().expect("randomness");
        let ticket = keys.encrypt(b"session").expect("encrypted");
        assert_ne!(keys.encrypt(b"session").expect("encrypted"), ticket);
        tokio::time::advance(KEY_LIFETIME + KEY_LIFETIME / 2).await;
        let later = keys.encrypt(b"later").expect("encrypted");
        assert_ne!(later[..ID_BYTES], ticket[..ID_BYTES], "another key");
        assert_eq!(keys.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        tokio::time::advance(KEY_LIFETIME).await;
        assert_eq!(keys.decrypt(&ticket), None);
        assert_eq!(keys.decrypt(&later).as_deref(), Some(&b"later"[..]));
        tokio::time::advance(KEY_LIFETIME * 3).await;
        assert_eq!(keys.decrypt(&later), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_decrypts_the_tickets_of_its_predecessor() {
        let old = TicketKeys::random().expect("randomness");
        let oldest = old.encrypt(b"oldest").expect("encrypted");
        tokio::time::advance(KEY_LIFETIME).await;
        let ticket = old.encrypt(b"session").expect("encrypted");
        tokio::time::advance(KEY_LIFETIME / 2).await;
        let new = TicketKeys::from_secrets(old.secrets()).expect("usable");
        for (ticket, session) in [(&oldest, &b"oldest"[..]), (&ticket, b"session")] {
            assert_eq!(new.decrypt(ticket).as_deref(), Some(session));
        }
        // The next key comes when the predecessor's would have.
        tokio::time::advance(KEY_LIFETIME / 2).await;
        assert_eq!(new.decrypt(&oldest), None);
        assert_eq!(new.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn an_altered_or_shortened_ticket_is_none() {
        let keys = TicketKeys::random().expect("randomness");
        let ticket = keys.encrypt(b"session").expect("encrypted");
        for at in 0..ticket.len() {
            let mut altered = ticket.clone();
            altered[at] ^= 1;
            assert_eq!(keys.decrypt(&altered), None, "byte {at}");
            assert_eq!(keys.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        let other = TicketKeys::random().expect("randomness");
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(keys.decrypt(&[0; 1 << 16]), None);
    }
}
