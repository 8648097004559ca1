//! Replicas that the test plays, and a gateway before them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Domain, Gateway, Head, RawPeer, RegistryClient, Setup};

pub const LIST: &str = "/v2/a/tags/list";
pub const UPLOADS: &str = "/v2/a/blobs/uploads/";

/// What a replica does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Good,
    /// Does not answer.
    Silent,
    /// 503
    Unavailable,
    /// Closes the connection.
    Closing,
}

const MODES: [Mode; 4] = [Mode::Good, Mode::Silent, Mode::Unavailable, Mode::Closing];

/// One replica.
pub struct PlayedReplica {
    pub address: SocketAddr,
    index: usize,
    mode: AtomicU8,
    /// Method and target of each request.
    seen: Mutex<Vec<String>>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl PlayedReplica {
    async fn start(index: usize) -> Arc<Self> {
        let listener = TcpListener::bind("127.94.2.1:0").await.unwrap();
        let replica = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            index,
            mode: AtomicU8::new(Mode::Good as u8),
            seen: Mutex::default(),
            listening: Mutex::default(),
        });
        replica.listen(listener);
        replica
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Ends as a process that is killed: with all of its connections.
    pub async fn kill(&self) {
        let listening = self.listening.lock().unwrap().take().unwrap();
        listening.abort();
        let _ = listening.await;
    }

    pub async fn restart(self: &Arc<Self>) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn listen(self: &Arc<Self>, listener: TcpListener) {
        let replica = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(replica.clone().serve(RawPeer::new(socket)));
            }
        });
        *self.listening.lock().unwrap() = Some(task);
    }

    async fn serve(self: Arc<Self>, mut peer: RawPeer<TcpStream>) {
        while let Some(head) = peer.try_head().await {
            assert_eq!(head.get("host"), Some(&*self.address.to_string()));
            let mut words = head.first.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            self.seen.lock().unwrap().push(format!("{method} {target}"));
            match MODES[usize::from(self.mode.load(Ordering::Relaxed))] {
                Mode::Closing => return,
                Mode::Silent => {
                    peer.rest().await;
                    return;
                }
                Mode::Unavailable => {
                    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                    peer.send(answer).await;
                    continue;
                }
                Mode::Good => {}
            }
            peer.bytes(head.length().unwrap_or(0)).await;
            let answer = self.answer(method, target, &head);
            if peer.try_send(answer).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, target: &str, _: &Head) -> String {
        let (index, url) = (self.index, self.url());
        let session = target.split(['?']).next().unwrap();
        match method {
            "POST" => format!(
                "HTTP/1.1 202 Accepted\r\nLocation: {url}{UPLOADS}s-{index}?_state=x\r\n\
                 Content-Length: 0\r\n\r\n"
            ),
            "PATCH" => format!(
                "HTTP/1.1 202 Accepted\r\nLocation: {session}?_state=y\r\nContent-Length: 0\r\n\r\n"
            ),
            "PUT" => "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "DELETE" => "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{index}"),
        }
    }
}

/// A gateway before replicas.
pub struct Replicas {
    pub gateway: Gateway,
    pub all: Vec<Arc<PlayedReplica>>,
}

impl Replicas {
    pub async fn new(count: usize) -> Self {
        Self::with(count, "", "").await
    }

    /// `keys`: of `[upstream]`; `tables`: further ones.
    pub async fn with(count: usize, keys: &str, tables: &str) -> Self {
        let mut all = Vec::new();
        for index in 0..count {
            all.push(PlayedReplica::start(index).await);
        }
        let domain = domain(all.iter(), keys, tables);
        let gateway = Setup::new().domain(domain).start().await;
        Self { gateway, all }
    }

    pub fn client(&self) -> RegistryClient {
        RegistryClient::through(&self.gateway)
    }

    /// What `/status` says of each replica.
    pub async fn status(&self) -> Vec<Value> {
        let status = self.gateway.status().await;
        let replicas = &status["domains"][0]["upstream_replicas"];
        replicas.as_array().unwrap().clone()
    }

    /// The states of all replicas.
    pub async fn states(&self) -> Vec<String> {
        let status = self.status().await;
        let states = status
            .iter()
            .map(|replica| replica["state"].as_str().unwrap());
        states.map(str::to_owned).collect()
    }

    /// Reads the list that many times. Returns how often each replica answered.
    pub async fn answers(&self, count: usize) -> Vec<usize> {
        let mut answers = vec![0; self.all.len()];
        for _ in 0..count {
            let answer = self.client().get(LIST).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let index: usize = std::str::from_utf8(&answer.body).unwrap().parse().unwrap();
            answers[index] += 1;
        }
        answers
    }
}

/// The domain `ci.test` before these replicas.
pub fn domain<'r>(
    replicas: impl Iterator<Item = &'r Arc<PlayedReplica>>,
    keys: &str,
    tables: &str,
) -> Domain {
    let urls: Vec<_> = replicas
        .map(|replica| format!("{:?}", replica.url()))
        .collect();
    let keys = format!("urls = [{}]\n{keys}", urls.join(", "));
    Domain::new("ci.test", "").upstream(&keys).tables(tables)
}
