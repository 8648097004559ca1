//! Ends of connections on which an answer is still under way: everything has been written, and the
//! client has not read it yet. It gets all of it, however the connection ends.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{
    ACK, DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, WINDOW_UPDATE, wire,
};
use crate::harness::{
    Clock, Domain, Gateway, RawPeer, Setup, log_lines, promptly, request, seconds, settle,
};

/// As much as an HTTP/2 client allows before it has read anything.
const LENGTH: usize = 60_000;
/// Times three ends and two protocols, these are a thousand.
const CONNECTIONS: usize = 167;
/// How many may be closing for others when there may be a few connections only.
const EVICTED: usize = 64;
const PATH: &str = "/v2/base/app/manifests/v1";

/// How a connection is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Drain,
    Idle,
    /// A head that never ends.
    HeadLimit,
    /// As many others come as there may be.
    Eviction,
}

impl Cause {
    /// Of each protocol.
    fn connections(self) -> usize {
        match self {
            Self::Drain | Self::Idle | Self::HeadLimit => CONNECTIONS,
            // More are not waited for.
            Self::Eviction => EVICTED / 2,
        }
    }
}

/// Says how many answers have begun, and when they may go on.
#[derive(Clone)]
struct Answers {
    begun: Arc<Semaphore>,
    rest: watch::Sender<bool>,
}

impl Answers {
    fn new(may_go_on: bool) -> Self {
        Self {
            begun: Arc::new(Semaphore::new(0)),
            rest: watch::Sender::new(may_go_on),
        }
    }
}

/// A registry whose every answer is that long, and half as long until it may go on.
async fn registry(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let mut peer = RawPeer::new(listener.accept().await.unwrap().0);
            let Answers { begun, rest } = answers.clone();
            tokio::spawn(async move {
                while peer.try_head().await.is_some() {
                    peer.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
                    ))
                    .await;
                    peer.send(vec![b'x'; LENGTH / 2]).await;
                    begun.add_permits(1);
                    let mut rest = rest.subscribe();
                    rest.wait_for(|may_go_on| *may_go_on).await.unwrap();
                    peer.send(vec![b'x'; LENGTH / 2]).await;
                }
            });
        }
    });
    url
}

async fn gateway(answers: Answers) -> Gateway {
    gateway_with(answers, 10_000).await
}

async fn gateway_with(answers: Answers, connections: usize) -> Gateway {
    let domain = Domain::new("ci.test", &registry(answers).await);
    let limit = format!("[limits]\nconnections = {connections}");
    Setup::new().domain(domain).main(&limit).start().await
}

/// A connection into which next to nothing fits that the client does not read.
async fn tls(gateway: &Gateway, alpn: &str) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = socket.connect(gateway.https()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(gateway.client_config(&[alpn])));
    let name = "ci.test".try_into().unwrap();
    connector.connect(name, tcp).await.unwrap()
}

/// Connections that have sent a request each; those over HTTP/2 with how much they have read.
async fn connections(
    gateway: &Gateway,
    cause: Cause,
) -> (Vec<(Frames, usize)>, Vec<RawPeer<TlsStream<TcpStream>>>) {
    let (mut http2, mut http1) = (Vec::new(), Vec::new());
    for _ in 0..cause.connections() {
        let mut client = Frames::over(tls(gateway, "h2").await, 65_535).await;
        client.request(1, END_STREAM, "GET", PATH).await;
        if cause == Cause::HeadLimit {
            let begun = wire(HEADERS, END_STREAM, 3, b"never ends");
            tokio::io::AsyncWriteExt::write_all(&mut client.io, &begun)
                .await
                .unwrap();
        }
        http2.push((client, 0));
        let mut client = RawPeer::new(tls(gateway, "http/1.1").await);
        client.send(request("GET", PATH, "")).await;
        http1.push(client);
    }
    (http2, http1)
}

/// Reads to a PING and answers it; returns how much of an answer came before it.
async fn answer_ping(client: &mut Frames) -> usize {
    let mut read = 0;
    loop {
        let frame = client.next().await;
        match frame.kind {
            DATA => read += frame.payload.len(),
            PING => {
                client.send(PING, ACK, 0, &frame.payload).await;
                return read;
            }
            _ => {}
        }
    }
}

