//! Queries DNS for TXT, CAA and address records as a CA would, without the system's resolver: a check
//! before an order asks the configured servers in order and never sees a cached answer.
//!
//! hickory encodes and decodes the messages. The exchange (RFC 1035 §4.2, RFC 7766) is done here, so
//! that the question is compared over TCP as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The DNS servers to ask, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    /// Of one exchange with one server.
    timeout: Duration,
    /// How many times all servers are asked.
    attempts: usize,
}

/// A property of a CAA record (RFC 8659 §4.1): its tag in lower case, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaaProperty {
    pub(crate) tag: String,
    pub(crate) value: String,
}

/// Why a question is not answered. That a name does not exist is an answer: no records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("{0} is not a valid DNS name")]
    InvalidName(String),
    #[error("no DNS server answers")]
    NoAnswer,
    #[error("the DNS server answers {}", code_name(*.0))]
    Refused(ResponseCode),
    #[error("the answer of the DNS server cannot be decoded: {0}")]
    Malformed(#[source] DecodeError),
}

/// The name of a response code (RFC 1035 §4.1.1), and what it means.
fn code_name(code: ResponseCode) -> String {
    match u16::from(code) {
        1 => "FORMERR: it does not understand the question".to_owned(),
        2 => {
            "SERVFAIL: the name servers of the domain do not answer it, or DNSSEC fails".to_owned()
        }
        4 => "NOTIMP: it does not know this kind of question".to_owned(),
        5 => "REFUSED: it does not answer this machine; name another one in `resolvers`".to_owned(),
        code => format!("with code {code}"),
    }
}

/// What a message from a server means to a question.
enum Reply {
    Records(Vec<RData>),
    Truncated,
    Refused(ResponseCode),
    Malformed(DecodeError),
    /// It answers another question, or none.
    Unrelated,
}

impl Resolver {
    /// Asks `servers`, or those of `/etc/resolv.conf` where there are none. Reads a file.
    pub(crate) fn from_servers(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() {
            return Self::from_resolv_conf(&std::fs::read("/etc/resolv.conf").unwrap_or_default());
        }
        Self {
            servers: servers.to_vec(),
            timeout: EXCHANGE_TIMEOUT,
            attempts: ATTEMPTS,
        }
    }

    /// Takes `nameserver`, `options timeout` and `options attempts`, with the limits of
    /// resolv.conf(5), and the server on this machine where none is named. `search` and `ndots` are
    /// without effect: the names of certificates are absolute.
    fn from_resolv_conf(text: &[u8]) -> Self {
        // What cannot be read is skipped, as the C library does.
        let (mut config, _) = resolv_conf::Config::parse_with_errors(text);
        config.glibc_normalize();
        let mut servers: Vec<_> = config
            .nameservers
            .iter()
            // Of all that parses the addresses of names, only the C library knows the scope of one.
            .filter_map(|server| {
                (server.to_string(), DNS_PORT)
                    .to_socket_addrs()
                    .ok()?
                    .next()
            })
            .collect();
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        Self {
            servers,
            timeout: Duration::from_secs(config.timeout.clamp(1, 30).into()),
            attempts: config.attempts.clamp(1, 5) as usize,
        }
    }

    /// The addresses of a name, IPv6 first; none where it has none, or does not exist.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let mut records = self.records(name, RecordType::AAAA).await?;
        records.extend(self.records(name, RecordType::A).await?);
        Ok(records.iter().filter_map(RData::ip_addr).collect())
    }

    /// The TXT records of a name, the strings of each joined.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let records = self.records(name, RecordType::TXT).await?;
        let texts = records.into_iter().filter_map(|record| match record {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        });
        Ok(texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect())
    }

    /// The CAA records of a name itself, not of those above it.
    pub(crate) async fn caa(&self, name: &str) -> Result<Vec<CaaProperty>, DnsError> {
        let records = self.records(name, RecordType::CAA).await?;
        let properties = records.into_iter().filter_map(|record| match record {
            RData::CAA(caa) => Some(CaaProperty {
                tag: caa.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&caa.value).into_owned(),
            }),
            _ => None,
        });
        Ok(properties.collect())
    }

    /// The data of all records of a kind at a name, aliases followed by the server.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        let mut query = question(name, kind)?;
        let mut error = DnsError::NoAnswer;
        let asking = async {
            for server in (0..self.attempts).flat_map(|_| &self.servers) {
                // A new id for each exchange: an answer to the last one is none to this.
                query.metadata.id = Message::query().metadata.id;
                match timeout(self.timeout, exchange(*server, &query)).await {
                    Ok(Ok(Reply::Records(records))) => return Some(records),
                    Ok(Ok(Reply::Refused(code))) => error = DnsError::Refused(code),
                    Ok(Ok(Reply::Malformed(cause))) => error = DnsError::Malformed(cause),
                    Ok(Ok(Reply::Truncated | Reply::Unrelated) | Err(_)) | Err(_) => {}
                }
            }
            None
        };
        let records = timeout(QUESTION_TIMEOUT, asking).await.ok().flatten();
        records.ok_or(error)
    }
}

