//! The clients. Each has one connection at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::tally::{Role, Tally, Unmet, expect};
use crate::harness::lasting_client::{
    BrokenPush, Handshakes, LastingClient, LastingEndpoint, numbered_blob,
};
use crate::upgrade::fixture::Service;

/// All clients.
pub(super) struct Load(JoinSet<()>);

struct SoakClient {
    client: LastingClient,
    tally: Arc<Tally>,
}

/// What is read again and again.
struct Content {
    target: String,
    bytes: Bytes,
}

impl Load {
    pub(super) async fn start(service: &Service, tally: &Arc<Tally>) -> Self {
        let handshakes = Arc::<Handshakes>::default();
        let client = |host, alpn| SoakClient {
            client: LastingEndpoint {
                address: service.https,
                host,
                config: service.client_config(alpn),
                handshakes: handshakes.clone(),
            }
            .client(),
            tally: tally.clone(),
        };
        let [store, replicas] = ["ci.test", "replicas.test"];
        let large = client(store, "http/1.1").prepare(LARGE_BYTES).await;
        let at_replicas = client(replicas, "http/1.1").prepare(LARGE_BYTES).await;
        let small = client(replicas, "http/1.1").prepare(SMALL_BYTES).await;
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            for alpn in ["http/1.1", "h2"] {
                for host in [store, replicas] {
                    tasks.spawn(client(host, alpn).ask());
                }
                let read = |host, role, content: &Arc<Content>| {
                    client(host, alpn).read(role, content.clone())
                };
                tasks.spawn(read(store, Role::StoreRead, &large));
                tasks.spawn(read(replicas, Role::LargeRead, &at_replicas));
                tasks.spawn(read(replicas, Role::SmallRead, &small));
                let number = 2 * number + u64::from(alpn == "h2");
                tasks.spawn(client(store, alpn).push(Role::StorePush, number));
                tasks.spawn(client(replicas, alpn).push(Role::ReplicaPush, number));
            }
        }
        Self(tasks)
    }

    /// Waits for what is in progress.
    pub(super) async fn end(mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.unwrap();
        }
    }
}

impl SoakClient {
    async fn send(&mut self, method: Method, target: &str, status: u16) -> Result<Bytes, Unmet> {
        let answer = self.client.send(method, target, None, Bytes::new()).await;
        expect(answer, status).map(|answer| answer.body)
    }

    /// Pushes what others read.
    async fn prepare(mut self, bytes: usize) -> Arc<Content> {
        let (content, digest) = numbered_blob(u64::MAX, bytes);
        let pushed = self.client.push_parts("read", &content, bytes, &digest);
        pushed.await.expect("pushed");
        Arc::new(Content {
            target: format!("/v2/read/blobs/{digest}"),
            bytes: content,
        })
    }

    async fn ask(mut self) {
        while self.tally.goes_on() {
            let began = Instant::now();
            let done = self.send(Method::GET, "/v2/", 200).await.map(drop);
            self.tally.count(Role::Ask, began, done);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(mut self, role: Role, content: Arc<Content>) {
        while self.tally.goes_on() {
            let began = Instant::now();
            let done = self.read_once(&content.target, &content.bytes).await;
            self.tally.count(role, began, done);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_once(&mut self, target: &str, content: &Bytes) -> Result<(), Unmet> {
        let body = self.send(Method::GET, target, 200).await?;
        if body == *content {
            Ok(())
        } else {
            Err(Unmet::Failed(format!("{target}: other content")))
        }
    }

    /// Pushes a few images again and again, so that they take no more space.
    async fn push(mut self, role: Role, number: u64) {
        let repository = format!("pushed/{number}");
        let images: Vec<_> = (0..IMAGES)
            .map(|image| numbered_blob(number * IMAGES + image, PUSHED_BYTES))
            .collect();
        for (content, digest) in images.iter().cycle() {
            if !self.tally.goes_on() {
                break;
            }
            let began = Instant::now();
            let done = self.push_once(&repository, content, digest).await;
            self.tally.count(role, began, done);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Pushes an image with one blob, and pulls it.
    async fn push_once(
        &mut self,
        repository: &str,
        content: &Bytes,
        digest: &str,
    ) -> Result<(), Unmet> {
        let parts = PUSHED_BYTES / 4;
        let pushed = self.client.push_parts(repository, content, parts, digest);
        if let Err(BrokenPush { step, answer }) = pushed.await {
            let unmet = expect(*answer, 0).expect_err("not what it should be");
            return Err(match unmet {
                Unmet::Failed(what) | Unmet::Cut(what) => Unmet::Failed(format!("{step}: {what}")),
                refused @ Unmet::Refused(..) => refused,
            });
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let config = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": content.len(),
        });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [],
        });
        let manifest = Bytes::from(manifest.to_string());
        let target = format!("/v2/{repository}/manifests/latest");
        let put = self
            .client
            .send(Method::PUT, &target, Some(kind), manifest.clone());
        expect(put.await, 201)?;
        self.read_once(&target, &manifest).await?;
        self.read_once(&format!("/v2/{repository}/blobs/{digest}"), content)
            .await
    }
}

/// Of each kind, for each protocol.
const CLIENTS: u64 = 2;
/// Those that read much from the replicas, and those that push to them.
pub(super) const REPLICA_CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
const SMALL_BYTES: usize = 1000;
const LARGE_BYTES: usize = 1 << 20;
const PUSHED_BYTES: usize = 512 << 10;
const IMAGES: u64 = 4;
