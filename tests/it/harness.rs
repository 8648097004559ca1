//! A gateway in this process, between a client and an upstream that the test plays both itself,
//! byte by byte. Everything runs on one thread, so that a test may move the clock.

pub mod between;
pub mod frames;
pub mod gateway;
pub mod http2;
pub mod origin;
pub mod peer;
pub mod upstream;
pub mod wire;

use std::time::Duration;

pub use between::Between;
pub use gateway::{Domain, Gateway, Setup, basic, request};
pub use http2::{Http2, no_body, request2};
pub use origin::Origin;
pub use peer::{Head, Peer};
pub use upstream::{Upstream, tls_server};

/// Moves the clock at once; what is due then runs. The clock goes on as usual afterwards.
pub async fn jump(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    settle().await;
}

/// The JSON of a body.
pub fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// Lets everything that is ready on this thread run: enough rounds for a chain of tasks.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
