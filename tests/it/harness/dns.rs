//! A DNS server that the test plays: it knows what it is told, and says of everything else that it
//! does not exist.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// The server. It ends with the test's runtime.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    records: HashMap<(String, u16), Vec<Vec<u8>>>,
    broken: bool,
}

const A: u16 = 1;
const TXT: u16 = 16;
const CAA: u16 = 257;

impl Dns {
    pub async fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, zone) = (
            socket.local_addr().unwrap(),
            Arc::new(Mutex::new(Zone::default())),
        );
        let known = zone.clone();
        tokio::spawn(async move {
            let mut question = vec![0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question).await {
                let answer = known.lock().unwrap().answer(&question[..length]);
                let _ = socket.send_to(&answer, peer).await;
            }
        });
        Self { address, zone }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A name leads to an address.
    pub fn leads(&self, name: &str, address: Ipv4Addr) {
        self.set(name, A, vec![address.octets().to_vec()]);
    }

    /// A name has a text.
    pub fn says(&self, name: &str, text: &str) {
        let strings = text.as_bytes().chunks(255);
        let data = strings
            .flat_map(|part| [&[u8::try_from(part.len()).unwrap()], part].concat())
            .collect();
        self.set(name, TXT, vec![data]);
    }

    /// Only this CA may issue for a name and those below it.
    pub fn allows(&self, name: &str, issuer: &str) {
        self.set(
            name,
            CAA,
            vec![[b"\x00\x05issue", issuer.as_bytes()].concat()],
        );
    }

    /// From now on it only says that it is out of order.
    pub fn break_down(&self) {
        self.zone.lock().unwrap().broken = true;
    }

    fn set(&self, name: &str, kind: u16, data: Vec<Vec<u8>>) {
        self.zone
            .lock()
            .unwrap()
            .records
            .insert((name.to_owned(), kind), data);
    }
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let (name, end) = name(question);
        let kind = u16::from_be_bytes([question[end], question[end + 1]]);
        let found = self.records.get(&(name.clone(), kind));
        let exists = self.records.keys().any(|(known, _)| *known == name);
        let code = if self.broken {
            2
        } else if exists {
            0
        } else {
            3
        };
        let found = found
            .filter(|_| !self.broken)
            .map_or(&[][..], Vec::as_slice);
        let mut answer = question[..end + 4].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        answer[6..12].copy_from_slice(&[0, u8::try_from(found.len()).unwrap(), 0, 0, 0, 0]);
        for data in found {
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 60]);
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        answer
    }
}

/// The name that is asked for, and where it ends.
fn name(question: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..=at + length]).to_lowercase());
        at += 1 + length;
    }
    (labels.join("."), at + 1)
}
