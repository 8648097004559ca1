//! Repositories that the registry knows by other names (`[[upstream.map]]`): clients, rules and logs
//! speak of the names outside, the registry hears its own.

mod bodies;
mod catalog;
mod fixture;
mod references;
mod refusals;
mod registry;
mod rules;
mod targets;
mod werf;
