//! Mounts from one repository into another, which need the right to both.

use super::calls::challenge;
use super::fixture::{Kind, TokenFixture};
use crate::access::fixture::{KINDS, allow};
use crate::harness::basic;
use crate::store::image::sha256;

const BOTH: &str = ",scope=\"repository:to/app:pull,push repository:from/app:pull\"";

/// A mount of a blob into `to/app`.
fn mount(digest: &str, from: &str) -> String {
    format!("/v2/to/app/blobs/uploads/?mount={digest}&from={from}")
}

#[tokio::test]
async fn a_mount_challenge_names_both_scopes() {
    for anonymous in ["", "anonymous = 'pull'"] {
        let fixture = TokenFixture::with(Kind::Store, anonymous, &allow("to/app", "'push'")).await;
        let digest = sha256(b"x");
        let mut client = fixture.client();
        let answer = client.ask("POST", &mount(&digest, "from/app")).await;
        answer.refused(401, "UNAUTHORIZED");
        assert_eq!(challenge(&answer), BOTH);
        let password = basic("alice", "secret");
        for (authorization, error) in [
            (password.as_str(), ""),
            ("Bearer x", ",error=\"invalid_token\""),
        ] {
            let headers = [("authorization", authorization)];
            let answer = client
                .ask_with("POST", &mount(&digest, "from/app"), &headers, "")
                .await
                .is(401);
            assert_eq!(challenge(&answer), format!("{BOTH}{error}"));
        }
        // From the same repository, and from whichever has it.
        for target in [
            mount(&digest, "to/app"),
            format!("/v2/to/app/blobs/uploads/?mount={digest}"),
            mount(&digest, ""),
        ] {
            let answer = client.ask("POST", &target).await.is(401);
            assert_eq!(
                challenge(&answer),
                ",scope=\"repository:to/app:pull,push\"",
                "{target}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_without_the_other_repository_is_challenged_for_both() {
    for kind in KINDS {
        for fixture in [
            TokenFixture::open(kind).await,
            TokenFixture::with(kind, "", "").await,
        ] {
            let image = fixture.seeded(&["from/app"], "v1").await;
            let digest = sha256(&image.config);
            let target = mount(&digest, "from/app");
            for scopes in [
                "repository:to/app:pull,push",
                "repository:to/app:push repository:from/app:push",
                "repository:from/app:pull",
                "",
            ] {
                let mut root = fixture.bearer("root", scopes).await;
                let answer = root.ask("POST", &target).await;
                answer.refused(401, "DENIED");
                assert_eq!(
                    challenge(&answer),
                    format!("{BOTH},error=\"insufficient_scope\""),
                    "{scopes}"
                );
            }
            let scopes = "repository:to/app:pull,push repository:from/app:pull";
            let mut root = fixture.bearer("root", scopes).await;
            root.ask("POST", &target).await.is(201);
            root.get(&format!("/v2/to/app/blobs/{digest}"))
                .await
                .is(200);
            // Where there is nothing to mount from, no other token would help.
            for target in [
                format!("/v2/to/app/blobs/uploads/?mount={digest}"),
                mount(&sha256(b"nowhere"), "from/app"),
            ] {
                root.ask("POST", &target).await.is(202);
            }
        }
    }
}

#[tokio::test]
async fn a_mount_that_the_rules_do_not_allow_is_an_upload_whatever_is_there() {
    let denied = "[[access]]\nusers = ['alice']\nrepositories = ['from/denied']\n\
                  actions = ['all']\ndeny = true\n";
    for kind in KINDS {
        let rules = allow("to/app", "'pull', 'push'") + denied;
        let fixture = TokenFixture::with(kind, "", &rules).await;
        let sources = ["from/hidden", "from/denied"];
        let image = fixture.seeded(&sources, "v1").await;
        let digest = sha256(&image.config);
        for from in sources.into_iter().chain(["from/nowhere"]) {
            let own = "repository:to/app:pull,push";
            for scopes in [own.to_owned(), format!("{own} repository:{from}:pull")] {
                let mut alice = fixture.bearer("alice", &scopes).await;
                let answer = alice.ask("POST", &mount(&digest, from)).await.is(202);
                // The session is a real one.
                let session = answer.header("location").to_owned();
                alice.ask("DELETE", &session).await.is(204);
            }
            // Without a right to the target, too, nothing tells whether the source exists.
            let mut bob = fixture.bearer("bob", "").await;
            let message = bob
                .ask("POST", &mount(&digest, from))
                .await
                .refused(403, "DENIED");
            assert!(
                message.starts_with("bob may not push to to/app"),
                "{message}"
            );
        }
    }
}
