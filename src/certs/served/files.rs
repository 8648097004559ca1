//! Loads a certificate from PEM files: the chain, leaf first, and the private key of the leaf.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use crate::certs::Certificate;
use crate::certs::library_error::pem_fault;

/// Why a pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// A file does not exist, or moorgate has no permission to read it.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        half: Half,
        source: io::Error,
    },
    /// A file is not PEM. The invalid text is not part of the message: it may be part of a key.
    #[error("{} is not valid PEM: {reason}", path.display())]
    Pem {
        path: PathBuf,
        half: Half,
        reason: &'static str,
    },
    /// A file is PEM, but contains no certificate.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The first certificate cannot be read.
    #[error("the first certificate in {} is not valid X.509", .0.display())]
    Certificate(PathBuf),
    /// A file is PEM, but contains no private key.
    #[error("{} holds no private key", .0.display())]
    NoKey(PathBuf),
    /// The key is protected by a passphrase.
    #[error("the private key in {} is encrypted", .0.display())]
    EncryptedKey(PathBuf),
    /// The key is of a kind or size that TLS does not support.
    #[error("the private key in {} is of a kind that cannot be used", path.display())]
    UnsupportedKey {
        path: PathBuf,
        source: rustls::Error,
    },
    /// The certificates of the chain are in the wrong order.
    #[error("the key belongs to a later certificate in {}", .0.display())]
    LeafNotFirst(PathBuf),
    /// The files belong to different pairs.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    KeyOfAnother { certificate: PathBuf, key: PathBuf },
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Certificate,
    Key,
}

impl FilesError {
    /// The file that has to be corrected.
    pub(crate) fn half(&self) -> Half {
        match self {
            Self::Unreadable { half, .. } | Self::Pem { half, .. } => *half,
            Self::NoCertificate(_) | Self::Certificate(_) | Self::LeafNotFirst(_) => {
                Half::Certificate
            }
            Self::NoKey(_)
            | Self::EncryptedKey(_)
            | Self::UnsupportedKey { .. }
            | Self::KeyOfAnother { .. } => Half::Key,
        }
    }

    /// What the administrator can do about it.
    pub(crate) fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "check the path and that moorgate's user may read the file and enter its directory"
            }
            Self::Pem { .. } => "copy the file again; it must be PEM, with its BEGIN and END lines",
            Self::NoCertificate(_) => {
                "the file must hold `-----BEGIN CERTIFICATE-----`, the leaf first"
            }
            Self::Certificate(_) => "copy the certificate again; it must be X.509",
            Self::NoKey(_) => {
                "the file must hold `-----BEGIN PRIVATE KEY-----` (PKCS#8, SEC1 or PKCS#1)"
            }
            Self::EncryptedKey(_) => "write it without a passphrase: openssl pkey -in KEY -out NEW",
            Self::UnsupportedKey { .. } => {
                "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
            }
            Self::LeafNotFirst(_) => {
                "put the certificate of the domain before those of its issuers"
            }
            Self::KeyOfAnother { .. } => "name the certificate and the key that were made together",
        }
    }
}

