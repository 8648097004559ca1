//! The answer to plain HTTP on a TLS port.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Tells the peer to use https, and ends the connection so that it gets to read that.
///
/// What the peer still sends is read and dropped, for a bounded time and amount: closing a socket
/// with unread bytes resets it, and a reset overtakes the answer (RFC 9112 §9.6).
pub async fn refuse_plain_http<IO>(mut io: IO) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let refuse = async {
        io.write_all(answer().as_bytes()).await?;
        io.shutdown().await?;
        let mut dropped = 0;
        let mut bytes = [0; 1024];
        while dropped < MOST_DROPPED {
            let count = io.read(&mut bytes).await?;
            if count == 0 {
                break;
            }
            dropped += count;
        }
        Ok(())
    };
    timeout(PATIENCE, refuse)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn answer() -> String {
    let length = SENTENCE.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         \r\n\
         {SENTENCE}"
    )
}

const SENTENCE: &str = "This port speaks HTTPS, and the request came in plain HTTP. \
    Use https://, and take the registry out of \"insecure-registries\".\n";
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_DROPPED: usize = 64 * 1024;
