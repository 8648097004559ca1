//! A year of the real issuer against a CA that enforces the limits of Let's Encrypt, under its name
//! and with its settings: certificates of three lifetimes, an outage, moved clocks, kills, a full
//! disk, a revocation. The clocks are simulated, so that a year takes seconds.

pub mod acme_sim;
pub mod alone;
mod chance;
mod moods;
pub mod process;
mod year;

use year::Year;

#[test]
fn a_year_with_windows_of_the_ca() {
    alone::run("acme_year::a_year_with_windows_of_the_ca", |place| {
        Year::begin(place, true).live()
    });
}

#[test]
fn a_year_by_lifetimes_alone() {
    alone::run("acme_year::a_year_by_lifetimes_alone", |place| {
        Year::begin(place, false).live()
    });
}
