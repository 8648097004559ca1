//! How long others wait while clients take what they can get: the 99th percentile of their requests
//! stays within three times of what it is in calm.
//!
//! `MOORGATE_OVERLOAD=full`: with ten times as many connections.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::HttpsClient;
use crate::harness::played::digest;
use crate::harness::process::Process;
use crate::harness::{Domain, RawPeer, Setup, request};

/// Others wait at most so many times as long.
const MAX_RATIO: f64 = 3.0;
/// Other programs of the machine disturb one round or the other, moorgate would disturb each.
const ROUNDS: usize = 5;
const REQUESTS: usize = 300;
const BLOB_BYTES: usize = 4 << 20;

struct Load {
    process: Process,
    /// Connections of a load that has many.
    connections: u16,
    blob: String,
}

impl Load {
    async fn new() -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised).unwrap();
        let entry = Domain::htpasswd(&[("alice".into(), "secret".into())]);
        let process = Setup::new()
            .domain(Domain::store("ci.test", "ci"))
            .spawn(&entry, "http/1.1");
        let is_full = std::env::var_os("MOORGATE_OVERLOAD").is_some_and(|load| load == "full");
        let content = vec![7; BLOB_BYTES];
        let blob = digest(&content);
        let mut client = RawPeer::new(process.tls().await);
        let target = format!("/v2/a/blobs/uploads/?digest={blob}");
        let length = format!("Content-Length: {BLOB_BYTES}\r\n");
        client.send(request("POST", &target, &length)).await;
        client.send(content).await;
        assert_eq!(client.answer().await.0.status(), 201);
        Self {
            process,
            connections: if is_full { 5000 } else { 500 },
            blob,
        }
    }

    /// A connection from one of the addresses that the many clients have.
    async fn connect(&self, number: u16) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        let address = format!("127.0.1.{}:0", number % 250 + 1);
        socket.bind(address.parse().unwrap()).unwrap();
        let tcp = socket.connect(self.process.https).await.unwrap();
        self.process.tls_over(tcp).await
    }

    fn download(&self) -> String {
        request("GET", &format!("/v2/a/blobs/{}", self.blob), "")
    }

    async fn many(&self) -> Vec<TlsStream<TcpStream>> {
        let mut all = Vec::new();
        for number in 0..self.connections {
            all.push(self.connect(number).await);
        }
        all
    }

    /// The ratio of what others wait, in the best of all rounds.
    async fn ratio(&self, begin: impl AsyncFn(&Self) -> JoinSet<()>) -> f64 {
        let mut other = RawPeer::new(self.process.tls().await);
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let calm = percentile(&mut other).await;
            let load = begin(self).await;
            let loaded = percentile(&mut other).await;
            drop(load);
            println!("{calm:?} in calm, {loaded:?} under load");
            best = best.min(loaded.as_secs_f64() / calm.as_secs_f64());
        }
        best
    }
}

/// The 99th percentile of requests one after the other.
async fn percentile(client: &mut HttpsClient) -> Duration {
    let mut all = Vec::new();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        client.send(request("GET", "/v2/", "")).await;
        assert_eq!(client.answer().await.0.status(), 200);
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all[REQUESTS * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_delay_nobody() {
    let load = Load::new().await;
    let unread = async |load: &Load| {
        let mut clients = JoinSet::new();
        for mut stream in load.many().await {
            stream.write_all(load.download().as_bytes()).await.unwrap();
            clients.spawn(async move {
                let _open = stream;
                std::future::pending::<()>().await;
            });
        }
        clients
    };
    let ratio = load.ratio(unread).await;
    assert!(ratio <= MAX_RATIO, "{ratio}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end_delay_nobody() {
    let load = Load::new().await;
    let begun = async |load: &Load| {
        let mut clients = JoinSet::new();
        for mut stream in load.many().await {
            let head = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nX: ";
            stream.write_all(head.as_bytes()).await.unwrap();
            clients.spawn(async move {
                // A byte a minute, had it so much time.
                let mut tick = tokio::time::interval(Duration::from_secs(60));
                loop {
                    tick.tick().await;
                    let _ = stream.write_all(b"x").await;
                }
            });
        }
        clients
    };
    let ratio = load.ratio(begun).await;
    assert!(ratio <= MAX_RATIO, "{ratio}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_end_of_one_client_delay_nobody() {
    let load = Load::new().await;
    let address = load.process.https;
    let opened = async |load: &Load| {
        let mut clients = JoinSet::new();
        let most = usize::from(load.connections) * 2;
        clients.spawn(async move {
            let mut open = std::collections::VecDeque::new();
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                tick.tick().await;
                for _ in 0..10 {
                    if let Ok(stream) = TcpStream::connect(address).await {
                        open.push_back(stream);
                    }
                }
                while open.len() > most {
                    open.pop_front();
                }
            }
        });
        clients
    };
    // From the address of the one that measures, too: it keeps the connection that it has.
    let ratio = load.ratio(opened).await;
    assert!(ratio <= MAX_RATIO, "{ratio}");
}
