//! Writes large buffers to TLS in small chunks, because of how rustls copies them.

// rustls copies each record out of what it is given. glibc copies from 2112 bytes on (with FSRM; 8
// KiB without) by `rep movsb`, which is several times slower on Zen processors when source and
// target begin at the same offset of a page (glibc bug 30994), and whole buffers do: a download
// cost 1.24 s of processor time per GiB, and 0.81 s without that instruction. Chunks are copied by
// the usual loop, into the same records.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Below glibc's threshold, and a divisor of a record.
pub(super) const CHUNK_SIZE: usize = 2 * 1024;
/// Four records of chunks, and what comes before them: the head of an HTTP/1.1 chunk or a frame.
const MAX_SLICES: usize = 4 * 16 * 1024 / CHUNK_SIZE + 4;

/// A vectored write whose slices are cut into chunks. May write less than it is given.
pub(super) fn poll_write_chunked<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if bufs.iter().all(|buf| buf.len() <= CHUNK_SIZE) {
        return Pin::new(io).poll_write_vectored(cx, bufs);
    }
    let mut chunks = [IoSlice::new(&[]); MAX_SLICES];
    let all = bufs.iter().flat_map(|buf| buf.chunks(CHUNK_SIZE));
    let mut count = 0;
    for (slot, chunk) in chunks.iter_mut().zip(all) {
        *slot = IoSlice::new(chunk);
        count += 1;
    }
    let (used, _) = chunks.split_at(count);
    Pin::new(io).poll_write_vectored(cx, used)
}
