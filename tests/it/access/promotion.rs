//! Promotion: a tag in one place is only set to a manifest that another place has.

use super::fixture::{AccessFixture, KINDS, Kind, Login, allow};
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST, descriptor, index};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// alice promotes from `ci/**` to `release/**`.
fn promotion(actions: &str) -> String {
    format!(
        "{}{}from = 'ci/**'\n",
        allow("ci/**", "'pull'"),
        allow("release/**", actions)
    )
}

/// Writes a manifest whose blobs are there.
async fn put(client: &mut Client, target: &str, image: &Image) -> Answer {
    let kind = [("content-type", MANIFEST)];
    let target = format!("/v2/release/app/manifests/{target}");
    client
        .ask_with("PUT", &target, &kind, image.manifest.clone())
        .await
}

/// Pushes the blobs of an image to the repository of releases.
async fn push_blobs(fixture: &AccessFixture, image: &Image) {
    let mut alice = fixture.client("alice");
    for blob in image.blobs() {
        alice.push_blob("release/app", blob).await;
    }
}

#[tokio::test]
async fn a_tag_is_only_set_to_what_another_repository_has() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &promotion("'pull', 'push', 'overwrite'")).await;
        let built = fixture.seeded(1, &["ci/app"], "main").await;
        let newer = fixture.seeded(2, &["ci/app"], "next").await;
        let foreign = Image::small(3);
        for image in [&built, &newer, &foreign] {
            push_blobs(&fixture, image).await;
        }
        let mut alice = fixture.client("alice");
        let refused = put(&mut alice, "v1", &foreign).await;
        let message = refused.refused(403, "DENIED");
        assert!(
            message.contains(
                "alice may not push release/app:v1: its tag is only set to a manifest that another \
                              repository has, of ci/**"
            ),
            "{message}"
        );
        alice.get("/v2/release/app/manifests/v1").await.is(404);
        put(&mut alice, "v1", &built).await.is(201);
        // Nor is it moved to anything else.
        let message = put(&mut alice, "v1", &foreign).await.refused(403, "DENIED");
        assert!(message.contains("may not"), "{message}");
        put(&mut alice, "v1", &newer).await.is(201);
        let there = alice.get("/v2/release/app/manifests/v1").await.is(200);
        assert_eq!(there.body, newer.manifest, "{kind:?}");
    }
}

#[tokio::test]
async fn manifests_by_digest_and_blobs_need_no_source() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &promotion("'pull', 'push'")).await;
        let child = Image::small(1);
        push_blobs(&fixture, &child).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, &child.digest(), &child).await.is(201);
        // The repository itself is no source.
        put(&mut alice, "v1", &child).await.refused(403, "DENIED");
        let with_tag = format!("{}?tag=v1&tag=v2", child.digest());
        put(&mut alice, &with_tag, &child)
            .await
            .refused(403, "DENIED");
        // An index is promoted with what it lists.
        let list = index(&[child.descriptor()]);
        let mut root = fixture.client("root");
        root.push("ci/app", "child", &child).await;
        let push = async |client: &mut Client, repository: &str| {
            let target = format!("/v2/{repository}/manifests/v1");
            let kind = [("content-type", INDEX)];
            client.ask_with("PUT", &target, &kind, list.clone()).await
        };
        push(&mut alice, "release/app").await.refused(403, "DENIED");
        push(&mut root, "ci/app").await.is(201);
        push(&mut alice, "release/app").await.is(201);
        // With the manifest there, every tag of a push by digest may be set.
        put(&mut alice, &with_tag, &child)
            .await
            .refused(403, "DENIED");
        let digest = descriptor(INDEX, &list)["digest"]
            .as_str()
            .unwrap()
            .to_owned();
        let target = format!("/v2/release/app/manifests/{digest}?tag=v3&tag=v4");
        let kind = [("content-type", INDEX)];
        alice
            .ask_with("PUT", &target, &kind, list.clone())
            .await
            .is(201);
        alice.get("/v2/release/app/manifests/v4").await.is(200);
    }
}

#[tokio::test]
async fn in_a_store_every_repository_that_matches_is_a_source() {
    for (kind, status) in [(Kind::Store, 201), (Kind::Upstream, 403)] {
        let fixture = AccessFixture::new(kind, &promotion("'pull', 'push'")).await;
        let image = fixture.seeded(1, &["ci/other"], "main").await;
        push_blobs(&fixture, &image).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, "v1", &image).await.is(status);
    }
}

#[tokio::test]
async fn a_layer_or_a_deleted_manifest_is_no_source() {
    let fixture = AccessFixture::new(Kind::Store, &promotion("'pull', 'push'")).await;
    let image = Image::small(1);
    push_blobs(&fixture, &image).await;
    let mut root = fixture.client("root");
    root.push_blob("ci/app", &image.manifest).await;
    let mut alice = fixture.client("alice");
    put(&mut alice, "v1", &image).await.refused(403, "DENIED");
    root.push("ci/app", "main", &image).await;
    let target = format!("/v2/ci/app/manifests/{}", image.digest());
    root.ask("DELETE", &target).await.is(202);
    put(&mut alice, "v1", &image).await.refused(403, "DENIED");
}

