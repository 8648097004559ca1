//! Debian's docker-registry 2.8, which deletes no tags, and a server in front of it that keeps what
//! moorgate asks and disturbs it where a test says so.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::harness::{Domain, Gateway, RawPeer, Setup};
use crate::real_peers::ports::free_port;
use crate::real_peers::process::{Process, command, tool};
use crate::store::client::{Client, Endpoint};

/// What happens to one request.
#[derive(Clone)]
pub enum Disturbance {
    /// It is answered so, and never reaches the registry.
    Answer(u16),
    /// The registry answers it, and nobody learns what.
    Lost,
    /// It waits for a permit.
    Held(Arc<Semaphore>),
}

type Disturbances = Arc<Mutex<Vec<(String, Disturbance)>>>;

/// The server in front of the registry.
pub struct Between {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    disturbances: Disturbances,
    _registry: Process,
    _directory: tempfile::TempDir,
}

impl Between {
    /// `deletes`: whether the registry deletes anything at all.
    pub async fn new(deletes: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (registry, port) = start(directory.path(), deletes);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let between = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            disturbances: Arc::default(),
            _registry: registry,
            _directory: directory,
        };
        let (seen, disturbances) = (between.seen.clone(), between.disturbances.clone());
        tokio::spawn(async move {
            loop {
                let peer = RawPeer::new(listener.accept().await.unwrap().0);
                tokio::spawn(serve(peer, port, seen.clone(), disturbances.clone()));
            }
        });
        between
    }

    /// Disturbs the next request that begins so (`PUT /v2/app/manifests/v1`). Of several, the first
    /// that fits counts.
    pub fn disturb(&self, request: &str, disturbance: Disturbance) {
        let mut all = self.disturbances.lock().unwrap();
        all.push((request.to_owned(), disturbance));
    }

    /// Lets the next request that begins so pass.
    pub fn spare(&self, request: &str) {
        self.disturb(request, Disturbance::Held(Arc::new(Semaphore::new(1))));
    }

    /// Method and path of what came so far; from here on anew.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// How many requests that begin so have come.
    pub fn count(&self, request: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.starts_with(request)).count()
    }

    /// Waits until so many requests that begin so have come.
    pub async fn has_seen(&self, request: &str, count: usize) {
        let seen = async {
            while self.count(request) < count {
                tokio::task::yield_now().await;
            }
        };
        crate::harness::promptly(seen).await;
    }

    /// A gateway in front of it, with further keys of `[upstream]` and tables.
    pub async fn gateway(&self, keys: &str, tables: &str) -> Gateway {
        let domain = Domain::new("ci.test", &self.url)
            .upstream(keys)
            .tables(tables);
        Setup::new()
            .domain(domain.user("root", "secret"))
            .start()
            .await
    }
}

/// A client of a gateway.
pub fn client(gateway: &Gateway) -> Client {
    Endpoint::new(gateway, "http/1.1").client()
}

fn start(directory: &Path, deletes: bool) -> (Process, u16) {
    let port = free_port();
    let yaml = format!(
        "version: 0.1\nlog: {{level: warn}}\n\
         storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: {deletes}}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\", secret: not-a-secret}}\n",
        directory.display()
    );
    let file = directory.join("registry.yml");
    std::fs::write(&file, yaml).unwrap();
    let program = tool("docker-registry", "docker-registry");
    let mut command = command(&program, directory);
    command.arg("serve").arg(file);
    let mut registry = Process::start("docker-registry", command, directory);
    registry.becomes("listening", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (registry, port)
}

async fn serve(
    mut peer: RawPeer<TcpStream>,
    registry: u16,
    seen: Arc<Mutex<Vec<String>>>,
    disturbances: Disturbances,
) {
    while let Some(head) = peer.try_head().await {
        let body = peer.bytes(head.length().unwrap_or(0)).await;
        let request = head.first.trim_end_matches(" HTTP/1.1").to_owned();
        seen.lock().unwrap().push(request.clone());
        let disturbance = {
            let mut all = disturbances.lock().unwrap();
            let found = all.iter().position(|(begin, _)| request.starts_with(begin));
            found.map(|index| all.remove(index).1)
        };
        match &disturbance {
            Some(Disturbance::Answer(status)) => {
                let answer = format!("HTTP/1.1 {status} Disturbed\r\nContent-Length: 0\r\n\r\n");
                peer.send(answer).await;
                continue;
            }
            Some(Disturbance::Held(permits)) => permits.acquire().await.unwrap().forget(),
            Some(Disturbance::Lost) | None => {}
        }
        let stream = TcpStream::connect(("127.0.0.1", registry)).await.unwrap();
        let mut behind = RawPeer::new(stream);
        let lines = head.headers.iter().filter(|(name, _)| name != "connection");
        let lines: String = lines
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let text = format!("{}\r\n{lines}connection: close\r\n\r\n", head.first);
        behind.send(text).await;
        behind.send(body).await;
        let answer = behind.rest().await;
        // The answer says that its connection ends, and so it does.
        if !matches!(disturbance, Some(Disturbance::Lost)) {
            let _ = peer.try_send(answer).await;
        }
        return;
    }
}
