//! Upload sessions are their user's, also after a restart.

use super::stage::{KINDS, Kind, Stage};
use crate::harness::{Between, request};
use crate::store::image::sha256;

const BOTH: &str =
    "[[access]]\nusers = ['alice', 'bob']\nrepositories = ['base/**']\nactions = ['push', 'pull']\n";

#[tokio::test]
async fn nobody_else_goes_on_with_an_upload() {
    for kind in KINDS {
        let mut stage = Stage::new(kind, BOTH).await;
        let session = stage.client("alice").start("base/app").await;
        let tag = session.split_once('~').unwrap().1.to_owned();
        let commit = format!("?digest={}", sha256(b"0123456789"));
        for restarted in [false, true] {
            if restarted {
                stage.restart().await;
            }
            let mut bob = stage.client("bob");
            let unbound = session.split_once('~').unwrap().0.to_owned();
            let own = bob.start("base/app").await;
            let borrowed = format!("{unbound}~{}", own.split_once('~').unwrap().1);
            for session in [&session, &unbound, &borrowed, &format!("{unbound}~{}", tag.to_lowercase() + "x")]
            {
                for (method, query) in
                    [("GET", ""), ("HEAD", ""), ("PATCH", ""), ("PUT", commit.as_str()), ("DELETE", "")]
                {
                    let target = format!("{session}{query}");
                    let answer = bob.ask_with(method, &target, &[], "x").await.is(404);
                    if method != "HEAD" {
                        answer.refused(404, "BLOB_UPLOAD_UNKNOWN");
                    }
                }
            }
            // Not in another repository either, and not for its owner under another name.
            let elsewhere = session.replace("base/app", "base/other");
            stage.client("alice").ask("GET", &elsewhere).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
            stage.client("alice").ask("GET", &unbound).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
            stage.client("root").ask("GET", &session).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let mut alice = stage.client("alice");
        let status = alice.ask("GET", &session).await.is(204);
        assert_eq!(status.header("location"), session);
        let next = alice.ask_with("PATCH", &session, &[], "01234").await.is(202);
        assert_eq!(next.header("location"), session);
        let misplaced = [("content-range", "9-9")];
        let stands = alice.ask_with("PATCH", &session, &misplaced, "x").await.is(416);
        assert_eq!(stands.header("location"), session);
        alice.ask_with("PUT", &format!("{session}{commit}"), &[], "56789").await.is(201);
        alice.ask("GET", &format!("/v2/base/app/blobs/{}", sha256(b"0123456789"))).await.is(200);
        let session = alice.start("base/app").await;
        alice.ask("DELETE", &session).await.is(204);
    }
}

#[tokio::test]
async fn the_rest_of_the_target_reaches_the_registry_byte_for_byte() {
    let mut between = Between::with(|domain| domain.tables(BOTH)).await;
    between.forwarded(request("POST", "/v2/base/app/blobs/uploads/?x=%20y", "Content-Length: 0\r\n")).await;
    let location = "http://registry.inside/v2/base/app/blobs/uploads/a.b~c?_state=%2Fa%3D&z={}";
    let answer = format!("HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let (head, _) = between.answered(&answer).await;
    let bound = head.get("location").unwrap().to_owned();
    let (path, query) = bound.split_once('?').unwrap();
    assert!(path.starts_with("/v2/base/app/blobs/uploads/a.b~c~"), "{bound}");
    assert_eq!(query, "_state=%2Fa%3D&z={}");
    let asked = between.forwarded(request("PATCH", &bound, "Content-Length: 0\r\n")).await;
    assert_eq!(asked.first, "PATCH /v2/base/app/blobs/uploads/a.b~c?_state=%2Fa%3D&z={} HTTP/1.1");
    let other = "HTTP/1.1 202 Accepted\r\nLocation: https://storage.test/v2/x?y\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = between.answered(other).await;
    assert_eq!(head.get("location"), Some("/v2/x?y"), "not an upload of this repository");
}

#[tokio::test]
async fn a_session_of_one_domain_is_none_of_another() {
    let stage = Stage::new(Kind::Store, BOTH).await;
    let other = Stage::new(Kind::Store, BOTH).await;
    let session = stage.client("alice").start("base/app").await;
    other.client("alice").ask("GET", &session).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
}
