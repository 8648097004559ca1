//! Deletion at each product: a tag goes alone, and a manifest where the product lets it go.

use super::fixture::{NAME, ProductFixture, products};
use super::observed::image;
use crate::harness::RegistryClient;
use crate::harness::played::{DeletionGuard, digest};

#[tokio::test]
async fn a_tag_goes_and_its_siblings_stay() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        let other = fixture.push("v3", b"other").await;
        fixture.expect(&fixture.delete("v1").await, 202);
        assert_eq!(fixture.tags(), ["v2", "v3"], "{product}");
        let found = digest(manifest.to_string().as_bytes());
        for (reference, manifest) in [("v2", &manifest), (&found, &manifest), ("v3", &other)] {
            let pulled = fixture.manifest(reference).await;
            fixture.expect(&pulled, 200);
            assert_eq!(pulled.body, manifest.to_string(), "{product} {reference}");
        }
        let blob = format!("/v2/{NAME}/blobs/{}", digest(b"layer"));
        let blob = fixture.alice.send("HEAD", &blob, &[], b"").await;
        fixture.expect(&blob, 200);
        for _ in 0..2 {
            let again = fixture.delete("v1").await;
            fixture.refused(&again, (404, "MANIFEST_UNKNOWN"), "");
        }
        // What was there for a moment in the course of it is gone.
        fixture.expect(&fixture.manifest("v1").await, 404);
        fixture.tag("v1", &other).await;
        assert_eq!(fixture.tags(), ["v1", "v2", "v3"], "{product}");
    }
}

/// The words by which a product keeps a manifest that has tags.
fn keeps_tagged(fixture: &ProductFixture) -> Option<&'static str> {
    match fixture.played.switches().deletion_guard {
        DeletionGuard::Tagged(refused) | DeletionGuard::TaggedOrReferenced(refused) => {
            Some(refused.message)
        }
        DeletionGuard::None | DeletionGuard::Referenced(_) => None,
    }
}

#[tokio::test]
async fn a_manifest_goes_with_its_tags_unless_the_product_keeps_those() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        fixture.push("other", b"other").await;
        let found = digest(manifest.to_string().as_bytes());
        if let Some(words) = keeps_tagged(&fixture) {
            for (tag, left) in [("v1", 3), ("v2", 2)] {
                let refused = fixture.delete(&found).await;
                fixture.refused(&refused, (403, "DENIED"), words);
                assert_eq!(fixture.tags().len(), left, "{product}");
                fixture.expect(&fixture.delete(tag).await, 202);
            }
        }
        fixture.expect(&fixture.delete(&found).await, 202);
        assert_eq!(fixture.tags(), ["other"], "{product}");
        for reference in ["v1", "v2", &found] {
            let gone = fixture.manifest(reference).await;
            fixture.refused(&gone, (404, "MANIFEST_UNKNOWN"), "");
            let again = fixture.delete(reference).await;
            fixture.refused(&again, (404, "MANIFEST_UNKNOWN"), "");
        }
        fixture.expect(&fixture.manifest("other").await, 200);
    }
}

#[tokio::test]
async fn a_part_of_an_index_goes_unless_the_product_keeps_it() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let (index, parts) = fixture.push_index("multi").await;
        for (tag, part) in ["amd64", "arm64"].into_iter().zip(&parts) {
            fixture.expect(&fixture.delete(tag).await, 202);
            // Neither product nor moorgate takes the parts of an index away with a tag.
            fixture.expect(&fixture.manifest(part).await, 200);
        }
        let guard = fixture.played.switches().deletion_guard;
        let deleted = fixture.delete(&parts[0]).await;
        if let DeletionGuard::Referenced(refused) | DeletionGuard::TaggedOrReferenced(refused) =
            guard
        {
            fixture.refused(&deleted, (403, "DENIED"), refused.message);
            fixture.expect(&fixture.manifest(&parts[0]).await, 200);
        } else {
            fixture.expect(&deleted, 202);
            fixture.expect(&fixture.manifest(&parts[0]).await, 404);
        }
        let pulled = fixture.manifest("multi").await;
        fixture.expect(&pulled, 200);
        assert_eq!(pulled.json(), index, "{product}");
    }
}

#[tokio::test]
async fn the_last_tag_of_a_package_stays_at_github() {
    let fixture = ProductFixture::new("ghcr").await;
    let manifest = fixture.push("v1", b"layer").await;
    let found = digest(manifest.to_string().as_bytes());
    for reference in ["v1", &found] {
        let refused = fixture.delete(reference).await;
        let words = "You must delete the package instead";
        fixture.refused(&refused, (403, "DENIED"), words);
    }
    let kept = [("v1".to_owned(), found)];
    assert_eq!(fixture.played.tags(NAME), kept);
}

