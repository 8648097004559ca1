//! Running hashes in the digest algorithms that the store supports.

use std::fs::File;
use std::io::{self, Read, Seek};

use aws_lc_rs::digest::{Context, SHA256, SHA512};

use super::error::StoreError;
use crate::registry::digest::Digest;

/// A digest algorithm that the store supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DigestAlgorithm {
    Sha256,
    Sha512,
}

impl DigestAlgorithm {
    pub(super) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub(super) fn from_digest(digest: &Digest) -> Result<Self, StoreError> {
        let known = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == digest.algorithm());
        known.ok_or(StoreError::DigestUnsupported)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    pub(super) fn hasher(self) -> ContentHasher {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        };
        ContentHasher {
            algorithm: self,
            context: Context::new(algorithm),
        }
    }

    /// The digest of bytes in memory.
    pub(super) fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of a whole file.
    pub(super) fn digest_file(self, mut file: &File) -> io::Result<Digest> {
        file.rewind()?;
        let mut hasher = self.hasher();
        let mut bytes = vec![0; 256 * 1024];
        loop {
            match file.read(&mut bytes) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => hasher.update(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a digest is that of some content. A digest by an algorithm that the store does not
/// support is not.
pub(crate) fn is_digest_of(digest: &Digest, content: &[u8]) -> bool {
    DigestAlgorithm::from_digest(digest).is_ok_and(|algorithm| algorithm.digest(content) == *digest)
}

/// A running hash.
#[derive(Clone)]
pub(super) struct ContentHasher {
    algorithm: DigestAlgorithm,
    context: Context,
}

impl ContentHasher {
    pub(super) fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        let digits = crate::crypto::hex(self.context.finish().as_ref());
        let text = format!("{}:{digits}", self.algorithm.name());
        Digest::parse(&text).expect("an algorithm's name and as many digits as it gives")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    // FIPS 180-4, the example "abc".
    const SHA256_OF_ABC: &str =
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const SHA512_OF_ABC: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn the_examples_of_the_standard_come_out() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        for (algorithm, digest) in [
            (DigestAlgorithm::Sha256, SHA256_OF_ABC),
            (DigestAlgorithm::Sha512, SHA512_OF_ABC),
        ] {
            assert_eq!(algorithm.digest(b"abc").as_str(), digest);
            assert!(is_digest_of(&Digest::parse(digest).unwrap(), b"abc"));
            assert!(!is_digest_of(&Digest::parse(digest).unwrap(), b"abd"));
            assert_eq!(algorithm.digest_file(&file).unwrap().as_str(), digest);
            assert_eq!(
                DigestAlgorithm::from_digest(&Digest::parse(digest).unwrap()).unwrap(),
                algorithm
            );
        }
        let other = Digest::parse(&format!("md5:{}", "a".repeat(32))).unwrap();
        assert!(!is_digest_of(&other, b"abc"));
        assert!(matches!(
            DigestAlgorithm::from_digest(&other),
            Err(StoreError::DigestUnsupported)
        ));
    }
}
