//! What a route leads to: the answer of an upstream or of moorgate's own registry.

pub(crate) mod catalog;
pub(crate) mod forward;
pub(crate) mod hidden;
pub(crate) mod manifest_budget;
pub(crate) mod redirects;
pub(crate) mod rewrite;
pub(crate) mod store;
pub(crate) mod tag_write;
