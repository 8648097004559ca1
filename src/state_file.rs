//! Files below `state` and beside the configuration: replaced as a whole, locked with a timeout,
//! re-read when they change, and handled on threads that may block.

mod atomic;
mod blocking;
mod file_body;
mod lock;
mod owner;
mod watched;

pub(crate) use atomic::give_owner_of;
pub(crate) use atomic::{Access, TEMPORARY_PREFIX, atomic_write, private_directory};
pub(crate) use blocking::run_blocking;
pub(crate) use file_body::FileBody;
pub(crate) use lock::{FileLock, LOCK_TIMEOUT, LockMode};
pub(crate) use owner::FileOwner;
pub(crate) use watched::{FileChange, FileWatch, Fingerprint};