/// A query with recursion desired, and the size of datagram that may come back (RFC 6891).
fn question(name: &str, kind: RecordType) -> Result<Message, DnsError> {
    let invalid = |_| DnsError::InvalidName(name.to_owned());
    let mut absolute = Name::from_ascii(name).map_err(invalid)?;
    absolute.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(absolute, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM_BYTES);
    message.set_edns(edns);
    Ok(message)
}

/// Asks over UDP, and again over TCP where the answer does not fit into a datagram. Waits without
/// limit for an answer to `query`.
async fn exchange(server: SocketAddr, query: &Message) -> io::Result<Reply> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel drops datagrams of other senders.
    socket.connect(server).await?;
    let question = query.to_vec().map_err(io::Error::other)?;
    socket.send(&question).await?;
    let mut datagram = vec![0; usize::from(MAX_DATAGRAM_BYTES)];
    loop {
        let length = socket.recv(&mut datagram).await?;
        match Reply::from_message(datagram.get(..length).unwrap_or_default(), query) {
            Reply::Unrelated => {}
            Reply::Truncated => return exchange_over_tcp(server, &question, query).await,
            reply => return Ok(reply),
        }
    }
}

async fn exchange_over_tcp(
    server: SocketAddr,
    question: &[u8],
    query: &Message,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(Reply::from_message(&message, query))
}

impl Reply {
    fn from_message(message: &[u8], query: &Message) -> Self {
        // Id and question first: a truncated answer may end in the middle of a record.
        let mut decoder = BinDecoder::new(message);
        let Ok(header) = Header::read(&mut decoder) else {
            return Self::Unrelated;
        };
        let metadata = header.metadata;
        if metadata.id != query.metadata.id || metadata.message_type != MessageType::Response {
            return Self::Unrelated;
        }
        // RFC 5452 §9.1: whoever guesses the id must know the question as well.
        match Message::read_queries(&mut decoder, header.counts.queries.into()) {
            Ok(queries) if queries == query.queries => {}
            Ok(_) | Err(_) => return Self::Unrelated,
        }
        if metadata.truncation {
            return Self::Truncated;
        }
        let message = match Message::from_vec(message) {
            Ok(message) => message,
            Err(error) => return Self::Malformed(error),
        };
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Self::Refused(code),
        }
        let is_wanted = |data: &RData| {
            let mut kinds = query.queries.iter().map(Query::query_type);
            kinds.any(|kind| kind == data.record_type())
        };
        let answers = message.answers.into_iter().map(|record| record.data);
        Self::Records(answers.filter(is_wanted).collect())
    }
}

