//! Accepts connections and passes each to a worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::limits::{ConnectionLimits, ConnectionPermit};

/// After a failure of the system, for instance for lack of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`. Closes those of a client that has too many already, unless it
/// is a trusted proxy, which has the connections of many clients.
///
/// Each connection takes a permit of `limits`; when there is none, because requests are open on all
/// connections, one waits here and the others in the kernel's queue. The permit is taken after
/// `accept`, so that an idle listener occupies none.
pub(crate) async fn accept(
    listener: TcpListener,
    limits: Arc<ConnectionLimits>,
    stop: CancellationToken,
    is_trusted: impl Fn(IpAddr) -> bool,
    serve: impl Fn(TcpStream, SocketAddr, ConnectionPermit),
) {
    // Cancel-safe: what is not accepted stays in the kernel's queue.
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_connection_error(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "accept failed, retrying");
                let pause = tokio::time::sleep(ACCEPT_RETRY_INTERVAL);
                stop.run_until_cancelled(pause).await;
                continue;
            }
        };
        let mut client = None;
        if !is_trusted(peer.ip()) {
            client = limits.admit_client(peer.ip());
            if client.is_none() {
                continue;
            }
        }
        let mut permit = pin!(limits.permit(client));
        let Some(permit) = stop.run_until_cancelled(&mut permit).await else {
            // Another process may want the address. This client was accepted and is served yet.
            drop(listener);
            return serve(stream, peer, permit.await);
        };
        serve(stream, peer, permit);
    }
}

/// Whether the error concerns one connection, closed before `accept`, and not the listener.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
