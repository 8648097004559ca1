//! moorgate's own certificate authority, for names that no public CA can reach. It is created once
//! below `state`; the leaves exist in memory only.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certs::Certificate;
use crate::certs::inspect::{self, InspectError};
use crate::certs::library_error;
use crate::crypto;
use crate::registry::host::HostName;
use crate::state_file::{
    Access, FileLock, LOCK_TIMEOUT, atomic_write, give_owner_of, private_directory,
};

/// The CA, ready to sign.
pub(crate) struct InternalCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    subject: String,
    not_after: SystemTime,
    directory: PathBuf,
}

/// Why the CA cannot be used. It is never replaced by a new one: every client trusts the old one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InternalCaError {
    /// A file or the directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The certificate exists without the key, or the key without the certificate.
    #[error("the internal CA is incomplete: {} is missing, but {} is there", missing.display(), present.display())]
    Incomplete {
        /// The file to be restored from a backup.
        missing: PathBuf,
        present: PathBuf,
    },
    /// A file is not what moorgate wrote.
    #[error("the internal CA is damaged: {} is not what moorgate wrote there", .0.display())]
    Damaged(PathBuf),
    /// The key and the certificate belong to different CAs.
    #[error("the internal CA is damaged: the key in {} does not belong to its certificate", .0.display())]
    KeyOfAnother(PathBuf),
    /// Its ten years have passed.
    #[error("the internal CA in {} expired on {}", directory.display(), inspect::Rfc3339(*at))]
    Expired {
        /// The end of its validity.
        at: SystemTime,
        directory: PathBuf,
    },
    /// A new CA cannot be stored.
    #[error("cannot make the internal CA below {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The library could not make or sign a certificate.
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] rcgen::Error),
    /// The TLS library rejects the new key.
    #[error("cannot use the new key: {}", library_error::tls(.0))]
    Key(#[from] rustls::Error),
    /// A signed certificate cannot be parsed.
    #[error("cannot read the new certificate: {0}")]
    Inspect(#[from] InspectError),
}

impl InternalCaError {
    /// The path that this user may not read or write, if that is all.
    pub(crate) fn denied_path(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { path, source } | Self::Unwritable { path, source } => {
                (source.kind() == io::ErrorKind::PermissionDenied).then_some(path.as_path())
            }
            Self::Incomplete { .. }
            | Self::Damaged(_)
            | Self::KeyOfAnother(_)
            | Self::Expired { .. }
            | Self::Sign(_)
            | Self::Key(_)
            | Self::Inspect(_) => None,
        }
    }

    /// What the administrator can do about it.
    pub(crate) fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Unwritable { .. } => {
                "the directory `state` and all below it must belong to moorgate's user"
            }
            Self::Incomplete { .. } | Self::Damaged(_) | Self::KeyOfAnother(_) => {
                "bring both files back from a backup; without one, move the directory away, restart, \
                 and give the new CA to every client"
            }
            Self::Expired { .. } => {
                "move the directory away, restart, and give the new CA to every client"
            }
            Self::Sign(_) | Self::Key(_) | Self::Inspect(_) => {
                "this is a defect of moorgate: please report it"
            }
        }
    }
}

impl InternalCa {
    /// Opens the CA below `state`, or creates it. Blocks on the file system, and for up to
    /// [`LOCK_TIMEOUT`] on another process that creates it.
    pub(crate) fn open_or_make(state: &Path) -> Result<Self, InternalCaError> {
        if let Some(ca) = Self::open(state)? {
            return Ok(ca);
        }
        let unwritable = |source| InternalCaError::Unwritable {
            path: state.to_owned(),
            source,
        };
        private_directory(state).map_err(unwritable)?;
        // Another process may be creating the CA as well: the second one finds that of the first.
        let _lock = FileLock::acquire(&state.join(LOCK), LOCK_TIMEOUT).map_err(unwritable)?;
        if let Some(ca) = Self::open(state)? {
            return Ok(ca);
        }
        let (certificate, key) = generate(SystemTime::now())?;
        store(state, &certificate, &key).map_err(unwritable)?;
        tracing::info!(directory = %state.join(DIRECTORY).display(), "created the internal CA");
        Self::read(&Files::below(state), certificate, &key)
    }

