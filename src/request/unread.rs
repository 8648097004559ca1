//! The body of a request that is refused. A long one is left where it is: the answer comes at once.
//! A short one is taken first, as servers in Go do, whose clients are used to it: containerd's
//! pusher waits for ever when a manifest is refused before it has been taken. The connection ends
//! in either case.

use std::time::Duration;

use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::conn_info::{ConnInfo, Protocol};

/// Takes a body that is short and on its way, and throws it away.
pub(crate) async fn take_short(conn: &ConnInfo, headers: &HeaderMap, mut body: Incoming) {
    let length = body.size_hint().exact().unwrap_or(u64::MAX);
    // HTTP/2 ends a stream alone; who waits for a word before the body is told no with the answer.
    if conn.protocol == Protocol::Http2 || length > SHORT || headers.contains_key(header::EXPECT) {
        return;
    }
    let taking = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever does not send it gets the answer all the same.
    let _: Result<(), _> = tokio::time::timeout(PATIENCE, taking).await;
}

/// Manifests are shorter, layers seldom.
const SHORT: u64 = 64 << 10;
/// A client that has sent the head has usually sent this much too.
const PATIENCE: Duration = Duration::from_millis(250);
