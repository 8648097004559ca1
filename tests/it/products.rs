//! Nine registry products behind one login: each is played in this process, and where the real one
//! can be had, the player answers as it does.

mod behaviours;
mod fidelity;
mod fixture;
mod native_apis;
mod observed;
mod player;
mod spooled_uploads;