#[tokio::test]
async fn what_the_user_may_not_see_is_no_source() {
    for kind in KINDS {
        let rules = allow("release/**", "'pull', 'push'") + "from = ['ci/**', 'secret/app']\n";
        let fixture = AccessFixture::new(kind, &rules).await;
        let image = fixture.seeded(1, &["ci/app", "secret/app"], "main").await;
        push_blobs(&fixture, &image).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, "v1", &image).await.refused(403, "DENIED");
        // The right to push lets a client ask for manifests.
        fixture
            .rules(&format!("{}{rules}", allow("secret/app", "'push'")))
            .await;
        put(&mut alice, "v1", &image).await.is(201);
        let deny = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['secret/**']\nactions = ['pull']\n";
        fixture
            .rules(&format!("{deny}{}{rules}", allow("secret/app", "'push'")))
            .await;
        put(&mut alice, "v2", &image).await.refused(403, "DENIED");
    }
}

#[tokio::test]
async fn other_rules_allow_more_and_denies_beat_all() {
    for kind in KINDS {
        let rules = promotion("'pull', 'push', 'overwrite'");
        let fixture = AccessFixture::new(kind, &rules).await;
        let image = fixture.seeded(1, &["ci/app"], "main").await;
        let foreign = Image::small(2);
        for image in [&image, &foreign] {
            push_blobs(&fixture, image).await;
        }
        let mut alice = fixture.client("alice");
        let scratch = allow("release/**", "'push'") + "tags = ['scratch']\n";
        fixture.rules(&format!("{rules}{scratch}")).await;
        put(&mut alice, "scratch", &foreign).await.is(201);
        put(&mut alice, "v1", &foreign).await.refused(403, "DENIED");
        // It may be made of anything, but moved by promotion alone.
        put(&mut alice, "scratch", &image).await.is(201);
        put(&mut alice, "scratch", &foreign)
            .await
            .refused(403, "DENIED");
        let deny = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['release/**']\nactions = ['push']\n";
        fixture.rules(&format!("{rules}{deny}")).await;
        put(&mut alice, "v1", &image).await.refused(403, "DENIED");
    }
}

#[tokio::test]
async fn the_same_manifest_again_needs_no_source() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &promotion("'pull', 'push'")).await;
        let image = fixture.seeded(1, &["ci/app", "release/app"], "v1").await;
        let mut root = fixture.client("root");
        let target = format!("/v2/ci/app/manifests/{}", image.digest());
        root.ask("DELETE", &target).await.is(202);
        let mut alice = fixture.client("alice");
        put(&mut alice, "v1", &image).await.is(201);
        put(&mut alice, "v2", &image).await.refused(403, "DENIED");
    }
}

#[tokio::test]
async fn a_token_lets_promote_as_a_password_does() {
    let fixture = AccessFixture::with(Kind::Store, &promotion("'pull', 'push'"), |domain| {
        domain.auth("mode = 'token'")
    })
    .await;
    let built = Image::small(1);
    let foreign = Image::small(2);
    let repositories = ["ci/app", "release/app"];
    let mut root = fixture.login(Login::Token, "root", &repositories).await;
    root.push("ci/app", "main", &built).await;
    for blob in built.blobs().chain(foreign.blobs()) {
        root.push_blob("release/app", blob).await;
    }
    let mut alice = fixture.login(Login::Token, "alice", &repositories).await;
    put(&mut alice, "v1", &built).await.is(201);
    put(&mut alice, "v2", &foreign).await.refused(403, "DENIED");
}

#[tokio::test]
async fn of_parallel_promotions_only_what_has_a_source_arrives() {
    for kind in KINDS {
        let fixture = AccessFixture::new(kind, &promotion("'pull', 'push', 'overwrite'")).await;
        let built = [
            fixture.seeded(1, &["ci/app"], "a").await,
            fixture.seeded(2, &["ci/app"], "b").await,
        ];
        let foreign = [Image::small(3), Image::small(4)];
        for image in built.iter().chain(&foreign) {
            push_blobs(&fixture, image).await;
        }
        for _ in 0..5 {
            let push = |image: &Image| {
                let (mut client, image) = (fixture.client("alice"), image.clone());
                async move { put(&mut client, "v1", &image).await.status }
            };
            let [a, b] = &built;
            let [x, y] = &foreign;
            let answers = tokio::join!(push(a), push(x), push(b), push(y));
            assert_eq!(answers, (201, 403, 201, 403), "{kind:?}");
            let there = fixture
                .client("alice")
                .get("/v2/release/app/manifests/v1")
                .await;
            assert!(built.iter().any(|image| image.manifest == there.body));
        }
    }
}

#[tokio::test]
async fn the_repository_itself_is_no_source() {
    for kind in KINDS {
        let of = |from: &str| format!("{}from = '{from}'\n", allow("**", "'pull', 'push'"));
        let fixture = AccessFixture::new(kind, &of("**")).await;
        let image = Image::small(1);
        push_blobs(&fixture, &image).await;
        let mut alice = fixture.client("alice");
        put(&mut alice, &image.digest(), &image).await.is(201);
        put(&mut alice, "v1", &image).await.refused(403, "DENIED");
        fixture.rules(&of("release/app")).await;
        put(&mut alice, "v1", &image).await.refused(403, "DENIED");
        fixture.client("root").push("app", "main", &image).await;
        put(&mut alice, "v1", &image).await.refused(403, "DENIED");
        fixture.rules(&of("app")).await;
        put(&mut alice, "v1", &image).await.is(201);
    }
}
