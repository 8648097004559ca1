//! Retention: takes tags away by the rules of a domain, with the times of pushes and pulls that the
//! [`journal`](crate::journal) has seen, and puts them back. `rules` decides about the tags of a
//! repository and `removal` about its manifests, both from an `inventory` and both pure; a `plan` is
//! the result. `run` makes plans, applies and undoes them at a `registry`.

mod decisions;
pub(crate) mod expiry;
pub(crate) mod explanation;
mod facts;
mod graph;
mod grouping;
pub(crate) mod image_config;
pub(crate) mod in_use;
pub(crate) mod inventory;
mod newest;
pub(crate) mod plan;
pub(crate) mod reason;
pub(crate) mod registry;
mod removal;
mod rules;
pub(crate) mod run;
pub(crate) mod stored;
#[cfg(test)]
pub(crate) mod testing;
