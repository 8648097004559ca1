//! Pushing blobs: at once, in pieces, again after a cut, by mount; and all that may go wrong with
//! it.

use std::os::unix::fs::MetadataExt;

use super::client::Client;
use super::fixture::{DAY, Disk, StoreFixture, age};
use super::image::{bytes, sha256, sha512};
use crate::harness::{bound, promptly, request, seconds, url};

/// Asserts that a blob is there with the right bytes.
async fn holds(client: &mut Client, repository: &str, blob: &[u8]) {
    let answer = client
        .get(&format!("/v2/{repository}/blobs/{}", sha256(blob)))
        .await
        .is(200);
    assert!(answer.body == blob);
}

/// How many bytes a `Range` says are here.
fn received(range: &str) -> usize {
    range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}

/// Waits until more than so many bytes of an upload are here. Returns how many.
async fn stands_above(client: &mut Client, session: &str, least: usize) -> usize {
    promptly(async {
        loop {
            let here = received(client.get(session).await.is(204).header("range"));
            if here > least {
                return here;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_blob_is_pushed_at_once_or_in_a_session() {
    let fixture = StoreFixture::new().await;
    for (mut client, name) in [(fixture.http1(), "base/one"), (fixture.http2(), "base/two")] {
        let blob = bytes(1, 300_000);
        let digest = sha256(&blob);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = client
            .ask_with("POST", &target, &[], blob.clone())
            .await
            .is(201);
        assert_eq!(
            answer.header("location"),
            url(&format!("/v2/{name}/blobs/{digest}"))
        );
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        holds(&mut client, name, &blob).await;

        let answer = client
            .ask("POST", &format!("/v2/{name}/blobs/uploads/"))
            .await
            .is(202);
        assert_eq!(
            (answer.header("range"), answer.header("content-length")),
            ("0-0", "0")
        );
        let session = answer.header("location").to_owned();
        let id = answer.header("docker-upload-uuid");
        assert_eq!(
            session,
            url(&bound(&format!("/v2/{name}/blobs/uploads/{id}")))
        );
        let other = bytes(2, 70_000);
        let target = format!("{session}?digest={}", sha256(&other));
        let answer = client
            .ask_with("PUT", &target, &[], other.clone())
            .await
            .is(201);
        assert_eq!(
            answer.header("location"),
            url(&format!("/v2/{name}/blobs/{}", sha256(&other)))
        );
        holds(&mut client, name, &other).await;
        client
            .get(&session)
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
        // The empty blob is one, too.
        client.push_blob(name, b"").await;
        holds(&mut client, name, b"").await;
    }
    fixture.disk().is_sound();
    assert_eq!(
        Disk::list(fixture.disk().0.join("uploads/base+one")),
        [""; 0]
    );
}

#[tokio::test]
async fn a_blob_is_pushed_in_chunks_and_the_upload_says_how_far_it_is() {
    let fixture = StoreFixture::new().await;
    let blob = bytes(3, 100_000);
    for (mut client, name) in [(fixture.http1(), "one"), (fixture.http2(), "two")] {
        let session = client.start(name).await;
        for (begin, end, range) in [
            (0, 10, "0-9".to_owned()),
            (10, 60_000, "bytes 10-59999/*".to_owned()),
            (60_000, 99_999, String::new()),
        ] {
            let headers = [("content-range", range.as_str())];
            let headers = if range.is_empty() {
                &[][..]
            } else {
                &headers[..]
            };
            let answer = client
                .ask_with("PATCH", &session, headers, blob[begin..end].to_vec())
                .await
                .is(202);
            assert_eq!(answer.header("range"), format!("0-{}", end - 1));
            assert_eq!(answer.header("location"), session);
            let status = client.get(&session).await.is(204);
            assert_eq!(status.header("range"), format!("0-{}", end - 1));
            assert_eq!(status.header("location"), session);
        }
        // The last byte comes with the PUT.
        let last = [("content-range", "99999-99999")];
        let target = format!("{session}?digest={}", sha256(&blob));
        client
            .ask_with("PUT", &target, &last, blob[99_999..].to_vec())
            .await
            .is(201);
        holds(&mut client, name, &blob).await;
    }
}

#[tokio::test]
async fn a_chunk_out_of_order_is_told_where_the_upload_stands() {
    let fixture = StoreFixture::new().await;
    let blob = bytes(4, 1000);
    for (mut client, name) in [(fixture.http1(), "one"), (fixture.http2(), "two")] {
        let session = client.start(name).await;
        client
            .ask_with(
                "PATCH",
                &session,
                &[("content-range", "0-499")],
                blob[..500].to_vec(),
            )
            .await
            .is(202);
        for (range, begin, end) in [
            ("600-999", 600, 1000),
            ("400-999", 400, 1000),
            ("0-499", 0, 500),
        ] {
            for (method, target) in [
                ("PATCH", session.clone()),
                ("PUT", format!("{session}?digest={}", sha256(&blob))),
            ] {
                let headers = [("content-range", range)];
                let answer = client
                    .ask_with(method, &target, &headers, blob[begin..end].to_vec())
                    .await;
                let message = answer.refused(416, "RANGE_INVALID");
                assert_eq!(message, "the next chunk of the upload begins at byte 500");
                assert_eq!(
                    (answer.header("range"), answer.header("location")),
                    ("0-499", session.as_str())
                );
            }
        }
        // What its Content-Range says is not what comes, or is nothing.
        for range in ["500-599", "500", "999-500", "bytes"] {
            let headers = [("content-range", range)];
            let answer = client
                .ask_with("PATCH", &session, &headers, blob[500..].to_vec())
                .await;
            answer.refused(400, "SIZE_INVALID");
        }
        client
            .ask_with(
                "PATCH",
                &session,
                &[("content-range", "500-999")],
                blob[500..].to_vec(),
            )
            .await
            .is(202);
        client
            .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
            .await
            .is(201);
        holds(&mut client, name, &blob).await;
    }
}

#[tokio::test]
async fn content_that_is_not_its_digest_is_refused_and_forgotten() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let (blob, other) = (bytes(5, 1000), sha256(b"other"));
    let answer = client
        .ask_with(
            "POST",
            &format!("/v2/a/blobs/uploads/?digest={other}"),
            &[],
            blob.clone(),
        )
        .await;
    assert_eq!(
        answer.refused(400, "DIGEST_INVALID"),
        "the content does not match the digest"
    );
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob.clone())
        .await
        .is(202);
    client
        .ask("PUT", &format!("{session}?digest={other}"))
        .await
        .refused(400, "DIGEST_INVALID");
    client
        .get(&session)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    for digest in [&other, &sha256(&blob)] {
        client
            .get(&format!("/v2/a/blobs/{digest}"))
            .await
            .refused(404, "BLOB_UNKNOWN");
    }
    assert_eq!(Disk::list(fixture.disk().0.join("uploads/a")), [""; 0]);
    // A digest of which nothing can be known leaves the upload alone.
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob.clone())
        .await
        .is(202);
    let answer = client
        .ask("PUT", &format!("{session}?digest=md5:{}", "a".repeat(32)))
        .await;
    assert_eq!(
        answer.refused(400, "DIGEST_INVALID"),
        "only sha256 and sha512 digests are supported"
    );
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
        .await
        .is(201);
}

#[tokio::test]
async fn a_blob_may_be_named_by_sha512() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(6, 200_000);
    let digest = sha512(&blob);
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob[..100_000].to_vec())
        .await
        .is(202);
    let rest = blob[100_000..].to_vec();
    let answer = client
        .ask_with("PUT", &format!("{session}?digest={digest}"), &[], rest)
        .await
        .is(201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert!(
        client
            .get(&format!("/v2/a/blobs/{digest}"))
            .await
            .is(200)
            .body
            == blob
    );
    client
        .get(&format!("/v2/a/blobs/{}", sha256(&blob)))
        .await
        .refused(404, "BLOB_UNKNOWN");
    fixture.disk().is_sound();
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], "some")
        .await
        .is(202);
    client.ask("DELETE", &session).await.is(204);
    for method in ["GET", "PATCH", "DELETE"] {
        client
            .ask(method, &session)
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert!(!fixture.disk().upload(&session).exists());
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let session = client.start("base/app").await;
    client
        .ask_with("PATCH", &session, &[], "some")
        .await
        .is(202);
    let elsewhere = session.replace("base/app", "other/app");
    let commit = format!("{elsewhere}?digest={}", sha256(b"some"));
    for (method, target) in [
        ("GET", &elsewhere),
        ("PATCH", &elsewhere),
        ("DELETE", &elsewhere),
        ("PUT", &commit),
    ] {
        client
            .ask_with(method, target, &[], "")
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    for id in ["abc", "0123456789abcdef0123456789abcdef", "..."] {
        client
            .get(&format!("/v2/base/app/blobs/uploads/{id}"))
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(b"some")))
        .await
        .is(201);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_cut_connection() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(7, 3_000_000);
    let session = client.start("a").await;
    let mut cut = fixture.gateway.client().await;
    cut.send(request(
        "PATCH",
        &session,
        &format!("Content-Length: {}\r\n", blob.len()),
    ))
    .await;
    cut.send(&blob[..2_000_000]).await;
    stands_above(&mut client, &session, 1_000_000).await;
    drop(cut);
    // The gateway hears of it by itself; what came counts, and no more than that.
    let here = stands_above(&mut client, &session, 1_000_000).await;
    assert!(here <= 2_000_000, "{here}");
    // Now it stands wherever it stands, and says so to who guesses.
    let answer = client
        .ask_with("PATCH", &session, &[("content-range", "1-1")], "x")
        .await;
    answer.refused(416, "RANGE_INVALID");
    let here = received(answer.header("range"));
    let range = format!("{here}-{}", blob.len() - 1);
    client
        .ask_with(
            "PATCH",
            &session,
            &[("content-range", &range)],
            blob[here..].to_vec(),
        )
        .await
        .is(202);
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
        .await
        .is(201);
    holds(&mut client, "a", &blob).await;
}

