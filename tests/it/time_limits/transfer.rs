//! Silence in the middle of a transfer, by each of the two and in each direction.

use super::{BLOB, UPLOAD, fill};
use crate::harness::frames::{ACK, DATA, END_STREAM, PING};
use crate::harness::{
    BodySender, Clock, Gateway, Http2, Transfer, Upstream, collect, no_body, promptly, request,
    seconds, settle,
};

#[tokio::test]
async fn the_first_byte_of_an_upload_has_ten_minutes() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    clock.jump(seconds(599)).await;
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, body) = promptly(transfer.client.answer()).await;
    assert_eq!(head.status(), 408);
    assert_eq!(head.get("connection"), Some("close"));
    assert!(String::from_utf8(body).unwrap().contains("\"errors\""));
    promptly(transfer.registry.ended()).await;
    promptly(transfer.client.ended()).await;
}

#[tokio::test]
async fn a_first_byte_in_the_last_second_goes_through() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    clock.jump(seconds(599)).await;
    transfer.client.send("hello").await;
    assert_eq!(promptly(transfer.registry.bytes(5)).await, b"hello");
    transfer
        .registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 202);
}

#[tokio::test]
async fn an_upload_may_last_for_ever_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer =
        Transfer::http1(request("PATCH", UPLOAD, "Transfer-Encoding: chunked\r\n")).await;
    // Longer than all limits of the way together.
    for _ in 0..15 {
        transfer.client.send("1\r\nx\r\n").await;
        assert_eq!(promptly(transfer.registry.bytes(6)).await, b"1\r\nx\r\n");
        clock.jump(seconds(119)).await;
    }
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 408);
    assert_eq!(
        promptly(transfer.registry.rest()).await,
        b"",
        "no last chunk"
    );
}

#[tokio::test]
async fn an_http2_upload_may_last_for_ever_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (feed, body) = BodySender::new();
    let mut asking = std::pin::pin!(client.ask("PATCH", UPLOAD, body));
    let mut registry = tokio::select! {
        registry = upstream.accept() => registry,
        _ = &mut asking => panic!("answered"),
    };
    registry.head().await;
    let played = async {
        for _ in 0..15 {
            feed.send(Ok("x".into())).await.unwrap();
            assert_eq!(promptly(registry.bytes(6)).await, b"1\r\nx\r\n");
            clock.jump(seconds(119)).await;
        }
        registry.silent().await;
    };
    tokio::select! {
        _ = &mut asking => panic!("answered too early"),
        () = played => {}
    }
    let (answer, ()) = promptly(async { tokio::join!(asking, clock.jump(seconds(1))) }).await;
    assert_eq!(answer.unwrap().status(), 408);
    assert_eq!(promptly(registry.rest()).await, b"", "no last chunk");
}

#[tokio::test]
async fn an_upstream_that_takes_no_more_of_an_upload_has_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer =
        Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 1000000000\r\n")).await;
    for _ in 0..4 {
        assert!(fill(&mut transfer.client).await > 0, "there was room again");
        clock.jump(seconds(100)).await;
        // All that is under way, so that new bytes go out.
        while {
            transfer.registry.buffer.clear();
            transfer.registry.buffer.reserve(1 << 16);
            settle().await;
            transfer
                .registry
                .io
                .try_read_buf(&mut transfer.registry.buffer)
                .is_ok()
        } {}
    }
    fill(&mut transfer.client).await;
    clock.jump(seconds(119)).await;
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, _) = promptly(transfer.client.answer()).await;
    assert_eq!(head.status(), 504);
    assert_eq!(head.get("connection"), Some("close"));
}

#[tokio::test]
async fn an_upstream_may_take_for_ever_to_answer_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        .await;
    assert_eq!(transfer.client.head().await.status(), 200);
    for _ in 0..15 {
        transfer.registry.send("x").await;
        assert_eq!(promptly(transfer.client.bytes(1)).await, b"x");
        clock.jump(seconds(119)).await;
    }
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    assert_eq!(
        promptly(transfer.client.rest()).await,
        b"",
        "cut, and nothing made up"
    );
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn an_answer_that_has_begun_waits_for_a_body_that_goes_on() {
    let clock = Clock::stopped();
    let mut transfer =
        Transfer::http1(request("PATCH", UPLOAD, "Transfer-Encoding: chunked\r\n")).await;
    transfer
        .registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(promptly(transfer.client.head()).await.status(), 202);
    for _ in 0..4 {
        transfer.client.send("1\r\nx\r\n").await;
        assert_eq!(promptly(transfer.registry.bytes(6)).await, b"1\r\nx\r\n");
        clock.jump(seconds(100)).await;
    }
    transfer.registry.send("ok").await;
    assert_eq!(promptly(transfer.client.bytes(2)).await, b"ok");
}

#[tokio::test]
async fn an_http2_answer_that_stops_is_reset() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let mut registry = None;
    let answer = {
        let played = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
                .await;
            registry = Some(peer);
        };
        tokio::join!(client.ask("GET", BLOB, no_body()), played)
            .0
            .unwrap()
    };
    let mut body = tokio::spawn(collect(answer));
    for _ in 0..15 {
        settle().await;
        clock.jump(seconds(119)).await;
        registry
            .as_mut()
            .unwrap()
            .send(format!("14\r\n{}\r\n", "x".repeat(20)))
            .await;
    }
    settle().await;
    clock.jump(seconds(119)).await;
    assert!(!body.is_finished());
    clock.jump(seconds(1)).await;
    promptly(&mut body)
        .await
        .unwrap()
        .expect_err("the body is not whole");
    promptly(registry.unwrap().ended()).await;
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_a_download_has_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    transfer.client.head().await;
    let mut sent = 0;
    for _ in 0..4 {
        let room = fill(&mut transfer.registry).await;
        assert!(room > 0, "there was room again");
        sent += room;
        clock.jump(seconds(100)).await;
        let taken = transfer.client.bytes(sent / 2).await.len();
        sent -= taken;
        settle().await;
    }
    fill(&mut transfer.registry).await;
    clock.jump(seconds(119)).await;
    transfer.registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(transfer.registry.ended()).await;
    let rest = promptly(transfer.client.rest()).await;
    assert!(rest.len() < 1_000_000_000 - sent);
}

#[tokio::test]
async fn an_http2_client_without_a_window_has_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::frames_with_window(100, END_STREAM, "GET", BLOB).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    settle().await;
    fill(&mut transfer.registry).await;
    for wait in [50, 50, 19] {
        clock.jump(seconds(wait)).await;
        let frames = transfer.client.so_far().await;
        assert!(
            frames
                .iter()
                .filter(|frame| frame.kind == DATA)
                .map(|f| f.payload.len())
                .sum::<usize>()
                <= 100
        );
        for ping in frames.iter().filter(|frame| frame.kind == PING) {
            transfer.client.send(PING, ACK, 0, &ping.payload).await;
        }
    }
    transfer.registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(transfer.registry.ended()).await;
}
