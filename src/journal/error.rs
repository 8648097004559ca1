//! Why a journal cannot be read or written.

use std::io;
use std::path::PathBuf;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be used now. Nothing is lost.
    #[error("{path} cannot be used")]
    Io { path: PathBuf, source: io::Error },
    /// It is damaged, and so is what was to replace it.
    #[error("{path} is damaged: {cause}")]
    Damaged { path: PathBuf, cause: String },
}
