//! Access rules, seen by clients: in front of moorgate's own registry, and in front of another one.

mod anonymous;
mod calls;
mod check;
mod explain;
mod explain_groups;
pub mod fixture;
mod hidden;
mod immutability;
mod lists;
mod networks;
mod pages;
mod promotion;
mod races;
mod real;
mod sessions;
mod shared;
mod tags;
