//! A tag goes alone, at a registry that deletes manifests only.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::between::{Between, Disturbance, client};
use crate::harness::promptly;
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST, descriptor, sha256};

const PUT_V1: &str = "PUT /v2/app/manifests/v1";
const DELETE_DIGEST: &str = "DELETE /v2/app/manifests/sha256:";

/// An image with the tags `v1` and `v2` in `app`.
async fn tagged(client: &mut Client) -> Image {
    let image = Image::small(1);
    client.push("app", "v1", &image).await;
    client
        .push_manifest("app", "v2", &image.manifest)
        .await
        .is(201);
    image
}

async fn delete(client: &mut Client, reference: &str) -> Answer {
    client
        .ask("DELETE", &format!("/v2/app/manifests/{reference}"))
        .await
}

async fn tags(client: &mut Client) -> Value {
    client.get("/v2/app/tags/list").await.is(200).json()["tags"].clone()
}

/// Asserts that the whole image is there.
async fn is_at(client: &mut Client, reference: &str, image: &Image) {
    let target = format!("/v2/app/manifests/{reference}");
    let accept = [("accept", MANIFEST)];
    let manifest = client.ask_with("GET", &target, &accept, "").await.is(200);
    assert_eq!(manifest.body, image.manifest);
    for blob in image.blobs() {
        let target = format!("/v2/app/blobs/{}", sha256(blob));
        client.ask("HEAD", &target).await.is(200);
    }
}

/// Asserts that `v2` alone leads to the image, which is whole.
async fn only_v2_is_left(client: &mut Client, image: &Image) {
    let accept = [("accept", MANIFEST)];
    let gone = client.ask_with("GET", "/v2/app/manifests/v1", &accept, "");
    gone.await.is(404);
    assert_eq!(tags(client).await, json!(["v2"]));
    is_at(client, "v2", image).await;
    is_at(client, &image.digest(), image).await;
}

/// Asserts that both tags lead to the image.
async fn nothing_has_changed(client: &mut Client, image: &Image) {
    assert_eq!(tags(client).await, json!(["v1", "v2"]));
    is_at(client, "v1", image).await;
    is_at(client, "v2", image).await;
}

#[tokio::test]
async fn a_tag_goes_and_its_siblings_stay() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut client = client(&gateway);
    let image = tagged(&mut client).await;
    let answer = delete(&mut client, "v1").await.is(202);
    assert_eq!(answer.header("content-length"), "0");
    only_v2_is_left(&mut client, &image).await;
    // A repeat finds nothing, as at any registry.
    delete(&mut client, "v1")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    delete(&mut client, "v2").await.is(202);
    is_at(&mut client, &image.digest(), &image).await;
    client
        .push_manifest("app", "v1", &image.manifest)
        .await
        .is(201);
    is_at(&mut client, "v1", &image).await;
}

#[tokio::test]
async fn a_tag_of_dockers_own_manifests_goes_too() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut client = client(&gateway);
    let mut image = Image::small(1);
    let layers = image.layers.iter();
    let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    image.manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &image.config),
        "layers": layers.map(|bytes| descriptor(layer, bytes)).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes();
    client.push("app", "v1", &image).await;
    client
        .push_manifest("app", "v2", &image.manifest)
        .await
        .is(201);
    between.take();
    let permits = Arc::new(Semaphore::new(0));
    between.spare(DELETE_DIGEST);
    between.disturb(DELETE_DIGEST, Disturbance::Held(permits.clone()));
    let mut other = client.another();
    let (answer, ()) = tokio::join!(delete(&mut client, "v1"), async {
        between.has_seen(DELETE_DIGEST, 2).await;
        let accept = [("accept", DOCKER)];
        let taken = other
            .ask_with("GET", "/v2/app/manifests/v1", &accept, "")
            .await;
        let taken = taken.is(200);
        assert!(taken.body != image.manifest);
        assert_eq!(taken.header("content-type"), DOCKER);
        permits.add_permits(1);
    });
    answer.is(202);
    assert_eq!(tags(&mut client).await, json!(["v2"]));
}

