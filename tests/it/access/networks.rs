//! Rules with `networks` apply to the client address, also behind a trusted proxy.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::harness::{Domain, Gateway, RawPeer, Setup, request};

/// The status of a question from an address of this machine, with further header lines.
async fn status(gateway: &Gateway, from: [u8; 4], lines: &str) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    let tcp = socket.connect(gateway.https()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(gateway.client_config(&["http/1.1"])));
    let mut client = RawPeer::new(
        connector
            .connect("ci.test".try_into().unwrap(), tcp)
            .await
            .unwrap(),
    );
    client
        .send(request("GET", "/v2/office/app/tags/list", lines))
        .await;
    client.answer().await.0.status()
}

#[tokio::test]
async fn networks_are_those_of_the_believed_address() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['office/**']\nactions = ['list']\n\
        networks = ['192.0.2.0/24', '::ffff:127.0.0.6/128']\n\
        [[access]]\ndeny = true\nusers = ['*']\nrepositories = ['**']\nactions = ['list']\n\
        networks = ['::ffff:192.0.2.128/121']\n\
        [[access]]\nusers = ['*']\nrepositories = ['office/**']\nactions = ['push']\n";
    let setup = Setup::new().domain(Domain::store("ci.test", "ci").tables(rules));
    let gateway = setup.top("trusted_proxies = [\"127.0.0.5\"]").start().await;
    // What may be listed is not there yet; where only a push is allowed, the list is refused.
    let (listed, refused) = (404, 403);
    for (from, lines, expected) in [
        ([127, 0, 0, 5], "X-Forwarded-For: 192.0.2.7\r\n", listed),
        (
            [127, 0, 0, 5],
            "X-Forwarded-For: ::ffff:192.0.2.7\r\n",
            listed,
        ),
        (
            [127, 0, 0, 5],
            "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n",
            listed,
        ),
        ([127, 0, 0, 5], "X-Forwarded-For: 192.0.2.200\r\n", refused),
        (
            [127, 0, 0, 5],
            "X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n",
            refused,
        ),
        ([127, 0, 0, 5], "", refused),
        ([127, 0, 0, 1], "X-Forwarded-For: 192.0.2.7\r\n", refused),
        ([127, 0, 0, 6], "X-Forwarded-For: 192.0.2.200\r\n", listed),
    ] {
        assert_eq!(
            status(&gateway, from, lines).await,
            expected,
            "{from:?} {lines:?}"
        );
    }
}
