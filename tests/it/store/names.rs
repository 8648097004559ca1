//! Names of repositories cannot leave the store's directory, nor get in each other's way in it.

use moorgate::internal::journal::Journal;
use moorgate::internal::registry::RepositoryName;

use super::fixture::{Disk, StoreFixture};
use super::image::{Image, sha256};
use crate::harness::request;

#[tokio::test]
async fn every_valid_name_is_a_repository_of_its_own() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let longest = "a".repeat(255);
    let names = [
        "a",
        "a/blobs",
        "a/blobs/sha256",
        "index.json",
        "oci-layout",
        "a/index.json",
        "blobs/uploads",
        "uploads",
        "repositories",
        "a.b_c--d/e",
        "manifests/x",
        "a/b",
        &longest,
    ];
    for (seed, name) in names.iter().enumerate() {
        client.push(name, "v1", &Image::small(seed as u64)).await;
    }
    for (seed, name) in names.iter().enumerate() {
        client.check(name, "v1", &Image::small(seed as u64)).await;
        client
            .ask("HEAD", &format!("/v2/{name}/manifests/v1"))
            .await
            .is(200);
    }
    let mut sorted: Vec<_> = names.iter().map(ToString::to_string).collect();
    sorted.sort();
    assert_eq!(
        client.get("/v2/_catalog").await.json()["repositories"],
        serde_json::json!(sorted)
    );
    let mut on_disk = fixture.disk().repositories();
    on_disk.sort();
    assert_eq!(on_disk, sorted);
    fixture.disk().is_sound();
    drop(client);
    // What may be written late is written in the end, also for the longest name.
    assert!(fixture.gateway.stop().await);
    let journal = Journal::new(fixture.disk().0.join("journal.redb"));
    for name in &names {
        let name = RepositoryName::parse(name).unwrap();
        let history = journal.history(&name).unwrap();
        assert!(history.tags.values().all(|used| used.pulled.is_some()));
        assert_eq!((history.tags.len(), history.manifests.len()), (1, 1));
    }
}

#[tokio::test]
async fn no_other_name_touches_the_disk() {
    let fixture = StoreFixture::new().await;
    let before = Disk::list(fixture.disk().0.join("repositories"));
    let outside = sha256(b"outside");
    for name in [
        "..", "../..", "a/..", "%2e%2e", "a%2fb", ".", "A", "a+b", "a/", "a//b", ".hidden", "a\\b",
        "a:b", "_x",
    ] {
        for (method, rest) in [
            ("GET", "manifests/v1".to_owned()),
            ("GET", format!("blobs/{outside}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("PUT", "manifests/v1".to_owned()),
        ] {
            let mut client = fixture.gateway.client().await;
            client
                .send(request(
                    method,
                    &format!("/v2/{name}/{rest}"),
                    "Content-Length: 0\r\n",
                ))
                .await;
            let status = client.head().await.status();
            assert!([400, 404].contains(&status), "{name} {rest}: {status}");
        }
    }
    assert_eq!(Disk::list(fixture.disk().0.join("repositories")), before);
    assert_eq!(Disk::list(fixture.disk().0.join("uploads")), [""; 0]);
    assert_eq!(Disk::list(fixture.gateway.path("state/store")), ["ci"]);
}