#[tokio::test]
async fn of_two_requests_that_continue_an_upload_the_newer_wins() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(8, 600_000);
    let session = client.start("a").await;
    let mut old = fixture.gateway.client().await;
    old.send(request("PATCH", &session, "Content-Length: 600000\r\n"))
        .await;
    old.send(&blob[..300_000]).await;
    stands_above(&mut client, &session, 100_000).await;
    // A client whose connection hangs comes again, and is told from where.
    let answer =
        promptly(client.ask_with("PATCH", &session, &[("content-range", "1-1")], "x")).await;
    answer.refused(416, "RANGE_INVALID");
    let here = received(answer.header("range"));
    let (head, body) = promptly(old.answer()).await;
    assert_eq!(head.status(), 409, "{head:?}");
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("BLOB_UPLOAD_INVALID")
    );
    assert_eq!(head.get("connection"), Some("close"));
    // What the old one still sends goes nowhere.
    let _ = old.try_send(&blob[300_000..]).await;
    let range = format!("{here}-599999");
    client
        .ask_with(
            "PATCH",
            &session,
            &[("content-range", &range)],
            blob[here..].to_vec(),
        )
        .await
        .is(202);
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
        .await
        .is(201);
    holds(&mut client, "a", &blob).await;
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_repository_that_has_it() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(9, 5000);
    let digest = client.push_blob("base/app", &blob).await;
    let target = format!("/v2/other/app/blobs/uploads/?mount={digest}&from=base/app");
    let answer = client.ask("POST", &target).await.is(201);
    assert_eq!(
        answer.header("location"),
        url(&format!("/v2/other/app/blobs/{digest}"))
    );
    assert_eq!(answer.header("docker-content-digest"), digest);
    holds(&mut client, "other/app", &blob).await;
    let names = fixture
        .disk()
        .blob("other/app", &digest)
        .metadata()
        .unwrap();
    assert_eq!(
        names.nlink(),
        3,
        "one of each repository and the shared one"
    );
    assert_eq!(
        names.ino(),
        fixture
            .disk()
            .blob("base/app", &digest)
            .metadata()
            .unwrap()
            .ino()
    );
    // Where it is not, it has to be pushed.
    let missing = sha256(b"nowhere");
    for (digest, from) in [
        (&missing, "&from=base/app"),
        (&digest, "&from=no/such"),
        (&digest, ""),
        (&format!("md5:{}", "0".repeat(32)), "&from=base/app"),
    ] {
        let answer = client
            .ask(
                "POST",
                &format!("/v2/third/app/blobs/uploads/?mount={digest}{from}"),
            )
            .await;
        let session = answer.is(202).header("location").to_owned();
        assert!(
            session.starts_with(&url("/v2/third/app/blobs/uploads/")),
            "{session}"
        );
        client.get(&session).await.is(204);
    }
    client
        .get(&format!("/v2/third/app/blobs/{digest}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn an_upload_that_nobody_continues_for_a_day_is_gone() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let (left, used) = (client.start("a").await, client.start("a").await);
    for session in [&left, &used] {
        client.ask_with("PATCH", session, &[], "some").await.is(202);
        age(&fixture.disk().upload(session), DAY + seconds(1));
    }
    client.ask_with("PATCH", &used, &[], " more").await.is(202);
    // The store is looked after once in a minute.
    crate::harness::jump(seconds(61)).await;
    promptly(async { while client.get(&left).await.status == 204 {} }).await;
    client.get(&left).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert!(!fixture.disk().upload(&left).exists());
    client
        .ask("PUT", &format!("{used}?digest={}", sha256(b"some more")))
        .await
        .is(201);
}

#[tokio::test]
async fn uploads_go_on_after_a_reload() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(10, 1000);
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob[..300].to_vec())
        .await
        .is(202);
    let mut other = fixture.gateway.client().await;
    other
        .send(request("PATCH", &session, "Content-Length: 700\r\n"))
        .await;
    other.send(&blob[300..600]).await;
    fixture.gateway.app.reload().await.unwrap();
    other.send(&blob[600..]).await;
    let (head, _) = promptly(other.answer()).await;
    assert_eq!((head.status(), head.get("range")), (202, Some("0-999")));
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
        .await
        .is(201);
    holds(&mut client, "a", &blob).await;
}

#[tokio::test]
async fn a_user_has_a_thousand_uploads_at_most() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let first = client.start("a").await;
    for _ in 1..1000 {
        client.start("a").await;
    }
    let refused = client.ask("POST", "/v2/b/blobs/uploads/").await;
    assert_eq!(refused.header("retry-after"), "60");
    refused.refused(429, "TOOMANYREQUESTS");
    client.ask("DELETE", &first).await.is(204);
    client.start("b").await;
}
