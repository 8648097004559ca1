//! A name may lead elsewhere: connections to where it led are not used for ever.

use std::time::Duration;

use super::fixture::LIST;
use crate::harness::{Domain, RegistryClient, Setup, Upstream, jump};

/// How many connections seven requests take, one a minute.
async fn connections(host: &str) -> usize {
    let upstream = Upstream::new().await;
    let url = format!("http://{host}:{}", upstream.address().port());
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", &url))
        .start()
        .await;
    let client = RegistryClient::through(&gateway);
    let mut open = Vec::new();
    for _ in 0..7 {
        let serve = async {
            let mut fresh = None;
            let head = match open.last_mut() {
                None => None,
                Some(last) => {
                    let last: &mut crate::harness::RawPeer<tokio::net::TcpStream> = last;
                    tokio::select! {
                        head = last.try_head() => head,
                        peer = upstream.accept() => { fresh = Some(peer); None }
                    }
                }
            };
            if head.is_none() {
                let mut peer = match fresh {
                    Some(peer) => peer,
                    None => upstream.accept().await,
                };
                peer.head().await;
                open.push(peer);
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            open.last_mut().unwrap().send(answer).await;
        };
        let (answer, ()) = tokio::join!(client.get(LIST), serve);
        assert_eq!(answer.status, 200);
        jump(Duration::from_secs(60)).await;
    }
    open.len()
}

#[tokio::test]
async fn a_connection_by_a_name_serves_no_request_after_five_minutes() {
    assert_eq!(connections("localhost").await, 2);
    assert_eq!(connections("127.0.0.1").await, 1);
}
