//! The same limits on HTTP/2 connections, frame by frame.

use super::fill_with;
use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, WINDOW_UPDATE,
    request_block, wire,
};
use crate::harness::{
    Clock, Domain, Gateway, Setup, Transfer, Upstream, promptly, seconds, settle,
};

async fn gateway() -> Gateway {
    Gateway::before(&Upstream::new().await.url()).await
}

fn unauthenticated_request() -> Vec<u8> {
    request_block("GET", "/v2/", &[])
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_fifteen_seconds() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames().await;
    for _ in 0..14 {
        client.send(PING, 0, 0, b"whatever").await;
        assert_eq!(client.next_of(PING).await.payload, b"whatever");
        client.send(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).await;
        clock.jump(seconds(1)).await;
    }
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn an_idle_connection_is_pinged_and_ends_after_five_minutes() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames().await;
    client.request(1, END_STREAM, "GET", "/v2/").await;
    assert_eq!(client.next_of(HEADERS).await.status(), 503);
    for _ in 0..4 {
        client.so_far().await;
        clock.jump(seconds(59)).await;
        let early = client.so_far().await;
        assert!(early.iter().all(|frame| frame.kind != PING), "{early:?}");
        clock.jump(seconds(1)).await;
        let ping = promptly(client.next_of(PING)).await;
        client.send(PING, ACK, 0, &ping.payload).await;
        settle().await;
    }
    clock.jump(seconds(59)).await;
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_ping_is_gone() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::frames(END_STREAM, "GET", "/v2/base/app/manifests/v1").await;
    clock.jump(seconds(60)).await;
    promptly(transfer.client.next_of(PING)).await;
    clock.jump(seconds(19)).await;
    transfer.registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(transfer.client.ended()).await;
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn a_head_that_never_ends_has_thirty_seconds() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames().await;
    client
        .send(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &unauthenticated_request(),
        )
        .await;
    client.next_of(HEADERS).await;
    let block = unauthenticated_request();
    client.send(HEADERS, END_STREAM, 3, &block[..4]).await;
    settle().await;
    for byte in block[4..].chunks(1).take(3) {
        clock.jump(seconds(9)).await;
        client.send(CONTINUATION, 0, 3, byte).await;
    }
    clock.jump(seconds(2)).await;
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_frame_that_never_ends_has_thirty_seconds() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames().await;
    client
        .send(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &unauthenticated_request(),
        )
        .await;
    client.next_of(HEADERS).await;
    tokio::io::AsyncWriteExt::write_all(&mut client.io, &[0, 0, 8, PING])
        .await
        .unwrap();
    settle().await;
    clock.jump(seconds(29)).await;
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn heads_that_do_end_may_come_one_after_another_for_ever() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames().await;
    let whole = |stream: u32| {
        let block = unauthenticated_request();
        let mut frame = vec![
            0,
            0,
            u8::try_from(block.len()).unwrap(),
            HEADERS,
            END_HEADERS | END_STREAM,
        ];
        frame.extend(stream.to_be_bytes());
        frame.extend(block);
        frame
    };
    // Each write ends one head and begins the next: there is never a moment without an open one.
    let mut bytes = Vec::new();
    for number in 0..20 {
        let frame = whole(1 + 2 * number);
        bytes.extend(&frame[..20]);
        tokio::io::AsyncWriteExt::write_all(&mut client.io, &bytes)
            .await
            .unwrap();
        settle().await;
        bytes = frame[20..].to_vec();
        if number > 0 {
            assert_eq!(promptly(client.next_of(HEADERS)).await.status(), 401);
        }
        clock.jump(seconds(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_no_more_frames_has_two_minutes() {
    let clock = Clock::stopped();
    // Its missing answer to a PING would end it sooner, and so would the frame whose end is not
    // read.
    let domain = Domain::new("ci.test", &Upstream::new().await.url());
    let gateway = Setup::new()
        .domain(domain)
        .main("[timeouts]\nh2_ping = '10min'\nhead = '10min'")
        .start()
        .await;
    let mut client = gateway.frames().await;
    client.request(1, END_STREAM, "GET", "/v2/").await;
    client.next_of(HEADERS).await;
    fill_with(&mut client.io, &wire(PING, 0, 0, b"whatever").repeat(1000)).await;
    clock.jump(seconds(119)).await;
    assert_eq!(gateway.app.connections(), 1);
    clock.jump(seconds(1)).await;
    assert_eq!(gateway.app.connections(), 0);
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_keep_a_connection_open() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    // No window: the body of the 503 can never be sent.
    let mut client = gateway.frames_with_window(0).await;
    client.request(1, END_STREAM, "GET", "/v2/").await;
    assert_eq!(client.next_of(HEADERS).await.status(), 503);
    // The longest that an upstream may be silent, and twice what a body may.
    for _ in 0..22 {
        clock.jump(seconds(50)).await;
        tend(&mut client).await;
    }
    clock.jump(seconds(39)).await;
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_refusal_that_nobody_reads_keeps_a_connection_open_for_two_minutes() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.frames_with_window(0).await;
    let block = unauthenticated_request();
    let flags = END_HEADERS | END_STREAM;
    client.send(HEADERS, flags, 1, &block).await;
    assert_eq!(client.next_of(HEADERS).await.status(), 401);
    for _ in 0..2 {
        clock.jump(seconds(50)).await;
        tend(&mut client).await;
    }
    clock.jump(seconds(19)).await;
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn an_answer_that_is_read_in_small_steps_goes_on() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames_with_window(10).await;
    client.request(1, END_STREAM, "GET", super::BLOB).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            "x".repeat(100)
        ))
        .await;
    let mut got = 0;
    while got < 100 {
        for _ in 0..2 {
            got += tend(&mut client).await;
            clock.jump(seconds(50)).await;
        }
        client
            .send(WINDOW_UPDATE, 0, 1, &10_u32.to_be_bytes())
            .await;
    }
    assert_eq!(got, 100);
}

/// Answers the PINGs that have come. Returns the bytes of DATA that came with them.
async fn tend(client: &mut Frames) -> usize {
    let mut data = 0;
    for frame in client.so_far().await {
        match frame.kind {
            PING if frame.flags & ACK == 0 => client.send(PING, ACK, 0, &frame.payload).await,
            DATA => data += frame.payload.len(),
            _ => {}
        }
    }
    settle().await;
    data
}
