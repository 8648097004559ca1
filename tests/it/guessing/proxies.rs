//! Who is believed about the address of a client: X-Forwarded-For and the PROXY protocol.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::GuessingFixture;
use crate::harness::{Domain, Gateway, Origin, RawPeer, Setup, basic, promptly, request};

/// A gateway that believes 127.0.0.5 alone.
async fn gateway(origin: &Origin) -> Gateway {
    let setup = Setup::new().domain(Domain::new("ci.test", &origin.url()));
    setup
        .top("trusted_proxies = [\"127.0.0.5\", \"10.0.0.0/8\"]")
        .main("[auth]\naddress_failures = 5")
        .start()
        .await
}

/// A connection from an address of this machine.
async fn tcp(gateway: &Gateway, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    socket.connect(gateway.https()).await.unwrap()
}

/// The same with some bytes first, and TLS after them.
async fn begin(
    gateway: &Gateway,
    from: [u8; 4],
    first: &[u8],
) -> std::io::Result<RawPeer<TlsStream<TcpStream>>> {
    let mut tcp = tcp(gateway, from).await;
    tcp.write_all(first).await?;
    let connector = TlsConnector::from(Arc::new(gateway.client_config(&["http/1.1"])));
    Ok(RawPeer::new(
        connector
            .connect("ci.test".try_into().unwrap(), tcp)
            .await?,
    ))
}

/// The headers about the client that the upstream gets for a request with these lines.
async fn client_of(
    origin: &Origin,
    client: &mut RawPeer<TlsStream<TcpStream>>,
    lines: &str,
) -> String {
    client
        .send(request("GET", "/v2/base/app/manifests/v1", lines))
        .await;
    assert_eq!(client.answer().await.0.status(), 200);
    origin.requests()[0]
        .head
        .get("x-forwarded-for")
        .unwrap()
        .to_owned()
}

const PROXY: [u8; 4] = [127, 0, 0, 5];

#[tokio::test]
async fn the_header_of_a_trusted_proxy_counts_for_each_request() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    let mut client = begin(&gateway, PROXY, b"").await.unwrap();
    for (lines, address) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7"),
        (
            "X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.1.2.3\r\n",
            "192.0.2.7",
        ),
        (
            "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 2001:db8::7\r\n",
            "2001:db8::7",
        ),
        ("X-Forwarded-For: nonsense\r\n", "127.0.0.5"),
        (
            "Forwarded: for=192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\n",
            "127.0.0.5",
        ),
        ("", "127.0.0.5"),
    ] {
        assert_eq!(
            client_of(&origin, &mut client, lines).await,
            address,
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn headers_of_untrusted_peers_are_ignored() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    let mut client = begin(&gateway, [127, 0, 0, 1], b"").await.unwrap();
    let address = client_of(&origin, &mut client, "X-Forwarded-For: 192.0.2.7\r\n").await;
    assert_eq!(address, "127.0.0.1");
    // Nor about whom wrong passwords are charged to.
    let login = |number: usize| {
        let (user, password) = ("bob", format!("wrong {number}"));
        format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nX-Forwarded-For: 192.0.2.{number}\r\nAuthorization: {}\r\n\r\n",
            basic(user, &password)
        )
    };
    let mut statuses = Vec::new();
    for number in 0..6 {
        client.send(login(number)).await;
        statuses.push(client.answer().await.0.status());
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
}

#[tokio::test]
async fn an_attacker_behind_a_trusted_proxy_does_not_lock_out_others_behind_it() {
    let mut fixture = GuessingFixture::new(5, 20).await;
    let invented = [
        "198.51.100.1, 192.0.2.1",
        "203.0.113.9,192.0.2.1",
        "127.0.0.1, 192.0.2.1",
    ];
    let mut number = 0;
    for from in invented.iter().cycle().take(5) {
        number += 1;
        assert_eq!(
            fixture
                .login(from, "alice", &format!("wrong {number}"))
                .await,
            401
        );
    }
    assert_eq!(
        fixture
            .login("203.0.113.77, 192.0.2.1", "alice", "secret")
            .await,
        429,
        "whatever it invents"
    );
    assert_eq!(fixture.login("192.0.2.2", "alice", "secret").await, 200);
}

fn version2(address: [u8; 4]) -> Vec<u8> {
    let addresses = [&address[..], &[10, 0, 0, 1], &[0xdc, 0x04, 0x01, 0xbb]].concat();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[0x21, 0x11, 0, 12][..],
        &addresses,
    ]
    .concat()
}

#[tokio::test]
async fn a_trusted_proxy_may_send_the_address_before_tls() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    for (first, address) in [
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n".to_vec(),
            "192.0.2.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 fd00::1 56324 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.5"),
        (version2([192, 0, 2, 7]), "192.0.2.7"),
        (Vec::new(), "127.0.0.5"),
    ] {
        let mut client = begin(&gateway, PROXY, &first).await.unwrap();
        assert_eq!(client_of(&origin, &mut client, "").await, address);
        // The client behind it is not believed about others.
        let lines = "X-Forwarded-For: 198.51.100.1\r\n";
        let believed = if address == "127.0.0.5" {
            "198.51.100.1"
        } else {
            address
        };
        assert_eq!(client_of(&origin, &mut client, lines).await, believed);
    }
    // A proxy behind the proxy is.
    let mut client = begin(&gateway, PROXY, &version2([10, 1, 2, 3]))
        .await
        .unwrap();
    assert_eq!(
        client_of(&origin, &mut client, "X-Forwarded-For: 192.0.2.9\r\n").await,
        "192.0.2.9"
    );
}

#[tokio::test]
async fn a_proxy_header_of_an_untrusted_peer_is_refused() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    for first in [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n".to_vec(),
        version2([192, 0, 2, 7]),
    ] {
        assert!(
            promptly(begin(&gateway, [127, 0, 0, 1], &first))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_broken_header_of_a_trusted_proxy_ends_the_connection() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    for first in [
        &b"PROXY TCP4 nonsense\r\n"[..],
        b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443 and much more than any header has, and more than that still\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut peer = RawPeer::new(tcp(&gateway, PROXY).await);
        peer.send(first).await;
        assert_eq!(promptly(peer.rest()).await, b"", "{first:?}");
    }
    // Plain HTTP gets its sentence there, too.
    let mut peer = RawPeer::new(tcp(&gateway, PROXY).await);
    peer.send("PUT /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    assert_eq!(promptly(peer.head()).await.status(), 400);
}

#[tokio::test]
async fn a_header_that_never_ends_is_timed_out_with_the_handshake() {
    let origin = Origin::new().await;
    let gateway = gateway(&origin).await;
    let mut peer = RawPeer::new(tcp(&gateway, PROXY).await);
    peer.send("PROXY TCP4 192.0.2.7").await;
    peer.silent().await;
    crate::harness::jump(crate::harness::seconds(11)).await;
    promptly(peer.ended()).await;
}
