//! Retention at registries behind a domain, step by step: what is read there, what goes, and what
//! stays although it was to go.

mod lists;
mod products;
mod races;
mod real;

use moorgate::internal::request::RetainedDriver;

use crate::harness::{Gateway, promptly, settle};

/// Rules for everything, which name no repository, also for what has just been pushed.
const RULES: &str = "[[retention]]\nrepositories = [\"**\"]\nkeep = { newest = 1 }\n\
                     [retention_settings]\nmin_age = \"1ms\"\n";

/// Retention behind `ci.test`, once pushes and pulls are recorded.
async fn driver(gateway: &Gateway) -> RetainedDriver {
    let journal = gateway.path("state/retention/ci.test/journal.redb");
    promptly(async {
        while !journal.exists() {
            settle().await;
        }
    })
    .await;
    gateway.app.retained("ci.test").unwrap()
}
