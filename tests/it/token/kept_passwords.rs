//! Domains without refresh tokens, whose clients keep the password.

use super::fixture::{Kind, TokenFixture};
use crate::access::fixture::allow;
use crate::harness::{Clock, cli};

const OFF: &str = "refresh_tokens = false";

/// What a login asks for: docker's, and containerd's or podman's.
async fn logins(fixture: &TokenFixture) -> [serde_json::Value; 2] {
    let query =
        "offline_token=true&client_id=docker&service=ci.test&scope=repository:own/a:pull,push";
    let form = "grant_type=password&username=alice&password=secret&access_type=offline\
                &scope=repository:own/a:pull,push";
    let alice = Some(("alice", "secret"));
    [
        fixture.get_token(alice, query).await.is(200).json(),
        fixture.post_form(form).await.is(200).json(),
    ]
}

#[tokio::test]
async fn a_domain_without_refresh_tokens_issues_none() {
    let rules = allow("own/**", "'pull', 'push'");
    let fixture = TokenFixture::with(Kind::Store, OFF, &rules).await;
    for answer in logins(&fixture).await {
        assert!(answer.get("refresh_token").is_none(), "{answer}");
        fixture
            .client()
            .bearing(answer["token"].as_str().unwrap())
            .push_blob("own/a", b"x")
            .await;
    }
    let file = fixture.0.gateway.path("state/refresh-tokens.json");
    assert!(!file.exists());
}

#[tokio::test]
async fn refresh_tokens_from_before_are_refused_and_count_as_no_guess() {
    let fixture = TokenFixture::new(&allow("own/**", "'all'")).await;
    // Tries come back with time.
    let _clock = Clock::stopped();
    let mut issued = Vec::new();
    for _ in 0..40 {
        issued.push(
            logins(&fixture).await[0]["refresh_token"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let file = fixture.0.gateway.path("conf.d/ci.test.toml");
    let with = std::fs::read_to_string(&file).unwrap();
    let without = with.replace("mode = 'token'", "mode = 'token'\nrefresh_tokens = false");
    std::fs::write(&file, without).unwrap();
    fixture.0.gateway.app.reload().await.unwrap();
    let form =
        |token: &str| format!("grant_type=refresh_token&service=ci.test&refresh_token={token}");
    for token in &issued {
        let answer = fixture.post_form(&form(token)).await;
        let message = answer.refused_token(401, "UNAUTHORIZED");
        assert_eq!(
            message,
            "refresh tokens are not accepted here any more: log in again"
        );
        assert_eq!(answer.json()["error"], "invalid_grant");
    }
    // Nobody is locked out by what the administrator has changed.
    logins(&fixture).await;
    let (_, listed, _) = cli(fixture.0.gateway.directory.path(), &["tokens", "list"]).await;
    assert_eq!(listed.lines().count(), 80);
    assert!(
        listed
            .lines()
            .all(|line| line.contains("no longer valid: ")),
        "{listed}"
    );
    // They were not revoked.
    std::fs::write(&file, with).unwrap();
    fixture.0.gateway.app.reload().await.unwrap();
    fixture.post_form(&form(&issued[0])).await.is(200);
}
