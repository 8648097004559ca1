//! Tags of each product in pages: at most so many as a client wants, and all of them by the links.

use serde_json::json;

use super::fixture::{ListsFixture, full, next, pages, refused};
use crate::harness::played::PLAYED_PRODUCTS;
use crate::products_deletion::between::{Between, client};
use crate::store::image::Image;

const TAGS: [&str; 7] = ["V0", "latest", "v1", "v1.0", "v2", "v2-a", "v3"];
const MAP: &str = "[[upstream.map]]\nprefix = 'ci/'\nto = 'acme/'\nflatten = '--'\n";

#[tokio::test]
async fn each_product_lists_tags_in_the_pages_that_a_client_wants() {
    for (product, _) in PLAYED_PRODUCTS {
        for (map, name, inside) in [
            ("", "acme/app", "acme/app"),
            (MAP, "ci/app/web", "acme/app--web"),
        ] {
            let fixture = ListsFixture::new(product, map).await;
            fixture.tag(inside, &TAGS);
            let alice = fixture.client("alice");
            let list = format!("/v2/{name}/tags/list");
            for n in [1, 2, 3, 7, 8, 1000, 100_000] {
                let pages = pages(&alice, &format!("{list}?n={n}"), "tags").await;
                assert_eq!(full(&pages, n), TAGS, "{product} {name} {n}");
            }
            for (query, seen) in [
                ("", &TAGS[..]),
                ("?last=v1", &TAGS[3..]),
                ("?last=v1&n=2", &TAGS[3..]),
                ("?n=6&last=V0", &TAGS[1..]),
                ("?n=7&last=v3", &[]),
            ] {
                let pages = pages(&alice, &format!("{list}{query}"), "tags").await;
                assert_eq!(pages.concat(), seen, "{product} {name} {query}");
            }
            for query in ["?n=2", "?n=7", "", "?n=0"] {
                let page = alice.get(&format!("{list}{query}")).await;
                assert_eq!(page.json()["name"], name, "{product} {query}");
            }
        }
    }
}

#[tokio::test]
async fn no_entries_are_an_empty_page_without_a_next_one() {
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ListsFixture::new(product, "").await;
        fixture.tag("acme/app", &TAGS);
        let page = fixture.get("/v2/acme/app/tags/list?n=0").await;
        page.expect(200);
        assert_eq!(
            page.json(),
            json!({"name": "acme/app", "tags": []}),
            "{product}"
        );
        assert_eq!(next(&page), None, "{product}");
        for n in ["-1", "x", "1.5", "99999999999"] {
            let answer = fixture.get(&format!("/v2/acme/app/tags/list?n={n}")).await;
            refused(&answer, 400, "PAGINATION_NUMBER_INVALID");
        }
        let missing = fixture.get("/v2/acme/missing/tags/list?n=2").await;
        // GitLab does not say which it is.
        assert!(
            [403, 404].contains(&missing.status),
            "{product}: {missing:?}"
        );
    }
}

#[tokio::test]
async fn all_of_many_tags_are_reached() {
    let tags: Vec<_> = (0..1200).map(|n| format!("v{n:04}")).collect();
    let all: Vec<_> = tags.iter().map(String::as_str).collect();
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ListsFixture::new(product, "").await;
        fixture.tag("acme/app", &all);
        let alice = fixture.client("alice");
        for (query, most) in [
            ("?n=500", 500),
            ("?n=1000", 1000),
            ("?n=100000", 100_000),
            ("", 1200),
        ] {
            let pages = pages(&alice, &format!("/v2/acme/app/tags/list{query}"), "tags").await;
            assert!(
                pages.iter().all(|page| page.len() <= most),
                "{product} {query}"
            );
            assert_eq!(pages.concat(), tags, "{product} {query}");
        }
    }
}

#[tokio::test]
async fn what_google_tells_of_manifests_stays_in_a_list_that_is_not_cut() {
    let fixture = ListsFixture::new("gar", "").await;
    fixture.tag("acme/app/web", &TAGS);
    for query in ["", "?n=7", "?n=1000"] {
        let list = fixture
            .get(&format!("/v2/acme/app/web/tags/list{query}"))
            .await;
        list.expect(200);
        assert!(list.json()["manifest"].is_object(), "{query}: {list:?}");
        let length = list.header("content-length").unwrap();
        assert_eq!(length, list.body.len().to_string());
    }
}

/// Debian's docker-registry 2.8, which the player is like.
#[tokio::test]
async fn tags_of_the_real_registry_come_in_pages() {
    let between = Between::new(true).await;
    let gateway = between.gateway("", "").await;
    let mut alice = client(&gateway);
    let image = Image::small(1);
    for tag in TAGS {
        alice.push("app", tag, &image).await;
    }
    let mut seen = Vec::new();
    let mut target = "/v2/app/tags/list?n=2".to_owned();
    loop {
        let page = alice.get(&target).await.is(200);
        let tags: Vec<String> = serde_json::from_value(page.json()["tags"].clone()).unwrap();
        assert!(tags.len() <= 2, "{tags:?}");
        seen.extend(tags);
        if !page.has("link") {
            break;
        }
        let link = page.header("link").strip_prefix('<').unwrap();
        target = link.split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(seen, TAGS);
    let none = alice.get("/v2/app/tags/list?n=0").await.is(200);
    assert_eq!(none.json(), json!({"name": "app", "tags": []}));
}
