//! Repositories that are not there, at each product: made where moorgate may and can, and told
//! where not.

use super::fixture::{NAME, ProductFixture, products};
use super::observed::image;
use crate::harness::basic;
use crate::harness::played::digest;

/// A repository of which no part is there; with two levels only where the product has no more.
fn fresh(fixture: &ProductFixture) -> &'static str {
    match fixture.played.switches().levels {
        Some(_) => "fresh/app",
        None => "fresh/team/app",
    }
}

/// Whether a line is of a call that makes something.
fn creates(line: &&String) -> bool {
    let calls = [
        "api CreateRepository",
        "POST /api/v2.0/projects",
        "/repositories?repositoryId=",
    ];
    calls.iter().any(|call| line.contains(call))
}

#[tokio::test]
async fn what_is_missing_is_made_once_and_pushed_to() {
    // In GitLab, a project is for people to make.
    let made = |product: &&str| !["gar", "gitlab"].contains(product);
    for product in products().filter(made) {
        let fixture = ProductFixture::with(product, "create = true", "").await;
        let name = fresh(&fixture);
        let alice = &fixture.alice;
        let (layer, _) = tokio::join!(
            alice.push_blob(name, b"layer"),
            alice.push_blob(name, b"{}")
        );
        let manifest = image(&layer);
        fixture.expect(&alice.push_manifest(name, "v1", &manifest).await, 201);
        let lines = fixture.played.take_lines();
        let created = lines.iter().filter(creates).count();
        let own = fixture.played.switches().product;
        let expected = usize::from(["ecr", "gar", "harbor"].contains(&own));
        assert_eq!(created, expected, "{product} {lines:#?}");
        let found = fixture.played.tags(name);
        assert_eq!(found.len(), 1, "{product}");
        let target = format!("/v2/{name}/manifests/v1");
        let pulled = alice
            .send("GET", &target, &["accept: */*", KIND], b"")
            .await;
        fixture.expect(&pulled, 200);
        assert_eq!(pulled.body, manifest.to_string(), "{product}");
    }
}

const KIND: &str = "accept: application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn what_gitlab_wants_people_to_make_is_said() {
    let fixture = ProductFixture::with("gitlab", "create = true", "").await;
    let target = "/v2/fresh/team/app/blobs/uploads/";
    let refused = fixture.alice.send("POST", target, &[], b"").await;
    fixture.refused(&refused, (404, "NAME_UNKNOWN"), "its administrator has to");
}

/// Without `create`, a push ends with an error that says what is missing, and everything else goes
/// on as before.
#[tokio::test]
async fn what_is_missing_and_not_to_be_made_is_said() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        fixture.push("v1", b"layer").await;
        let name = fresh(&fixture);
        let target = format!("/v2/{name}/blobs/uploads/");
        for _ in 0..2 {
            let begun = fixture.alice.send("POST", &target, &[], b"").await;
            let own = fixture.played.switches().product;
            if !["ecr", "gar", "gitlab", "harbor"].contains(&own) {
                fixture.expect(&begun, 202);
                continue;
            }
            // Docker does not try that again.
            fixture.refused(&begun, (404, "NAME_UNKNOWN"), "");
            // Clients go on with an upload after a blob that is not there.
            let blob = format!("/v2/{name}/blobs/{}", digest(b"none"));
            let head = fixture.alice.send("HEAD", &blob, &[], b"").await;
            fixture.expect(&head, 404);
            fixture.expect(&fixture.manifest("v1").await, 200);
            fixture.push("v2", b"other").await;
        }
        let lines = fixture.played.take_lines();
        assert_eq!(lines.iter().filter(creates).count(), 0, "{lines:#?}");
    }
}

#[tokio::test]
async fn who_reads_makes_nothing() {
    let rules = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
                 [[access]]\nusers = ['alice']\nrepositories = ['**']\n\
                 actions = ['pull', 'list', 'delete-tag', 'delete-manifest']\n";
    for product in products() {
        let mut fixture = ProductFixture::with(product, "create = true", rules).await;
        let name = fresh(&fixture);
        let before = fixture.played.repositories();
        let digest = digest(b"none");
        for authorization in [basic("alice", "secret"), basic("root", "secret")] {
            let is_reader = authorization == basic("alice", "secret");
            fixture.alice.authorization = Some(authorization);
            for (method, target) in [
                ("GET", format!("/v2/{name}/tags/list")),
                ("GET", format!("/v2/{name}/manifests/v1")),
                ("HEAD", format!("/v2/{name}/manifests/{digest}")),
                ("GET", format!("/v2/{name}/blobs/{digest}")),
                ("DELETE", format!("/v2/{name}/manifests/v1")),
                ("POST", format!("/v2/{name}/blobs/uploads/")),
                ("PUT", format!("/v2/{name}/manifests/v1")),
            ] {
                if ["POST", "PUT"].contains(&method) && !is_reader {
                    continue;
                }
                let answer = fixture.alice.send(method, &target, &[], b"").await;
                let status = answer.status;
                assert!(
                    [403, 404].contains(&status),
                    "{product} {method} {target} {answer:?}"
                );
            }
        }
        let lines = fixture.played.take_lines();
        assert_eq!(
            lines.iter().filter(creates).count(),
            0,
            "{product} {lines:#?}"
        );
        assert_eq!(fixture.played.repositories(), before, "{product}");
        // And reading what is there works.
        let target = format!("/v2/{NAME}/tags/list");
        let list = fixture.alice.get(&target).await;
        assert!([200, 404].contains(&list.status), "{product} {list:?}");
    }
}

/// What is made has the name that the registry knows.
#[tokio::test]
async fn what_is_missing_is_made_by_its_other_name() {
    let map = "[[upstream.map]]\nprefix = 'ci/'\nto = 'fresh/team/ci-'\n";
    for product in ["harbor"] {
        let fixture = ProductFixture::with(product, "create = true", map).await;
        fixture.alice.push_blob("ci/app", b"layer").await;
        let lines = fixture.played.take_lines();
        assert_eq!(lines.iter().filter(creates).count(), 1, "{lines:#?}");
        let repositories = fixture.played.repositories();
        let name = "fresh/team/ci-app".to_owned();
        assert!(repositories.contains(&name), "{product} {repositories:?}");
    }
}
