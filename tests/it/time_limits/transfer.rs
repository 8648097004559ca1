//! Silence in the middle of a transfer, by each of the two and in each direction.

use super::{BLOB, UPLOAD, fill};
use crate::harness::{
    Clock, Fed, Gateway, Http2, Upstream, no_body, promptly, request, seconds, settle, whole,
};

#[tokio::test]
async fn the_first_byte_of_an_upload_has_ten_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    clock.jump(seconds(599)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!(head.status(), 408);
    assert_eq!(head.get("connection"), Some("close"));
    assert!(String::from_utf8(body).unwrap().contains("\"errors\""));
    promptly(registry.ended()).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_first_byte_in_the_last_second_goes_through() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    clock.jump(seconds(599)).await;
    client.send("hello").await;
    assert_eq!(promptly(registry.bytes(5)).await, b"hello");
    registry.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(promptly(client.answer()).await.0.status(), 202);
}

#[tokio::test]
async fn an_upload_may_last_for_ever_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, "Transfer-Encoding: chunked\r\n")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    // Longer than all limits of the way together.
    for _ in 0..15 {
        client.send("1\r\nx\r\n").await;
        assert_eq!(promptly(registry.bytes(6)).await, b"1\r\nx\r\n");
        clock.jump(seconds(119)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    assert_eq!(promptly(client.answer()).await.0.status(), 408);
    assert_eq!(promptly(registry.rest()).await, b"", "no last chunk");
}

#[tokio::test]
async fn an_http2_upload_may_last_for_ever_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (feed, body) = Fed::new();
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
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, "Content-Length: 1000000000\r\n")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    for _ in 0..4 {
        assert!(fill(&mut client).await > 0, "there was room again");
        clock.jump(seconds(100)).await;
        // All that is under way, so that new bytes go out.
        while {
            registry.buffer.clear();
            settle().await;
            registry.io.try_read_buf(&mut registry.buffer).is_ok()
        } {}
    }
    fill(&mut client).await;
    clock.jump(seconds(119)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, _) = promptly(client.answer()).await;
    assert_eq!(head.status(), 504);
    assert_eq!(head.get("connection"), Some("close"));
}

#[tokio::test]
async fn an_upstream_may_take_for_ever_to_answer_but_not_stop_for_two_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    for _ in 0..15 {
        registry.send("x").await;
        assert_eq!(promptly(client.bytes(1)).await, b"x");
        clock.jump(seconds(119)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    assert_eq!(promptly(client.rest()).await, b"", "cut, and nothing made up");
    promptly(registry.ended()).await;
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
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").await;
            registry = Some(peer);
        };
        tokio::join!(client.ask("GET", BLOB, no_body()), played).0.unwrap()
    };
    let mut body = tokio::spawn(whole(answer));
    for _ in 0..15 {
        settle().await;
        clock.jump(seconds(119)).await;
        registry.as_mut().unwrap().send(format!("14\r\n{}\r\n", "x".repeat(20))).await;
    }
    settle().await;
    clock.jump(seconds(119)).await;
    assert!(!body.is_finished());
    clock.jump(seconds(1)).await;
    promptly(&mut body).await.unwrap().expect_err("the body is not whole");
    promptly(registry.unwrap().ended()).await;
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_a_download_has_two_minutes() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    client.head().await;
    let mut sent = 0;
    for _ in 0..4 {
        let room = fill(&mut registry).await;
        assert!(room > 0, "there was room again");
        sent += room;
        clock.jump(seconds(100)).await;
        let taken = client.bytes(sent / 2).await.len();
        sent -= taken;
        settle().await;
    }
    fill(&mut registry).await;
    clock.jump(seconds(119)).await;
    registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(registry.ended()).await;
    let rest = promptly(client.rest()).await;
    assert!(rest.len() < 1_000_000_000 - sent);
}

#[tokio::test]
async fn an_http2_client_without_a_window_has_two_minutes() {
    let clock = Clock::stopped();
    use crate::harness::frames::{ACK, DATA, END_STREAM, PING};
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames_with_window(100).await;
    client.request(1, END_STREAM, "GET", BLOB).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    settle().await;
    fill(&mut registry).await;
    for wait in [50, 50, 19] {
        clock.jump(seconds(wait)).await;
        let frames = client.so_far().await;
        assert!(
            frames.iter().filter(|frame| frame.kind == DATA).map(|f| f.payload.len()).sum::<usize>() <= 100
        );
        for ping in frames.iter().filter(|frame| frame.kind == PING) {
            client.send(PING, ACK, 0, &ping.payload).await;
        }
    }
    registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(registry.ended()).await;
}
