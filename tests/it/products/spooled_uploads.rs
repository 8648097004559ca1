//! Uploads in chunks to products that take a blob in one piece.

use crate::harness::played::{PlayedChallenge, PlayedRegistry, Switches, digest};
use crate::harness::registry_client::{ClientAnswer, with_digest};
use crate::harness::{Domain, Gateway, RegistryClient, Setup, basic};

const MIB: usize = 1 << 20;

/// A product that asks for no login, and the gateway in front of it.
async fn in_front_of(mut switches: Switches, more: &str) -> (PlayedRegistry, Gateway) {
    switches.challenge = PlayedChallenge::None;
    switches.redirects_blobs = false;
    let product = switches.product;
    let registry = PlayedRegistry::start(switches).await;
    registry.make_repository("ci/app");
    let domain = Domain::new("ci.test", &registry.url())
        .upstream(&format!("product = \"{product}\"\n{more}"));
    let gateway = Setup::new().domain(domain).start().await;
    (registry, gateway)
}

fn client(gateway: &Gateway) -> RegistryClient {
    RegistryClient::through(gateway)
}

/// Sends the chunks one after the other, and returns the answer to the last and where it goes on.
async fn chunks(client: &RegistryClient, blob: &[u8], size: usize) -> (ClientAnswer, String) {
    let begun = client
        .send("POST", "/v2/ci/app/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(begun.status, 202);
    let mut location = begun.location();
    let mut last = begun;
    for (index, chunk) in blob.chunks(size).enumerate() {
        let begin = index * size;
        let range = format!("content-range: {begin}-{}", begin + chunk.len() - 1);
        last = client.send("PATCH", &location, &[&range], chunk).await;
        if last.status != 202 {
            return (last, location);
        }
        let end = format!("0-{}", begin + chunk.len() - 1);
        assert_eq!(last.header("range"), Some(end.as_str()));
        location = last.location();
    }
    (last, location)
}

fn blob(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_become_one_stream_where_the_product_takes_no_others() {
    let blob = blob(100 * MIB);
    let digest = digest(&blob);
    for (switches, pieces) in [
        (Switches::ecr(), 1),
        (Switches::gar(), 1),
        // It takes chunks of up to 4 MiB as they are.
        (Switches::ghcr(), 100),
    ] {
        let product = switches.product;
        let (registry, gateway) = in_front_of(switches, "").await;
        let client = client(&gateway);
        let (_, location) = chunks(&client, &blob, MIB).await;
        let done = client
            .send("PUT", &with_digest(&location, &digest), &[], b"")
            .await;
        assert_eq!(done.status, 201, "{product}: {done:?}");
        let with_body = registry.take().into_iter().filter(|sent| sent.length > 0);
        assert_eq!(with_body.count(), pieces, "{product}");
        let stored = client.get(&format!("/v2/ci/app/blobs/{digest}")).await;
        assert_eq!(
            (stored.status, stored.body.len()),
            (200, blob.len()),
            "{product}"
        );
        assert!(stored.body == blob, "{product}");
        // Nothing is left of it here.
        assert_eq!(files(&gateway), 0, "{product}");
    }
}

/// The number of uploads below the state directory.
fn files(gateway: &Gateway) -> usize {
    let uploads = gateway.path("state/spool/ci.test/uploads");
    let Ok(repositories) = std::fs::read_dir(uploads) else {
        return 0;
    };
    repositories
        .map(|repository| {
            std::fs::read_dir(repository.unwrap().path())
                .unwrap()
                .count()
        })
        .sum()
}

#[tokio::test]
async fn chunks_that_are_too_large_are_collected() {
    let (registry, gateway) = in_front_of(Switches::ghcr(), "").await;
    let client = client(&gateway);
    let blob = blob(11 * MIB);
    let (_, location) = chunks(&client, &blob, 5 * MIB).await;
    let status = client.send("GET", &location, &[], b"").await;
    let end = format!("0-{}", blob.len() - 1);
    assert_eq!(
        (status.status, status.header("range")),
        (204, Some(end.as_str()))
    );
    let done = client
        .send("PUT", &with_digest(&location, &digest(&blob)), &[], b"")
        .await;
    assert_eq!(done.status, 201, "{done:?}");
    let sent = registry.take();
    assert!(sent.iter().all(|request| request.method != "PATCH"));
}

#[tokio::test]
async fn an_upload_in_one_piece_is_passed_on() {
    let (registry, gateway) = in_front_of(Switches::ecr(), "").await;
    let client = client(&gateway);
    let begun = client
        .send("POST", "/v2/ci/app/blobs/uploads/", &[], b"")
        .await;
    // As Docker does: one stream without a range.
    let sent = client
        .send("PATCH", &begun.location(), &[], b"content")
        .await;
    assert_eq!(sent.status, 201);
    let done = client
        .send(
            "PUT",
            &with_digest(&sent.location(), &digest(b"content")),
            &[],
            b"",
        )
        .await;
    assert_eq!(done.status, 201, "{done:?}");
    let patches = registry
        .take()
        .into_iter()
        .filter(|one| one.method == "PATCH");
    assert_eq!(patches.count(), 1);
    assert!(!gateway.path("state/spool").exists());
}

#[tokio::test]
async fn what_does_not_belong_to_an_upload_is_refused() {
    let (_registry, gateway) = in_front_of(Switches::ecr(), "spool = \"1 MiB\"").await;
    let client = client(&gateway);
    let blob = blob(MIB);
    // A gap.
    let (_, location) = chunks(&client, &blob[..100], 100).await;
    let gap = client
        .send("PATCH", &location, &["content-range: 200-299"], &[0; 100])
        .await;
    assert_eq!((gap.status, gap.header("range")), (416, Some("0-99")));
    // The room is used up.
    let full = client
        .send(
            "PATCH",
            &location,
            &[&format!("content-range: 100-{}", 99 + MIB)],
            &blob,
        )
        .await;
    assert_eq!(
        (full.status, full.code()),
        (503, Some("UNAVAILABLE".to_owned()))
    );
    assert!(full.header("retry-after").is_some());
    // Another content than its digest, which ends it.
    let other = client
        .send(
            "PUT",
            &with_digest(&location, &digest(b"another")),
            &[],
            b"",
        )
        .await;
    assert_eq!(
        (other.status, other.code()),
        (400, Some("DIGEST_INVALID".to_owned()))
    );
    let gone = client.send("GET", &location, &[], b"").await;
    assert_eq!(
        (gone.status, gone.code()),
        (404, Some("BLOB_UPLOAD_UNKNOWN".to_owned()))
    );
    // A cancelled one gives its room back.
    let (_, location) = chunks(&client, &blob, MIB / 2).await;
    let cancelled = client.send("DELETE", &location, &[], b"").await;
    assert_eq!(cancelled.status, 204);
    assert_eq!(files(&gateway), 0);
    let (_, location) = chunks(&client, &blob, MIB).await;
    // Another user cannot go on with it.
    let mut stranger = RegistryClient::through(&gateway);
    stranger.authorization = Some(basic("alice", "wrong"));
    assert_eq!(stranger.send("GET", &location, &[], b"").await.status, 401);
}

#[tokio::test]
async fn a_failed_commit_can_be_repeated() {
    let (registry, gateway) = in_front_of(Switches::ecr(), "").await;
    let client = client(&gateway);
    let blob = blob(3 * MIB);
    let (_, location) = chunks(&client, &blob, MIB).await;
    let target = with_digest(&location, &digest(&blob));
    registry.set(|switches| switches.throttled = 1);
    let throttled = client.send("PUT", &target, &[], b"").await;
    assert_ne!(throttled.status, 201);
    let done = client.send("PUT", &target, &[], b"").await;
    assert_eq!(done.status, 201, "{done:?}");
}
