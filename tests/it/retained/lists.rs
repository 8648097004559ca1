//! Which repositories retention finds, and what it reads of them.

use serde_json::json;

use crate::harness::played::{PLAYED_PRODUCTS, PlayedCatalog, digest};
use crate::products::fixture::{NAME, ProductFixture};

fn rules(repositories: &str) -> String {
    format!("[[retention]]\nrepositories = [{repositories}]\nkeep = {{ newest = 1 }}\n")
}

async fn listed(fixture: &ProductFixture) -> Result<Vec<String>, String> {
    let driver = fixture.gateway.app.retained("ci.test").unwrap();
    driver.repositories().await
}

#[tokio::test]
async fn repositories_are_found_at_each_product_that_lists_them() {
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ProductFixture::with(product, "", &rules("\"acme/**\"")).await;
        fixture.push("v1", b"layer").await;
        for name in ["acme/web", "other/app"] {
            fixture.played.make_repository(name);
        }
        let found = listed(&fixture).await;
        if product == "gitlab" {
            // For administrators alone.
            let error = found.unwrap_err();
            assert!(error.contains("does not list its repositories"), "{error}");
            continue;
        }
        assert_eq!(found.unwrap(), ["acme/app", "acme/web"], "{product}");
    }
}

#[tokio::test]
async fn rules_that_name_repositories_need_no_list() {
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ProductFixture::with(product, "", &rules("\"acme/app\", \"b/c\"")).await;
        fixture
            .played
            .set(|switches| switches.catalog = PlayedCatalog::Absent);
        fixture.played.take();
        assert_eq!(listed(&fixture).await.unwrap(), ["acme/app", "b/c"]);
        let seen = fixture.played.take_lines();
        let is_list = |line: &&String| line.contains("_catalog") || line.starts_with("api ");
        assert_eq!(seen.iter().find(is_list), None, "{product}");
    }
}

#[tokio::test]
async fn a_catalog_is_read_to_its_end_and_one_without_end_is_not() {
    let fixture = ProductFixture::with("quay", "", &rules("\"acme/**\"")).await;
    for number in 0..350 {
        fixture.played.make_repository(&format!("acme/app{number}"));
    }
    assert_eq!(listed(&fixture).await.unwrap().len(), 351);
    let same = Some("/v2/_catalog?n=100&last=acme%2Fapp".to_owned());
    fixture.played.set(|switches| switches.next_page = same);
    let error = listed(&fixture).await.unwrap_err();
    assert!(
        error.contains("the next page of the list is the same"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_catalog_names_what_helps() {
    let fixture = ProductFixture::with("distribution", "", &rules("\"acme/**\"")).await;
    for catalog in [PlayedCatalog::Admins, PlayedCatalog::Absent] {
        fixture.played.set(|switches| switches.catalog = catalog);
        if catalog == PlayedCatalog::Admins {
            continue;
        }
        let error = listed(&fixture).await.unwrap_err();
        assert!(error.contains("name each of them without stars"), "{error}");
    }
}

#[tokio::test]
async fn tags_are_read_to_their_end_in_pages_and_at_once() {
    for product in ["distribution", "ecr", "gar", "quay"] {
        let fixture = ProductFixture::with(product, "", &rules("\"**\"")).await;
        let manifest = fixture.push("v1", b"layer").await;
        for number in 0..40 {
            let tag = format!("t{number}");
            fixture.played.put_manifest(NAME, Some(&tag), &manifest);
        }
        if product == "quay" {
            fixture.played.set(|switches| switches.pages.max = 15);
        }
        let driver = fixture.gateway.app.retained("ci.test").unwrap();
        fixture.played.take();
        let inventory = driver.inventory(NAME).await.unwrap();
        let tags = inventory["tags"].as_object().unwrap();
        assert_eq!(tags.len(), 41, "{product}");
        let seen = fixture.played.take_lines();
        let count = |part: &str| seen.iter().filter(|line| line.contains(part)).count();
        let got = format!("GET /v2/{NAME}/manifests/");
        assert!(count(&got) <= 1, "{product}: once for each digest");
        assert_eq!(
            count(&format!("HEAD /v2/{NAME}/manifests/")),
            41,
            "{product}"
        );
        let pages = if product == "quay" { 3 } else { 1 };
        assert_eq!(count("/tags/list"), pages, "{product}");

        // What a digest leads to is never read again.
        let again = fixture.gateway.app.retained("ci.test").unwrap();
        again.inventory(NAME).await.unwrap();
        let seen = fixture.played.take_lines();
        let count = |part: &str| seen.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count(&got), 0, "{product}");

        if product == "quay" {
            let same = Some(format!("/v2/{NAME}/tags/list?n=15&last=t1"));
            fixture.played.set(|switches| switches.next_page = same);
            let error = driver.inventory(NAME).await.unwrap_err();
            let words = "the next page of the list is the same";
            assert!(error.contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_empty() {
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ProductFixture::with(product, "", &rules("\"**\"")).await;
        fixture.push("v1", b"layer").await;
        let driver = fixture.gateway.app.retained("ci.test").unwrap();
        let inventory = match driver.inventory("acme/none").await {
            Ok(inventory) => inventory,
            // Some say the same of what the credentials may not see.
            Err(error) => {
                assert!(product != "distribution", "{error}");
                assert!(error.contains("has no repository of this name"), "{error}");
                continue;
            }
        };
        assert_eq!(inventory["tags"], json!({}), "{product}");
        assert_eq!(inventory["images"], json!({}), "{product}");
    }
}

/// Where the blobs are in a storage, as the domain says.
#[tokio::test]
async fn configurations_say_how_long_an_image_lives() {
    const KIND: &str = "application/vnd.oci.image.";
    for redirects in ["follow", "pass"] {
        for (product, _) in PLAYED_PRODUCTS {
            let keys = format!("redirects = \"{redirects}\"\nfollow_hosts = [\"127.0.0.1\"]");
            let keys = if redirects == "follow" { &*keys } else { "" };
            let fixture = ProductFixture::with(product, keys, &rules("\"**\"")).await;
            let config = json!({
                "created": "2024-02-03T04:05:06Z",
                "config": {"Labels": {"quay.expires-after": "2w"}},
            });
            let config = config.to_string();
            let layer = fixture.alice.push_blob(NAME, b"layer").await;
            fixture.alice.push_blob(NAME, config.as_bytes()).await;
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": format!("{KIND}manifest.v1+json"),
                "config": {"mediaType": format!("{KIND}config.v1+json"),
                           "digest": digest(config.as_bytes()), "size": config.len()},
                "layers": [{"mediaType": format!("{KIND}layer.v1.tar"), "digest": layer, "size": 5}],
            });
            fixture.tag("v1", &manifest).await;
            let driver = fixture.gateway.app.retained("ci.test").unwrap();
            let inventory = driver.inventory(NAME).await.unwrap();
            let image = digest(manifest.to_string().as_bytes());
            let image = &inventory["images"][&image];
            let size = 5 + config.len() + manifest.to_string().len();
            assert_eq!(image["bytes"], size, "{product}");
            let is_elsewhere = fixture.played.switches().redirects_blobs && redirects == "pass";
            let (lives, created) = if is_elsewhere {
                (json!(null), json!(null))
            } else {
                (json!(1_209_600), json!(1_706_933_106))
            };
            assert_eq!(image["lives"], lives, "{product} {redirects}");
            assert_eq!(image["created"], created, "{product} {redirects}");
        }
    }
}
