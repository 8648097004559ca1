//! The registry that moorgate keeps itself, seen from outside: what its clients get, what lies on
//! the disk, and what is left when the process, the disk or a client fails.

pub mod client;
pub mod fixture;
pub mod image;

// The distribution specification, endpoint by endpoint.
mod deletes;
mod early;
mod index_entries;
mod lists;
mod log;
mod manifests;
mod names;
mod pulls;
mod quota;
mod uploads;

// What may happen to it.
mod damage;
mod full_disk;
mod garbage;
mod kills;
mod links;
mod locks;
mod other_owner;
mod parallel;
mod random_uploads;
mod stored_memory;