#[tokio::test]
async fn a_registry_that_deletes_nothing_is_left_as_it_was() {
    let between = Between::new(false).await;
    let gateway = between.gateway("", "").await;
    let mut client = client(&gateway);
    let image = tagged(&mut client).await;
    between.take();
    let answer = delete(&mut client, "v1").await;
    let message = answer.refused(405, "UNSUPPORTED");
    assert!(
        message.contains("deletes neither tags nor manifests"),
        "{message}"
    );
    assert_eq!(answer.header("allow"), "GET, HEAD, PUT");
    let asked = between.take();
    let changes = |request: &&String| request.starts_with('P');
    assert_eq!(asked.iter().find(changes), None, "{asked:?}");
    nothing_has_changed(&mut client, &image).await;
    // Of a digest, it is the registry's own refusal.
    let refused = delete(&mut client, &image.digest()).await.is(405);
    assert_eq!(refused.json()["errors"][0]["code"], "UNSUPPORTED");
}

/// A 404 that is not of the registry, as of a server that forwards no deletions.
#[tokio::test]
async fn a_server_that_knows_no_deletion_is_left_as_it_was() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut client = client(&gateway);
    let image = tagged(&mut client).await;
    between.take();
    between.disturb(DELETE_DIGEST, Disturbance::Answer(404));
    delete(&mut client, "v1").await.refused(405, "UNSUPPORTED");
    let asked = between.take();
    let changes = |request: &&String| request.starts_with('P');
    assert_eq!(asked.iter().find(changes), None, "{asked:?}");
    nothing_has_changed(&mut client, &image).await;
}

#[tokio::test]
async fn it_is_done_as_the_domain_says() {
    let between = Between::new(true).await;
    let gateway = between.gateway("untag = 'native'", "").await;
    let mut native = client(&gateway);
    let image = tagged(&mut native).await;
    delete(&mut native, "v1").await.refused(405, "UNSUPPORTED");
    nothing_has_changed(&mut native, &image).await;

    let off = between.gateway("untag = 'off'", "").await;
    between.take();
    let answer = delete(&mut client(&off), "v1").await;
    let message = answer.refused(405, "UNSUPPORTED");
    assert!(message.contains("[upstream] untag"), "{message}");
    assert_eq!(between.take(), Vec::<String>::new());

    let swap = between.gateway("untag = 'swap'", "").await;
    delete(&mut client(&swap), "v1").await.is(202);
    assert_eq!(between.take()[0], "HEAD /v2/app/manifests/v1");
    only_v2_is_left(&mut native, &image).await;
}

#[tokio::test]
async fn it_needs_no_more_rights_than_it_did() {
    let between = Between::new(true).await;
    let rules = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
                 [[access]]\nusers = ['alice']\nrepositories = ['app']\n\
                 actions = ['pull', 'list', 'delete-tag']\n";
    let gateway = between.gateway("", rules).await;
    let mut alice = client(&gateway);
    let mut root = client(&gateway).of("root");
    let image = tagged(&mut root).await;
    let pushed = alice.push_manifest("app", "v3", &image.manifest).await;
    pushed.refused(403, "DENIED");
    delete(&mut alice, &image.digest())
        .await
        .refused(403, "DENIED");
    delete(&mut alice, "v1").await.is(202);
    only_v2_is_left(&mut root, &image).await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_it() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut here = client(&gateway);
    let image = tagged(&mut here).await;
    between.take();
    let permits = Arc::new(Semaphore::new(0));
    between.disturb(PUT_V1, Disturbance::Held(permits.clone()));
    let mut leaving = here.another();
    let left = tokio::spawn(async move { delete(&mut leaving, "v1").await });
    between.has_seen(PUT_V1, 1).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    crate::harness::settle().await;
    permits.add_permits(1);
    promptly(async {
        while tags(&mut here).await != json!(["v2"]) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    only_v2_is_left(&mut here, &image).await;
}

#[tokio::test]
async fn two_at_once_end_with_one() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut one = client(&gateway);
    let image = tagged(&mut one).await;
    between.take();
    let mut other = one.another();
    let (first, second) = tokio::join!(delete(&mut one, "v1"), delete(&mut other, "v1"));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 404], "{first:?} {second:?}");
    assert_eq!(between.count(PUT_V1), 1);
    only_v2_is_left(&mut one, &image).await;
}

