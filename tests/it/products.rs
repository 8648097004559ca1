//! Nine registry products behind one login: each is played in this process, and where the real one
//! can be had, the player answers as it does.

mod behaviours;
mod credentials;
mod deletion;
mod fidelity;
pub mod fixture;
mod hostile;
mod immutable;
mod lists;
mod missing;
mod native_apis;
pub mod observed;
mod played_tls;
mod player;
mod spooled_uploads;
mod throttling;
mod werf;
