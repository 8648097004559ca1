//! The response to plain HTTP on a TLS port.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::registry::call::is_api;
use crate::registry::error_code::{ErrorCode, error_body};

/// A connection that began with a plain HTTP request, of which nothing has been answered.
#[derive(Debug)]
pub(crate) struct PlainHttp<IO> {
    pub(crate) io: IO,
    /// What has been read of the request.
    pub(crate) read: Vec<u8>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> PlainHttp<IO> {
    /// Sends a 400 that names https, and closes the connection so that the client can read it.
    ///
    /// What the client still sends is read and dropped, for a bounded time and size: closing a
    /// socket with unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6).
    pub(crate) async fn refuse(mut self) -> io::Result<()> {
        let refuse = async {
            self.read_request_line().await?;
            self.io.write_all(response(&self.read).as_bytes()).await?;
            self.io.shutdown().await?;
            let mut dropped = 0;
            let mut bytes = [0; 1024];
            while dropped < MAX_DISCARDED {
                let count = self.io.read(&mut bytes).await?;
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

    /// Reads to the end of the first line, or of as much of it as matters.
    async fn read_request_line(&mut self) -> io::Result<()> {
        while self.read.len() < MAX_REQUEST_LINE && !self.read.contains(&b'\n') {
            if self.io.read_buf(&mut self.read).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The whole response to a request that begins like this.
fn response(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let mut words = text.split_ascii_whitespace();
    let is_head = words.next() == Some("HEAD");
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    // Clients of the registry protocol show nothing but the message of its error document.
    let (media_type, body) = if is_api(path) {
        let document = error_body(ErrorCode::Denied, LOGIN_MESSAGE, None);
        ("application/json", document)
    } else {
        ("text/plain; charset=utf-8", MESSAGE.to_owned())
    };
    let length = body.len();
    let body = if is_head { "" } else { &body };
    format!(
        "HTTP/1.1 400 Bad Request\r\n\
         Content-Type: {media_type}\r\n\
         Content-Length: {length}\r\n\
         Connection: close\r\n\
         \r\n\
         {body}"
    )
}

const MESSAGE: &str = "This port speaks HTTPS, and the request came in plain HTTP. \
    Use https://, and take the registry out of \"insecure-registries\".\n";
/// Docker falls back to plain HTTP for a registry on a loopback address if it has no login that it
/// could answer the challenge with, and shows only the last error.
const LOGIN_MESSAGE: &str = "log in first, with docker login: without a login, Docker repeats the \
    request in plain HTTP, and this port speaks HTTPS. If you are logged in, use https://, and \
    take the registry out of \"insecure-registries\"";
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DISCARDED: usize = 64 * 1024;
const MAX_REQUEST_LINE: usize = 1024;
