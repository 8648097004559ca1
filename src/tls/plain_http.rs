//! The response to plain HTTP on a TLS port.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Sends a 400 that names https, and closes the connection so that the client can read it.
///
/// What the client still sends is read and dropped, for a bounded time and size: closing a socket
/// with unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6).
pub(crate) async fn refuse_plain_http<IO>(mut io: IO) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let refuse = async {
        io.write_all(response().as_bytes()).await?;
        io.shutdown().await?;
        let mut dropped = 0;
        let mut bytes = [0; 1024];
        while dropped < MAX_DISCARDED {
            let count = io.read(&mut bytes).await?;
            if count == 0 {
                break;
            }
            dropped += count;
        }
        Ok(())
    };
    timeout(LINGER_TIMEOUT, refuse)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn response() -> String {
    let length = MESSAGE.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         \r\n\
         {MESSAGE}"
    )
}

const MESSAGE: &str = "This port speaks HTTPS, and the request came in plain HTTP. \
    Use https://, and take the registry out of \"insecure-registries\".\n";
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DISCARDED: usize = 64 * 1024;
