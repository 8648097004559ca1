//! Asks DNS servers what a CA will ask: for TXT and CAA records, which the system's own resolver
//! does not give, and for addresses, into which that one mixes what only this machine knows. One
//! question, one answer, over UDP and where that is too small over TCP (RFC 1035, RFC 7766).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::crypto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6 (RFC 3596).
    Aaaa,
    /// Texts (RFC 1035 §3.3.14).
    Txt,
    /// Which CAs may issue (RFC 8659).
    Caa,
}

/// Why there is no answer. That a name does not exist is an answer: no records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// The name does not fit into a question.
    #[error("{0} cannot be asked for")]
    Name(String),
    /// No server has answered.
    #[error("no DNS server answers")]
    Silent,
    /// A server could not, or would not.
    #[error("the DNS server answers with code {0}")]
    Refused(u8),
}

/// What one exchange has come to.
enum Outcome {
    Records(Vec<Vec<u8>>),
    Truncated,
    Refused(u8),
    /// Not the answer to our question.
    Foreign,
}

impl Resolver {
    /// Those of `/etc/resolv.conf`; the one on this machine where there are none. Reads a file.
    fn system() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self {
            servers: servers(&text),
        }
    }

    /// These servers, or those of the system where there are none. Reads a file.
    pub(crate) fn of(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() {
            Self::system()
        } else {
            Self {
                servers: servers.to_vec(),
            }
        }
    }

    /// The addresses of a name; none where it has none, or does not exist.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let v4 = self.records(name, Kind::A).await?;
        let v6 = self.records(name, Kind::Aaaa).await?;
        let v4 = v4
            .iter()
            .filter_map(|data| Some(<[u8; 4]>::try_from(data.as_slice()).ok()?.into()));
        let v6 = v6
            .iter()
            .filter_map(|data| Some(<[u8; 16]>::try_from(data.as_slice()).ok()?.into()));
        Ok(v6.chain(v4).collect())
    }

    /// The data of all records of a kind at a name, aliases followed by the server.
    pub(crate) async fn records(&self, name: &str, kind: Kind) -> Result<Vec<Vec<u8>>, DnsError> {
        // Without randomness the port of the socket is what remains to be guessed.
        let id = crypto::random().unwrap_or_default();
        let question = question(id, name, kind).ok_or_else(|| DnsError::Name(name.to_owned()))?;
        let mut error = DnsError::Silent;
        for server in self.servers.iter().cycle().take(self.servers.len() * TRIES) {
            match timeout(PATIENCE, ask(*server, &question, kind)).await {
                Ok(Ok(Outcome::Records(records))) => return Ok(records),
                Ok(Ok(Outcome::Refused(code))) => error = DnsError::Refused(code),
                Ok(Ok(Outcome::Truncated | Outcome::Foreign) | Err(_)) | Err(_) => {}
            }
        }
        Err(error)
    }
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse::<IpAddr>().ok())
            .flatten()
    });
    let servers: Vec<_> = named
        .take(3)
        .map(|address| SocketAddr::new(address, 53))
        .collect();
    if servers.is_empty() {
        vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)]
    } else {
        servers
    }
}

async fn ask(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Outcome> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Only this server's datagrams arrive.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(LARGEST_DATAGRAM)];
    loop {
        let length = socket.recv(&mut answer).await?;
        match read(answer.get(..length).unwrap_or_default(), question, kind) {
            Outcome::Foreign => {}
            Outcome::Truncated => return ask_again(server, question, kind).await,
            outcome => return Ok(outcome),
        }
    }
}

async fn ask_again(server: SocketAddr, question: &[u8], kind: Kind) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(read(&answer, question, kind))
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Caa => 257,
        }
    }
}

/// One question with recursion desired, and the size of datagram that may come back (RFC 6891).
fn question(id: [u8; 2], name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.number().to_be_bytes());
    message.extend([0, 1]);
    if message.len() > 12 + 255 + 4 {
        return None;
    }
    message.extend([0, 0, 41]);
    message.extend(LARGEST_DATAGRAM.to_be_bytes());
    message.extend([0; 6]);
    Some(message)
}

fn read(answer: &[u8], question: &[u8], kind: Kind) -> Outcome {
    parse(answer, question, kind).unwrap_or(Outcome::Foreign)
}

/// `None`: it is cut, or answers something else.
fn parse(answer: &[u8], question: &[u8], kind: Kind) -> Option<Outcome> {
    let header = answer.get(..12)?;
    let [id0, id1, flags, code, _, questions, a0, a1, ..] = header else {
        return None;
    };
    if question.get(..2)? != [*id0, *id1] || flags & 0x80 == 0 || *questions != 1 {
        return None;
    }
    if flags & 0x02 != 0 {
        return Some(Outcome::Truncated);
    }
    let code = code & 0x0f;
    if code != 0 && code != NO_SUCH_NAME {
        return Some(Outcome::Refused(code));
    }
    let mut at = skip_name(answer, 12)?.checked_add(4)?;
    let mut records = Vec::new();
    for _ in 0..u16::from_be_bytes([*a0, *a1]) {
        at = skip_name(answer, at)?;
        let fixed = answer.get(at..at.checked_add(10)?)?;
        let [k0, k1, _, _, _, _, _, _, l0, l1] = fixed else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        at += 10;
        let data = answer.get(at..at.checked_add(length)?)?;
        if u16::from_be_bytes([*k0, *k1]) == kind.number() {
            records.push(data.to_vec());
        }
        at += length;
    }
    Some(Outcome::Records(records))
}

