//! Accepts connections and hands each to a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long to wait when the system cannot give a connection: descriptors come back as others end.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts until `stop`. Each connection comes with its share of the process's bound; while that is
/// used up, none is accepted and the kernel's queue fills.
pub(crate) async fn accept(
    listener: TcpListener,
    bound: Arc<Semaphore>,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let next = async {
        loop {
            let Ok(permit) = bound.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => serve(stream, peer, permit),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted, waiting for others to end");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    };
    // Dropping `accept` in the middle loses nothing: a connection is taken whole or not at all.
    stop.run_until_cancelled(next).await;
}

/// A connection that was gone before it was accepted says nothing of the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
