//! Repositories that another process has locked.

use std::fs::File;

use tokio::task::JoinSet;

use super::client::Endpoint;
use super::fixture::StoreFixture;
use super::image::{Image, bytes, sha256};
use crate::harness::{Clock, promptly, seconds};

#[tokio::test]
async fn pushes_to_a_locked_repository_stop_no_pull_and_no_push_of_another() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    client.push("a", "v1", &image).await;
    client.push("b", "v1", &image).await;
    let lock = File::open(fixture.disk().repository("a")).unwrap();
    lock.lock().unwrap();
    let endpoint = Endpoint::new(&fixture.gateway, "http/1.1");
    let pushes: Vec<_> = (0..30)
        .map(|n| {
            let mut client = endpoint.client();
            let blob = bytes(n, 10_000);
            let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&blob));
            tokio::spawn(async move { client.ask_with("POST", &target, &[], blob).await })
        })
        .collect();
    // All of the pushes have come.
    let uploads = fixture.disk().0.join("uploads/a");
    promptly(async {
        while super::fixture::Disk::list(&uploads).len() < 30 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for n in 0..10 {
        promptly(client.get("/v2/b/manifests/v1")).await.is(200);
        promptly(Box::pin(client.push("c", "v1", &Image::small(n)))).await;
    }
    assert!(pushes.iter().all(|push| !push.is_finished()));
    drop(lock);
    for push in pushes {
        promptly(push).await.unwrap().is(201);
    }
}

#[tokio::test]
async fn writes_of_a_repository_that_stays_locked_are_told_to_come_back() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    client.push("a", "v1", &Image::small(1)).await;
    let blob = bytes(2, 10_000);
    let digest = sha256(&blob);
    let session = client.start("a").await;
    client.ask_with("PATCH", &session, &[], blob).await.is(202);
    let lock = File::open(fixture.disk().repository("a")).unwrap();
    lock.lock().unwrap();
    let commit = format!("{session}?digest={digest}");
    let endpoint = Endpoint::new(&fixture.gateway, "http/1.1");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = endpoint.client();
        client.get("/v2/").await.is(200);
        clients.push(client);
    }
    let clock = Clock::stopped();
    let begun = tokio::time::Instant::now();
    let mut writes = JoinSet::new();
    let requests = [
        ("PUT", commit.as_str(), ""),
        ("PUT", "/v2/a/manifests/v2", "\0"),
        ("DELETE", "/v2/a/manifests/v1", ""),
    ];
    for (mut writer, (method, target, body)) in clients.into_iter().zip(requests) {
        let target = target.to_owned();
        let headers = [("content-type", "application/x-bytes")];
        writes.spawn(async move { writer.ask_with(method, &target, &headers, body).await });
    }
    while !writes.is_empty() {
        // The writes come as far as they can within each second.
        promptly(client.get("/v2/")).await.is(200);
        clock.jump(seconds(1)).await;
        assert!(begun.elapsed() < seconds(120), "a write waits for ever");
        while let Some(answer) = writes.try_join_next() {
            let (answer, waited) = (answer.unwrap(), begun.elapsed());
            assert!(waited >= seconds(30), "after {waited:?}: {answer:?}");
            answer.refused(503, "UNAVAILABLE");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        }
    }
    drop(clock);
    tokio::time::resume();
    drop(lock);
    // Nothing is lost: the upload can be committed now.
    client.ask("PUT", &commit).await.is(201);
    client.get("/v2/a/manifests/v1").await.is(200);
    client.get("/v2/a/manifests/v2").await.is(404);
}
