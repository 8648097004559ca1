//! Each way in which an upstream may break, as one server and as one of two replicas: what the
//! client gets, what is said of the upstream, and that the next request does not suffer from it.

mod faults;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Domain, Gateway, Head, RawPeer, Setup, basic};
use faults::{BODY, FaultyServer, Kind, Row, rows};

type Client = RawPeer<TlsStream<TcpStream>>;

const TIMEOUTS: &str =
    "[timeouts]\nupstream_connect = \"2s\"\nupstream_head = \"2s\"\nstall = \"1s\"";

/// A domain with its server; its name is that of the row.
struct Played {
    row: Row,
    name: String,
    server: Arc<FaultyServer>,
}

/// What came in response to a request.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// Whole, with this status.
    Whole(u16, Vec<u8>),
    /// A part of the body, and then the end of the connection.
    Cut(u16, Vec<u8>),
}

async fn connect(gateway: &Gateway, name: &str) -> Client {
    RawPeer::new(gateway.tls(name, &["http/1.1"]).await.unwrap())
}

fn get(name: &str) -> String {
    let authorization = basic("alice", "secret");
    format!(
        "GET /v2/a/tags/list HTTP/1.1\r\nHost: {name}\r\nAuthorization: {authorization}\r\n\r\n"
    )
}

/// Asks, and reads to the end of the response.
async fn ask(gateway: &Gateway, name: &str) -> (Got, Head) {
    let mut client = connect(gateway, name).await;
    client.send(get(name)).await;
    let head = client.head().await;
    let mut body = Vec::new();
    let is_whole = match head.length() {
        Some(length) => {
            while client.buffer.len() < length && client.more().await {}
            body = std::mem::take(&mut client.buffer);
            body.len() == length
        }
        None => match client.chunked().await {
            Some(chunks) => {
                body = chunks;
                true
            }
            None => false,
        },
    };
    let status = head.status();
    let got = if is_whole {
        Got::Whole(status, body)
    } else {
        Got::Cut(status, body)
    };
    (got, head)
}

fn domain<'s>(status: &'s Value, name: &str) -> &'s Value {
    let domains = status["domains"].as_array().unwrap();
    domains
        .iter()
        .find(|domain| domain["domain"] == name)
        .unwrap()
}

/// Runs a row beside the others.
async fn all<F: Future<Output = ()> + Send + 'static>(rows: impl IntoIterator<Item = F>) {
    let mut running: tokio::task::JoinSet<()> = rows.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// The servers of all rows behind one gateway. `keys`: of `[upstream]`, for the address of one.
async fn play(keys: impl Fn(&str) -> String) -> (Arc<Gateway>, Vec<Played>) {
    let mut setup = Setup::new();
    let mut all = Vec::new();
    for (index, row) in rows().into_iter().enumerate() {
        let server = FaultyServer::start(row.kind).await;
        let name = format!("d{index:02}.localhost");
        let domain = Domain::new(&name, "").upstream(&keys(&server.url));
        setup = setup.domain(domain.tables(TIMEOUTS));
        all.push(Played { row, name, server });
    }
    (Arc::new(setup.start().await), all)
}

