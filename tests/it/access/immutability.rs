//! Tags that become immutable some time after the push that set them.

use super::fixture::{AccessFixture, KINDS, Kind, allow};
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST};

/// What alice may, so long after a push. No push is younger than a millisecond when it is checked.
fn within(age: &str, actions: &str) -> String {
    format!("{}immutable_after = '{age}'\n", allow("base/**", actions))
}

const ALL: &str = "'pull', 'push', 'overwrite', 'delete-tag'";

async fn put(client: &mut Client, target: &str, image: &Image) -> Answer {
    let kind = [("content-type", MANIFEST)];
    let target = format!("/v2/base/app/manifests/{target}");
    client
        .ask_with("PUT", &target, &kind, image.manifest.clone())
        .await
}

async fn delete(client: &mut Client, tag: &str) -> Answer {
    let target = format!("/v2/base/app/manifests/{tag}");
    client.ask("DELETE", &target).await
}

/// Images whose blobs are there.
async fn images<const N: usize>(fixture: &AccessFixture) -> [Image; N] {
    let images: [Image; N] = std::array::from_fn(|seed| Image::small(seed as u64));
    let mut root = fixture.client("root");
    for blob in images.iter().flat_map(Image::blobs) {
        root.push_blob("base/app", blob).await;
    }
    images
}

#[tokio::test]
async fn a_tag_is_moved_and_deleted_only_while_it_is_young() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &within("1h", ALL)).await;
        let [one, other] = images(&fixture).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, "v1", &one).await.is(201);
        put(&mut alice, "v1", &other).await.is(201);
        delete(&mut alice, "v1").await.is(202);
        put(&mut alice, "v1", &one).await.is(201);

        fixture.rules(&within("1ms", ALL)).await;
        let message = put(&mut alice, "v1", &other).await.refused(403, "DENIED");
        let expected = "alice may not overwrite base/app:v1: a tag is immutable 1ms after its push";
        assert_eq!(message, expected, "{kind:?}");
        let message = delete(&mut alice, "v1").await.refused(403, "DENIED");
        let expected = "alice may not delete base/app:v1: a tag is immutable 1ms after its push";
        assert_eq!(message, expected, "{kind:?}");
        // Nothing moves.
        put(&mut alice, "v1", &one).await.is(201);
        let both = format!("{}?tag=v1&tag=v2", other.digest());
        put(&mut alice, &both, &other).await.refused(403, "DENIED");
        alice.get("/v2/base/app/manifests/v2").await.is(404);
        let same = format!("{}?tag=v1&tag=v2", one.digest());
        put(&mut alice, &same, &one).await.is(201);
        let there = alice.get("/v2/base/app/manifests/v1").await.is(200);
        assert_eq!(there.body, one.manifest);
        // Others may still do it.
        let mut root = fixture.client("root");
        put(&mut root, "v1", &other).await.is(201);
    }
}

#[tokio::test]
async fn a_tag_whose_push_is_not_recorded_is_immutable_and_gets_no_younger_by_the_same() {
    for kind in [Kind::Upstream, Kind::UpstreamHttp2] {
        let before = allow("base/**", ALL);
        let fixture = AccessFixture::new(kind, &before).await;
        let [one, other] = images(&fixture).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, "v1", &one).await.is(201);
        let pushing =
            "[[access]]\nusers = ['bob']\nrepositories = ['base/**']\nactions = ['push']\n";
        fixture
            .rules(&format!("{pushing}{}", within("1h", ALL)))
            .await;
        let message = put(&mut alice, "v1", &other).await.refused(403, "DENIED");
        assert!(
            message.ends_with("when this one was pushed is not recorded"),
            "{message}"
        );
        delete(&mut alice, "v1").await.refused(403, "DENIED");
        for user in ["alice", "bob", "root"] {
            let mut client = fixture.client(user);
            put(&mut client, "v1", &one).await.is(201);
            let digest = format!("{}?tag=v1", one.digest());
            put(&mut client, &digest, &one).await.is(201);
            put(&mut alice, "v1", &other).await.refused(403, "DENIED");
        }
        let mut bob = fixture.client("bob");
        put(&mut bob, "v1", &other).await.refused(403, "DENIED");
        delete(&mut alice, "v1").await.refused(403, "DENIED");
        // What moves it makes it young.
        put(&mut fixture.client("root"), "v1", &other).await.is(201);
        put(&mut alice, "v1", &one).await.is(201);
    }
}

#[tokio::test]
async fn of_parallel_pushes_to_a_new_tag_none_finds_it_old() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &within("1h", ALL)).await;
        let images: [Image; 4] = images(&fixture).await;
        for round in 0..10 {
            let push = |image: &Image| {
                let (mut client, image) = (fixture.client("alice"), image.clone());
                async move { put(&mut client, &format!("v{round}"), &image).await.status }
            };
            let [a, b, c, d] = &images;
            let answers = tokio::join!(push(a), push(b), push(c), push(d));
            assert_eq!(answers, (201, 201, 201, 201), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn ages_survive_a_restart() {
    for kind in [Kind::Store, Kind::Upstream] {
        let mut fixture = AccessFixture::new(kind, &within("1h", ALL)).await;
        let [one, other] = images(&fixture).await;
        put(&mut fixture.client("alice"), "v1", &one).await.is(201);
        fixture.restart().await;
        put(&mut fixture.client("alice"), "v1", &other)
            .await
            .is(201);
    }
}

#[tokio::test]
async fn one_rule_that_allows_it_suffices() {
    for kind in KINDS {
        let scratch = allow("base/**", ALL) + "tags = ['scratch']\n";
        let rules = within("1ms", ALL) + &scratch;
        let fixture = AccessFixture::new(kind, &rules).await;
        let [one, other] = images(&fixture).await;
        let mut alice = fixture.client("alice");
        for tag in ["v1", "scratch"] {
            put(&mut alice, tag, &one).await.is(201);
        }
        put(&mut alice, "v1", &other).await.refused(403, "DENIED");
        put(&mut alice, "scratch", &other).await.is(201);
        delete(&mut alice, "scratch").await.is(202);
        let both = within("1h", "'overwrite'") + "from = 'ci/app'\n";
        fixture
            .rules(&format!("{both}{}", allow("**", "'pull', 'push'")))
            .await;
        // Young, but from nowhere.
        put(&mut alice, "v1", &other).await.refused(403, "DENIED");
        fixture.client("root").push("ci/app", "main", &other).await;
        put(&mut alice, "v1", &other).await.is(201);
    }
}
