//! Lists of tags and of repositories at each product.

use super::fixture::{NAME, ProductFixture, products};
use super::observed::image;

#[tokio::test]
async fn tags_are_listed() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        for tag in ["v1", "v2", "v3"] {
            fixture.push(tag, tag.as_bytes()).await;
        }
        let mut found = Vec::new();
        let mut next = Some(format!("/v2/{NAME}/tags/list?n=2"));
        while let Some(target) = next {
            let page = fixture.alice.get(&target).await;
            fixture.expect(&page, 200);
            let list = page.json();
            assert_eq!(list["name"], NAME, "{product}");
            found.extend(list["tags"].as_array().unwrap().clone());
            let link = page.header("link");
            next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        }
        assert_eq!(found, ["v1", "v2", "v3"], "{product}");
    }
}

/// As many as clients ask for at once, whatever a page of the product holds.
#[tokio::test]
async fn many_tags_are_listed() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = image(&fixture.played.put_blob(NAME, b"layer"));
        let tags: Vec<_> = (0..120).map(|number| format!("v{number:03}")).collect();
        for tag in &tags {
            fixture.played.put_manifest(NAME, Some(tag), &manifest);
        }
        for query in ["", "?n=1000", "?n=5000", "?n=100&last=v009"] {
            let mut found: Vec<String> = Vec::new();
            let mut next = Some(format!("/v2/{NAME}/tags/list{query}"));
            while let Some(target) = next {
                let page = fixture.alice.get(&target).await;
                fixture.expect(&page, 200);
                let list = page.json();
                found.extend(serde_json::from_value::<Vec<_>>(list["tags"].clone()).unwrap());
                let link = page.header("link");
                next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
            }
            // Registries without pages give all.
            let is_all = found == tags || found == tags[10..];
            assert!(is_all, "{product} {query} {}", found.len());
        }
    }
}

/// All repositories, in pages, by the login of somebody who may see them.
#[tokio::test]
async fn repositories_are_listed_in_pages() {
    for product in products() {
        let fixture = match product {
            "gitlab" => ProductFixture::of_administrator(product).await,
            _ => ProductFixture::with(product, "", NAMESPACE).await,
        };
        for name in ["acme/tools", "acme/web"] {
            fixture.played.make_repository(name);
        }
        let mut found = Vec::new();
        let mut next = Some("/v2/_catalog?n=2".to_owned());
        while let Some(target) = next {
            let page = fixture.alice.get(&target).await;
            fixture.expect(&page, 200);
            let names = page.json()["repositories"].as_array().unwrap().clone();
            assert!(names.len() <= 2, "{product}");
            found.extend(names);
            let link = page.header("link");
            next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        }
        assert_eq!(found, [NAME, "acme/tools", "acme/web"], "{product}");
        let all = fixture.alice.get("/v2/_catalog").await;
        fixture.expect(&all, 200);
        assert_eq!(all.json()["repositories"].as_array().unwrap().len(), 3);
        // More than most products give.
        let all = fixture.alice.get("/v2/_catalog?n=5000").await;
        fixture.expect(&all, 200);
        assert_eq!(all.json()["repositories"].as_array().unwrap().len(), 3);
    }
}

/// What is listed where a product has no list of everything.
const NAMESPACE: &str = "[[upstream.map]]\nprefix = 'acme/'\nto = 'acme/'\n";

/// Users see what the rules of the domain show them.
#[tokio::test]
async fn repositories_are_listed_to_those_who_may_see_them() {
    let rules = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
                 [[access]]\nusers = ['alice']\nrepositories = ['acme/web']\nactions = ['pull', 'catalog']\n";
    for product in products().filter(|product| *product != "gitlab") {
        let tables = format!("{rules}{NAMESPACE}");
        let fixture = ProductFixture::with(product, "", &tables).await;
        for name in ["acme/tools", "acme/web"] {
            fixture.played.make_repository(name);
        }
        let list = fixture.alice.get("/v2/_catalog").await;
        fixture.expect(&list, 200);
        let names = &list.json()["repositories"];
        assert_eq!(*names, serde_json::json!(["acme/web"]), "{product}");
    }
}

/// A product that lists its repositories to administrators only refuses that, and nothing else.
/// Harbor's own API lists them to others.
#[tokio::test]
async fn a_list_that_is_not_for_the_login_is_refused_and_all_else_works() {
    let fixture = ProductFixture::new("gitlab").await;
    fixture.push("v1", b"layer").await;
    for _ in 0..2 {
        let refused = fixture.alice.get("/v2/_catalog").await;
        fixture.expect(&refused, 403);
        assert_eq!(refused.code().as_deref(), Some("DENIED"));
        fixture.expect(&fixture.manifest("v1").await, 200);
        fixture.push("v2", b"other").await;
    }
}