/// Reads both files and checks that the key belongs to the leaf. Blocks on the file system.
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Certificate, FilesError> {
    let mut pair = CertifiedKey::new(read_chain(certificate)?, read_key(key)?);
    match pair.keys_match() {
        Ok(()) => {
            Certificate::new(pair).map_err(|_| FilesError::Certificate(certificate.to_owned()))
        }
        Err(rustls::Error::InconsistentKeys(_)) if later_certificate_matches(&mut pair) => {
            Err(FilesError::LeafNotFirst(certificate.to_owned()))
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(FilesError::KeyOfAnother {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
        Err(_) => Err(FilesError::Certificate(certificate.to_owned())),
    }
}

fn later_certificate_matches(pair: &mut CertifiedKey) -> bool {
    (1..pair.cert.len()).any(|_| {
        pair.cert.rotate_left(1);
        pair.keys_match().is_ok()
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, FilesError> {
    let text = read(path, Half::Certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| malformed(path, Half::Certificate, &error))?;
    if chain.is_empty() {
        return Err(FilesError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<Arc<dyn SigningKey>, FilesError> {
    let text = read(path, Half::Key)?;
    let usable = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| match error {
            pem::Error::NoItemsFound => FilesError::NoKey(path.to_owned()),
            error => malformed(path, Half::Key, &error),
        })
        .and_then(|key| {
            let unsupported = |source| FilesError::UnsupportedKey {
                path: path.to_owned(),
                source,
            };
            any_supported_type(&key).map_err(unsupported)
        });
    // Both signs of a passphrase: the section name of PKCS#8, and the header of the older form.
    if usable.is_err()
        && text
            .windows(ENCRYPTED.len())
            .any(|window| window == ENCRYPTED)
    {
        return Err(FilesError::EncryptedKey(path.to_owned()));
    }
    usable
}

fn read(path: &Path, half: Half) -> Result<Vec<u8>, FilesError> {
    std::fs::read(path).map_err(|source| FilesError::Unreadable {
        path: path.to_owned(),
        half,
        source,
    })
}

fn malformed(path: &Path, half: Half, error: &pem::Error) -> FilesError {
    FilesError::Pem {
        path: path.to_owned(),
        half,
        reason: pem_fault(error),
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use rcgen::{KeyPair, PKCS_RSA_SHA256};

    use super::*;
    use crate::certs::testing::{Pair, pair, pair_of};

    fn pem_of(section: &str, der: &[u8]) -> String {
        format!(
            "-----BEGIN {section}-----\n{}\n-----END {section}-----\n",
            BASE64_STANDARD.encode(der)
        )
    }

    /// Loads these texts as the two files.
    fn load_texts(certificate: &str, key: &str) -> Result<Certificate, FilesError> {
        let directory = tempfile::tempdir().expect("directory");
        let paths = ["tls.crt", "tls.key"].map(|file| directory.path().join(file));
        std::fs::write(&paths[0], certificate).expect("written");
        std::fs::write(&paths[1], key).expect("written");
        load(&paths[0], &paths[1])
    }

    #[test]
    fn a_chain_and_its_key_are_read() {
        let Pair { certificate, key } = pair(&["a.example.com"]);
        let issuer = pair(&["issuer"]).certificate;
        let loaded =
            load_texts(&format!("a comment\n{certificate}\n{issuer}"), &key).expect("a pair");
        assert_eq!(loaded.key.cert.len(), 2);
        assert_eq!(loaded.facts.names.len(), 1);
    }

    #[test]
    fn keys_in_all_three_forms_are_read() {
        let ec = KeyPair::generate().expect("made");
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("made");
        // PKCS#8 wraps the older forms: a header, an algorithm, and one of them as an octet string.
        let wrapped = |key: &KeyPair, header: usize| key.serialized_der()[header..].to_vec();
        let sec1 = pem_of("EC PRIVATE KEY", &wrapped(&ec, 29));
        let with_parameters = format!("{}{sec1}", pem_of("EC PARAMETERS", b"skipped"));
        let pkcs1 = pem_of("RSA PRIVATE KEY", &wrapped(&rsa, 26));
        let certificate = |key: &KeyPair| pair_of(key, &["a.example.com"]).certificate;
        for text in [ec.serialize_pem(), sec1, with_parameters] {
            load_texts(&certificate(&ec), &text).expect("an ECDSA key");
        }
        for text in [rsa.serialize_pem(), pkcs1] {
            load_texts(&certificate(&rsa), &text).expect("an RSA key");
        }
    }

    #[test]
    fn each_fault_is_told_apart() {
        let Pair { certificate, key } = &pair(&["a.example.com"]);
        let other = &pair(&["b.example.com"]);
        let cut = &certificate[..certificate.len() / 2];
        let encrypted = &pem_of("ENCRYPTED PRIVATE KEY", b"behind a passphrase");
        let encrypted_before = &format!(
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{}",
            key.split_once('\n')
                .expect("lines")
                .1
                .replace("PRIVATE", "EC PRIVATE")
        );
        let nonsense = &pem_of("CERTIFICATE", b"nonsense");
        let odd_key = &pem_of("PRIVATE KEY", b"nonsense");
        let both = &format!("{}{certificate}", other.certificate);
        let fault =
            |certificate: &str, key: &str| load_texts(certificate, key).expect_err("refused");

        assert!(matches!(fault("", key), FilesError::NoCertificate(_)));
        assert!(matches!(fault(key, key), FilesError::NoCertificate(_)));
        assert!(matches!(
            fault(cut, key),
            FilesError::Pem {
                half: Half::Certificate,
                ..
            }
        ));
        assert!(matches!(fault(nonsense, key), FilesError::Certificate(_)));
        assert!(matches!(
            fault(certificate, certificate),
            FilesError::NoKey(_)
        ));
        assert!(matches!(
            fault(certificate, encrypted),
            FilesError::EncryptedKey(_)
        ));
        assert!(matches!(
            fault(certificate, encrypted_before),
            FilesError::EncryptedKey(_)
        ));
        assert!(matches!(
            fault(certificate, odd_key),
            FilesError::UnsupportedKey { .. }
        ));
        assert!(matches!(
            fault(certificate, &other.key),
            FilesError::KeyOfAnother { .. }
        ));
        assert!(matches!(fault(both, key), FilesError::LeafNotFirst(_)));
        let missing = load(Path::new("/nonexistent/a"), Path::new("/nonexistent/b"));
        assert!(matches!(
            missing,
            Err(FilesError::Unreadable {
                half: Half::Certificate,
                ..
            })
        ));
    }

    #[test]
    fn the_texts_of_all_errors_are_these() {
        let path = || PathBuf::from("/c/a.pem");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let half = Half::Certificate;
        let all = [
            FilesError::Unreadable {
                path: path(),
                half,
                source: denied(),
            },
            malformed(&path(), half, &pem::Error::SectionTooLarge),
            FilesError::NoCertificate(path()),
            FilesError::Certificate(path()),
            FilesError::NoKey(path()),
            FilesError::EncryptedKey(path()),
            FilesError::UnsupportedKey {
                path: path(),
                source: rustls::Error::DecryptError,
            },
            FilesError::LeafNotFirst(path()),
            FilesError::KeyOfAnother {
                certificate: path(),
                key: path(),
            },
        ];
        let lines = all.map(|error| format!("{error}; {}", error.help()));
        insta::assert_snapshot!(lines.join("\n"), @r"
        cannot read /c/a.pem: permission denied; check the path and that moorgate's user may read the file and enter its directory
        /c/a.pem is not valid PEM: it is too large; copy the file again; it must be PEM, with its BEGIN and END lines
        /c/a.pem holds no certificate; the file must hold `-----BEGIN CERTIFICATE-----`, the leaf first
        the first certificate in /c/a.pem is not valid X.509; copy the certificate again; it must be X.509
        /c/a.pem holds no private key; the file must hold `-----BEGIN PRIVATE KEY-----` (PKCS#8, SEC1 or PKCS#1)
        the private key in /c/a.pem is encrypted; write it without a passphrase: openssl pkey -in KEY -out NEW
        the private key in /c/a.pem is of a kind that cannot be used; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits
        the key belongs to a later certificate in /c/a.pem; put the certificate of the domain before those of its issuers
        the key in /c/a.pem does not belong to the certificate in /c/a.pem; name the certificate and the key that were made together
        ");
    }

    #[test]
    fn no_error_repeats_a_piece_of_a_key() {
        let Pair { certificate, key } = pair(&["a.example.com"]);
        let secret = key.lines().nth(1).expect("base64");
        for damaged in [
            key.replacen("-----\n", "\n", 1),
            key.replacen(secret, &format!("{secret}*"), 1),
        ] {
            let error = load_texts(&certificate, &damaged).expect_err("refused");
            assert!(
                !format!("{error} {error:?}").contains(&secret[..8]),
                "{error:?}"
            );
        }
    }
}
