//! A gateway in this process, between a client and an upstream that the test plays both itself,
//! byte by byte. Everything runs on one thread, so that a test may move the clock.

pub mod acme_ca;
pub mod cli;
pub mod dns;
pub mod events;
pub mod frames;
pub mod gateway;
pub mod http2;
pub mod lasting_client;
pub mod log_lines;
pub mod namespaces;
pub mod origin;
pub mod plain;
pub mod played;
pub mod process;
pub mod proxied_pair;
pub mod raw_peer;
pub mod registry_client;
pub mod transfer;
pub mod upstream;
pub mod wire;

use std::time::Duration;

pub use cli::cli;
pub use events::Events;
pub use gateway::{Domain, Gateway, Setup, basic, bound, client_config, request, start_app, url};
pub use http2::{BodySender, Feed, Http2, collect, no_body, request2};
pub use log_lines::log_lines;
pub use origin::Origin;
pub use proxied_pair::ProxiedPair;
pub use raw_peer::{Head, RawPeer};
pub use registry_client::RegistryClient;
pub use transfer::Transfer;
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
    serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

/// Lets everything that is ready on this thread run: enough rounds for a chain of tasks.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Waits for what others on this thread bring about; whether it came within a time of the real
/// clock.
pub async fn within(limit: Duration, what: impl Future<Output = ()>) -> bool {
    let begun = std::time::Instant::now();
    let mut what = std::pin::pin!(what);
    while begun.elapsed() < limit {
        tokio::select! {
            biased;
            () = &mut what => return true,
            () = tokio::task::yield_now() => {}
        }
    }
    false
}

/// Waits for what must have happened already, give or take the scheduler's delay. The limit is one
/// of the real clock, so that it holds where the other one stands still.
pub async fn promptly<T>(what: impl Future<Output = T>) -> T {
    let begun = std::time::Instant::now();
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = tokio::task::yield_now() => {}
        }
        assert!(begun.elapsed() < PATIENCE, "it does not happen by itself");
    }
}

/// A clock that stands still but for its jumps, however long the test takes.
pub struct Clock {
    _held: std::sync::mpsc::Sender<()>,
}

impl Clock {
    /// Stops the clock of this runtime. It goes on when this is dropped, at the end of the test.
    pub fn stopped() -> Self {
        let (held, free) = std::sync::mpsc::channel::<()>();
        // A paused clock jumps by itself when all tasks wait, also when they wait for sockets.
        // It does not while a blocking task runs.
        tokio::task::spawn_blocking(move || free.recv());
        tokio::time::pause();
        Self { _held: held }
    }

    /// Moves it; what is due then runs.
    pub async fn jump(&self, time: Duration) {
        settle().await;
        // Timers are rounded up to the next millisecond.
        tokio::time::advance(time + Duration::from_millis(1)).await;
        settle().await;
    }
}

/// For what happens at once on a machine that has nothing else to do.
pub const PATIENCE: Duration = seconds(60);

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
