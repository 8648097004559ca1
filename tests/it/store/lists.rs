//! Lists of tags and repositories, whole and in pages.

use serde_json::json;

use super::client::Client;
use super::fixture::StoreFixture;
use super::image::Image;

/// Goes through all pages by their links, as clients do. Returns what each had.
async fn pages(client: &mut Client, first: &str, key: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(target) = next {
        let answer = client.get(&target).await.is(200);
        let json = answer.json();
        let entries = json[key].as_array().unwrap();
        pages.push(
            entries
                .iter()
                .map(|entry| entry.as_str().unwrap().to_owned())
                .collect(),
        );
        next = answer.has("link").then(|| {
            let link = answer.header("link");
            let target = link
                .strip_prefix('<')
                .and_then(|link| link.strip_suffix(">; rel=\"next\""));
            target.unwrap_or_else(|| panic!("{link}")).to_owned()
        });
    }
    pages
}

#[tokio::test]
async fn tags_come_in_order_and_in_pages() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    for tag in ["v2", "latest", "V1", "_x", "v10", "v1"] {
        client.push("base/app", tag, &image).await;
    }
    let all = ["V1", "_x", "latest", "v1", "v10", "v2"];
    let answer = client.get("/v2/base/app/tags/list").await.is(200);
    assert_eq!(answer.json(), json!({"name": "base/app", "tags": all}));
    assert_eq!(
        (answer.header("content-type"), answer.has("link")),
        ("application/json", false)
    );
    for mut client in [fixture.http1(), fixture.http2()] {
        for n in 1..=7 {
            let pages = pages(
                &mut client,
                &format!("/v2/base/app/tags/list?n={n}"),
                "tags",
            )
            .await;
            assert_eq!(pages.concat(), all);
            assert_eq!(pages.len(), 6_usize.div_ceil(n), "{pages:?}");
        }
    }
    for (query, expected) in [
        ("n=0", &[][..]),
        ("last=latest", &["v1", "v10", "v2"]),
        ("last=m", &["v1", "v10", "v2"]),
        ("n=1&last=v1", &["v10"]),
        ("last=v2", &[]),
        ("n=4294967295", &all),
    ] {
        let answer = client
            .get(&format!("/v2/base/app/tags/list?{query}"))
            .await
            .is(200);
        assert_eq!(answer.json()["tags"], json!(expected), "{query}");
        assert_eq!(answer.has("link"), query == "n=1&last=v1", "{query}");
    }
    client
        .get("/v2/no/such/tags/list")
        .await
        .refused(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn the_catalog_lists_what_has_a_manifest_in_order_and_in_pages() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    assert_eq!(
        client.get("/v2/_catalog").await.is(200).json(),
        json!({"repositories": []})
    );
    let image = Image::small(2);
    for name in ["base/app", "base-app", "base", "z/a/b", "base.app"] {
        client.push(name, "v1", &image).await;
    }
    client.push_blob("only/blobs", b"some").await;
    client.start("only/uploads").await;
    let all = ["base", "base-app", "base.app", "base/app", "z/a/b"];
    assert_eq!(
        client.get("/v2/_catalog").await.is(200).json(),
        json!({"repositories": all})
    );
    for n in 1..=6 {
        let pages = pages(&mut client, &format!("/v2/_catalog?n={n}"), "repositories").await;
        assert_eq!(
            (pages.concat(), pages.len()),
            (all.map(str::to_owned).to_vec(), 5_usize.div_ceil(n))
        );
    }
    let answer = client.get("/v2/_catalog?n=0").await.is(200);
    assert_eq!(
        (answer.json(), answer.has("link")),
        (json!({"repositories": []}), false)
    );
    let rest = client
        .get("/v2/_catalog?last=base.app")
        .await
        .is(200)
        .json();
    assert_eq!(rest, json!({"repositories": ["base/app", "z/a/b"]}));
}

#[tokio::test]
async fn the_store_says_that_it_is_a_registry() {
    let fixture = StoreFixture::new().await;
    for mut client in [fixture.http1(), fixture.http2()] {
        let answer = client.get("/v2/").await.is(200);
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        assert_eq!(answer.json(), json!({}));
        client.ask("HEAD", "/v2/").await.is(200);
        client.ask("PUT", "/v2/").await.refused(405, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_repository_with_a_damaged_index_is_in_the_catalog() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    for name in ["a", "b", "c"] {
        client.push(name, "v1", &Image::small(1)).await;
    }
    let index = fixture.disk().repository("b").join("index.json");
    std::fs::write(index, "{\"half").unwrap();
    let listed = client.get("/v2/_catalog").await.is(200).json();
    assert_eq!(listed["repositories"], json!(["a", "b", "c"]));
    client.get("/v2/b/tags/list").await.is(500);
}
