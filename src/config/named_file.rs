//! Files that configuration files name: reads files of groups, and says what to do about a file that
//! cannot be read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::problem::{Problem, Problems};
use super::raw::access::RawRules;
use super::source::Source;

/// Reads the file that `groups_file` names.
pub(super) fn groups(
    source: &Arc<Source>,
    raw: &RawRules,
    problems: &mut Problems,
) -> Option<Arc<Source>> {
    let (written, span) = raw.groups_file.given().zip(raw.groups_file.span())?;
    let path = source.beside(written);
    match Source::read(&path) {
        Ok(groups) => Some(Arc::new(groups)),
        Err(error) => {
            let message = format!("`groups_file` cannot be read: {}: {error}", path.display());
            let help = "name a file of lines like `devs: alice bob`";
            problems.push(Problem::at(source, span, message, read_help(&error, help)));
            None
        }
    }
}

/// What to do about a file that is there for others, or else `help`.
pub(super) fn read_help(error: &io::Error, help: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => PERMISSION_HELP,
        _ => help,
    }
}

const PERMISSION_HELP: &str =
    "let moorgate's user read it and enter the directories above it: `chmod`, `chown`";

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => PERMISSION_HELP,
        io::ErrorKind::InvalidData => "write it in UTF-8",
        io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::IsADirectory => "put a regular file there, or move it away",
        _ => "correct what the system reports, then check again",
    };
    Problem::in_file(path, format!("cannot be read: {error}"), help)
}
