//! Who gets in, and what the access log says: as for registries behind moorgate.

use super::fixture::StoreFixture;
use super::image::{Image, sha256};
use crate::harness::{log_lines, promptly, request};

#[tokio::test]
async fn nobody_gets_in_without_a_password() {
    let fixture = StoreFixture::new().await;
    let digest = fixture.http1().push("a", "v1", &Image::small(1)).await;
    for (method, target) in [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", "/v2/a/tags/list".to_owned()),
        ("GET", format!("/v2/a/manifests/{digest}")),
        ("PUT", "/v2/a/manifests/v2".to_owned()),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("GET", format!("/v2/a/referrers/{digest}")),
    ] {
        let mut client = fixture.gateway.client().await;
        client
            .send(format!(
                "{method} {target} HTTP/1.1\r\nHost: ci.test\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(
            (head.status(), head.get("www-authenticate").is_some()),
            (401, true),
            "{method} {target}"
        );
    }
    fixture.http1().get("/v2/a/manifests/v1").await.is(200);
}

#[tokio::test]
async fn every_call_is_a_line_with_all_that_is_known() {
    let fixture = StoreFixture::new().await;
    let log = log_lines(&fixture.gateway).0;
    let mut client = fixture.http2();
    let image = Image::new(1, vec![]);
    client.push("base/app", "v1", &image).await;
    client.get("/v2/base/app/manifests/v1").await.is(200);
    client
        .get(&format!("/v2/base/app/blobs/{}", sha256(&image.config)))
        .await
        .is(200);
    client
        .ask("HEAD", &format!("/v2/base/app/blobs/{}", sha256(b"x")))
        .await
        .is(404);
    let (manifest, config) = (image.manifest.len(), image.config.len());
    let digest = sha256(&image.config);
    for (call, reference, status, bytes_in, bytes_out) in [
        ("upload.start", "", 202, 0, 0),
        ("upload.commit", &*digest, 201, config, 0),
        ("manifest.write", "v1", 201, manifest, 0),
        ("manifest.read", "v1", 200, 0, manifest),
        ("blob.read", &digest, 200, 0, config),
        ("blob.read", &sha256(b"x"), 404, 0, 0),
    ] {
        let line = promptly(async {
            loop {
                match log.try_recv() {
                    Ok(line) => break line,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        for part in [
            format!("call={call}"),
            "repository=base/app".to_owned(),
            format!("status={status}"),
            format!("bytes_in={bytes_in}"),
            format!("bytes_out={bytes_out}"),
            "user=alice".to_owned(),
            "domain=ci.test".to_owned(),
            "protocol=HTTP/2".to_owned(),
            "end=complete".to_owned(),
        ] {
            assert!(
                line.split(' ').any(|word| word == part),
                "{part} is not in {line}"
            );
        }
        assert!(
            reference.is_empty() || line.contains(&format!(" reference={reference} ")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_was_cut_is_logged_as_that() {
    let fixture = StoreFixture::new().await;
    let session = fixture.http1().start("a").await;
    let log = log_lines(&fixture.gateway).0;
    let mut client = fixture.gateway.client().await;
    client
        .send(request("PATCH", &session, "Content-Length: 1000\r\n"))
        .await;
    client.send([b'x'; 400]).await;
    drop(client);
    let line = promptly(async {
        loop {
            match log.try_recv() {
                Ok(line) if line.contains("call=upload.chunk") => break line,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(
        line.contains(" status=400 ") && line.contains(" bytes_in=400 "),
        "{line}"
    );
}
