//! Access rules, seen by clients: in front of moorgate's own registry, and in front of another one.

mod anonymous;
mod calls;
mod check;
mod explain;
mod explain_groups;
pub mod fixture;
mod hidden;
mod lists;
mod networks;
mod pages;
mod races;
mod sessions;
mod shared;
mod tags;
