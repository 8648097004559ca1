//! Connections of one client: how many, how many new ones, and whose they are behind a proxy.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::counts;
use crate::harness::{Clock, Domain, Events, Gateway, RawPeer, Setup, promptly, seconds, settle};

async fn limited(limits: &str) -> Gateway {
    let setup = Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:9"));
    setup.main(&format!("[limits]\n{limits}")).start().await
}

/// A connection of a client, if it is served.
async fn connected(gateway: &Gateway, client: &str) -> Option<impl Sized> {
    promptly(gateway.tls_from(client)).await.ok()
}

/// Takes other limits into force.
async fn reload(gateway: &Gateway, limits: &str) {
    let main = format!("[limits]\n{limits}");
    Setup::new().main(&main).write(gateway.directory.path());
    promptly(gateway.app.reload()).await.unwrap();
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_a_reload_changes_how_many() {
    let events = Events::kept();
    let gateway = limited("client_connections = 3").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connected(&gateway, "127.0.0.5").await.expect("served"));
    }
    for _ in 0..2 {
        assert!(connected(&gateway, "127.0.0.5").await.is_none());
    }
    let other = connected(&gateway, "127.0.0.6").await.expect("another's");
    // Once a minute, however many are refused.
    let said = events.with("connections refused: too many of one client");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("WARN") && said[0].contains("client=127.0.0.5 count=1 limit=3"));
    assert_eq!(counts(&gateway, "client_connections").await, [3, 3, 2]);

    reload(&gateway, "client_connections = 4").await;
    open.push(connected(&gateway, "127.0.0.5").await.expect("served"));
    reload(&gateway, "client_connections = 2").await;
    assert!(connected(&gateway, "127.0.0.5").await.is_none());
    // Those that are open stay until they end.
    drop((open, other));
    let again = async { while connected(&gateway, "127.0.0.5").await.is_none() {} };
    promptly(again).await;
}

#[tokio::test]
async fn new_connections_of_a_client_beyond_the_rate_are_closed() {
    let events = Events::kept();
    let clock = Clock::stopped();
    let gateway = limited("client_connection_rate = 2").await;
    for _ in 0..20 {
        assert!(connected(&gateway, "127.0.0.5").await.is_some());
    }
    assert!(connected(&gateway, "127.0.0.5").await.is_none());
    assert!(connected(&gateway, "127.0.0.6").await.is_some());
    let said = events.with("connections refused: too many new ones of one client");
    assert!(
        said.len() == 1 && said[0].contains("client=127.0.0.5"),
        "{said:?}"
    );
    assert_eq!(
        counts(&gateway, "client_new_connections").await,
        [20, 20, 1]
    );
    clock.jump(seconds(1)).await;
    for _ in 0..2 {
        assert!(connected(&gateway, "127.0.0.5").await.is_some());
    }
    assert!(connected(&gateway, "127.0.0.5").await.is_none());
    reload(&gateway, "client_connection_rate = 100").await;
    assert!(connected(&gateway, "127.0.0.5").await.is_some());
}

/// Whether a client that a proxy names gets a handshake begun.
async fn served_behind_a_proxy(gateway: &Gateway, client: &str) -> Option<RawPeer<TcpStream>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.5:0".parse().unwrap()).unwrap();
    let mut tcp = promptly(socket.connect(gateway.https())).await.unwrap();
    let header = format!("PROXY TCP6 {client} fd00::1 56324 443\r\n");
    tcp.write_all(header.as_bytes()).await.unwrap();
    settle().await;
    let mut peer = RawPeer::new(tcp);
    let mut ended = Box::pin(peer.ended());
    let is_open = tokio::select! {
        biased;
        () = &mut ended => false,
        () = settle() => true,
    };
    drop(ended);
    is_open.then_some(peer)
}

#[tokio::test]
async fn the_clients_of_a_proxy_count_by_the_addresses_that_it_names() {
    let setup = Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:9"));
    let gateway = setup
        .top("trusted_proxies = [\"127.0.0.5\"]")
        .main("[limits]\nclient_connections = 2")
        .start()
        .await;
    let first = served_behind_a_proxy(&gateway, "2001:db8::1").await;
    let second = served_behind_a_proxy(&gateway, "2001:db8::2").await;
    assert!(first.is_some() && second.is_some());
    assert!(
        served_behind_a_proxy(&gateway, "2001:db8::3")
            .await
            .is_none()
    );
    let other = served_behind_a_proxy(&gateway, "2001:db8:0:1::1").await;
    assert!(other.is_some());
    drop(first);
    settle().await;
    let again = async {
        while served_behind_a_proxy(&gateway, "2001:db8::3")
            .await
            .is_none()
        {}
    };
    promptly(again).await;
}

#[tokio::test]
async fn a_reload_changes_the_number_of_all_connections() {
    let clock = Clock::stopped();
    let gateway = limited("connections = 4").await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(promptly(gateway.client()).await);
        clock.jump(seconds(1)).await;
    }
    reload(&gateway, "connections = 2").await;
    for client in &mut open[..2] {
        promptly(client.ended()).await;
    }
    for client in &mut open[2..] {
        client.silent().await;
    }
    assert_eq!(gateway.status().await["resources"][0]["limit"], 2);
    reload(&gateway, "connections = 4").await;
    let mut open = open.split_off(2);
    for _ in 0..2 {
        open.push(promptly(gateway.client()).await);
    }
    for client in &mut open {
        client.silent().await;
    }
}
