//! Pulling blobs: whole, in part, and not at all where the client has them.

use super::fixture::StoreFixture;
use super::image::{Image, bytes, sha256};
use crate::harness::{promptly, request};

#[tokio::test]
async fn a_blob_comes_whole_or_by_its_head_alone() {
    let fixture = StoreFixture::new().await;
    let blob = bytes(1, 400_000);
    let digest = fixture.http1().push_blob("base/app", &blob).await;
    let target = format!("/v2/base/app/blobs/{digest}");
    for mut client in [fixture.http1(), fixture.http2()] {
        for method in ["GET", "HEAD"] {
            let answer = client.ask(method, &target).await.is(200);
            assert_eq!(answer.header("content-length"), "400000");
            assert_eq!(answer.header("content-type"), "application/octet-stream");
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(
                answer.header("docker-distribution-api-version"),
                "registry/2.0"
            );
            assert!(answer.body == if method == "GET" { &blob[..] } else { b"" });
        }
        let missing = format!("/v2/base/app/blobs/{}", sha256(b"missing"));
        assert_eq!(
            client.get(&missing).await.refused(404, "BLOB_UNKNOWN"),
            "blob not found"
        );
        assert!(client.ask("HEAD", &missing).await.is(404).body.is_empty());
        client
            .get(&format!("/v2/no/such/blobs/{digest}"))
            .await
            .refused(404, "BLOB_UNKNOWN");
        client
            .get(&format!("/v2/base/app/blobs/md5:{}", "0".repeat(32)))
            .await
            .refused(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    let fixture = StoreFixture::new().await;
    let blob = bytes(2, 300_000);
    let digest = fixture.http1().push_blob("a", &blob).await;
    let target = format!("/v2/a/blobs/{digest}");
    for mut client in [fixture.http1(), fixture.http2()] {
        for (range, begin, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=131072-", 131_072, 300_000),
            ("bytes=5-299999", 5, 300_000),
            ("bytes=5-999999", 5, 300_000),
            ("bytes=-7", 299_993, 300_000),
        ] {
            let answer = client
                .ask_with("GET", &target, &[("range", range)], "")
                .await
                .is(206);
            assert_eq!(
                answer.header("content-range"),
                format!("bytes {begin}-{}/300000", end - 1)
            );
            assert_eq!(answer.header("content-length"), (end - begin).to_string());
            assert!(answer.body == blob[begin..end], "{range}");
        }
        let answer = client
            .ask_with("GET", &target, &[("range", "bytes=300000-")], "")
            .await;
        answer.refused(416, "RANGE_INVALID");
        assert_eq!(answer.header("content-range"), "bytes */300000");
        // HEAD has no ranges; ranges that are longer than the blob are none.
        for (method, range) in [
            ("HEAD", "bytes=0-0"),
            ("HEAD", "bytes=0-0,2-3"),
            ("GET", "bytes=0-299999,5-6"),
        ] {
            let answer = client
                .ask_with(method, &target, &[("range", range)], "")
                .await
                .is(200);
            assert_eq!(answer.header("content-length"), "300000");
        }
    }
}

#[tokio::test]
async fn several_ranges_come_in_one_answer() {
    let fixture = StoreFixture::new().await;
    let blob = bytes(4, 600_000);
    let digest = fixture.http1().push_blob("a", &blob).await;
    let target = format!("/v2/a/blobs/{digest}");
    let tag = format!("\"{digest}\"");
    // As many as containers/storage requests at most, with numbers that fill most of a head.
    let many: Vec<_> = (0..1024).map(|n| (100_000 + 400 * n, 10 + n % 7)).collect();
    for mut client in [fixture.http1(), fixture.http2()] {
        for ranges in [
            vec![(0, 10), (100, 10)],
            // Longer than one read; backwards; overlapping.
            vec![(300_000, 200_001), (7, 1), (299_990, 50)],
            many.clone(),
        ] {
            let list: Vec<_> = ranges
                .iter()
                .map(|(begin, count)| format!("{begin}-{}", begin + count - 1))
                .collect();
            let range = format!("bytes={},700000-", list.join(","));
            let headers = [("range", range.as_str()), ("if-range", &tag)];
            let answer = client.ask_with("GET", &target, &headers, "").await.is(206);
            assert!(!answer.has("content-range"), "{answer:?}");
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(
                answer.header("content-length"),
                answer.body.len().to_string()
            );
            let boundary = answer
                .header("content-type")
                .strip_prefix("multipart/byteranges; boundary=")
                .unwrap();
            let mut expected = Vec::new();
            for (begin, count) in ranges {
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {begin}-{}/600000\r\n\r\n",
                    begin + count - 1
                );
                expected.extend(head.into_bytes());
                expected.extend(&blob[begin..begin + count]);
            }
            expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
            assert!(answer.body == expected, "{range}");
        }
        // The connection goes on after it.
        let one = [("range", "bytes=700000-,5-6")];
        let answer = client.ask_with("GET", &target, &one, "").await.is(206);
        assert_eq!(answer.header("content-range"), "bytes 5-6/600000");
        assert!(answer.body == blob[5..7]);
        let changed = [("range", "bytes=0-1,5-6"), ("if-range", "\"other\"")];
        let answer = client.ask_with("GET", &target, &changed, "").await.is(200);
        assert!(answer.body == blob);
        let none = [("range", "bytes=700000-,600000-600001")];
        let answer = client.ask_with("GET", &target, &none, "").await;
        answer.refused(416, "RANGE_INVALID");
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let image = Image::small(3);
    let digest = client.push("a", "v1", &image).await;
    let blob = sha256(&image.layers[0]);
    for (target, digest) in [
        (format!("/v2/a/blobs/{blob}"), &blob),
        ("/v2/a/manifests/v1".to_owned(), &digest),
        (format!("/v2/a/manifests/{digest}"), &digest),
    ] {
        let tag = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let answer = client
                .ask_with(method, &target, &[("if-none-match", &tag)], "")
                .await
                .is(304);
            assert!(
                answer.body.is_empty() && !answer.has("content-type"),
                "{answer:?}"
            );
            assert_eq!(answer.header("etag"), tag);
        }
        client
            .ask_with("GET", &target, &[("if-none-match", "\"other\"")], "")
            .await
            .is(200);
    }
    let target = format!("/v2/a/blobs/{blob}");
    for (condition, status) in [(format!("\"{blob}\""), 206), ("\"other\"".to_owned(), 200)] {
        let headers = [("range", "bytes=5-9"), ("if-range", condition.as_str())];
        let answer = client
            .ask_with("GET", &target, &headers, "")
            .await
            .is(status);
        let expected = if status == 206 {
            &image.layers[0][5..10]
        } else {
            &image.layers[0][..]
        };
        assert!(answer.body == expected);
    }
}

#[tokio::test]
async fn a_blob_belongs_to_its_repository() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let digest = client.push_blob("base/app", b"some").await;
    for name in ["base", "base/app/x", "other/app"] {
        client
            .get(&format!("/v2/{name}/blobs/{digest}"))
            .await
            .refused(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn a_blob_whose_file_was_cut_short_looks_cut() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    // More than sockets hold.
    let digest = client.push_blob("a", &vec![b'x'; 32 << 20]).await;
    let file = std::fs::File::options()
        .write(true)
        .open(fixture.disk().blob("a", &digest))
        .unwrap();
    let mut reader = fixture.gateway.client().await;
    reader
        .send(request("GET", &format!("/v2/a/blobs/{digest}"), ""))
        .await;
    let head = reader.head().await;
    assert_eq!((head.status(), head.length()), (200, Some(32 << 20)));
    file.set_len(100).unwrap();
    let got = promptly(reader.rest()).await.len();
    assert!(got < 32 << 20, "{got} bytes, though the file has 100");
}
