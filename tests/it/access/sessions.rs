//! Upload sessions are their user's, also after a restart.

use super::fixture::{AccessFixture, KINDS, Kind};
use crate::harness::{Domain, ProxiedPair, RawPeer, Setup, Upstream, basic, json, request, url};
use crate::store::image::sha256;

const BOTH: &str = "[[access]]\nusers = ['alice', 'bob']\nrepositories = ['base/**']\nactions = ['push', 'pull']\n";

#[tokio::test]
async fn no_other_user_continues_an_upload() {
    for kind in KINDS {
        let mut fixture = AccessFixture::new(kind, BOTH).await;
        let session = fixture.client("alice").start("base/app").await;
        let tag = session.split_once('~').unwrap().1.to_owned();
        let commit = format!("?digest={}", sha256(b"0123456789"));
        for restarted in [false, true] {
            if restarted {
                fixture.restart().await;
            }
            let mut bob = fixture.client("bob");
            let unbound = session.split_once('~').unwrap().0.to_owned();
            let own = bob.start("base/app").await;
            let borrowed = format!("{unbound}~{}", own.split_once('~').unwrap().1);
            for session in [
                &session,
                &unbound,
                &borrowed,
                &format!("{unbound}~{}", tag.to_lowercase() + "x"),
            ] {
                for (method, query) in [
                    ("GET", ""),
                    ("HEAD", ""),
                    ("PATCH", ""),
                    ("PUT", commit.as_str()),
                    ("DELETE", ""),
                ] {
                    let target = format!("{session}{query}");
                    let answer = bob.ask_with(method, &target, &[], "x").await.is(404);
                    if method != "HEAD" {
                        answer.refused(404, "BLOB_UPLOAD_UNKNOWN");
                    }
                }
            }
            // Not in another repository either, and not for its owner under another name.
            let elsewhere = session.replace("base/app", "base/other");
            fixture
                .client("alice")
                .ask("GET", &elsewhere)
                .await
                .refused(404, "BLOB_UPLOAD_UNKNOWN");
            fixture
                .client("alice")
                .ask("GET", &unbound)
                .await
                .refused(404, "BLOB_UPLOAD_UNKNOWN");
            fixture
                .client("root")
                .ask("GET", &session)
                .await
                .refused(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let mut alice = fixture.client("alice");
        let status = alice.ask("GET", &session).await.is(204);
        assert_eq!(status.header("location"), session);
        let next = alice
            .ask_with("PATCH", &session, &[], "01234")
            .await
            .is(202);
        assert_eq!(next.header("location"), session);
        let misplaced = [("content-range", "9-9")];
        let status = alice
            .ask_with("PATCH", &session, &misplaced, "x")
            .await
            .is(416);
        assert_eq!(status.header("location"), session);
        alice
            .ask_with("PUT", &format!("{session}{commit}"), &[], "56789")
            .await
            .is(201);
        alice
            .ask(
                "GET",
                &format!("/v2/base/app/blobs/{}", sha256(b"0123456789")),
            )
            .await
            .is(200);
        let session = alice.start("base/app").await;
        alice.ask("DELETE", &session).await.is(204);
    }
}

#[tokio::test]
async fn the_rest_of_the_target_reaches_the_registry_byte_for_byte() {
    let mut between = ProxiedPair::with(|domain| domain.tables(BOTH)).await;
    between
        .forwarded(request(
            "POST",
            "/v2/base/app/blobs/uploads/?x=%20y",
            "Content-Length: 0\r\n",
        ))
        .await;
    let location = "http://registry.inside/v2/base/app/blobs/uploads/a.b~c?_state=%2Fa%3D&z={}";
    let answer =
        format!("HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let (head, _) = between.answered(&answer).await;
    let bound = head.get("location").unwrap().to_owned();
    let (path, query) = bound.split_once('?').unwrap();
    assert!(
        path.starts_with(&url("/v2/base/app/blobs/uploads/a.b~c~")),
        "{bound}"
    );
    assert_eq!(query, "_state=%2Fa%3D&z={}");
    let asked = between
        .forwarded(request("PATCH", &bound, "Content-Length: 0\r\n"))
        .await;
    assert_eq!(
        asked.first,
        "PATCH /v2/base/app/blobs/uploads/a.b~c?_state=%2Fa%3D&z={} HTTP/1.1"
    );
    let other = "HTTP/1.1 202 Accepted\r\nLocation: https://storage.test/v2/x?y\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = between.answered(other).await;
    let next = head.get("location").unwrap().to_owned();
    let asked = between.passed(request("GET", &next, "")).await;
    assert_eq!(
        asked.first, "GET /v2/x?y HTTP/1.1",
        "where the registry wants it"
    );
}

#[tokio::test]
async fn a_session_key_that_cannot_be_stored_stops_no_domain_without_rules() {
    for (rules, starts) in [("", true), (BOTH, false)] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::fs::write(
            directory.path().join("state/upload-sessions.key"),
            "damaged",
        )
        .unwrap();
        let domain = Domain::store("ci.test", "ci")
            .user("bob", "secret")
            .tables(rules);
        let started = Setup::new().domain(domain).try_start_in(directory).await;
        assert_eq!(started.is_ok(), starts, "{rules}");
        let Ok(gateway) = started else { continue };
        let mut client = gateway.client().await;
        client
            .send(request(
                "POST",
                "/v2/base/app/blobs/uploads/",
                "Content-Length: 0\r\n",
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.length().unwrap_or_default(), 0);
        let session = head.get("location").unwrap().to_owned();
        for (user, status) in [("alice", 204), ("bob", 404)] {
            let authorization = basic(user, "secret");
            client
                .send(format!(
                    "GET {session} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n"
                ))
                .await;
            let head = client.head().await;
            client.bytes(head.length().unwrap_or_default()).await;
            assert_eq!(head.status(), status, "{user}");
        }
    }
}

#[tokio::test]
async fn a_session_is_unknown_at_another_domain() {
    for rules in ["", BOTH] {
        // The same registry behind both, the same user, and one key for all of them.
        let upstream = Upstream::new().await;
        let domain = |name: &str| Domain::new(name, &upstream.url()).tables(rules);
        let gateway = Setup::new()
            .domain(domain("ci.test"))
            .domain(domain("other.test"))
            .start()
            .await;
        let client = gateway.client().await;
        let mut between = ProxiedPair {
            gateway,
            upstream,
            client,
            registry: None,
        };
        between
            .forwarded(request(
                "POST",
                "/v2/base/app/blobs/uploads/",
                "Content-Length: 0\r\n",
            ))
            .await;
        let started = "HTTP/1.1 202 Accepted\r\nLocation: /v2/base/app/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n";
        let session = between
            .answered(started)
            .await
            .0
            .get("location")
            .unwrap()
            .to_owned();
        let asked = between.passed(request("GET", &session, "")).await;
        assert_eq!(asked.first, "GET /v2/base/app/blobs/uploads/1 HTTP/1.1");
        between.registry = None;
        let mut other = RawPeer::new(
            between
                .gateway
                .tls("other.test", &["http/1.1"])
                .await
                .unwrap(),
        );
        other
            .send(request("GET", &session, "").replace("ci.test", "other.test"))
            .await;
        let (head, body) = other.answer().await;
        assert_eq!(head.status(), 404);
        assert_eq!(json(&body)["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN");
        between.upstream.untouched().await;
    }
}

#[tokio::test]
async fn uploads_are_bound_to_their_users_without_rules() {
    let mut fixture = AccessFixture::with(Kind::Store, "", |domain| domain.tables("")).await;
    let session = fixture.client("bob").start("any/where").await;
    let commit = format!("?digest={}", sha256(b"01234"));
    for restarted in [false, true] {
        if restarted {
            fixture.restart().await;
        }
        let mut carol = fixture.client("carol");
        for (method, query) in [
            ("GET", ""),
            ("HEAD", ""),
            ("PATCH", ""),
            ("PUT", commit.as_str()),
            ("DELETE", ""),
        ] {
            carol
                .ask_with(method, &format!("{session}{query}"), &[], "01234")
                .await
                .is(404);
        }
    }
    let mut bob = fixture.client("bob");
    bob.ask_with("PUT", &format!("{session}{commit}"), &[], "01234")
        .await
        .is(201);
}
