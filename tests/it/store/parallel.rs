//! Many pushes at once.

use std::os::unix::fs::MetadataExt;

use super::client::{Client, Endpoint};
use super::fixture::StoreFixture;
use super::image::{Image, bytes, sha256};

/// An image whose layers several others have, too.
fn image(n: u64) -> Image {
    Image::new(
        n,
        vec![
            bytes(n % 7, 30_000),
            bytes(100 + n % 13, 60_000),
            bytes(200 + n, 1000),
        ],
    )
}

fn place(n: u64) -> (String, String) {
    (format!("team-{}/app", n % 10), format!("v{n}"))
}

async fn push(mut client: Client, n: u64) {
    let (repository, tag) = place(n);
    let image = image(n);
    for blob in image.blobs() {
        let digest = sha256(blob);
        // As most clients do: first ask, then push in one of the usual ways.
        if client
            .ask("HEAD", &format!("/v2/{repository}/blobs/{digest}"))
            .await
            .status
            == 200
        {
            continue;
        }
        let from = format!("team-{}/app", (n + 1) % 10);
        match n % 3 {
            0 => {
                let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
                client
                    .ask_with("POST", &target, &[], blob.to_vec())
                    .await
                    .is(201);
            }
            1 => drop(client.push_blob(&repository, blob).await),
            _ => {
                let target = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
                let answer = client.ask("POST", &target).await;
                if answer.status != 201 {
                    let session = answer.is(202).header("location").to_owned();
                    client
                        .ask_with("PATCH", &session, &[], blob.to_vec())
                        .await
                        .is(202);
                    client
                        .ask("PUT", &format!("{session}?digest={digest}"))
                        .await
                        .is(201);
                }
            }
        }
    }
    client
        .push_manifest(&repository, &tag, &image.manifest)
        .await
        .is(201);
}

#[tokio::test]
async fn two_hundred_pushes_at_once_are_all_right_and_share_their_layers() {
    let fixture = StoreFixture::new().await;
    let endpoints = ["http/1.1", "h2"].map(|alpn| Endpoint::new(&fixture.gateway, alpn));
    let clients = endpoints.iter().cycle().map(Endpoint::client);
    let pushes: Vec<_> = (0..200)
        .zip(clients)
        .map(|(n, client)| tokio::spawn(push(client, n)))
        .collect();
    for push in pushes {
        push.await.unwrap();
    }
    let mut client = fixture.http1();
    for n in 0..200 {
        let (repository, tag) = place(n);
        client.check(&repository, &tag, &image(n)).await;
    }
    let disk = fixture.disk();
    disk.is_sound();
    for n in 0..200 {
        let (repository, _) = place(n);
        for blob in image(n).blobs() {
            let digest = sha256(blob);
            let [own, shared] =
                [disk.blob(&repository, &digest), disk.shared(&digest)].map(|path| path.metadata());
            assert_eq!(
                own.unwrap().ino(),
                shared.unwrap().ino(),
                "{repository} {digest} is on the disk twice"
            );
        }
    }
    assert_eq!(fixture.gc(&["--dry-run"])["blobs"], 0);
}

#[tokio::test]
async fn one_tag_pushed_by_many_at_once_is_one_of_theirs() {
    let fixture = StoreFixture::new().await;
    let endpoint = Endpoint::new(&fixture.gateway, "http/1.1");
    let pushes: Vec<_> = (0..20)
        .map(|n| {
            let mut client = endpoint.client();
            tokio::spawn(async move { client.push("a", "latest", &Image::small(n)).await })
        })
        .collect();
    let mut pushed = Vec::new();
    for push in pushes {
        pushed.push(push.await.unwrap());
    }
    let mut client = endpoint.client();
    let latest = sha256(&client.get("/v2/a/manifests/latest").await.is(200).body);
    assert!(pushed.contains(&latest));
    for n in 0..20 {
        client
            .check("a", &Image::small(n).digest(), &Image::small(n))
            .await;
    }
}

#[tokio::test]
async fn one_blob_pushed_by_many_at_once_is_there_for_each() {
    let fixture = StoreFixture::new().await;
    let endpoint = Endpoint::new(&fixture.gateway, "h2");
    let blob = bytes(1, 500_000);
    let pushes: Vec<_> = (0..20)
        .map(|n| {
            let (mut client, blob) = (endpoint.client(), blob.clone());
            tokio::spawn(async move {
                let digest = client.push_blob(&format!("r{}", n % 4), &blob).await;
                client
                    .get(&format!("/v2/r{}/blobs/{digest}", n % 4))
                    .await
                    .is(200)
                    .body
                    == blob
            })
        })
        .collect();
    for push in pushes {
        assert!(push.await.unwrap());
    }
    let shared = fixture.disk().shared(&sha256(&blob)).metadata().unwrap();
    assert_eq!(shared.nlink(), 5);
}
