//! How an HTTP/2 stream ends whose request is answered before its body has come.

use std::time::Duration;

use tokio::process::Command;

use super::UPLOAD;
use crate::harness::frames::{DATA, END_STREAM, Frame, Frames, RST_STREAM, WINDOW_UPDATE};
use crate::harness::{Clock, Domain, Gateway, Setup, Upstream, promptly};

/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
/// How much of a body is read behind an answer.
const DISCARDED: usize = 256 * 1024;

async fn registry() -> Gateway {
    Setup::new()
        .domain(Domain::store("ci.test", "ci"))
        .start()
        .await
}

/// A stranger begins an upload and reads its 401.
async fn refused(client: &mut Frames) -> u32 {
    let stream = client.stream();
    let fields = [
        (":method", "PATCH"),
        (":scheme", "https"),
        (":authority", "ci.test"),
        (":path", UPLOAD),
    ];
    client.head(stream, &fields, false).await;
    assert_eq!(promptly(client.outcome(stream)).await.status(), Some(401));
    stream
}

fn resets(frames: &[Frame]) -> Vec<(u32, u32)> {
    let resets = frames.iter().filter(|frame| frame.kind == RST_STREAM);
    resets.map(|frame| (frame.stream, frame.reason())).collect()
}

/// The status and the end of Debian's curl, which uploads 20 MB.
async fn curl(gateway: &Gateway, path: &str, options: &[&str]) -> String {
    let body = gateway.path("upload");
    if !body.exists() {
        std::fs::write(&body, vec![b'x'; 20_000_000]).unwrap();
    }
    let port = gateway.https().port();
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--http2", "--max-time", "60"])
        .args([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_version} %{http_code}",
        ])
        .arg("--resolve")
        .arg(format!("ci.test:{port}:127.0.0.1"))
        .args(options)
        .arg("--upload-file")
        .arg(&body)
        .arg(format!("https://ci.test:{port}{path}"))
        .output()
        .await
        .expect("curl, of the package curl");
    format!(
        "{} ({})",
        String::from_utf8(output.stdout).unwrap(),
        output.status.code().unwrap()
    )
}

#[tokio::test]
async fn curl_reads_the_early_answers_of_moorgate() {
    let gateway = registry().await;
    let alice = ["--user", "alice:secret"];
    for _ in 0..3 {
        for (path, options, status) in [
            ("/v2/base/app/manifests/v1", &[][..], 401),
            ("/v2/base//app/manifests/v1", &alice, 400),
            ("/v2/base/app/manifests/v1", &alice, 413),
            ("/v2/base/app/blobs/uploads/none?digest=x", &alice, 400),
        ] {
            let said = curl(&gateway, path, options).await;
            assert_eq!(said, format!("2 {status} (0)"), "{path} {options:?}");
        }
    }
}

#[tokio::test]
async fn curl_reads_the_early_answer_of_an_upstream() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let path = "/v2/base/app/manifests/v1";
    for _ in 0..3 {
        let played = async {
            let mut registry = upstream.accept().await;
            registry.head().await;
            registry
                .send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
                .await;
            registry
        };
        // Of unknown length, so that moorgate itself has nothing against it.
        let options = ["--user", "alice:secret", "--header", "Content-Length:"];
        let (said, _registry) = tokio::join!(curl(&gateway, path, &options), played);
        assert_eq!(said, "2 413 (0)");
    }
}

#[tokio::test]
async fn a_refused_stream_stays_open_for_as_long_as_its_client_may_need() {
    let gateway = registry().await;
    let clock = Clock::stopped();
    let mut client = gateway.frames().await;
    let stream = refused(&mut client).await;
    client.data(stream, &[b'x'; 16_000], false).await;
    assert_eq!(resets(&client.so_far().await), []);
    clock.jump(Duration::from_secs(5)).await;
    let reset = promptly(client.next_of(RST_STREAM)).await;
    assert_eq!((reset.stream, reset.reason()), (stream, NO_ERROR));
}

#[tokio::test]
async fn a_refused_stream_that_its_client_ends_is_not_reset() {
    let gateway = registry().await;
    let clock = Clock::stopped();
    let mut client = gateway.frames().await;
    let stream = refused(&mut client).await;
    client.send(DATA, END_STREAM, stream, b"x").await;
    let mut frames = client.so_far().await;
    clock.jump(Duration::from_secs(6)).await;
    frames.extend(client.so_far().await);
    assert_eq!(resets(&frames), []);
    refused(&mut client).await;
}

#[tokio::test]
async fn no_more_than_the_bound_is_read_of_a_refused_stream() {
    let gateway = registry().await;
    let mut client = gateway.frames().await;
    let stream = refused(&mut client).await;
    let mut windows = [65_535_usize; 2];
    let mut sent = 0;
    let reset = loop {
        // Half a window at a time, so that the updates of both windows keep coming.
        while windows.iter().all(|window| *window >= 16_384) && sent <= DISCARDED {
            client.data(stream, &[b'x'; 16_384], false).await;
            windows = windows.map(|window| window - 16_384);
            sent += 16_384;
        }
        let frame = promptly(client.next()).await;
        match frame.kind {
            RST_STREAM => break frame,
            WINDOW_UPDATE => {
                let more = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                windows[usize::from(frame.stream != 0)] += usize::try_from(more).unwrap();
            }
            _ => {}
        }
    };
    assert_eq!((reset.stream, reset.reason()), (stream, NO_ERROR));
    assert!(sent > DISCARDED, "{sent}");
}

#[tokio::test]
async fn at_most_sixteen_refused_streams_stay_open() {
    let gateway = registry().await;
    let clock = Clock::stopped();
    let mut client = gateway.frames().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(refused(&mut client).await);
    }
    assert_eq!(resets(&client.so_far().await), []);
    let beyond = refused(&mut client).await;
    assert_eq!(resets(&client.so_far().await), [(beyond, NO_ERROR)]);
    clock.jump(Duration::from_secs(5)).await;
    let mut ended = resets(&client.so_far().await);
    ended.sort_unstable();
    let open: Vec<_> = open.into_iter().map(|stream| (stream, NO_ERROR)).collect();
    assert_eq!(ended, open);
    refused(&mut client).await;
}
