//! The pages of `[browser]` know no users: who may see them, and who may change something through
//! them.

use super::fixture::{AccessFixture, Kind, allow};
use crate::harness::Origin;

/// A fixture whose pages come from an origin, and the origin.
async fn before_pages(rules: &str) -> (AccessFixture, Origin) {
    let page = Origin::new().await;
    let browser = format!("[browser]\nurl = '{}'\n", page.url());
    (
        AccessFixture::new(Kind::Store, &format!("{browser}{rules}")).await,
        page,
    )
}

#[tokio::test]
async fn pages_need_the_right_to_see_everything() {
    let rules =
        "[[access]]\nusers = ['bob']\nrepositories = ['**']\nactions = ['pull', 'catalog']\n";
    let (fixture, page) = before_pages(&format!("{}{rules}", allow("base/**", "'all'"))).await;
    fixture.client("alice").get("/").await.is(403);
    assert!(page.requests().is_empty());
    for user in ["bob", "root"] {
        fixture.client(user).get("/").await.is(200);
    }
}

#[tokio::test]
async fn writes_through_a_page_need_the_right_to_everything() {
    let all = allow("**", "'all'");
    let read = allow("**", "'pull', 'catalog'");
    let deny = |user: &str, rest: &str| {
        format!("[[access]]\ndeny = true\nusers = ['{user}']\nrepositories = ['base/**']\n{rest}\n")
    };
    for (rules, may_change) in [
        (all.clone(), true),
        (read.clone(), false),
        (
            allow(
                "**",
                "'pull', 'catalog', 'push', 'overwrite', 'delete-tag', 'delete-manifest'",
            ),
            false,
        ),
        (format!("{all}tags = ['v*']\n"), false),
        (format!("{read}{all}networks = ['10.0.0.0/8']\n"), false),
        (format!("{read}{}", allow("base/**", "'all'")), false),
        (
            format!(
                "{all}{}",
                deny("alice", "actions = ['delete-tag']\ntags = ['v*']")
            ),
            false,
        ),
        (
            format!(
                "{all}{}",
                deny("*", "actions = ['mount-from']").replace("'*'", "'a*'")
            ),
            false,
        ),
        (format!("{all}{}", deny("bob", "actions = ['all']")), true),
    ] {
        let (fixture, page) = before_pages(&rules).await;
        let mut alice = fixture.client("alice");
        for method in ["GET", "HEAD", "OPTIONS"] {
            alice.ask(method, "/repo/a").await.is(200);
        }
        assert_eq!(page.requests().len(), 3);
        for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
            let answer = alice
                .ask_with(method, "/repo/a/delete", &[], "token=x")
                .await;
            assert_eq!(
                answer.status,
                if may_change { 200 } else { 403 },
                "{method}: {answer:?}\n{rules}"
            );
            if !may_change {
                let words = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(
                    words.contains("these pages may be read, but not used to change something"),
                    "{words}"
                );
            }
        }
        assert_eq!(
            page.requests().len(),
            if may_change { 6 } else { 0 },
            "{rules}"
        );
        fixture
            .client("root")
            .ask_with("POST", "/repo/a/delete", &[], "token=x")
            .await
            .is(200);
    }
}
