//! The trusted roots for connections that moorgate makes as a client: those of the system, or those
//! of a file.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::certs::library_error::pem_fault;

/// Why roots cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The file cannot be read, or contains no usable certificate.
    #[error("the roots file {path} cannot be used: {reason}")]
    File { path: PathBuf, reason: String },
    /// The system has no root certificates.
    #[error("this system has no root certificates: install ca-certificates, or set `roots`")]
    NoSystemRoots,
}

/// Loads the roots of the file, or those of the system. Blocks on the file system.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, RootsError> {
    match file {
        Some(path) => of_file(path),
        None => of_system(),
    }
}

/// Loads all certificates of a PEM file, at least one.
pub(crate) fn of_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let unusable = |reason: String| RootsError::File {
        path: path.to_owned(),
        reason,
    };
    let mut store = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(pem_reason(&error)))?
    {
        let certificate = certificate.map_err(|error| unusable(pem_reason(&error)))?;
        store
            .add(certificate)
            .map_err(|_| unusable("a certificate in it is not valid X.509".to_owned()))?;
    }
    if store.is_empty() {
        Err(unusable("it holds no certificate".to_owned()))
    } else {
        Ok(store)
    }
}

fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        other => format!("it is not valid PEM: {}", pem_fault(other)),
    }
}

/// Loads the roots of the system. Damaged ones are skipped.
pub(crate) fn of_system() -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        Err(RootsError::NoSystemRoots)
    } else {
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::pair;

    #[test]
    fn a_file_needs_at_least_one_certificate_and_nothing_broken() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("roots.pem");
        let said = || of_file(&path).expect_err("unusable").to_string();
        assert!(said().starts_with(&format!(
            "the roots file {} cannot be used: ",
            path.display()
        )));
        assert!(
            said().ends_with("it cannot be read: No such file or directory (os error 2)"),
            "{}",
            said()
        );
        std::fs::write(&path, "nothing").expect("written");
        assert!(said().ends_with("it holds no certificate"), "{}", said());
        let pem = pair(&["a.example.com"]).certificate;
        std::fs::write(&path, &pem).expect("written");
        assert_eq!(roots(Some(&path)).expect("roots").len(), 1);
        std::fs::write(
            &path,
            format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        )
        .expect("written");
        assert!(
            said().ends_with("a certificate in it is not valid X.509"),
            "{}",
            said()
        );
        std::fs::write(&path, &pem[..pem.len() / 2]).expect("written");
        assert!(
            said().ends_with("it is not valid PEM: an END line is missing"),
            "{}",
            said()
        );
    }
}
