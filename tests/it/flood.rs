//! A flood of wrong passwords does not slow down those who know theirs.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::process::Process;
use crate::harness::{Domain, Peer, Setup, basic, request};

/// Rounds of calm and flood, one after the other.
const ROUNDS: usize = 9;
/// Requests of a round, one by one on each connection.
const REQUESTS: usize = 300;
const CONNECTIONS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_users_take_as_long_as_in_calm() {
    let upstream = answering_at_once().await;
    let domain = Domain::new("ci.test", &format!("http://{upstream}"));
    // As dear as htpasswd makes them for people who care.
    let entry = format!("alice:{}\n", bcrypt::hash("secret", 10).unwrap());
    let process = std::sync::Arc::new(Setup::new().domain(domain).unbounded().spawn(&entry, "http/1.1"));
    measure(&process).await;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let calm = measure(&process).await;
        let flood = Flood::begin(&process, round).await;
        let flooded = measure(&process).await;
        flood.end().await;
        ratios.push(flooded.as_secs_f64() / calm.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[ROUNDS / 2] < 2.0, "p99 under a flood to p99 in calm: {ratios:.2?}");
}

/// The 99th percentile of authenticated requests.
async fn measure(process: &std::sync::Arc<Process>) -> Duration {
    let clients: Vec<JoinHandle<Vec<Duration>>> = (0..CONNECTIONS)
        .map(|_| {
            let process = process.clone();
            tokio::spawn(async move {
                let mut client = Peer::new(process.tls().await);
                let mut samples = Vec::new();
                for _ in 0..REQUESTS {
                    let begun = Instant::now();
                    client.send(request("GET", "/v2/base/app/manifests/v1", "")).await;
                    assert_eq!(client.answer().await.0.status(), 200);
                    samples.push(begun.elapsed());
                }
                samples
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all.sort();
    all[all.len() * 99 / 100]
}

/// As many wrong logins at once as may wait to be checked, by known and unknown users.
struct Flood {
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    async fn begin(process: &std::sync::Arc<Process>, round: usize) -> Self {
        let (first, mut begun) = tokio::sync::mpsc::channel::<()>(1);
        let clients = (0..60)
            .map(|number| {
                let (process, first) = (process.clone(), first.clone());
                tokio::spawn(async move {
                    let mut client = Peer::new(process.tls().await);
                    let user = if number % 2 == 0 { "alice".to_owned() } else { format!("user{number}") };
                    for attempt in 0.. {
                        let authorization = basic(&user, &format!("wrong {round} {number} {attempt}"));
                        let head = format!(
                            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n"
                        );
                        client.send(head).await;
                        assert_eq!(client.answer().await.0.status(), 401);
                        let _ = first.try_send(());
                    }
                })
            })
            .collect();
        begun.recv().await.unwrap();
        Self { clients }
    }

    /// Ends it. Checks that nobody waits for any more are dropped.
    async fn end(self) {
        for client in self.clients {
            client.abort();
            if let Err(error) = client.await {
                assert!(error.is_cancelled(), "a login of the flood went wrong: {error}");
            }
        }
    }
}

async fn answering_at_once() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut registry = Peer::new(listener.accept().await.unwrap().0);
            tokio::spawn(async move {
                while registry.try_head().await.is_some() {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    if registry.try_send(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
