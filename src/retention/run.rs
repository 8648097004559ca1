//! Runs of retention at a registry: makes plans, applies them and undoes them. A plan is in a file
//! before anything is taken away, and each manifest is in another one before it goes.

pub(crate) mod applying;
pub(crate) mod checking;
pub(crate) mod context;
pub(crate) mod directory;
pub(crate) mod error;
pub(crate) mod jobs;
pub(crate) mod lists;
mod parts;
pub(crate) mod plan_file;
pub(crate) mod plan_id;
pub(crate) mod planning;
pub(crate) mod records;
pub(crate) mod report;
pub(crate) mod schedule;
pub(crate) mod undo_file;
pub(crate) mod undoing;

#[cfg(test)]
mod tests;
