//! Hands large writes to TLS in small pieces, because of how they are copied there.

// rustls copies each record out of what it is given. glibc copies from 2112 bytes on (with FSRM; 8
// KiB without) by `rep movsb`, which is several times slower on Zen processors when source and
// target begin at the same offset of a page (glibc bug 30994), and whole buffers do: a download
// cost 1.24 s of processor time per GiB, and 0.81 s without that instruction. Pieces are copied by
// the usual loop, into the same records.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Below glibc's threshold, and a divisor of a record.
pub(super) const PIECE: usize = 2 * 1024;
/// Four records of pieces, and what comes before them: a chunk's or a frame's head.
const MOST: usize = 4 * 16 * 1024 / PIECE + 4;

/// A vectored write whose slices are cut into pieces. It may write less than it was given.
pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if bufs.iter().all(|buf| buf.len() <= PIECE) {
        return Pin::new(io).poll_write_vectored(cx, bufs);
    }
    let mut pieces = [IoSlice::new(&[]); MOST];
    let all = bufs.iter().flat_map(|buf| buf.chunks(PIECE));
    let mut count = 0;
    for (slot, piece) in pieces.iter_mut().zip(all) {
        *slot = IoSlice::new(piece);
        count += 1;
    }
    let (used, _) = pieces.split_at(count);
    Pin::new(io).poll_write_vectored(cx, used)
}
