//! What deletion and creation look like to clients, whatever product is behind the domain.

mod amazon;
mod answering;
pub mod between;
mod creation;
mod immutable;
mod learned;
mod native;
mod swap;
