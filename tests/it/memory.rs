//! What connections and transfers hold in memory, measured of the real process.

mod unauthenticated;
mod uploads;
