//! Answers that come before their request has ended, and transfers that never end: each side learns
//! of it at once, and nobody takes a part for the whole.

mod broken;
mod early;
mod expect;
mod gone;
mod http2;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::harness::{Head, RawPeer};

const UPLOAD: &str = "/v2/base/app/blobs/uploads/abc";
const BLOB: &str =
    "/v2/base/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Sends megabytes without reading, as clients do, then reads the answer and asserts a clean end.
async fn send_on_and_read<IO: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawPeer<IO>,
    part: &[u8],
    count: usize,
) -> (Head, Vec<u8>) {
    for _ in 0..count {
        client.send(part).await;
    }
    let answer = client.answer().await;
    let rest = client.rest_and_end().await;
    assert_eq!(rest.expect("a clean end, no reset"), b"");
    answer
}
