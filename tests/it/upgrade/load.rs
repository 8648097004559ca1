//! Upgrades and reloads under load: nothing is refused, reset or failed, and every digest is right.
//!
//! `MOORGATE_UPGRADE_LOAD=full`: ten upgrades and fifty reloads under 200 requests a second, 20
//! pushes and 20 pulls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::task::JoinHandle;

use super::fixture::Service;
use crate::harness::lasting_client::{Handshakes, LastingClient, LastingEndpoint, numbered_blob};
use crate::harness::played;
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{Domain, Setup};

struct Load {
    upgrades: usize,
    /// Before each upgrade.
    reloads: usize,
    /// Requests in a second, over HTTP/1.1 and HTTP/2.
    rate: u32,
    pushes: usize,
    pulls: usize,
}

impl Load {
    fn from_environment() -> Self {
        if std::env::var_os("MOORGATE_UPGRADE_LOAD").is_some_and(|load| load == "full") {
            return Self {
                upgrades: 10,
                reloads: 5,
                rate: 200,
                pushes: 20,
                pulls: 20,
            };
        }
        Self {
            upgrades: 3,
            reloads: 2,
            rate: 40,
            pushes: 2,
            pulls: 2,
        }
    }
}

/// What all clients have done.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    transfers: AtomicU64,
    stop: AtomicBool,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Waits for so many more requests, two transfers among them.
    async fn progress(&self, requests: u64, clients: &[JoinHandle<()>]) {
        let due = self.requests.load(Ordering::Relaxed) + requests;
        let due_transfers = self.transfers.load(Ordering::Relaxed) + 2;
        while self.requests.load(Ordering::Relaxed) < due
            || self.transfers.load(Ordering::Relaxed) < due_transfers
        {
            let has_failed = clients.iter().any(JoinHandle::is_finished);
            assert!(!has_failed, "a client failed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A client that gets what it asks for.
struct Client {
    client: LastingClient,
    counts: Arc<Counts>,
}

impl Client {
    fn new(endpoint: &LastingEndpoint, counts: &Arc<Counts>) -> Self {
        Self {
            client: endpoint.client(),
            counts: counts.clone(),
        }
    }

    async fn send(&mut self, method: Method, target: &str, body: Bytes) -> ClientAnswer {
        let answer = self.client.send(method, target, None, body).await;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        answer.expect("a whole answer")
    }

    /// Asks again and again, at most so often.
    async fn ask(mut self, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.counts.goes_on() {
            tick.tick().await;
            let answer = self.send(Method::GET, "/v2/", Bytes::new()).await;
            answer.expect(200);
        }
    }

    /// Pushes blobs in chunks, each with another content.
    async fn push(mut self, number: u64) {
        for round in 0.. {
            if !self.counts.goes_on() {
                break;
            }
            let (content, digest) = numbered_blob(number * 1_000_000 + round, BLOB_BYTES);
            let repository = format!("pushed/{number}");
            let pushed = self
                .client
                .push_parts(&repository, &content, CHUNK_BYTES, &digest)
                .await;
            pushed.expect("pushed");
            self.counts
                .requests
                .fetch_add(REQUESTS_OF_A_PUSH, Ordering::Relaxed);
            self.pull_once(&repository, &digest).await;
        }
    }

    async fn pull(mut self, digest: String) {
        while self.counts.goes_on() {
            self.pull_once("pulled", &digest).await;
        }
    }

    async fn pull_once(&mut self, repository: &str, digest: &str) {
        let target = format!("/v2/{repository}/blobs/{digest}");
        let answer = self.send(Method::GET, &target, Bytes::new()).await;
        answer.expect(200);
        assert_eq!(played::digest(&answer.body), digest);
        self.counts.transfers.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_reloads_under_load_lose_nothing() {
    let load = Load::from_environment();
    let service = Arc::new(Service::start());
    let counts = Arc::<Counts>::default();
    let handshakes = Arc::<Handshakes>::default();
    let [http1, http2] = ["http/1.1", "h2"].map(|alpn| LastingEndpoint {
        address: service.https,
        host: "ci.test",
        config: service.client_config(alpn),
        handshakes: handshakes.clone(),
    });
    let (content, digest) = numbered_blob(u64::MAX, BLOB_BYTES);
    let mut first = Client::new(&http1, &counts);
    let target = format!("/v2/pulled/blobs/uploads/?digest={digest}");
    let answer = first.send(Method::POST, &target, content).await;
    answer.expect(201);
    let mut tasks = Vec::new();
    let every = Duration::from_secs(1) * ASKING_CLIENTS / load.rate;
    for number in 0..ASKING_CLIENTS {
        let endpoint = if number % 2 == 0 { &http1 } else { &http2 };
        let client = Client::new(endpoint, &counts);
        tasks.push(tokio::spawn(client.ask(every)));
    }
    for number in 0..load.pushes as u64 {
        let client = Client::new(&http1, &counts);
        tasks.push(tokio::spawn(client.push(number)));
    }
    for number in 0..load.pulls {
        let endpoint = if number % 2 == 0 { &http1 } else { &http2 };
        let client = Client::new(endpoint, &counts);
        tasks.push(tokio::spawn(client.pull(digest.clone())));
    }
    for upgrade in 0..load.upgrades {
        for reload in 0..load.reloads {
            counts.progress(u64::from(load.rate), &tasks).await;
            let own = service.clone();
            let alias = format!("alias-{upgrade}-{reload}.test");
            on_a_thread(move || reload_with(&own, &alias)).await;
        }
        counts.progress(u64::from(load.rate), &tasks).await;
        let own = service.clone();
        on_a_thread(move || own.upgrade()).await;
    }
    counts.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (again, resumed) = (count(&handshakes.again), count(&handshakes.resumed));
    let (requests, transfers) = (count(&counts.requests), count(&counts.transfers));
    println!("{requests} requests, {transfers} transfers, {resumed} of {again} sessions resumed");
    assert!(
        again > 0 && resumed * 100 >= again * 95,
        "{resumed} of {again}"
    );
    assert_eq!(service.metric("moorgate_password_hashes_total").await, 0.0);
}

/// Changes the domain of all clients.
fn reload_with(service: &Service, alias: &str) {
    let domain = Domain::store("ci.test", "ci").top(&format!("aliases = [\"{alias}\"]"));
    Setup::new().domain(domain).write_domains(service.path());
    let output = service.cli(&["reload"]);
    assert!(output.status.success(), "{output:?}\n{}", service.said());
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

const ASKING_CLIENTS: u32 = 8;
const CHUNKS: usize = 4;
const CHUNK_BYTES: usize = 256 << 10;
const BLOB_BYTES: usize = CHUNKS * CHUNK_BYTES;
const REQUESTS_OF_A_PUSH: u64 = CHUNKS as u64 + 2;
