//! What the log says of those who guess: once a minute for each of them, and never a name that
//! nobody has.

use super::GuessingFixture;
use crate::harness::{Events, seconds};

const WORDS: &str = "too many wrong passwords: logins are refused";

/// The line of a refusal, with `retry_after_s` taken out.
fn line(said: &str) -> (String, u64) {
    let (before, wait) = said.trim().split_once(" retry_after_s=").unwrap();
    (before.to_owned(), wait.parse().unwrap())
}

#[tokio::test]
async fn a_locked_out_address_is_logged_once_a_minute() {
    let events = Events::kept();
    let mut fixture = GuessingFixture::new(5, 20).await;
    fixture.guess_on("192.0.2.1", "alice", "wrong").await;
    for _ in 0..20 {
        assert_eq!(fixture.login("192.0.2.1", "bob", "hunter2").await, 429);
    }
    let said = events.with(WORDS);
    assert_eq!(said.len(), 1, "{said:?}");
    let (fields, wait) = line(&said[0]);
    let words = "WARN moorgate::request::admit: too many wrong passwords: logins are refused \
                 domain=\"ci.test\" client=192.0.2.1 user=\"alice\" of=\"address\"";
    assert_eq!(fields, words);
    assert_eq!(wait, 120);
    fixture.clock.jump(seconds(61)).await;
    for _ in 0..20 {
        assert_eq!(fixture.login("192.0.2.1", "bob", "hunter2").await, 429);
    }
    let said = events.with(WORDS);
    assert_eq!(said.len(), 2, "{said:?}");
    let (fields, wait) = line(&said[1]);
    assert_eq!(fields, words.replace("alice", "bob"));
    // The clock jumps a millisecond further.
    assert_eq!(wait, 58);
}

#[tokio::test]
async fn refused_addresses_and_users_are_logged_and_unknown_names_are_not() {
    let events = Events::kept();
    let mut fixture = GuessingFixture::new(5, 5).await;
    // Perhaps a password in the wrong field.
    fixture
        .guess_on("192.0.2.1", "correct horse", "wrong")
        .await;
    for machine in [2, 3, 4, 5] {
        fixture
            .guess_on(
                &format!("192.0.2.{machine}"),
                "bob",
                &format!("wrong from {machine}"),
            )
            .await;
    }
    assert_eq!(fixture.login("192.0.2.9", "alice", "secret").await, 200);
    fixture.guess_on("192.0.2.9", "alice", "wrong").await;
    let said: Vec<_> = events.with(WORDS).iter().map(|said| line(said).0).collect();
    let ends: Vec<_> = said
        .iter()
        .map(|said| said.split_once("domain=\"ci.test\" ").unwrap().1)
        .collect();
    assert_eq!(
        ends,
        [
            "client=192.0.2.1 of=\"address\"",
            "client=192.0.2.2 user=\"bob\" of=\"address\"",
            "client=192.0.2.3 user=\"bob\" of=\"user\"",
            "client=192.0.2.9 user=\"alice\" of=\"user at address\"",
        ],
        "a name is logged once, from whatever address it is tried"
    );
    assert!(!events.all().contains("correct horse"));
}
