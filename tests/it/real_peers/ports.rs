//! Ports for programs that have to be told where to listen before they do.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Mutex;

/// A port that nobody uses, and that no other test gets for as long as this one runs.
pub fn free_port() -> u16 {
    let mut blocks = BLOCKS.lock().unwrap();
    loop {
        if let Some(port) = blocks
            .last_mut()
            .and_then(|block| block.left.find(|port| is_free(*port)))
        {
            return port;
        }
        blocks.push(Block::claim());
    }
}

/// Ports in a row. The first one belongs to nobody's program: it is bound for as long as the
/// process lives, by which the others are this process's too, however it ends.
struct Block {
    claim: TcpListener,
    left: Range<u16>,
}

static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

impl Block {
    fn claim() -> Self {
        let (begin, count) = (first(), (end() - first()) / LENGTH);
        let number = u16::try_from(std::process::id() % u32::from(count)).unwrap();
        let numbers = (number..count).chain(0..number);
        let claimed = numbers
            .map(|number| begin + number * LENGTH)
            .find_map(|port| {
                let claim = TcpListener::bind(("0.0.0.0", port)).ok()?;
                Some(Self {
                    claim,
                    left: port + 1..port + LENGTH,
                })
            });
        claimed.expect("ports that no other test has")
    }
}

fn first() -> u16 {
    end() - 10_000
}

/// Below the ports that the system gives to connections and to port 0: those come and go by
/// themselves.
fn end() -> u16 {
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end = given.split_whitespace().next().unwrap().parse().unwrap();
    assert!(
        end > 11_024,
        "no room below the ports that are given by the system: {given}"
    );
    end
}

fn is_free(port: u16) -> bool {
    let at = ("0.0.0.0", port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

const LENGTH: u16 = 10;

#[test]
fn no_port_is_given_twice() {
    let ports: std::collections::BTreeSet<u16> = (0..100).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 100);
    assert!(
        ports
            .iter()
            .all(|port| is_free(*port) && (first()..end()).contains(port))
    );
    // Another process would look for a block with a first port that is free.
    let claims = BLOCKS.lock().unwrap();
    assert!(
        claims
            .iter()
            .all(|block| !is_free(block.claim.local_addr().unwrap().port()))
    );
}
