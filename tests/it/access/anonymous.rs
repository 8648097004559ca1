//! `anonymous = "pull"` in basic mode: some things without a login, and the challenge for
//! everything else.

use super::fixture::{AccessFixture, KINDS, Kind};
use crate::store::image::{Image, sha256};

const PUBLIC: &str = "[[access]]\nusers = ['@anonymous']\nrepositories = ['public/**']\nactions = ['all']\n\
    [[access]]\nusers = ['alice']\nrepositories = ['own/**']\nactions = ['all']\n";

#[tokio::test]
async fn anonymous_pulls_need_no_login_and_all_other_calls_are_challenged() {
    for kind in KINDS {
        let fixture =
            AccessFixture::with(kind, PUBLIC, |domain| domain.auth("anonymous = 'pull'")).await;
        let image = fixture.seeded(1, &["public/app", "own/app"], "v1").await;
        let mut anonymous = fixture.anonymous();
        anonymous.check("public/app", "v1", &image).await;
        anonymous.get("/v2/public/app/tags/list").await.is(200);
        let empty = crate::harness::basic("", "");
        let bare = [("authorization", empty.as_str())];
        anonymous
            .ask_with("GET", "/v2/public/app/manifests/v1", &bare, "")
            .await
            .is(200);
        let blob = sha256(&image.config);
        for (method, target) in [
            ("GET", "/v2/".to_owned()),
            ("GET", "/v2/_catalog".to_owned()),
            ("GET", "/v2/own/app/manifests/v1".to_owned()),
            ("GET", "/v2/nowhere/manifests/v1".to_owned()),
            ("POST", "/v2/public/app/blobs/uploads/".to_owned()),
            (
                "POST",
                format!("/v2/public/app/blobs/uploads/?mount={blob}&from=public/app"),
            ),
            ("PUT", "/v2/public/app/manifests/v1".to_owned()),
            ("DELETE", "/v2/public/app/manifests/v1".to_owned()),
            ("DELETE", format!("/v2/public/app/blobs/{blob}")),
        ] {
            let refused = anonymous.ask(method, &target).await;
            refused.refused(401, "UNAUTHORIZED");
            assert_eq!(
                refused.header("www-authenticate"),
                "Basic realm=\"ci.test\"",
                "{target}"
            );
        }
        // Who logs in loses nothing by it.
        let mut alice = fixture.client("alice");
        alice.check("public/app", "v1", &image).await;
        let wrong = [("authorization", "Basic YWxpY2U6d3Jvbmc=")];
        anonymous
            .ask_with("GET", "/v2/public/app/manifests/v1", &wrong, "")
            .await
            .is(401);
    }
}

#[tokio::test]
async fn without_rules_anonymous_may_pull_everything_and_without_the_setting_nothing() {
    let open = AccessFixture::with(Kind::Store, "", |domain| {
        domain.tables("").auth("anonymous = 'pull'")
    })
    .await;
    let image = Image::small(1);
    open.client("alice").push("any/app", "v1", &image).await;
    open.anonymous().check("any/app", "v1", &image).await;
    open.anonymous()
        .ask("POST", "/v2/any/app/blobs/uploads/")
        .await
        .refused(401, "UNAUTHORIZED");
    open.anonymous()
        .get("/v2/_catalog")
        .await
        .refused(401, "UNAUTHORIZED");
    let closed = AccessFixture::new(Kind::Store, PUBLIC).await;
    closed.seeded(1, &["public/app"], "v1").await;
    closed
        .anonymous()
        .get("/v2/public/app/manifests/v1")
        .await
        .refused(401, "UNAUTHORIZED");
}
