//! The catalog of each product: what a user may see, by the names for clients.

use super::fixture::{LISTED_BY_API, ListsFixture, full, login, pages, player};
use crate::harness::played::PLAYED_PRODUCTS;

const MAP: &str = "[[upstream.map]]\nprefix = 'ci/'\nto = 'acme/ci-'\nflatten = '--'\n\
    [[upstream.map]]\nprefix = 'base/'\nto = 'acme/base-'\n";
const RULES: &str = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['catalog']\n\
     [[access]]\nusers = ['bob']\nrepositories = ['ci/a/**', 'base/*']\nactions = ['catalog']\n";
const INSIDE: [&str; 8] = [
    "acme/base-a",
    "acme/base-b",
    "acme/ci-a",
    "acme/ci-a--b",
    "acme/ci-a-c",
    "acme/ci-b",
    "acme/other",
    "elsewhere/app",
];

const ADMIN: &str = "[upstream.login]\nusername = 'admin'\npassword = 'admin-password'\n";

#[tokio::test]
async fn each_product_lists_what_a_user_may_see_by_the_names_for_clients() {
    for (product, _) in PLAYED_PRODUCTS {
        let played = player(product, |_| {}).await;
        let login = match product {
            // Others get no catalog there.
            "gitlab" => ADMIN.to_owned(),
            _ => login(product, &played),
        };
        let fixture = ListsFixture::before(played, &format!("{login}\n{RULES}{MAP}")).await;
        for name in INSIDE {
            fixture.played.make_repository(name);
        }
        for (user, seen) in [
            (
                "alice",
                &["base/a", "base/b", "ci/a", "ci/a-c", "ci/a/b", "ci/b"][..],
            ),
            ("bob", &["base/a", "base/b", "ci/a/b"]),
        ] {
            let client = fixture.client(user);
            for n in [1, 2, 5, 1000, 100_000] {
                let pages = pages(&client, &format!("/v2/_catalog?n={n}"), "repositories").await;
                assert_eq!(full(&pages, n), seen, "{product} {user} {n}");
                assert_eq!(pages.len(), seen.len().div_ceil(n), "{product} {pages:?}");
            }
            let whole = pages(&client, "/v2/_catalog", "repositories").await;
            assert_eq!(whole, [seen], "{product} {user}");
            let rest = pages(&client, "/v2/_catalog?n=2&last=base/b", "repositories").await;
            assert_eq!(full(&rest, 2), seen[2..], "{product} {user}");
            let none = client.get("/v2/_catalog?n=0").await;
            assert_eq!(none.json()["repositories"].as_array().unwrap().len(), 0);
            assert_eq!(none.header("link"), None, "{product}");
        }
        let asked = fixture.played.take_lines();
        let is_of_registry = |line: &String| line.starts_with("registry GET /v2/_catalog");
        let is_by_registry = asked.iter().any(is_of_registry);
        assert_eq!(
            is_by_registry,
            !LISTED_BY_API.contains(&product),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn without_rules_for_names_the_namespace_of_the_login_is_listed() {
    for product in ["dockerhub", "ghcr"] {
        let played = player(product, |switches| {
            switches.credentials.user = "User-Octo".to_owned();
        });
        let played = played.await;
        for name in ["user-octo/a", "user-octo/b", "acme/c"] {
            played.make_repository(name);
        }
        let login = login(product, &played);
        let fixture = ListsFixture::before(played, &login).await;
        let alice = fixture.client("alice");
        let listed = pages(&alice, "/v2/_catalog?n=1", "repositories").await;
        assert_eq!(listed, [["user-octo/a"], ["user-octo/b"]], "{product}");
    }
}

#[tokio::test]
async fn the_namespaces_of_the_rules_are_listed_and_with_an_open_one_that_of_the_login() {
    let map = "[[upstream.map]]\nprefix = 'a/'\nto = 'acme/'\n\
               [[upstream.map]]\nprefix = 'b/'\nto = 'user-bits/b-'\n";
    let open = "[[upstream.map]]\nprefix = 'r/'\nto = 'rob'\n";
    for product in ["dockerhub", "ghcr"] {
        for (open, seen) in [("", &["a/x", "b/x"][..]), (open, &["a/x", "b/x", "r/ot/x"])] {
            let fixture = ListsFixture::new(product, &format!("{map}{open}")).await;
            for name in [
                "acme/x",
                "user-bits/b-x",
                "user-bits/c",
                "robot/x",
                "robert/x",
            ] {
                fixture.played.make_repository(name);
            }
            let listed = fixture.get("/v2/_catalog").await;
            listed.expect(200);
            assert_eq!(
                listed.json()["repositories"],
                serde_json::json!(seen),
                "{product}"
            );
        }
    }
}

#[tokio::test]
async fn harbor_lists_the_projects_that_moorgate_may_list() {
    let played = player("harbor", |switches| {
        switches.closed_projects = vec!["closed"]
    })
    .await;
    for name in ["acme/a/b", "closed/c", "library/d"] {
        played.make_repository(name);
    }
    let login = login("harbor", &played);
    let fixture = ListsFixture::before(played, &login).await;
    let alice = fixture.client("alice");
    let listed = pages(&alice, "/v2/_catalog?n=1", "repositories").await;
    assert_eq!(listed, [["acme/a/b"], ["library/d"]]);
}

#[tokio::test]
async fn long_lists_are_read_to_their_ends() {
    for product in LISTED_BY_API {
        let map = "[[upstream.map]]\nprefix = ''\nto = 'acme/'\n";
        let fixture = ListsFixture::new(product, map).await;
        let names: Vec<_> = (0..200).map(|n| format!("app-{n:03}")).collect();
        for name in &names {
            fixture.played.make_repository(&format!("acme/{name}"));
        }
        let alice = fixture.client("alice");
        let listed = pages(&alice, "/v2/_catalog?n=90", "repositories").await;
        assert_eq!(full(&listed, 90), names, "{product}");
        fixture.played.take();
        let whole = pages(&alice, "/v2/_catalog", "repositories").await;
        assert_eq!(whole, [names]);
        let asked = fixture.played.take_lines();
        let is_list = |line: &&String| line.contains("page=");
        let count = asked.iter().filter(is_list).count();
        // A page that is full may be the last one: only Docker Hub says so.
        assert!((2..=3).contains(&count), "{product}: {asked:?}");
    }
}

#[tokio::test]
async fn a_catalog_of_small_pages_is_read_to_its_end() {
    for (product, _) in PLAYED_PRODUCTS {
        if LISTED_BY_API.contains(&product) {
            continue;
        }
        let played = player(product, |switches| {
            switches.pages.max = 100;
            // ECR refuses more than its own 1,000.
            switches.pages.above = switches.pages.above.filter(|refused| refused.status == 400);
        });
        let played = played.await;
        let login = match product {
            "gitlab" => ADMIN.to_owned(),
            _ => login(product, &played),
        };
        let fixture = ListsFixture::before(played, &login).await;
        let names: Vec<_> = (0..250).map(|n| format!("acme/app-{n:03}")).collect();
        for name in &names {
            fixture.played.make_repository(name);
        }
        let alice = fixture.client("alice");
        for n in [90, 1000] {
            let target = format!("/v2/_catalog?n={n}");
            let listed = pages(&alice, &target, "repositories").await;
            assert_eq!(listed.concat(), names, "{product} {n}");
        }
    }
}