/// What a client gets of a single server, and what then is said of it.
async fn alone(gateway: Arc<Gateway>, played: Played) {
    let gateway = &*gateway;
    let Played { row, name, server } = &played;
    let (got, head) = ask(gateway, name).await;
    match (row.status, &got) {
        (200, Got::Whole(200, body)) => assert_eq!(body, BODY, "{}", row.name),
        (200, Got::Cut(200, body)) => {
            assert!(
                row.is_cut && BODY.starts_with(body),
                "{}: {got:?}",
                row.name
            );
        }
        (status, Got::Whole(found, body)) => {
            assert_eq!(status, *found, "{}", row.name);
            let error: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(error["errors"][0]["code"], "UNAVAILABLE", "{}", row.name);
            assert_eq!(
                head.get("retry-after").is_some(),
                status == 503,
                "{}",
                row.name
            );
        }
        _ => panic!("{}: {got:?}", row.name),
    }
    assert_eq!(
        row.is_cut,
        matches!(got, Got::Cut(..)),
        "{}: {got:?}",
        row.name
    );
    let status = gateway.status().await;
    let health = &domain(&status, name)["upstream_health"];
    let reason = health["last_failure"]["reason"].as_str().unwrap_or("-");
    assert!(row.reasons.contains(&reason), "{}: {health}", row.name);
    let failures = u64::from(reason != "-");
    assert_eq!(
        health["consecutive_failures"], failures,
        "{}: {health}",
        row.name
    );
    assert!(
        server.sent.load(Ordering::Relaxed) < 32 << 20,
        "{}: it took {server:?}",
        row.name
    );
    // Once mended it serves at once, and over another connection.
    if !server.mend().await {
        return;
    }
    let before = server.connections.load(Ordering::Relaxed);
    let (got, _) = ask(gateway, name).await;
    assert_eq!(got, Got::Whole(200, BODY.to_vec()), "{}", row.name);
    let after = server.connections.load(Ordering::Relaxed);
    assert_eq!(
        after,
        before + 1,
        "{}: a broken connection is reused",
        row.name
    );
}

#[tokio::test]
async fn each_fault_of_a_single_upstream_has_its_answer() {
    let (gateway, rows) = play(|url| format!("url = \"{url}\"")).await;
    all(rows
        .into_iter()
        .map(|played| alone(gateway.clone(), played)))
    .await;
}

/// What clients get where another replica works.
async fn beside_another(gateway: Arc<Gateway>, played: Played) {
    let gateway = &*gateway;
    let Played { row, name, .. } = &played;
    for _ in 0..MAX_REQUESTS {
        let (got, _) = ask(gateway, name).await;
        match &got {
            Got::Whole(200, body) => assert_eq!(body, BODY, "{}", row.name),
            // Bytes of the answer have gone to the client.
            Got::Cut(200, body) => {
                assert!(
                    row.is_cut && BODY.starts_with(body),
                    "{}: {got:?}",
                    row.name
                );
            }
            _ => panic!("{}: {got:?}", row.name),
        }
        let status = gateway.status().await;
        let replicas = &domain(&status, name)["upstream_replicas"];
        assert_eq!(
            replicas[1]["state"], "in-service",
            "{}: {replicas}",
            row.name
        );
        assert_eq!(replicas[1]["health"]["last_failure"], Value::Null);
        for replica in replicas.as_array().unwrap() {
            assert_eq!(replica["requests_in_flight"], 0, "{}: {replicas}", row.name);
        }
        if replicas[0]["state"] == "ejected" {
            let reason = replicas[0]["ejected"]["reason"].as_str().unwrap();
            let is_checked = ["timeout", "connect-timeout"].contains(&reason);
            assert!(
                row.reasons.contains(&reason) || is_checked,
                "{}: {replicas}",
                row.name
            );
            assert!(row.reasons != ["-"], "{}: {replicas}", row.name);
            return;
        }
    }
    assert_eq!(row.reasons, ["-"], "{}: it was never ejected", row.name);
}

/// Every second one goes to the broken replica, and five failures eject it.
const MAX_REQUESTS: usize = 14;

#[tokio::test]
async fn each_fault_of_one_replica_ejects_it_and_the_other_one_answers() {
    let good = FaultyServer::start(Kind::None).await;
    let (gateway, rows) = play(|url| {
        let good = good.url_like(url);
        format!("urls = [\"{url}\", \"{good}\"]")
    })
    .await;
    let rows = rows.into_iter();
    let rows = rows.filter(|played| played.row.kind != Kind::PlainHttp);
    all(rows.map(|played| beside_another(gateway.clone(), played))).await;
}
