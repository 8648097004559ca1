//! Runs by themselves: when, what they may do, and who says so.

use serde_json::{Value, json};

use super::fixture::{NEWEST, RetentionFixture};
use crate::harness::Events;

/// The status of the domain's retention.
async fn status(fixture: &RetentionFixture) -> Value {
    let status = fixture.store.gateway.status().await;
    status["domains"][0]["retention"].clone()
}

/// Makes the next run due.
fn make_due(fixture: &RetentionFixture) {
    let path = fixture.state("last.json");
    let text = std::fs::read(&path).unwrap();
    let mut records: Value = serde_json::from_slice(&text).unwrap();
    records["first_seen"] = json!("2020-01-01T00:00:00Z");
    records["scheduled"] = Value::Null;
    std::fs::write(&path, records.to_string()).unwrap();
}

fn scheduled(more: &str) -> String {
    format!(
        "{}{more}\n",
        NEWEST.replace("every = \"never\"", "every = \"1d\"")
    )
}

#[tokio::test]
async fn nothing_goes_before_the_first_interval_and_then_what_is_due() {
    let mut fixture = RetentionFixture::new(&scheduled("")).await;
    fixture.push_images("cache/app", 3).await;
    fixture.grow_old().await;
    fixture.store.gateway.app.run_due_retention().await;
    assert_eq!(fixture.tags("cache/app").await.len(), 3);
    let before = status(&fixture).await;
    assert_eq!(
        (&before["last_run"], &before["dry_run"]),
        (&Value::Null, &json!(false))
    );
    assert!(before["next_run"].is_string(), "{before}");
    make_due(&fixture);
    fixture.store.gateway.app.run_due_retention().await;
    assert_eq!(fixture.tags("cache/app").await, ["v3"]);
    let after = status(&fixture).await;
    let last = &after["last_run"];
    assert_eq!(last["outcome"], "applied", "{after}");
    assert_eq!(
        (&last["tags"], &last["trigger"]),
        (&json!(2), &json!("schedule"))
    );
    assert!(
        after["next_run"].as_str() > last["ended"].as_str(),
        "{after}"
    );
    let plan = last["plan"].as_str().unwrap().to_owned();
    fixture.done(&["undo", &plan]).await;
    assert_eq!(fixture.tags("cache/app").await.len(), 3);
    assert_eq!(status(&fixture).await["last_run"]["outcome"], "undone");
    // It was not a run of the schedule: the next one is a day after the last.
    fixture.store.gateway.app.run_due_retention().await;
    assert_eq!(fixture.tags("cache/app").await.len(), 3);
}

#[tokio::test]
async fn a_dry_run_only_reports() {
    let mut fixture = RetentionFixture::new(&scheduled("dry_run = true")).await;
    fixture.push_images("cache/app", 3).await;
    fixture.grow_old().await;
    status(&fixture).await;
    make_due(&fixture);
    fixture.store.gateway.app.run_due_retention().await;
    assert_eq!(fixture.tags("cache/app").await.len(), 3);
    let after = status(&fixture).await;
    assert_eq!(after["last_run"]["outcome"], "reported", "{after}");
    assert_eq!(after["dry_run_why"], "`dry_run` is true");
    // By hand it may be applied.
    let plan = after["last_run"]["plan"].as_str().unwrap().to_owned();
    fixture.done(&["apply", &plan]).await;
    assert_eq!(fixture.tags("cache/app").await, ["v3"]);
}

#[tokio::test]
async fn a_run_beyond_the_share_does_nothing_and_says_so() {
    let events = Events::kept();
    let tables = scheduled("").replace("100%", "50%");
    let mut fixture = RetentionFixture::new(&tables).await;
    fixture.push_images("cache/app", 3).await;
    fixture.grow_old().await;
    status(&fixture).await;
    make_due(&fixture);
    fixture.store.gateway.app.run_due_retention().await;
    assert_eq!(fixture.tags("cache/app").await.len(), 3);
    let after = status(&fixture).await;
    assert_eq!(after["last_run"]["outcome"], "beyond-share", "{after}");
    assert_eq!(events.with("retention run stopped").len(), 1);
}
