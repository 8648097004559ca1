//! More than there may be, of each thing that has a bound: who is refused, who waits, and that what
//! ends makes room again.

mod clients;
mod descriptors;
mod floods;
mod idle_memory;
mod latency;
mod passwords;
mod upstream_connections;
mod users;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{Gateway, RawPeer};

type HttpsClient = RawPeer<TlsStream<TcpStream>>;

/// What `/status` says of a resource.
async fn resource(gateway: &Gateway, name: &str) -> Value {
    let mut status = gateway.status().await;
    let all = status["resources"].as_array_mut().unwrap();
    let found = all.iter_mut().find(|shown| shown["resource"] == name);
    found.unwrap().take()
}

/// Its use, its limit, and what was refused because of it.
async fn counts(gateway: &Gateway, name: &str) -> [u64; 3] {
    let shown = resource(gateway, name).await;
    ["used", "limit", "refused"].map(|key| shown[key].as_u64().unwrap())
}
