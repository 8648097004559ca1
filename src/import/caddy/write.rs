//! Writes the files of an import, after `moorgate check` has seen them; replaces none.

use std::io;
use std::path::{Path, PathBuf};

use super::domain::OutputFile;
use crate::app;
use crate::config::problem::{Problem, ProblemSeverity, Problems};
use crate::state_file::{Access, atomic_write, private_directory};

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(
        "these files exist already, and nothing was written: {}; name another directory by `-o DIR`, or move them away",
        listed(.0)
    )]
    Exists(Vec<PathBuf>),
    #[error("{} cannot be written", .path.display())]
    NotWritten { path: PathBuf, source: io::Error },
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Refuses if one of the files exists.
pub(super) fn refuse_existing(files: &[OutputFile], directory: &Path) -> Result<(), WriteError> {
    let paths = files.iter().map(|file| directory.join(&file.path));
    let existing: Vec<_> = paths
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    if existing.is_empty() {
        Ok(())
    } else {
        Err(WriteError::Exists(existing))
    }
}

/// Writes all files below the directory. Passwords are readable for their owner only.
pub(super) fn write(files: &[OutputFile], directory: &Path) -> Result<(), WriteError> {
    for file in files {
        let path = directory.join(&file.path);
        write_one(file, &path).map_err(|source| WriteError::NotWritten { path, source })?;
    }
    Ok(())
}

fn write_one(file: &OutputFile, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        if file.is_private {
            private_directory(parent)?;
        } else {
            std::fs::create_dir_all(parent)?;
        }
    }
    let access = if file.is_private {
        Access::Private
    } else {
        Access::Public
    };
    atomic_write(path, file.text.as_bytes(), access)
}

/// What `moorgate check` says about the files alone, in a directory of their own, with the names
/// that they will have. Whether there are errors.
pub(super) fn check(files: &[OutputFile]) -> Result<(Vec<String>, bool), WriteError> {
    let directory = tempfile::tempdir().map_err(|source| WriteError::NotWritten {
        path: std::env::temp_dir(),
        source,
    })?;
    write(files, directory.path())?;
    let mut problems = match crate::config::load(directory.path()) {
        Ok(loaded) => {
            let mut problems = loaded.warnings;
            problems.extend(app::site_problems(&loaded.snapshot));
            problems
        }
        Err(problems) => problems,
    };
    let has_errors = problems.has_errors();
    problems.sort();
    Ok((described(&problems, directory.path()), has_errors))
}

fn described(problems: &Problems, directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    let one = |problem: &Problem| {
        let place = match problem.position() {
            Some((line, column)) => format!("{}:{line}:{column}", problem.file().display()),
            None => problem.file().display().to_string(),
        };
        let kind = match problem.severity() {
            ProblemSeverity::Error => "error",
            ProblemSeverity::Warning => "warning",
        };
        let text = format!("{place}: {kind}: {}: {}", problem.message(), problem.help());
        text.replace(&prefix, "")
    };
    problems.iter().map(one).collect()
}