/// The place behind a name: labels up to an empty one, or up to a pointer (RFC 1035 §4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return at.checked_add(1),
            1..=63 => at = at.checked_add(1 + usize::from(length))?,
            _ if length & 0xc0 == 0xc0 => return at.checked_add(2),
            _ => return None,
        }
    }
}

/// The text of a TXT record: its strings, joined.
pub(crate) fn text(data: &[u8]) -> String {
    let (mut rest, mut text) = (data, Vec::new());
    while let Some((length, after)) = rest.split_first() {
        let (string, after) = after.split_at(usize::from(*length).min(after.len()));
        text.extend(string);
        rest = after;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The property of a CAA record: its tag in lower case, and its value (RFC 8659 §4.1).
pub(crate) fn property(data: &[u8]) -> Option<(String, String)> {
    let (_, rest) = data.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (tag, value) = rest.split_at_checked(usize::from(*length))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((text(tag).to_ascii_lowercase(), text(value)))
}

/// What passes every network unfragmented.
const LARGEST_DATAGRAM: u16 = 1232;
const NO_SUCH_NAME: u8 = 3;
const TRIES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// The records that a server with this answer gives; it gets the question and writes all behind
    /// it.
    async fn records(
        kind: Kind,
        flags: [u8; 2],
        answers: &[(u16, &[u8])],
    ) -> Result<Vec<Vec<u8>>, DnsError> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let resolver = Resolver {
            servers: vec![socket.local_addr().expect("bound")],
        };
        let serve = async {
            loop {
                let mut asked = vec![0; 512];
                let (length, peer) = socket.recv_from(&mut asked).await.expect("asked");
                let end = skip_name(&asked, 12).expect("a name") + 4;
                let mut answer = asked[..end.min(length)].to_vec();
                answer[2] = flags[0];
                answer[3] = flags[1];
                answer[7] = u8::try_from(answers.len()).expect("few");
                answer[11] = 0;
                for (kind, data) in answers {
                    answer.extend([0xc0, 12]);
                    answer.extend(kind.to_be_bytes());
                    answer.extend([0, 1, 0, 0, 0, 60]);
                    answer.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
                    answer.extend(*data);
                }
                let mut foreign = answer.clone();
                foreign[0] ^= 1;
                socket.send_to(&foreign, peer).await.expect("sent");
                socket.send_to(&answer, peer).await.expect("sent");
            }
        };
        tokio::select! {
            records = resolver.records("a.example.com", kind) => records,
            () = serve => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn records_of_the_kind_are_found_behind_aliases() {
        let answers: [(u16, &[u8]); 3] =
            [(5, b"\x01b\x00"), (16, b"\x03one\x03two"), (16, b"\x00")];
        let found = records(Kind::Txt, [0x81, 0x80], &answers)
            .await
            .expect("answered");
        assert_eq!(
            found.iter().map(|data| text(data)).collect::<Vec<_>>(),
            ["onetwo", ""]
        );
        let answers: [(u16, &[u8]); 1] = [(257, b"\x00\x05Issueca.example")];
        let found = records(Kind::Caa, [0x81, 0x80], &answers)
            .await
            .expect("answered");
        assert_eq!(
            property(&found[0]),
            Some(("issue".to_owned(), "ca.example".to_owned()))
        );
    }

    #[tokio::test]
    async fn addresses_are_read_by_their_kind() {
        let answers: [(u16, &[u8]); 3] = [(1, &[192, 0, 2, 1]), (1, &[1, 2, 3]), (28, &[0x20; 16])];
        let found = records(Kind::A, [0x81, 0x80], &answers)
            .await
            .expect("answered");
        assert_eq!(found, [vec![192, 0, 2, 1], vec![1, 2, 3]]);
        let found = records(Kind::Aaaa, [0x81, 0x80], &answers)
            .await
            .expect("answered");
        assert_eq!(found, [[0x20; 16]]);
    }

    #[tokio::test]
    async fn no_such_name_is_no_record_and_a_failure_is_one() {
        assert_eq!(
            records(Kind::Caa, [0x81, 0x83], &[])
                .await
                .expect("answered"),
            Vec::<Vec<u8>>::new()
        );
        assert!(matches!(
            records(Kind::Caa, [0x81, 0x82], &[]).await,
            Err(DnsError::Refused(2))
        ));
    }

    #[test]
    fn servers_are_those_of_the_file() {
        let text =
            "# nameserver 192.0.2.9\nsearch a\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n";
        assert_eq!(
            servers(text)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["192.0.2.1:53", "[2001:db8::1]:53"]
        );
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(answer in proptest::collection::vec(0_u8.., 0..80)) {
            let question = question([0, 0], "a.example.com", Kind::Txt).expect("a question");
            let _ = (read(&answer, &question, Kind::Txt), text(&answer), property(&answer));
            let mut answer = [&[0, 0, 0x80, 0, 0, 1, 0, 9][..], &answer].concat();
            answer.resize(answer.len().max(12), 0);
            let _ = read(&answer, &question, Kind::Txt);
        }
    }
}