    /// Opens the CA below `state`; `None` before it is created.
    pub(crate) fn open(state: &Path) -> Result<Option<Self>, InternalCaError> {
        let files = Files::below(state);
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Self::read(&files, certificate, &key).map(Some),
            (None, Some(_)) => Err(InternalCaError::Incomplete {
                missing: files.certificate,
                present: files.key,
            }),
            (Some(_), None) => Err(InternalCaError::Incomplete {
                missing: files.key,
                present: files.certificate,
            }),
        }
    }

    /// The certificate of the CA below `state` alone, in PEM; `None` before the CA is created. Blocks
    /// on the file system.
    pub(crate) fn certificate(state: &Path) -> Result<Option<String>, InternalCaError> {
        let path = Files::below(state).certificate;
        match read(&path)? {
            Some(pem) if !Self::is_certificate(&pem) => Err(InternalCaError::Damaged(path)),
            pem => Ok(pem),
        }
    }

    /// Whether a text is a certificate of a CA in PEM.
    pub(crate) fn is_certificate(pem: &str) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
            return false;
        };
        X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.is_ca())
    }

    /// The certificate of the CA in PEM, for the trust stores of clients.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its distinguished name.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Issues a leaf with a new key for these names, valid for 30 days but not longer than the CA.
    pub(crate) fn issue<'a>(
        &self,
        names: impl IntoIterator<Item = &'a HostName>,
        now: SystemTime,
    ) -> Result<Certificate, InternalCaError> {
        self.ensure_alive(now)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        for name in names {
            leaf.subject_alt_names.push(match name.ip() {
                Some(address) => SanType::IpAddress(address),
                None => SanType::DnsName(name.as_str().try_into()?),
            });
            // The first name that fits, for people: X.520 limits common names to 64 characters.
            if leaf.distinguished_name.iter().next().is_none() && name.as_str().len() <= 64 {
                leaf.distinguished_name
                    .push(DnType::CommonName, name.as_str());
            }
        }
        leaf.not_before = (now - CLOCK_SLACK).into();
        leaf.not_after = (now + LEAF_LIFETIME).min(self.not_after).into();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        let key = any_supported_type(&PrivateKeyDer::from(key))?;
        Ok(Certificate::new(CertifiedKey::new(
            vec![certificate.into()],
            key,
        ))?)
    }

    /// Returns an error once the CA has expired: no client accepts what it signs then.
    pub(crate) fn ensure_alive(&self, now: SystemTime) -> Result<(), InternalCaError> {
        if now < self.not_after {
            return Ok(());
        }
        Err(InternalCaError::Expired {
            at: self.not_after,
            directory: self.directory.clone(),
        })
    }

    fn read(files: &Files, pem: String, key: &str) -> Result<Self, InternalCaError> {
        let damaged = || InternalCaError::Damaged(files.certificate.clone());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| damaged())?;
        let key =
            KeyPair::from_pem(key).map_err(|_| InternalCaError::Damaged(files.key.clone()))?;
        if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(InternalCaError::KeyOfAnother(files.key.clone()));
        }
        // Clients compare the issuer of a leaf with this name byte by byte, so the name must be
        // encoded exactly as `ca_params` encodes it.
        let name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        let mut params = ca_params(name.ok_or_else(damaged)?);
        params.key_identifier_method = KeyIdMethod::PreSpecified(params.key_identifier(&key));
        let again = params.self_signed(&key)?;
        let (_, again) = X509Certificate::from_der(again.der()).map_err(|_| damaged())?;
        if again.subject().as_raw() != certificate.subject().as_raw() || !certificate.is_ca() {
            return Err(damaged());
        }
        let not_after = inspect::system_time(certificate.validity().not_after)?;
        let subject = certificate.subject().to_string();
        let directory = files.directory.clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            subject,
            not_after,
            directory,
        })
    }
}

