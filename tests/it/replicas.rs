//! Several replicas of one registry: which one gets a request, what becomes of it when a replica
//! fails, and uploads, which stay where they were begun.

mod addresses;
mod circuit;
mod fixture;
mod service;
mod sessions;
mod shown;