/// The words of the product say which right is missing, and the tag leads where it did.
#[tokio::test]
async fn a_credential_without_the_right_deletes_nothing() {
    for (product, words) in [
        ("dockerhub", "access denied: insufficient scope"),
        ("ghcr", "delete:packages"),
    ] {
        let fixture = ProductFixture::without_admin(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        let before = fixture.played.tags(NAME);
        for _ in 0..2 {
            let refused = fixture.delete("v1").await;
            fixture.refused(&refused, (403, "DENIED"), words);
            assert_eq!(fixture.played.tags(NAME), before, "{product}");
        }
    }
}

/// Names of any depth, where the product has such, and repositories with more manifests than a page
/// of an API holds.
#[tokio::test]
async fn a_tag_goes_in_a_nested_repository_with_many_manifests() {
    const NESTED: &str = "acme/app/part/of-it";
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let name = match fixture.played.switches().levels {
            Some(_) => NAME,
            None => NESTED,
        };
        let played = &fixture.played;
        let manifest = |layer: &str| image(&played.put_blob(name, layer.as_bytes()));
        let found = played.put_manifest(name, Some("v1"), &manifest("layer"));
        played.put_manifest(name, Some("v2"), &manifest("layer"));
        for number in 0..120 {
            let tag = format!("other-{number}");
            played.put_manifest(name, Some(&tag), &manifest(&tag));
        }
        let target = format!("/v2/{name}/manifests/v1");
        let deleted = fixture.alice.send("DELETE", &target, &[], b"").await;
        fixture.expect(&deleted, 202);
        let tags = played.tags(name);
        assert_eq!(tags.len(), 121, "{product}");
        assert!(
            tags.contains(&("v2".to_owned(), found.clone())),
            "{product}"
        );
        if keeps_tagged(&fixture).is_none() {
            let target = format!("/v2/{name}/manifests/{found}");
            let deleted = fixture.alice.send("DELETE", &target, &[], b"").await;
            fixture.expect(&deleted, 202);
            assert_eq!(played.tags(name).len(), 120, "{product}");
        }
    }
}

#[tokio::test]
async fn who_may_not_delete_deletes_nothing() {
    let rules = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
                 [[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['pull', 'push']\n";
    for product in products() {
        let fixture = ProductFixture::with(product, "", rules).await;
        let manifest = fixture.push("v1", b"layer").await;
        let found = digest(manifest.to_string().as_bytes());
        fixture.played.take();
        for reference in ["v1", &found] {
            let refused = fixture.delete(reference).await;
            fixture.refused(&refused, (403, "DENIED"), "");
        }
        assert!(fixture.played.take().is_empty(), "{product}");
        assert_eq!(fixture.tags(), ["v1"], "{product}");
    }
}

#[tokio::test]
async fn a_wrong_credential_for_the_api_is_no_fault_of_the_client() {
    for product in ["acr", "dockerhub", "ghcr", "harbor"] {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        let old = fixture.played.switches().credentials.admin_password;
        fixture
            .played
            .set(|switches| switches.credentials.admin_password = "another".to_owned());
        let refused = fixture.delete("v1").await;
        fixture.expect(&refused, 502);
        let body = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(!body.contains(&old), "{product} {body}");
        assert_eq!(fixture.tags(), ["v1", "v2"], "{product}");
        // The credential of the registry is another one, and works.
        fixture.expect(&fixture.manifest("v1").await, 200);
    }
}

/// Where the product's own API says that it is too much, moorgate says it in the words of the
/// protocol, with a time to wait.
#[tokio::test]
async fn a_throttled_api_is_told_with_a_time_to_wait() {
    for product in [
        "acr",
        "acr with Entra",
        "dockerhub",
        "ecr",
        "ghcr",
        "harbor",
    ] {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        fixture.push("other", b"other").await;
        fixture.played.set(|switches| switches.api_throttled = 1);
        let refused = fixture.delete("v1").await;
        fixture.refused(&refused, (429, "TOOMANYREQUESTS"), "");
        let wait = refused.header("retry-after").map(str::parse::<u16>);
        let wait = wait.unwrap().unwrap();
        assert!((1..=3600).contains(&wait), "{product} {wait}");
        assert_eq!(fixture.tags(), ["other", "v1", "v2"], "{product}");
        fixture.expect(&fixture.delete("v1").await, 202);
        assert_eq!(fixture.tags(), ["other", "v2"], "{product}");
    }
}

#[tokio::test]
async fn two_who_untag_at_once_end_with_one() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        fixture.push("other", b"other").await;
        let (first, second) = tokio::join!(fixture.delete("v1"), fixture.delete("v1"));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 404], "{product} {first:?} {second:?}");
        assert_eq!(fixture.tags(), ["other", "v2"], "{product}");
    }
}

/// Deletes at the registry itself, with nobody in front, so that the tests above are known to show
/// something: most products would take the siblings with the tag, or refuse.
#[tokio::test]
async fn few_products_untag_by_themselves() {
    let mut able = Vec::new();
    for product in products().filter(|product| !product.contains(' ')) {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &manifest).await;
        let scope = match product {
            "quay" => "repository:acme/app:pull,push",
            _ => "repository:acme/app:pull,push,delete",
        };
        let client: RegistryClient = fixture.played.client(scope).await;
        let target = format!("/v2/{NAME}/manifests/v1");
        if client.send("DELETE", &target, &[], b"").await.status == 202 {
            able.push(product);
        }
    }
    assert_eq!(able, ["gar", "gitlab", "quay"]);
}