#[tokio::test]
async fn a_push_in_between_stays() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut one = client(&gateway);
    let image = tagged(&mut one).await;
    between.take();
    let permits = Arc::new(Semaphore::new(0));
    between.spare(DELETE_DIGEST);
    between.disturb(DELETE_DIGEST, Disturbance::Held(permits.clone()));
    let (mut other, pushed) = (one.another(), Image::small(2));
    let (answer, ()) = tokio::join!(delete(&mut one, "v1"), async {
        between.has_seen(DELETE_DIGEST, 2).await;
        other.push("app", "v1", &pushed).await;
        permits.add_permits(1);
    });
    answer.is(202);
    is_at(&mut one, "v1", &pushed).await;
    is_at(&mut one, "v2", &image).await;
}

/// The placeholder stays, and somebody pushes before moorgate looks at the tag: what they have
/// pushed is neither deleted nor overwritten by what the tag had before.
#[tokio::test]
async fn a_push_in_between_stays_when_the_deletion_fails() {
    const HEAD_V1: &str = "HEAD /v2/app/manifests/v1";
    for failures in [1, 2] {
        let between = Between::new(true).await;
        let gateway = between.gateway("", "").await;
        let mut one = client(&gateway);
        let image = tagged(&mut one).await;
        between.take();
        let permits = Arc::new(Semaphore::new(0));
        between.spare(DELETE_DIGEST);
        for _ in 0..failures {
            between.disturb(DELETE_DIGEST, Disturbance::Answer(500));
            between.spare(HEAD_V1);
        }
        between.disturb(HEAD_V1, Disturbance::Held(permits.clone()));
        let (mut other, pushed) = (one.another(), Image::small(2));
        let (answer, ()) = tokio::join!(delete(&mut one, "v1"), async {
            between.has_seen(HEAD_V1, failures + 1).await;
            other.push("app", "v1", &pushed).await;
            permits.add_permits(1);
        });
        answer.is(202);
        is_at(&mut one, "v1", &pushed).await;
        is_at(&mut one, "v2", &image).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_no_failure() {
    for lost in [PUT_V1, DELETE_DIGEST] {
        let between = Between::new(true).await;
        let gateway = between.gateway("", "").await;
        let mut client = client(&gateway);
        let image = tagged(&mut client).await;
        if lost == DELETE_DIGEST {
            between.spare(lost);
        }
        between.disturb(lost, Disturbance::Lost);
        let answer = delete(&mut client, "v1").await;
        assert_eq!(answer.status, 202, "{lost} {answer:?}");
        only_v2_is_left(&mut client, &image).await;
    }
}

#[tokio::test]
async fn what_fails_half_way_is_undone() {
    for (failing, times) in [(PUT_V1, 1), (DELETE_DIGEST, 2)] {
        let between = Between::new(true).await;
        let gateway = between.gateway("", "").await;
        let mut client = client(&gateway);
        let image = tagged(&mut client).await;
        if failing == DELETE_DIGEST {
            between.spare(failing);
        }
        for _ in 0..times {
            between.disturb(failing, Disturbance::Answer(500));
        }
        delete(&mut client, "v1").await.refused(502, "UNAVAILABLE");
        nothing_has_changed(&mut client, &image).await;
        // And another try does it.
        delete(&mut client, "v1").await.is(202);
        only_v2_is_left(&mut client, &image).await;
    }
}

#[tokio::test]
async fn a_manifest_goes_with_its_tags() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut client = client(&gateway);
    let image = tagged(&mut client).await;
    delete(&mut client, &image.digest()).await.is(202);
    client.get("/v2/app/manifests/v2").await.is(404);
    delete(&mut client, &image.digest()).await.is(404);
}
