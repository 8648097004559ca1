//! The id of an upload session. The upstream chooses it, and gets it back unchanged. An address of
//! the upstream that names no session in the way of the protocol becomes an id, too.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The last path segment of an upload session: `[A-Za-z0-9_=.~-]+`, but neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Box<str>);

/// Names one of several replicas of an upstream, without telling its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(u64);

impl ReplicaId {
    /// The id that begins with these bytes of a tag over the address.
    pub fn from_tag(tag: &[u8; 32]) -> Self {
        let (start, _) = tag.split_first_chunk().expect("longer than 8 bytes");
        Self(u64::from_be_bytes(*start))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not the name of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upload session name is not valid")]
pub struct InvalidUploadId;

impl UploadId {
    /// The maximum length in bytes. Most registries use a UUID or a token of up to about 200, but
    /// there are addresses of more than a thousand. A target of 8 KiB has room for it beside a
    /// repository of 255 and a digest of 136.
    pub const MAX_BYTES: usize = 7 * 1024;

    /// Parses an id: the characters that Go's `distribution` routes, and `~`.
    pub fn parse(text: &str) -> Result<Self, InvalidUploadId> {
        let known =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'=' | b'.' | b'~' | b'-');
        let valid = !matches!(text, "" | "." | "..")
            && text.len() <= Self::MAX_BYTES
            && text.bytes().all(known);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidUploadId)
        }
    }

    /// An id for an address of the upstream: its path and query.
    pub fn from_address(address: &str) -> Result<Self, InvalidUploadId> {
        Self::parse(&format!(
            "{ADDRESS_MARK}{}",
            URL_SAFE_NO_PAD.encode(address)
        ))
    }

    /// An id for a session whose chunks moorgate collects in an upload of its own.
    pub fn spooled(upload: &Self, session: &Self) -> Result<Self, InvalidUploadId> {
        Self::parse(&format!("{SPOOL_MARK}{upload}.{session}"))
    }

    /// The upload and the session in an id that [`Self::spooled`] has made. Whether it has, only a
    /// tag proves.
    pub fn as_spooled(&self) -> Option<(Self, Self)> {
        let (upload, session) = self.0.strip_prefix(SPOOL_MARK)?.split_once('.')?;
        Some((Self::parse(upload).ok()?, Self::parse(session).ok()?))
    }

    /// An id for a session of one replica of the upstream.
    pub fn at_replica(replica: ReplicaId, session: &Self) -> Result<Self, InvalidUploadId> {
        Self::parse(&format!("{REPLICA_MARK}{replica}.{session}"))
    }

    /// The replica and the session in an id that [`Self::at_replica`] has made. Whether it has, only
    /// a tag proves.
    pub fn as_at_replica(&self) -> Option<(ReplicaId, Self)> {
        let (replica, session) = self.0.strip_prefix(REPLICA_MARK)?.split_once('.')?;
        let replica = u64::from_str_radix(replica, 16).ok()?;
        Some((ReplicaId(replica), Self::parse(session).ok()?))
    }

    /// The address in an id that [`Self::from_address`] has made. Whether it has, only a tag proves.
    pub fn address(&self) -> Option<String> {
        let encoded = self.0.strip_prefix(ADDRESS_MARK)?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
    }

    /// Whether the id looks like that of an address.
    pub fn is_address(&self) -> bool {
        self.0.starts_with(ADDRESS_MARK)
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const ADDRESS_MARK: char = '~';
/// No address begins so: its base64 has no dot.
const SPOOL_MARK: &str = "~.";
/// Nor so: the base64 of a path begins with `L`.
const REPLICA_MARK: &str = "~-";

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_segment() {
        for text in [
            "3f1c6f6e-8d5e-4d0a-9a3e-2b2f1c0d9e8f",
            "AbC_=.~-",
            "...",
            "uploads",
            &"a".repeat(UploadId::MAX_BYTES),
        ] {
            assert_eq!(UploadId::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a%2e",
            "a:b",
            "a b",
            "a?b",
            "\u{e9}",
            &"a".repeat(UploadId::MAX_BYTES + 1),
        ] {
            assert!(UploadId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_kept_as_it_is() {
        for address in ["/a", "/artifacts-uploads/x?y=%2F&z={}", &"/x".repeat(2500)] {
            let id = UploadId::from_address(address).unwrap();
            assert!(id.is_address());
            assert_eq!(id.address().as_deref(), Some(address));
        }
        assert!(UploadId::from_address(&"x".repeat(6000)).is_err());
        for text in ["L2E", "a~L2E", "~L2E=", "~_w", "~..", "~~L2E"] {
            let address = UploadId::parse(text).unwrap().address();
            assert_eq!(address, None, "{text}");
        }
    }

    #[test]
    fn a_spooled_upload_names_both_sessions() {
        let upload = UploadId::parse("0123abcd").unwrap();
        for session in ["3f1c6f6e-8d5e.a~b", "~L3YyL2E"] {
            let session = UploadId::parse(session).unwrap();
            let both = UploadId::spooled(&upload, &session).unwrap();
            assert_eq!(both.as_spooled(), Some((upload.clone(), session)));
            assert_eq!(both.address(), None);
        }
        for other in ["0123abcd", "~L3YyL2E", "~.0123abcd", "a.b"] {
            assert_eq!(
                UploadId::parse(other).unwrap().as_spooled(),
                None,
                "{other}"
            );
        }
    }
    #[test]
    fn a_session_of_a_replica_names_both() {
        let replica = ReplicaId::from_tag(&[0xa5; 32]);
        assert_eq!(replica.to_string(), "a5a5a5a5a5a5a5a5");
        for session in ["3f1c6f6e-8d5e.a~b", "~L3YyL2E", "~.0123abcd.x"] {
            let session = UploadId::parse(session).unwrap();
            let both = UploadId::at_replica(replica, &session).unwrap();
            assert_eq!(both.as_at_replica(), Some((replica, session)));
            assert_eq!((both.address(), both.as_spooled()), (None, None));
        }
        for other in ["0123abcd", "~L3YyL2E", "~.0123abcd.x", "~-xyz.a", "~-12"] {
            let other = UploadId::parse(other).unwrap();
            assert_eq!(other.as_at_replica(), None, "{other}");
        }
    }
}
