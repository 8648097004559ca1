use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::certs::served::internal_ca::InternalCa;
use crate::certs::served::manager::Certificates;
use crate::certs::testing::{host, listen, snapshot};
use crate::config::vhost::CertificateSource::{Files, Internal};
use crate::tls::plain_http::PlainHttp;
use crate::tls::server_config::{ALPN_HTTP1, ListenerConfig, ServerConfigs};

/// A gateway with three domains: a.example.com (alias b) on 443 and 5000, one with an address, and
/// one whose certificate is missing.
struct TestServer {
    _state: tempfile::TempDir,
    certificates: Certificates,
    configs: ServerConfigs,
    roots: RootCertStore,
}

type ClientStream = client::TlsStream<DuplexStream>;
type HandshakeOutcome = (
    io::Result<ClientStream>,
    Result<Secured<DuplexStream>, HandshakeError<DuplexStream>>,
);

impl TestServer {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("directory");
        let certificates = Certificates::new(state.path().to_owned());
        let missing = Files {
            certificate: "/nonexistent".into(),
            key: "/nonexistent".into(),
        };
        certificates.apply(&snapshot(
            state.path(),
            vec![
                host(&["a.example.com", "b.example.com"], &[443, 5000], Internal),
                host(&["missing.example.com"], &[443], missing),
                host(&["c.example.com", "192.0.2.1"], &[443], Internal),
            ],
        ));
        let ca = InternalCa::open_or_make(state.path()).expect("made");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM"))
            .expect("a root");
        Self {
            _state: state,
            certificates,
            configs: ServerConfigs::new(None).expect("randomness"),
            roots,
        }
    }

    fn client(&self, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    fn server_config(&self, port: u16) -> Arc<ListenerConfig> {
        self.configs
            .for_listener(self.certificates.table().clone(), listen(port))
            .expect("valid")
    }

    async fn connect(&self, port: u16, name: &str, client: ClientConfig) -> HandshakeOutcome {
        connect_over(
            duplex(16 * 1024),
            self.server_config(port),
            name,
            Arc::new(client),
        )
        .await
    }
}

async fn connect_over(
    (near, far): (DuplexStream, DuplexStream),
    server: Arc<ListenerConfig>,
    name: &str,
    client: Arc<ClientConfig>,
) -> HandshakeOutcome {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connect = async { TlsConnector::from(client).connect(name, near).await };
    tokio::join!(connect, handshake(far, Vec::new(), server, TlsClient::Any))
}

fn alert(outcome: io::Result<ClientStream>) -> AlertDescription {
    match outcome
        .expect_err("refused")
        .downcast()
        .expect("from rustls")
    {
        rustls::Error::AlertReceived(alert) => alert,
        other => panic!("no alert: {other}"),
    }
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let gateway = TestServer::new();
    let versions = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    let offers: [(&[&[u8]], Alpn); 4] = [
        (&[ALPN_H2, ALPN_HTTP1], Alpn::H2),
        (&[ALPN_HTTP1, ALPN_H2], Alpn::H2),
        (&[ALPN_HTTP1], Alpn::Http1),
        (&[], Alpn::Http1),
    ];
    for (version, agreed) in versions {
        for (offer, alpn) in offers {
            let client = gateway.client(version, offer);
            let (client, server) = gateway.connect(443, "a.example.com", client).await;
            let (client, mut server) = (client.expect("connected"), server.expect("connected"));
            assert_eq!(client.get_ref().1.protocol_version(), Some(agreed));
            assert_eq!(server.alpn, alpn);
            assert_eq!(
                server.sni.as_ref().map(HostName::as_str),
                Some("a.example.com")
            );
            exchange(client, &mut server.io).await;
        }
    }
}

