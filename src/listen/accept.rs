//! Accepts connections and passes each to a worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
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
    let next = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let mut client = None;
                    if !is_trusted(peer.ip()) {
                        client = limits.admit_client(peer.ip());
                        if client.is_none() {
                            continue;
                        }
                    }
                    let permit = limits.permit(client).await;
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