async fn a_third_of_a_thousand(cause: Cause) {
    let clock = Clock::stopped();
    let answers = Answers::new(cause != Cause::Drain);
    let gateway = match cause {
        Cause::Eviction => gateway_with(answers.clone(), EVICTED).await,
        Cause::Drain | Cause::Idle | Cause::HeadLimit => gateway(answers.clone()).await,
    };
    let (lines, _writer) = log_lines(&gateway);
    let (mut http2, http1) = connections(&gateway, cause).await;
    let all = u32::try_from(2 * cause.connections()).unwrap();
    promptly(answers.begun.acquire_many(all))
        .await
        .unwrap()
        .forget();
    // The drain begins while the answers run, and ends with them.
    let mut drained = None;
    if cause == Cause::Drain {
        let app = gateway.app.clone();
        drained = Some(tokio::spawn(async move { app.drain(seconds(60)).await }));
        for (client, read) in &mut http2 {
            *read = promptly(answer_ping(client)).await;
        }
        answers.rest.send_replace(true);
    }
    // A line says that an answer is with the kernel, or nearly so.
    let answered = async {
        for _ in 0..2 * cause.connections() {
            while lines.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        }
    };
    promptly(answered).await;
    let mut others = Vec::new();
    match cause {
        Cause::Drain => {}
        Cause::Idle => clock.jump(seconds(300)).await,
        Cause::HeadLimit => clock.jump(seconds(30)).await,
        Cause::Eviction => {
            for _ in 0..EVICTED {
                // Without a login they would end for each other.
                let tls = promptly(gateway.tls_from("127.0.0.5")).await.unwrap();
                let mut client = RawPeer::new(tls);
                client.send(request("GET", PATH, "")).await;
                promptly(client.head()).await;
                others.push(client);
            }
        }
    }
    for _ in 0..10 {
        settle().await;
    }
    for (mut client, read) in http2 {
        for _ in 0..4 {
            let _ = client
                .try_send(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
                .await;
        }
        settle().await;
        let frames = promptly(client.ended()).await;
        let all = frames.iter().filter(|frame| frame.kind == DATA);
        let length = read + all.map(|frame| frame.payload.len()).sum::<usize>();
        let complete = frames.iter().any(Frame::ends_stream);
        assert_eq!((length, complete), (LENGTH, true), "{cause:?} over HTTP/2");
    }
    for mut client in http1 {
        let _ = client.try_send("GET / HTTP/1.1\r\n").await;
        settle().await;
        let (head, body) = promptly(client.answer()).await;
        assert_eq!((head.status(), body.len()), (200, LENGTH), "{cause:?}");
        if cause != Cause::HeadLimit {
            promptly(client.ended()).await;
        }
    }
    if let Some(drained) = drained {
        assert!(promptly(drained).await.unwrap());
    }
}

#[tokio::test]
async fn a_drain_cuts_no_answer_short() {
    a_third_of_a_thousand(Cause::Drain).await;
}

#[tokio::test]
async fn an_idle_end_cuts_no_answer_short() {
    a_third_of_a_thousand(Cause::Idle).await;
}

#[tokio::test]
async fn an_eviction_cuts_no_answer_short() {
    a_third_of_a_thousand(Cause::Eviction).await;
}

#[tokio::test]
async fn a_limit_cuts_no_complete_answer_short() {
    a_third_of_a_thousand(Cause::HeadLimit).await;
}

#[tokio::test]
async fn a_client_that_does_not_close_is_waited_for_five_seconds() {
    let clock = Clock::stopped();
    for alpn in ["h2", "http/1.1"] {
        let gateway = gateway(Answers::new(true)).await;
        let mut io = tls(&gateway, alpn).await;
        if alpn == "h2" {
            io = Frames::over(io, 65_535).await.io;
        }
        let app = gateway.app.clone();
        let drained = tokio::spawn(async move { app.drain(seconds(60)).await });
        clock.jump(seconds(4)).await;
        assert!(!drained.is_finished(), "{alpn}");
        // Over HTTP/2, also for the answer to a PING.
        clock.jump(seconds(1)).await;
        clock.jump(seconds(5)).await;
        assert!(promptly(drained).await.unwrap(), "{alpn}");
        drop(io);
    }
}

#[tokio::test]
async fn a_request_that_crosses_the_end_of_an_idle_connection_is_answered() {
    let clock = Clock::stopped();
    let gateway = gateway(Answers::new(true)).await;
    let mut client = gateway.frames().await;
    client.request(1, END_STREAM, "GET", "/v2/").await;
    assert_eq!(promptly(client.outcome(1)).await.status(), Some(200));
    clock.jump(seconds(300)).await;
    client.request(3, END_STREAM, "GET", PATH).await;
    client
        .send(WINDOW_UPDATE, 0, 0, &65_535_u32.to_be_bytes())
        .await;
    let goaway = promptly(client.next_of(GOAWAY)).await;
    assert_eq!(goaway.payload[..4], i32::MAX.to_be_bytes());
    let frames = promptly(client.ended()).await;
    let body = |stream| {
        let all = frames.iter().filter(move |frame| frame.stream == stream);
        let data = all.filter(|frame| frame.kind == DATA);
        data.map(|frame| frame.payload.len()).sum::<usize>()
    };
    assert_eq!(body(3), LENGTH);
    assert!(frames.iter().any(|frame| frame.kind == PING));
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(last.payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
}
