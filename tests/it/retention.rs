//! Images that live short: what is known of their use, and what becomes of it.

mod pull_times;

// Runs at moorgate's own registry, as its administrators and clients see them.
mod commands;
mod fixture;
mod kills;
mod schedule;
mod upstream;
