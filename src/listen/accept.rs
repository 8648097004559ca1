//! Accepts connections and passes each to a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// After a failure of the system, for instance for lack of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`. Each takes a permit of `connections`; when none is left, one
/// connection waits here and the others in the kernel's queue. The permit is taken after `accept`, so
/// that an idle listener occupies none.
pub(crate) async fn accept(
    listener: TcpListener,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let next = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Ok(permit) = connections.clone().acquire_owned().await else {
                        return;
                    };
                    serve(stream, peer, permit);
                }
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed, retrying");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    };
    // Dropping this loses at most the connection that waits for a permit.
    stop.run_until_cancelled(next).await;
}

/// Whether the error concerns one connection, closed before `accept`, and not the listener.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
