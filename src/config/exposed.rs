//! Warns of secrets that every user of the machine can read, and of literals that were not meant so.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::problem::{Problem, Problems};
use super::secret::RawSecret;
use super::source::{Source, Span};

/// Warns of a secret whose file everybody can read, that of the setting itself for a literal, and
/// of one that is the name of a variable.
pub(super) fn warn_of_secret(
    source: &Arc<Source>,
    key: &str,
    (secret, span): (&RawSecret, &Span),
    problems: &mut Problems,
) {
    if secret.resembles_variable() {
        let message = format!("`{key}` is used as it is written: variables in it are not replaced");
        let help = "write { env = \"NAME\" } for the value of an environment variable";
        problems.push(Problem::at(source, span, message, help).warning());
    }
    let (file, cure) = match secret {
        RawSecret::Literal(_) => (source.path().to_owned(), ", or write { file = \"PATH\" }"),
        RawSecret::File(path) => (source.beside(path), ""),
        RawSecret::Environment(_) => return,
    };
    if is_readable_by_all(&file) {
        let message = format!("`{key}` can be read by every user of this machine");
        let help = format!("run `chmod o-r {}`{cure}", file.display());
        problems.push(Problem::at(source, span, message, help).warning());
    }
}

/// Warns of a private key that everybody can read.
pub(super) fn warn_of_key(source: &Arc<Source>, key: &Path, span: &Span, problems: &mut Problems) {
    if is_readable_by_all(key) {
        let message = "`tls.key` can be read by every user of this machine";
        let help = format!("run `chmod o-r {}`", key.display());
        problems.push(Problem::at(source, span, message, help).warning());
    }
}

/// Whether users other than the owner and the group can read the file, and enter all directories
/// above it.
fn is_readable_by_all(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else {
        return false;
    };
    let allows = |path: &Path, bit: u32| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & bit != 0)
    };
    allows(&path, OTHERS_READ)
        && path
            .ancestors()
            .skip(1)
            .all(|above| allows(above, OTHERS_ENTER))
}

const OTHERS_READ: u32 = 0o004;
const OTHERS_ENTER: u32 = 0o001;
