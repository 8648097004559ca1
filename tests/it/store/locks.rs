//! Repositories that another process has locked.

use std::fs::File;

use super::client::Endpoint;
use super::image::{Image, bytes, sha256};
use super::stage::Stage;
use crate::harness::promptly;

#[tokio::test]
async fn pushes_to_a_locked_repository_stop_no_pull_and_no_push_of_another() {
    let stage = Stage::new().await;
    let mut client = stage.http1();
    let image = Image::small(1);
    client.push("a", "v1", &image).await;
    client.push("b", "v1", &image).await;
    let lock = File::open(stage.disk().repository("a")).unwrap();
    lock.lock().unwrap();
    let endpoint = Endpoint::new(&stage.gateway, "http/1.1");
    let pushes: Vec<_> = (0..30)
        .map(|n| {
            let mut client = endpoint.client();
            let blob = bytes(n, 10_000);
            let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&blob));
            tokio::spawn(async move { client.ask_with("POST", &target, &[], blob).await })
        })
        .collect();
    // All of the pushes have come.
    let uploads = stage.disk().0.join("uploads/a");
    promptly(async {
        while super::stage::Disk::list(&uploads).len() < 30 {
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
