//! What connections took goes back to the system when they have ended.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpSocket;

use crate::harness::{Domain, PATIENCE, RawPeer, Setup, request};

const CONNECTIONS: u8 = 250;
/// Each of them has so many connections.
const CLIENTS: u8 = 3;

#[tokio::test]
async fn ended_connections_take_no_memory() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let domain = Domain::new("ci.test", "http://127.0.0.1:1");
    let entry = Domain::htpasswd(&[("alice".into(), "secret".into())]);
    let process = Setup::new().domain(domain).spawn(&entry, "http/1.1");
    let ask = async |client: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        let address = format!("127.0.1.{client}:0").parse().unwrap();
        socket.bind(address).unwrap();
        let tcp = socket.connect(process.https).await.unwrap();
        let mut peer = RawPeer::new(process.tls_over(tcp).await);
        peer.send(request("GET", "/v2/", "")).await;
        assert_eq!(peer.answer().await.0.status(), 503);
        peer
    };
    drop(ask(1).await);
    let before = process.memory();
    let mut held = Vec::new();
    for client in 1..=CLIENTS {
        for _ in 0..CONNECTIONS {
            held.push(ask(client).await);
        }
    }
    let full = process.memory() - before;
    drop(held);
    let begun = std::time::Instant::now();
    loop {
        let left = process.memory().saturating_sub(before);
        if left < full / 3 {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "of {} KiB, {} are left",
            full / 1024,
            left / 1024
        );
        // So that each worker has something to do.
        drop(ask(1).await);
    }
}
