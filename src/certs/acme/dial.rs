//! Opens the TCP connection to a CA: to the first of its addresses that answers, IPv6 and IPv4 in
//! alternation.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Connects to a name or an address. The caller bounds the whole. Each address but the last has
/// [`ADDRESS_TIMEOUT`], so that one that does not answer leaves time for the others.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await?.collect();
    connect_first(&interleaved(addresses), ADDRESS_TIMEOUT).await
}

async fn connect_first(addresses: &[SocketAddr], each: Duration) -> io::Result<TcpStream> {
    let Some((last, others)) = addresses.split_last() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    };
    for address in others {
        if let Ok(Ok(stream)) = timeout(each, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    TcpStream::connect(last).await
}

/// Alternates between the address families (RFC 8305 §4), in the resolver's order otherwise: where
/// one family does not work, the second attempt uses the other.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv6()) == first);
    let mut other = other.into_iter();
    let mut all = Vec::new();
    for address in one {
        all.push(address);
        all.extend(other.next());
    }
    all.extend(other);
    all
}

/// A connection across the world takes a quarter of a second; a lost first packet costs one second
/// more.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[test]
    fn address_families_alternate_beginning_with_the_resolver_s_first() {
        let addresses = |all: &[&str]| {
            all.iter()
                .map(|one| one.parse().expect("an address"))
                .collect()
        };
        let interleaved = |all: &[&str]| interleaved(addresses(all));
        let all = [
            "[2001:db8::1]:443",
            "[2001:db8::2]:443",
            "[2001:db8::3]:443",
            "192.0.2.1:443",
        ];
        assert_eq!(
            interleaved(&all),
            addresses(&[all[0], all[3], all[1], all[2]]) as Vec<SocketAddr>
        );
        let all = ["192.0.2.1:443", "[2001:db8::1]:443", "[2001:db8::2]:443"];
        assert_eq!(interleaved(&all), addresses(&all) as Vec<SocketAddr>);
        assert_eq!(interleaved(&[]), []);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_others() {
        let full = TcpSocket::new_v4().expect("made");
        full.bind("127.0.0.1:0".parse().expect("an address"))
            .expect("bound");
        let full = full.listen(1).expect("listening");
        let at = full.local_addr().expect("bound");
        // Nothing accepts: once the backlog is full, further connections are not answered.
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) = timeout(TEST_TIMEOUT, TcpStream::connect(at)).await {
            queue.push(stream);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let live = listener.local_addr().expect("bound");
        let stream = connect_first(&[at, live], TEST_TIMEOUT)
            .await
            .expect("connected");
        assert_eq!(stream.peer_addr().expect("connected"), live);
    }

    const TEST_TIMEOUT: Duration = Duration::from_millis(200);
}
