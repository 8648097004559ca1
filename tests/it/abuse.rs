//! What clients and upstreams do to break a proxy, from the histories of those that broke: each
//! test sees both sides, what went in and what came out.

mod answers;
mod framing;
mod http2;
mod mutations;
mod passwords;
mod paths;
mod requests;
mod uploads;

use crate::harness::wire::Request;
use crate::harness::{Domain, Gateway, Origin, RawPeer, Setup, basic, settle};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

type Client = RawPeer<TlsStream<TcpStream>>;

/// A gateway with `alice` and `bob` at `ci.test` and `carol` at `other.test`, and the two origins.
struct AttackedGateway {
    gateway: Gateway,
    origin: Origin,
    other: Origin,
}

impl AttackedGateway {
    async fn new() -> Self {
        let (origin, other) = (Origin::new().await, Origin::new().await);
        let ci = Domain::new("ci.test", &origin.url()).user("bob", "hunter2");
        let second = Domain::new("other.test", &other.url()).user("carol", "secret3");
        let gateway = Setup::new().domain(ci).domain(second).start().await;
        Self {
            gateway,
            origin,
            other,
        }
    }

    /// Asserts that the last connection to the upstream is in order: bob, on another connection,
    /// gets the response to bob's request. Returns the requests that the upstream saw before, none
    /// of them malformed.
    async fn seen(&self) -> Vec<Request> {
        settle().await;
        let mut bob = self.gateway.client().await;
        bob.send(ask(
            "GET",
            BOBS,
            &[("Authorization", &basic("bob", "hunter2"))],
        ))
        .await;
        let (head, body) = bob.answer().await;
        assert_eq!(head.status(), 200);
        assert_eq!(String::from_utf8_lossy(&body), format!("GET {BOBS}"));
        let seen = self.origin.take();
        assert!(seen.malformed.is_empty(), "{seen:?}");
        let (last, before) = seen.whole.split_last().unwrap();
        assert_eq!(last.target(), BOBS, "{seen:?}");
        assert!(self.other.requests().is_empty());
        before.to_vec()
    }

    /// Asserts that the upstream got nothing whole, and that bob is served.
    async fn untouched(&self) {
        assert_eq!(self.seen().await, []);
    }
}

const BOBS: &str = "/v2/bobs/tags/list";
/// What an attacker would like to hide in something else.
const HIDDEN: &str = "/v2/hidden/tags/list";

/// A request for `ci.test`, with these header lines only.
fn ask(method: &str, target: &str, lines: &[(&str, &str)]) -> String {
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} {target} HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n")
}

/// A whole request of alice's that must not be seen where it is hidden.
fn hidden() -> String {
    ask(
        "GET",
        HIDDEN,
        &[("Authorization", &basic("alice", "secret"))],
    )
}

/// Asserts that one answer of this status comes, and then the end of the connection.
async fn refused(client: &mut Client, status: u16, attack: impl AsRef<[u8]>) {
    let (head, _) = client.answer().await;
    assert_eq!(
        head.status(),
        status,
        "{:?}",
        String::from_utf8_lossy(attack.as_ref())
    );
    client.ended().await;
}
