//! Requests with something changed at random: whatever comes of them, the upstream reads only clear
//! requests, no more than went in, and each client gets the answers to its own.

use std::cell::Cell;

use super::{AttackedGateway, ask};
use crate::harness::{basic, bound, settle};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What is put in, or in the place of something.
const PIECES: [&[u8]; 32] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"#",
    b"%",
    b"/..",
    b"\xff",
    b";",
    b",",
    b"0",
    b"-1",
    b"+5",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: identity",
    b"\r\nTransfer-Encoding:\x0bchunked",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nContent-Length: 99",
    b"\r\nContent-Length: ",
    b"\r\nHost: other.test",
    b"\r\n X: folded",
    b"\r\nConnection: close",
    b"\r\nUpgrade: h2c",
    b"\r\nExpect: 100-continue",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5;x=\n\r\n",
    b"http://other.test",
];

#[derive(Clone, Debug)]
enum Change {
    Insert(usize),
    Replace(usize, usize),
    Remove(usize),
    Byte(u8),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let piece = 0..PIECES.len();
    let change = prop_oneof![
        piece.clone().prop_map(Change::Insert),
        (piece, 1..8_usize).prop_map(|(piece, count)| Change::Replace(piece, count)),
        (1..8_usize).prop_map(Change::Remove),
        any::<u8>().prop_map(Change::Byte),
    ];
    (any::<prop::sample::Index>(), change)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, Change)]) -> Vec<u8> {
    for (at, change) in changes {
        let at = at.index(bytes.len());
        let upto = |count: usize, bytes: &Vec<u8>| (at + count).min(bytes.len());
        match change {
            Change::Insert(piece) => drop(bytes.splice(at..at, PIECES[*piece].iter().copied())),
            Change::Replace(piece, count) => {
                let range = at..upto(*count, &bytes);
                drop(bytes.splice(range, PIECES[*piece].iter().copied()));
            }
            Change::Remove(count) => drop(bytes.drain(at..upto(*count, &bytes))),
            Change::Byte(byte) => bytes[at] = *byte,
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn requests() -> [Vec<u8>; 4] {
    let login = basic("alice", "secret");
    let login = ("Authorization", login.as_str());
    let upload = &bound("/v2/a/blobs/uploads/x?_state=y");
    [
        ask("GET", "/v2/a/tags/list?n=1", &[login, ("Accept", "*/*")]).into_bytes(),
        [
            ask("PATCH", upload, &[login, ("Content-Length", "5")]),
            "hello".into(),
        ]
        .concat()
        .into_bytes(),
        [
            ask("PATCH", upload, &[login, ("Transfer-Encoding", "chunked")]),
            "5\r\nhello\r\n0\r\n\r\n".into(),
        ]
        .concat()
        .into_bytes(),
        ask(
            "HEAD",
            "/v2/a/manifests/x",
            &[("Connection", "keep-alive"), login],
        )
        .into_bytes(),
    ]
}

/// Returns how many requests came out.
async fn play(fixture: &AttackedGateway, bytes: &[u8]) -> usize {
    let mut client = fixture.gateway.client().await;
    let _ = client.try_send(bytes).await;
    // The end must not overtake the answer: a client that has gone is not answered.
    for _ in 0..5 {
        settle().await;
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut client.io).await;
    let answers = client.rest().await;
    let seen = fixture.seen().await;
    let went_in = bytes.windows(5).filter(|window| window == b"HTTP/").count();
    assert!(seen.len() <= went_in, "{seen:?}");
    let served = answers
        .windows(8)
        .filter(|window| window.eq_ignore_ascii_case(b"x-says: "))
        .count();
    assert!(
        served <= seen.len(),
        "{:?}",
        String::from_utf8_lossy(&answers)
    );
    assert!(
        !answers.windows(BOBS.len()).any(|window| window == BOBS),
        "bob's answer"
    );
    seen.len()
}

const BOBS: &[u8] = super::BOBS.as_bytes();

#[test]
fn no_change_makes_more_of_a_request_than_it_was() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fixture = runtime.block_on(async {
        let fixture = AttackedGateway::new().await;
        // From here on the password is cached, and requests wait for no other thread.
        let mut alice = fixture.gateway.client().await;
        alice.send(requests()[0].clone()).await;
        assert_eq!(alice.answer().await.0.status(), 200);
        fixture.seen().await;
        fixture
    });
    // Unlike the macro's, this runner keeps one gateway for all cases.
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (0..4_usize, prop::collection::vec(change(), 1..3));
    let (served, refused) = (Cell::new(0), Cell::new(0));
    TestRunner::new(config)
        .run(&strategy, |(which, changes)| {
            let request = String::from_utf8(requests()[which].clone()).unwrap();
            // Room for changes that do not matter by themselves.
            let (first, rest) = request.split_once("\r\n").unwrap();
            let room = "a word, ".repeat(20);
            let roomy = format!("{first}\r\nX-Before: {room}\r\n{rest}").replacen(
                "\r\n\r\n",
                &format!("\r\nX-After: {room}\r\n\r\n"),
                1,
            );
            let bytes = changed(roomy.into_bytes(), &changes);
            let count = if runtime.block_on(play(&fixture, &bytes)) > 0 {
                &served
            } else {
                &refused
            };
            count.set(count.get() + 1);
            Ok(())
        })
        .unwrap();
    // Otherwise the changes are too few or too many to show anything.
    assert!(
        served.get() > 40 && refused.get() > 40,
        "{served:?} {refused:?}"
    );
}
