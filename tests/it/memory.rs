//! What connections and transfers hold in memory, measured of the real process.

mod strangers;
mod uploads;
