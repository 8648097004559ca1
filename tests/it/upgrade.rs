//! One process takes over from another: no connection, request, login or session is lost, and a new
//! process that cannot serve changes nothing.

mod failures;
pub mod fixture;
mod handover;
mod load;
mod shared_state;
mod stop;
