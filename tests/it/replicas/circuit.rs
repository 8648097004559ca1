//! An upstream that cannot be reached lets one request wait at a time.

use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::fixture::LIST;
use crate::harness::{Domain, RegistryClient, Setup};

#[tokio::test]
async fn one_request_at_a_time_waits_for_an_upstream_that_cannot_be_reached() {
    // A queue that is full: connections get no answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.94.3.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await
    {
        waiting.push(connected.unwrap());
    }
    let domain = Domain::new("ci.test", &format!("http://{address}"));
    let domain = domain.tables("[timeouts]\nupstream_connect = \"3s\"");
    let gateway = Setup::new().domain(domain).start().await;
    let ask = async || {
        let began = std::time::Instant::now();
        let answer = RegistryClient::through(&gateway).get(LIST).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.headers["retry-after"], "5");
        began.elapsed()
    };
    tokio::join!(ask(), ask(), ask());
    let mut times = Vec::from(<[Duration; 6]>::from(tokio::join!(
        ask(),
        ask(),
        ask(),
        ask(),
        ask(),
        ask()
    )));
    times.sort_unstable();
    let [others @ .., slowest] = &times[..] else {
        unreachable!();
    };
    let others = others.last().unwrap();
    assert!(*others * 2 < *slowest, "{times:?}");
    let status = gateway.status().await;
    let health = &status["domains"][0]["upstream_health"];
    assert_eq!(
        health["consecutive_failures"], 4,
        "those that were tried: {health}"
    );
    // The next one finds that it is back.
    drop((listener, waiting));
    let listener = TcpListener::bind(address).await.unwrap();
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut peer = crate::harness::RawPeer::new(socket);
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        peer
    };
    let client = RegistryClient::through(&gateway);
    let (answer, _) = tokio::join!(client.get(LIST), serve);
    assert_eq!(answer.status, 200);
}