/// The paths of the CA.
struct Files {
    directory: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn below(state: &Path) -> Self {
        let directory = state.join(DIRECTORY);
        Self {
            certificate: directory.join("ca.pem"),
            key: directory.join("ca.key"),
            directory,
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, InternalCaError> {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| InternalCaError::Damaged(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InternalCaError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

fn generate(now: SystemTime) -> Result<(String, String), InternalCaError> {
    let id = crypto::random::<4>().map_err(|_| rcgen::Error::RingUnspecified)?;
    let key = KeyPair::generate()?;
    let mut params = ca_params(&format!("moorgate internal CA {}", crypto::hex(&id)));
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + CA_LIFETIME).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn ca_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Stores the certificate and the key at once, by renaming their directory: a crash never leaves
/// one without the other.
fn store(state: &Path, certificate: &str, key: &str) -> io::Result<()> {
    let staging = tempfile::Builder::new()
        .prefix(".internal-ca-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(state)?;
    // `moorgate certs ca` may be run by root: the service must be able to enter the directory. The
    // files get the owner of the directory.
    give_owner_of(state, &File::open(staging.path())?)?;
    atomic_write(
        &staging.path().join("ca.key"),
        key.as_bytes(),
        Access::Private,
    )?;
    atomic_write(
        &staging.path().join("ca.pem"),
        certificate.as_bytes(),
        Access::Public,
    )?;
    std::fs::rename(staging.path(), state.join(DIRECTORY))?;
    let _moved = staging.keep();
    File::open(state)?.sync_all()
}

const DIRECTORY: &str = "internal-ca";
const LOCK: &str = "internal-ca.lock";
/// Ten years with their leap days.
const CA_LIFETIME: Duration = Duration::from_hours(3652 * 24);
const LEAF_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// Clients with a slow clock would reject a certificate that is valid from now on.
const CLOCK_SLACK: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown};

    use x509_parser::extensions::ParsedExtension;

    use super::*;
    use crate::certs::testing::name;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn the_texts_of_all_errors_are_these() {
        let path = || PathBuf::from("/s/ca.pem");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let all = [
            InternalCaError::Unreadable {
                path: path(),
                source: denied(),
            },
            InternalCaError::Incomplete {
                missing: path(),
                present: path(),
            },
            InternalCaError::Damaged(path()),
            InternalCaError::KeyOfAnother(path()),
            InternalCaError::Expired {
                at: NOW,
                directory: path(),
            },
            InternalCaError::Unwritable {
                path: path(),
                source: denied(),
            },
            InternalCaError::Sign(rcgen::Error::CouldNotParseKeyPair),
            InternalCaError::Key(rustls::Error::DecryptError),
            InternalCaError::Inspect(InspectError::Malformed),
        ];
        let lines = all.map(|error| format!("{error}; {}", error.help()));
        insta::assert_snapshot!(lines.join("\n"), @r"
        cannot read /s/ca.pem: permission denied; the directory `state` and all below it must belong to moorgate's user
        the internal CA is incomplete: /s/ca.pem is missing, but /s/ca.pem is there; bring both files back from a backup; without one, move the directory away, restart, and give the new CA to every client
        the internal CA is damaged: /s/ca.pem is not what moorgate wrote there; bring both files back from a backup; without one, move the directory away, restart, and give the new CA to every client
        the internal CA is damaged: the key in /s/ca.pem does not belong to its certificate; bring both files back from a backup; without one, move the directory away, restart, and give the new CA to every client
        the internal CA in /s/ca.pem expired on 1970-01-01T00:00:00Z; move the directory away, restart, and give the new CA to every client
        cannot make the internal CA below /s/ca.pem: permission denied; the directory `state` and all below it must belong to moorgate's user
        cannot make a certificate: Could not parse key pair; this is a defect of moorgate: please report it
        cannot use the new key: TLS has failed: decrypt error; this is a defect of moorgate: please report it
        cannot read the new certificate: the certificate is not valid X.509; this is a defect of moorgate: please report it
        ");
    }

    fn now() -> SystemTime {
        // Certificates have whole seconds.
        let seconds = SystemTime::now()
            .duration_since(NOW)
            .expect("after 1970")
            .as_secs();
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn the_ca_is_made_once_and_its_key_is_private() {
        let state = tempfile::tempdir().expect("directory");
        assert!(InternalCa::open(state.path()).expect("in order").is_none());
        let pems: Vec<String> = std::thread::scope(|scope| {
            let make = || {
                InternalCa::open_or_make(state.path())
                    .expect("made")
                    .pem()
                    .to_owned()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(pems.iter().all(|pem| *pem == pems[0]));
        let mode = |path: &str| {
            let data = std::fs::metadata(state.path().join(path)).expect("there");
            data.permissions().mode() & 0o777
        };
        assert_eq!(mode("internal-ca"), 0o700);
        assert_eq!(mode("internal-ca/ca.key"), 0o600);
        assert_eq!(mode("internal-ca/ca.pem"), 0o644);
        assert_eq!(
            std::fs::read_dir(state.path()).expect("listed").count(),
            2,
            "the directory and the lock"
        );
    }

    #[test]
    fn the_ca_that_root_makes_belongs_to_the_owner_of_the_state() {
        // An ordinary user can make nothing that belongs to somebody else: there is one owner.
        let owner = if rustix::process::geteuid().is_root() {
            65534
        } else {
            rustix::process::geteuid().as_raw()
        };
        let state = tempfile::tempdir().expect("directory");
        chown(state.path(), Some(owner), None).expect("given away");
        InternalCa::open_or_make(state.path()).expect("made");
        for path in [
            "internal-ca.lock",
            "internal-ca",
            "internal-ca/ca.key",
            "internal-ca/ca.pem",
        ] {
            let data = std::fs::metadata(state.path().join(path)).expect("there");
            assert_eq!(data.uid(), owner, "{path}");
        }
    }

    #[test]
    fn the_ca_may_sign_leaves_and_nothing_else() {
        let state = tempfile::tempdir().expect("directory");
        let ca = InternalCa::open_or_make(state.path()).expect("made");
        let der = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&der).expect("X.509");
        let constraints = certificate
            .basic_constraints()
            .expect("valid")
            .expect("there");
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = certificate
            .key_usage()
            .expect("valid")
            .expect("there")
            .value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert!(
            ca.subject().starts_with("CN=moorgate internal CA "),
            "{}",
            ca.subject()
        );
        let years = ca
            .not_after
            .duration_since(now())
            .expect("in future")
            .as_secs()
            / Duration::from_hours(365 * 24).as_secs();
        assert_eq!(years, 10);
    }

    #[test]
    fn a_leaf_names_its_ca_and_lives_for_thirty_days() {
        let state = tempfile::tempdir().expect("directory");
        InternalCa::open_or_make(state.path()).expect("made");
        let ca = InternalCa::open(state.path())
            .expect("in order")
            .expect("there");
        let names = [
            name("ci.example.com"),
            name("192.0.2.7"),
            name("2001:db8::7"),
        ];
        let leaf = ca.issue(&names, now()).expect("issued");
        assert_eq!(
            leaf.facts
                .names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            names.each_ref().map(|name| name.as_str())
        );
        assert_eq!(leaf.facts.not_before, now() - CLOCK_SLACK);
        assert_eq!(leaf.facts.issuer, ca.subject());
        let (_, certificate) = X509Certificate::from_der(&leaf.key.cert[0]).expect("X.509");
        let usage = certificate
            .extended_key_usage()
            .expect("valid")
            .expect("there")
            .value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert!(!certificate.is_ca());
        let authority = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            }
        });
        let der = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM");
        let (_, issuer) = X509Certificate::from_der(&der).expect("X.509");
        let subject =
            issuer
                .iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                    _ => None,
                });
        assert!(subject.is_some());
        assert_eq!(authority, subject);
    }

    #[test]
    fn a_leaf_never_outlives_the_ca() {
        let state = tempfile::tempdir().expect("directory");
        let ca = InternalCa::open_or_make(state.path()).expect("made");
        let late = ca.not_after - Duration::from_hours(24);
        let leaf = ca.issue(&[name("a.example.com")], late).expect("issued");
        assert_eq!(leaf.facts.not_after, ca.not_after);
        let over = ca.issue(&[name("a.example.com")], ca.not_after);
        assert!(matches!(over, Err(InternalCaError::Expired { .. })));
    }

    #[test]
    fn a_broken_ca_is_never_replaced() {
        let [state, other] = [(); 2].map(|()| tempfile::tempdir().expect("directory"));
        InternalCa::open_or_make(state.path()).expect("made");
        InternalCa::open_or_make(other.path()).expect("made");
        let files = Files::below(state.path());
        let (certificate, key) = (
            std::fs::read(&files.certificate).expect("read"),
            std::fs::read(&files.key).expect("read"),
        );
        let broken = || {
            InternalCa::open_or_make(state.path())
                .err()
                .expect("refused")
        };

        std::fs::remove_file(&files.certificate).expect("removed");
        assert!(
            matches!(broken(), InternalCaError::Incomplete { missing, .. } if missing == files.certificate)
        );
        std::fs::write(&files.certificate, "no PEM").expect("written");
        assert!(matches!(broken(), InternalCaError::Damaged(path) if path == files.certificate));
        std::fs::copy(Files::below(other.path()).certificate, &files.certificate).expect("copied");
        assert!(matches!(broken(), InternalCaError::KeyOfAnother(_)));

        std::fs::write(&files.certificate, &certificate).expect("written");
        std::fs::write(&files.key, &key[..key.len() / 2]).expect("written");
        assert!(matches!(broken(), InternalCaError::Damaged(path) if path == files.key));
        std::fs::remove_file(&files.key).expect("removed");
        assert!(
            matches!(broken(), InternalCaError::Incomplete { missing, .. } if missing == files.key)
        );
        assert_eq!(
            std::fs::read(&files.certificate).expect("read"),
            certificate
        );
    }
}