/// A message each way.
async fn exchange(
    mut client: ClientStream,
    server: &mut SecureStream<DuplexStream>,
) -> ClientStream {
    let mut word = [0; 4];
    client.write_all(b"ping").await.expect("sent");
    server.read_exact(&mut word).await.expect("received");
    server.write_all(b"pong").await.expect("sent");
    client.read_exact(&mut word).await.expect("received");
    assert_eq!(&word, b"pong");
    client
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum() {
    let gateway = TestServer::new();
    let client = gateway.client(&TLS13, &[]);
    let (client, _server) = gateway.connect(443, "a.example.com", client).await;
    let client = client.expect("connected");
    let group = client
        .get_ref()
        .1
        .negotiated_key_exchange_group()
        .expect("agreed")
        .name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn aliases_listeners_and_spellings_are_served() {
    let gateway = TestServer::new();
    for (port, name) in [
        (443, "b.example.com"),
        (5000, "a.example.com"),
        (443, "A.Example.COM"),
    ] {
        let client = gateway.client(&TLS13, &[]);
        let (client, server) = gateway.connect(port, name, client).await;
        assert!(client.is_ok() && server.is_ok(), "{name} on {port}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_refused_with_an_alert_that_says_so() {
    let gateway = TestServer::new();
    for version in [&TLS12, &TLS13] {
        for (port, name) in [
            (443, "x.example.com"),
            (5000, "c.example.com"),
            (443, "missing.example.com"),
        ] {
            let client = gateway.client(version, &[]);
            let (client, server) = gateway.connect(port, name, client).await;
            assert_eq!(alert(client), AlertDescription::UnrecognisedName);
            let error = server.expect_err("refused");
            assert_eq!(error.reason(), "unknown_sni");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[tokio::test]
async fn without_a_name_only_an_address_is_served() {
    let gateway = TestServer::new();
    let (client, server) = gateway
        .connect(443, "192.0.2.1", gateway.client(&TLS13, &[]))
        .await;
    assert!(client.is_ok());
    assert_eq!(server.expect("connected").sni, None);

    // A trusted proxy is shown the same certificate, and the first where there is no such.
    for (port, name) in [(443, "192.0.2.1"), (5000, "a.example.com")] {
        let mut client = gateway.client(&TLS13, &[]);
        client.enable_sni = false;
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(name).expect("a name");
        let (near, far) = duplex(16 * 1024);
        let server = handshake(
            far,
            Vec::new(),
            gateway.server_config(port),
            TlsClient::TrustedProxy,
        );
        let (client, server) = tokio::join!(connector.connect(name, near), server);
        client.expect("connected");
        assert_eq!(server.expect("connected").sni, None);
    }

    // On this listener nobody has an address.
    let (client, server) = gateway
        .connect(5000, "192.0.2.1", gateway.client(&TLS13, &[]))
        .await;
    assert_eq!(alert(client), AlertDescription::MissingExtension);
    assert_eq!(server.expect_err("refused").reason(), "no_sni");
}

#[tokio::test]
async fn sessions_are_resumed_across_configurations_of_one_process() {
    let gateway = TestServer::new();
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(gateway.client(version, &[]));
        let kind = async |server: Arc<ListenerConfig>| {
            let (near, server) =
                connect_over(duplex(16 * 1024), server, "a.example.com", client.clone()).await;
            let (near, mut server) = (near.expect("connected"), server.expect("connected"));
            exchange(near, &mut server.io)
                .await
                .get_ref()
                .1
                .handshake_kind()
                .expect("complete")
        };
        assert_eq!(kind(gateway.server_config(443)).await, HandshakeKind::Full);
        assert_eq!(
            kind(gateway.server_config(443)).await,
            HandshakeKind::Resumed
        );
        gateway.certificates.refresh();
        assert_eq!(
            kind(gateway.server_config(5000)).await,
            HandshakeKind::Resumed
        );
        let other = ServerConfigs::new(None).expect("randomness");
        let other = other
            .for_listener(gateway.certificates.table().clone(), listen(443))
            .expect("valid");
        assert_eq!(kind(other).await, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn a_first_flight_in_single_bytes_and_tiny_records_is_understood() {
    let gateway = TestServer::new();
    for version in [&TLS12, &TLS13] {
        let mut client = gateway.client(version, &[ALPN_H2]);
        client.max_fragment_size = Some(32);
        let ((near, middle), (between, far)) = (duplex(16 * 1024), duplex(16 * 1024));
        let relay = tokio::spawn(relay_single_bytes(middle, between));
        let server = gateway.server_config(443);
        let (client, server) =
            connect_over((near, far), server, "a.example.com", Arc::new(client)).await;
        let (client, mut server) = (client.expect("connected"), server.expect("connected"));
        assert_eq!((server.alpn, server.sni.is_some()), (Alpn::H2, true));
        exchange(client, &mut server.io).await;
        relay.abort();
    }
}

/// Gives the server each byte of the client by itself, and the client what the server sends.
async fn relay_single_bytes(client: DuplexStream, server: DuplexStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let forth = async {
        while let Ok(byte) = from_client.read_u8().await {
            to_server.write_u8(byte).await.expect("sent");
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::join!(forth, tokio::io::copy(&mut from_server, &mut to_client));
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    let gateway = TestServer::new();
    let (client, server) = gateway
        .connect(443, "a.example.com", gateway.client(&TLS13, &[]))
        .await;
    let (mut client, mut server) = (client.expect("connected"), server.expect("connected"));
    let upload: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let send = async {
        client.write_all(&upload).await.expect("sent");
        client.shutdown().await.expect("ended");
    };
    let mut received = Vec::new();
    let receive = server.io.read_to_end(&mut received);
    let ((), count) = tokio::join!(send, receive);
    assert_eq!(count.expect("received"), upload.len());
    assert!(received == upload);
}

/// The response to a request in plain HTTP, sent in pieces.
async fn plain_http_response(pieces: &[&str]) -> String {
    let gateway = TestServer::new();
    let (mut near, far) = duplex(1024);
    let (server, read) = (gateway.server_config(443), Vec::new());
    let refuse = async {
        let error = handshake(far, read, server, TlsClient::Any)
            .await
            .expect_err("refused");
        assert_eq!(error.reason(), "plain_http");
        let HandshakeError::PlainHttp(request) = error else {
            panic!("{error}")
        };
        request.refuse().await.expect("answered");
    };
    let mut answer = String::new();
    let ask = async {
        for piece in pieces {
            near.write_all(piece.as_bytes()).await.expect("sent");
            tokio::task::yield_now().await;
        }
        near.read_to_string(&mut answer).await.expect("received");
        drop(near);
    };
    tokio::join!(refuse, ask);
    answer
}

#[tokio::test]
async fn plain_http_gets_an_explanation_that_its_client_shows() {
    let login = "log in first, with docker login";
    for (target, for_registry_clients) in [
        ("/v2/", true),
        ("/v2", true),
        ("/v2?x=/", true),
        ("/v2/x/manifests/latest?ns=/", true),
        ("/v1/_ping", true),
        ("/", false),
        ("/v20/", false),
        ("/token?x=/v2/", false),
        ("*", false),
    ] {
        let answer = plain_http_response(&[
            &format!("GET {target} HTTP/1.1\r\n"),
            "Host: a.example.com\r\n\r\n",
        ])
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(head.contains("Connection: close"), "{head}");
        assert!(body.contains("https://"), "{body}");
        let document = serde_json::from_str::<serde_json::Value>(body);
        assert_eq!(document.is_ok(), for_registry_clients, "{target}: {body}");
        assert_eq!(
            head.contains("Content-Type: application/json\r\n"),
            for_registry_clients,
            "{target}: {head}"
        );
        if let Ok(document) = document {
            let message = document["errors"][0]["message"].as_str().expect("a text");
            assert!(message.starts_with(login), "{message}");
        }
    }
}

#[tokio::test]
async fn a_plain_request_line_may_come_in_pieces_and_a_head_request_gets_a_head() {
    let get = "GET /v2/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let whole = plain_http_response(&[get]).await;
    assert!(whole.contains("application/json"), "{whole}");
    let pieces: Vec<&str> = get.split_inclusive(|_| true).collect();
    assert_eq!(plain_http_response(&pieces).await, whole);
    // One read of the handshake takes no more than is asked for.
    let long = get.replace("/v2/", &format!("/v2/?x={}", "x".repeat(8192)));
    assert_eq!(plain_http_response(&[&long]).await, whole);

    let head = plain_http_response(&[&get.replace("GET", "HEAD")]).await;
    let expected = whole.split_inclusive("\r\n\r\n").next();
    assert_eq!(Some(&*head), expected);
}

#[tokio::test(start_paused = true)]
async fn plain_http_that_never_ends_is_dropped() {
    let request = |io| PlainHttp {
        io,
        read: b"G".to_vec(),
    };
    let (mut near, far) = duplex(1024);
    let flood = async { while near.write_all(&[b'x'; 1024]).await.is_ok() {} };
    let (refused, ()) = tokio::join!(request(far).refuse(), flood);
    refused.expect("answered, and enough of it read");

    let (_near, far) = duplex(1024);
    let before = tokio::time::Instant::now();
    let silent = request(far).refuse().await.expect_err("it never ended");
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn each_failure_has_a_label() {
    let gateway = TestServer::new();
    let reason = async |bytes: &[u8]| {
        let (mut near, far) = duplex(1024);
        near.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        let read = async {
            near.shutdown().await.expect("ended");
            near.read_to_end(&mut answer).await.expect("received");
        };
        let server = async {
            handshake(far, Vec::new(), gateway.server_config(443), TlsClient::Any)
                .await
                .expect_err("refused")
                .reason()
        };
        tokio::join!(server, read).0
    };
    assert_eq!(reason(b"").await, "closed");
    assert_eq!(reason(b"\x16\x03\x01").await, "closed");
    assert_eq!(reason(b"\x80\x2e\x01\x03\x01").await, "protocol");
    assert_eq!(reason(b"ssh-2.0").await, "protocol");
    assert_eq!(reason(b"SSH-2.0-x\r\n").await, "plain_http");

    let distrustful = TestServer::new().client(&TLS13, &[]);
    let (client, server) = gateway.connect(443, "a.example.com", distrustful).await;
    assert!(client.is_err());
    assert_eq!(server.expect_err("refused").reason(), "client_alert");
}

#[tokio::test]
async fn no_shared_protocol_is_an_error() {
    let gateway = TestServer::new();
    let client = gateway.client(&TLS13, &[b"smtp"]);
    let (client, server) = gateway.connect(443, "a.example.com", client).await;
    assert_eq!(alert(client), AlertDescription::NoApplicationProtocol);
    assert_eq!(server.expect_err("refused").reason(), "protocol");
}
