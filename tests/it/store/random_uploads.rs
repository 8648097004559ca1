//! Any interleaving of what a client may do with an upload, through the socket and over restarts,
//! gives the right bytes.

use proptest::prelude::*;

use super::client::Client;
use super::fixture::Killable;
use super::image::{bytes, sha256};
use crate::harness::{RawPeer, request};

#[derive(Clone, Debug)]
enum Step {
    /// So many bytes more, with or without saying where they belong.
    Patch { count: usize, placed: bool },
    /// Bytes for another place.
    Misplaced { begin: usize },
    /// A connection that breaks after so many bytes.
    Cut { count: usize },
    /// How far is it?
    Status,
    /// `kill -9`, and another process.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..150_000, any::<bool>()).prop_map(|(count, placed)| Step::Patch { count, placed }),
        1 => (0_usize..300_000).prop_map(|begin| Step::Misplaced { begin }),
        1 => (1_usize..400_000).prop_map(|count| Step::Cut { count }),
        1 => Just(Step::Status),
        1 => Just(Step::Restart),
    ]
}

/// Where an upload stands: nothing at all and one byte are told apart by who knows what it sent.
async fn here(client: &mut Client, session: &str, known: usize) -> usize {
    let range = client.get(session).await.is(204).header("range").to_owned();
    let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { known } else { last + 1 }
}

async fn upload(process: &mut Killable, seed: u64, steps: Vec<Step>) {
    let content = bytes(seed, 2_000_000);
    let mut client = process.endpoint.client();
    let session = client.start("base/app").await;
    let mut at = 0;
    for step in steps {
        match step {
            Step::Patch { count, placed } => {
                let end = (at + count).min(content.len());
                let range = format!("{at}-{}", end - 1);
                let headers = [("content-range", range.as_str())];
                let headers = if placed { &headers[..] } else { &[] };
                let answer = client
                    .ask_with("PATCH", &session, headers, content[at..end].to_vec())
                    .await
                    .is(202);
                assert_eq!(answer.header("range"), format!("0-{}", end - 1));
                at = end;
            }
            Step::Misplaced { begin } if begin != at => {
                let range = format!("{begin}-{begin}");
                let answer = client
                    .ask_with("PATCH", &session, &[("content-range", &range)], "x")
                    .await;
                answer.refused(416, "RANGE_INVALID");
                assert_eq!(
                    answer.header("range"),
                    format!("0-{}", at.saturating_sub(1))
                );
            }
            Step::Misplaced { .. } => {}
            Step::Cut { count } => {
                let end = (at + count).min(content.len());
                let mut cut = RawPeer::new(process.endpoint.tls().await.unwrap());
                let lines = format!(
                    "Content-Length: {}\r\nExpect: 100-continue\r\n",
                    end - at + 1
                );
                cut.send(request("PATCH", &session, &lines)).await;
                // From here on it is this one's turn.
                assert_eq!(cut.head().await.status(), 100);
                cut.send(&content[at..end]).await;
                drop(cut);
                // The new connection overtakes the old one: from here on nothing of that is added.
                let refused = client
                    .ask_with(
                        "PATCH",
                        &session,
                        &[("content-range", "9999999-9999999")],
                        "x",
                    )
                    .await;
                refused.refused(416, "RANGE_INVALID");
                let now = here(&mut client, &session, at).await;
                assert!((at..=end).contains(&now), "{at} {now} {end}");
                at = now;
            }
            Step::Status => assert_eq!(here(&mut client, &session, at).await, at),
            Step::Restart => {
                process.restart();
                client = process.endpoint.client();
            }
        }
    }
    let digest = sha256(&content);
    let target = format!("{session}?digest={digest}");
    client
        .ask_with("PUT", &target, &[], content[at..].to_vec())
        .await
        .is(201);
    assert!(
        client
            .get(&format!("/v2/base/app/blobs/{digest}"))
            .await
            .is(200)
            .body
            == content
    );
}

#[test]
fn any_way_of_uploading_gives_the_right_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let process = std::cell::RefCell::new(Killable::start(directory.path()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ways = (any::<u64>(), prop::collection::vec(step(), 0..10));
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&ways, |(seed, steps)| {
            runtime.block_on(upload(&mut process.borrow_mut(), seed, steps));
            Ok(())
        })
        .unwrap();
    process.borrow().disk().is_sound();
}
