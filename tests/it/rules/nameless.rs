//! Handshakes without a server name: of clients that use an address, and of proxies in front.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{
    Domain, Events, Gateway, Origin, RawPeer, Setup, basic, jump, promptly, seconds,
};

/// Two domains, of which the second has these settings above its tables.
fn two(origin: &Origin, second: &str) -> Setup {
    Setup::new()
        .domain(Domain::new("a.test", &origin.url()))
        .domain(Domain::new("b.test", &origin.url()).top(second))
}

/// A connection whose handshake sends no name, and accepts the certificate of this one.
async fn nameless(
    gateway: &Gateway,
    certificate: &str,
) -> std::io::Result<RawPeer<TlsStream<TcpStream>>> {
    let mut config = gateway.client_config(&["http/1.1"]);
    config.enable_sni = false;
    let tcp = TcpStream::connect(gateway.https()).await?;
    let name = certificate.to_owned().try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.map(RawPeer::new)
}

/// The status of a request to a host.
async fn status(client: &mut RawPeer<TlsStream<TcpStream>>, host: &str) -> u16 {
    let authorization = basic("alice", "secret");
    let request =
        format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\r\n");
    client.send(request).await;
    client.answer().await.0.status()
}

#[tokio::test]
async fn the_domain_of_an_address_accepts_all_its_names_after_it() {
    let origin = Origin::new().await;
    let aliases = "aliases = [\"127.0.0.1\", \"b-alias.test\"]";
    let gateway = two(&origin, aliases).start().await;
    let mut client = nameless(&gateway, "127.0.0.1").await.unwrap();
    for (host, expected) in [
        ("127.0.0.1:5001", 200),
        ("b.test", 200),
        ("b-alias.test:5001", 200),
        ("a.test", 421),
        ("nobody.test", 404),
    ] {
        assert_eq!(status(&mut client, host).await, expected, "{host}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_needs_no_name_and_the_host_decides() {
    let origin = Origin::new().await;
    for (aliases, shown) in [("", "a.test"), ("aliases = [\"127.0.0.1\"]", "b.test")] {
        let setup = two(&origin, aliases).top("trusted_proxies = [\"127.0.0.1\"]");
        let gateway = setup.start().await;
        let mut client = nameless(&gateway, shown).await.unwrap();
        for (host, expected) in [("a.test", 200), ("b.test:8443", 200), ("nobody.test", 404)] {
            assert_eq!(status(&mut client, host).await, expected, "{host}");
        }
        // With a name it is bound to it, as everybody is.
        let mut client = RawPeer::new(gateway.tls("a.test", &["http/1.1"]).await.unwrap());
        assert_eq!(status(&mut client, "b.test").await, 421);
    }
}

#[tokio::test]
async fn a_refused_handshake_without_a_name_is_logged_once_a_minute() {
    let origin = Origin::new().await;
    let gateway = two(&origin, "").start().await;
    let events = Events::kept();
    let line = "TLS without a server name refused";
    for _ in 0..3 {
        promptly(nameless(&gateway, "a.test")).await.unwrap_err();
    }
    let lines = events.with(line);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for words in [" INFO ", "peer=127.0.0.1", "count=1", "`trusted_proxies`"] {
        assert!(lines[0].contains(words), "{lines:?}");
    }
    jump(seconds(61)).await;
    promptly(nameless(&gateway, "a.test")).await.unwrap_err();
    let lines = events.with(line);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("count=3"), "{lines:?}");
}