const DNS_PORT: u16 = 53;
/// What passes every network unfragmented.
const MAX_DATAGRAM_BYTES: u16 = 1232;
/// For configured servers; resolv.conf has its own.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// For one question to all servers.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const SOME_ANSWER: [u8; 2] = [0x81, 0x80];
    const TRUNCATED: [u8; 2] = [0x83, 0x80];
    const NO_SUCH_NAME: [u8; 2] = [0x81, 0x83];
    const SERVER_FAILURE: [u8; 2] = [0x81, 0x82];

    /// What a server answers to a question: with these flags, and with these records of the
    /// question's name.
    fn answer(question: &[u8], flags: [u8; 2], records: &[(u16, &[u8])]) -> Vec<u8> {
        let end = question_end(question);
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&flags);
        answer[7] = u8::try_from(records.len()).expect("few");
        answer[11] = 0;
        for (kind, data) in records {
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 60]);
            answer.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            answer.extend(*data);
        }
        answer
    }

    /// The question is the only name in a message that asks.
    fn question_end(question: &[u8]) -> usize {
        let name = question[12..].iter().position(|byte| *byte == 0);
        12 + name.expect("a name") + 1 + 4
    }

    /// The answer to the next question: another first letter, of the same length.
    fn to_another_question(mut answer: Vec<u8>) -> Vec<u8> {
        answer[13] = b'z';
        answer
    }

    /// What `asking` comes to at a server that answers with all that `respond` makes of a question,
    /// one after the other. Over TCP it answers with the last.
    async fn ask<T>(
        respond: impl Fn(&[u8]) -> Vec<Vec<u8>>,
        asking: impl AsyncFnOnce(Resolver) -> T,
    ) -> T {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = udp.local_addr().expect("bound");
        let tcp = TcpListener::bind(address).await.expect("the same port");
        let resolver = Resolver {
            timeout: Duration::from_millis(200),
            ..Resolver::from_servers(&[address])
        };
        let serve_udp = async {
            loop {
                let mut question = vec![0; 512];
                let (length, peer) = udp.recv_from(&mut question).await.expect("a question");
                for answer in respond(&question[..length]) {
                    udp.send_to(&answer, peer).await.expect("sent");
                }
            }
        };
        let serve_tcp = async {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("accepted");
                let length = stream.read_u16().await.expect("a length");
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.expect("a question");
                let mut answer = respond(&question).pop().expect("an answer");
                // Over TCP nothing is truncated.
                answer[2] &= !0x02;
                let length = u16::try_from(answer.len()).expect("short");
                let message = [&length.to_be_bytes(), &answer[..]].concat();
                stream.write_all(&message).await.expect("sent");
            }
        };
        tokio::select! {
            result = asking(resolver) => result,
            () = serve_udp => unreachable!("it serves for ever"),
            () = serve_tcp => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn records_of_the_kind_are_found_behind_aliases() {
        let records: [(u16, &[u8]); 3] =
            [(5, b"\x01b\x00"), (16, b"\x03one\x03two"), (16, b"\x00")];
        let texts = ask(
            |question| vec![answer(question, SOME_ANSWER, &records)],
            async |resolver| resolver.texts("a.example.com").await,
        );
        assert_eq!(texts.await.expect("answered"), ["onetwo", ""]);
        let properties = ask(
            |question| {
                let record: (u16, &[u8]) = (257, b"\x00\x05Issueca.example");
                vec![answer(question, SOME_ANSWER, &[record])]
            },
            async |resolver| resolver.caa("a.example.com.").await,
        );
        let issue = CaaProperty {
            tag: "issue".to_owned(),
            value: "ca.example".to_owned(),
        };
        assert_eq!(properties.await.expect("answered"), [issue]);
    }

    #[tokio::test]
    async fn addresses_are_read_by_their_kind() {
        let records: [(u16, &[u8]); 2] = [(1, &[192, 0, 2, 1]), (28, &[0x20; 16])];
        let addresses = ask(
            |question| vec![answer(question, SOME_ANSWER, &records)],
            async |resolver| resolver.addresses("a.example.com").await,
        );
        let expected: [IpAddr; 2] = [[0x20; 16].into(), [192, 0, 2, 1].into()];
        assert_eq!(addresses.await.expect("answered"), expected);
    }

    #[test]
    fn every_error_of_dns_is_a_sentence() {
        let codes = [1, 2, 4, 5, 9].map(|code| DnsError::Refused(ResponseCode::from(0, code)));
        let others = [
            DnsError::InvalidName("a..b".to_owned()),
            DnsError::NoAnswer,
            DnsError::Malformed(DecodeError::InsufficientBytes),
        ];
        let texts: Vec<_> = codes
            .iter()
            .chain(&others)
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        the DNS server answers FORMERR: it does not understand the question
        the DNS server answers SERVFAIL: the name servers of the domain do not answer it, or DNSSEC fails
        the DNS server answers NOTIMP: it does not know this kind of question
        the DNS server answers REFUSED: it does not answer this machine; name another one in `resolvers`
        the DNS server answers with code 9
        a..b is not a valid DNS name
        no DNS server answers
        the answer of the DNS server cannot be decoded: unexpected end of input reached
        ");
    }

    #[tokio::test]
    async fn no_such_name_is_no_record_and_a_failure_is_an_error() {
        let caa = async |flags, records: &'static [(u16, &[u8])]| {
            ask(
                |question| vec![answer(question, flags, records)],
                async |resolver| resolver.caa("a.example.com").await,
            )
            .await
        };
        assert_eq!(caa(NO_SUCH_NAME, &[]).await.expect("answered"), []);
        let error = caa(SERVER_FAILURE, &[]).await.expect_err("a failure");
        assert_eq!(
            error.to_string(),
            "the DNS server answers SERVFAIL: the name servers of the domain do not answer it, or DNSSEC fails"
        );
        let error = caa(SOME_ANSWER, &[(257, &[0])]).await.expect_err("cut");
        assert!(matches!(error, DnsError::Malformed(_)), "{error}");
    }

    #[tokio::test]
    async fn an_answer_with_another_id_or_question_is_none() {
        let record = |text| -> [(u16, &[u8]); 1] { [(16, text)] };
        let texts = ask(
            |question| {
                let forged = answer(question, SOME_ANSWER, &record(b"\x06forged"));
                let mut to_another_id = forged.clone();
                to_another_id[0] ^= 1;
                let right = answer(question, SOME_ANSWER, &record(b"\x05right"));
                vec![to_another_id, to_another_question(forged), right]
            },
            async |resolver| resolver.texts("a.example.com").await,
        );
        assert_eq!(texts.await.expect("answered"), ["right"]);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_fetched_over_tcp() {
        let record: [(u16, &[u8]); 1] = [(16, b"\x04long")];
        let texts = ask(
            |question| vec![answer(question, TRUNCATED, &record)],
            async |resolver| resolver.texts("a.example.com").await,
        );
        assert_eq!(texts.await.expect("answered"), ["long"]);
        let texts = ask(
            |question| {
                let truncated = answer(question, TRUNCATED, &[]);
                vec![
                    truncated,
                    to_another_question(answer(question, SOME_ANSWER, &record)),
                ]
            },
            async |resolver| resolver.texts("a.example.com").await,
        );
        let error = texts.await.expect_err("another question over TCP");
        assert!(matches!(error, DnsError::NoAnswer), "{error}");
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_fails() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let address = closed.local_addr().expect("bound");
        drop(closed);
        let texts = ask(
            |question| vec![answer(question, SOME_ANSWER, &[(16, b"\x03two")])],
            async |mut resolver| {
                resolver.servers.insert(0, address);
                resolver.texts("a.example.com").await
            },
        );
        assert_eq!(texts.await.expect("answered"), ["two"]);
    }

    #[test]
    fn servers_and_times_are_those_of_the_file() {
        let text = b"# nameserver 192.0.2.9\nsearch a\nnameserver 192.0.2.1\nfor ever\n\
            nameserver fe80::1%lo\nnameserver 2001:db8::1\nnameserver 192.0.2.4\n\
            options edns0 timeout:1 attempts:99\n";
        let resolver = Resolver::from_resolv_conf(text);
        let servers: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["192.0.2.1:53", "[fe80::1%1]:53", "[2001:db8::1]:53"]
        );
        assert_eq!((resolver.timeout.as_secs(), resolver.attempts), (1, 5));
        let resolver = Resolver::from_resolv_conf(b"");
        assert_eq!(
            resolver.servers,
            ["127.0.0.1:53".parse().expect("an address")]
        );
        assert_eq!((resolver.timeout.as_secs(), resolver.attempts), (5, 2));
    }

    #[test]
    fn a_name_that_does_not_fit_into_a_question_is_an_error() {
        for name in ["a..example.com", &"a".repeat(64), &"a.".repeat(128)] {
            let error = question(name, RecordType::TXT).expect_err(name);
            assert!(matches!(error, DnsError::InvalidName(_)), "{error}");
        }
        question("_validation-persist.a.example.com", RecordType::TXT).expect("a name");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(answer in proptest::collection::vec(0_u8.., 0..80)) {
            let query = question("a.example.com", RecordType::TXT).expect("a question");
            Reply::from_message(&answer, &query);
            let mut reply = query.to_vec().expect("a message");
            reply[2] |= 0x80;
            reply[7] = 9;
            reply.truncate(question_end(&reply));
            reply.extend(&answer);
            Reply::from_message(&reply, &query);
        }
    }
}
