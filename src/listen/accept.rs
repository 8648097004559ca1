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
/// used up, one waits here for a share and the others in the kernel's queue. A share is taken for a
/// connection that is there, never ahead of it: else each idle listener would keep one from the
/// others.
pub(crate) async fn accept(
    listener: TcpListener,
    bound: Arc<Semaphore>,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let next = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Ok(permit) = bound.clone().acquire_owned().await else {
                        return;
                    };
                    serve(stream, peer, permit);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted, waiting for others to end");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    };
    // Dropping this in the middle loses at most the connection that waits for its share.
    stop.run_until_cancelled(next).await;
}

/// A connection that was gone before it was accepted says nothing of the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
