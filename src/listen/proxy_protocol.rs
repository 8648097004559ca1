//! The PROXY protocol, versions 1 and 2: the header in which a TCP proxy names the client
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Read from trusted proxies only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The header before the client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client of the proxy; `None` if the proxy does not name one, as in its own health checks.
    pub source: Option<SocketAddr>,
    /// The bytes after the header that have been read.
    pub rest: Vec<u8>,
}

impl ProxyHeader {
    /// No header, and nothing read.
    pub(crate) fn none() -> Self {
        Self {
            source: None,
            rest: Vec::new(),
        }
    }
}

/// Why a header is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    /// It begins like a header and is malformed.
    #[error("malformed PROXY header")]
    Malformed,
    #[error("the PROXY header is longer than {MAX_V2_HEADER} bytes")]
    TooLong,
    #[error(transparent)]
    Closed(#[from] io::Error),
}

/// Reads a header, if there is one. The caller sets the timeout.
pub async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut bytes = Vec::with_capacity(INITIAL_CAPACITY);
    loop {
        match parse(&bytes)? {
            ParsedHeader::Absent => {
                return Ok(ProxyHeader {
                    source: None,
                    rest: bytes,
                });
            }
            ParsedHeader::Header { source, length } => {
                return Ok(ProxyHeader {
                    source,
                    rest: bytes.split_off(length),
                });
            }
            ParsedHeader::Incomplete => {}
        }
        if io.read_buf(&mut bytes).await? == 0 {
            if bytes.is_empty() {
                // The TLS handshake reports the end.
                return Ok(ProxyHeader::none());
            }
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// What the first bytes of a stream are.
#[derive(Debug, PartialEq, Eq)]
enum ParsedHeader {
    /// The beginning of a header, or of what could be one.
    Incomplete,
    /// No header.
    Absent,
    /// A header of this length.
    Header {
        source: Option<SocketAddr>,
        length: usize,
    },
}

fn parse(bytes: &[u8]) -> Result<ParsedHeader, ProxyProtocolError> {
    for (signature, read) in [
        (V1_SIGNATURE, version1 as ParseVersion),
        (V2_SIGNATURE, version2),
    ] {
        if bytes.starts_with(signature) {
            return read(bytes);
        }
        if signature.starts_with(bytes) {
            return Ok(ParsedHeader::Incomplete);
        }
    }
    Ok(ParsedHeader::Absent)
}

type ParseVersion = fn(&[u8]) -> Result<ParsedHeader, ProxyProtocolError>;

/// `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n`
fn version1(bytes: &[u8]) -> Result<ParsedHeader, ProxyProtocolError> {
    let Some(end) = bytes
        .windows(2)
        .take(MAX_V1_HEADER - 1)
        .position(|pair| pair == b"\r\n")
    else {
        // A line feed ends no header, and nothing longer is one.
        let broken = bytes.len() >= MAX_V1_HEADER || bytes.contains(&b'\n');
        return if broken {
            Err(ProxyProtocolError::Malformed)
        } else {
            Ok(ParsedHeader::Incomplete)
        };
    };
    let (line, _) = bytes.split_at(end);
    let line = std::str::from_utf8(line)
        .ok()
        .filter(|line| !line.contains('\n'));
    let source = line
        .and_then(source_of_line)
        .ok_or(ProxyProtocolError::Malformed)?;
    Ok(ParsedHeader::Header {
        source,
        length: end + 2,
    })
}

/// The inner value is none where the proxy does not know.
fn source_of_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut fields = line.split(' ').skip(1);
    let family = fields.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(None);
    }
    let (source, destination) = (fields.next()?, fields.next()?);
    let [port, _] = [port(fields.next()?)?, port(fields.next()?)?];
    if fields.next().is_some() {
        return None;
    }
    let source = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    Some(Some(SocketAddr::new(source, port)))
}

fn port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Signature, version and command, family, length, addresses, and further fields that are of no use
/// here.
fn version2(bytes: &[u8]) -> Result<ParsedHeader, ProxyProtocolError> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(ParsedHeader::Incomplete);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if 16 + length > MAX_V2_HEADER {
        return Err(ProxyProtocolError::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyProtocolError::Malformed),
    };
    let Some(body) = rest.get(..length) else {
        return Ok(ParsedHeader::Incomplete);
    };
    let source = match family {
        _ if is_local => None,
        // TCP over IPv4: two addresses of four bytes, two ports of two.
        0x11 => Some(source_of_body::<4, 12>(body)?),
        0x21 => Some(source_of_body::<16, 36>(body)?),
        // Not given, datagrams, or a Unix socket: of no client that could be here.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(ProxyProtocolError::Malformed),
    };
    Ok(ParsedHeader::Header {
        source,
        length: 16 + length,
    })
}

/// The source of the addresses that a body begins with: `SIZE` bytes each, `ALL` with the ports.
fn source_of_body<const SIZE: usize, const ALL: usize>(
    body: &[u8],
) -> Result<SocketAddr, ProxyProtocolError>
where
    [u8; SIZE]: Into<IpAddr>,
{
    let addresses = body
        .first_chunk::<ALL>()
        .ok_or(ProxyProtocolError::Malformed)?;
    let address = addresses
        .first_chunk::<SIZE>()
        .ok_or(ProxyProtocolError::Malformed)?;
    let (_, ports) = addresses.split_at(2 * SIZE);
    let port = ports.first_chunk().ok_or(ProxyProtocolError::Malformed)?;
    Ok(SocketAddr::new(
        (*address).into(),
        u16::from_be_bytes(*port),
    ))
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the longest header of version 1, its line end included.
const MAX_V1_HEADER: usize = 107;
/// Version 2 may carry certificates and vendor fields. No known header comes near this.
const MAX_V2_HEADER: usize = 4096;
/// Enough for a header without such fields, and the beginning of TLS after it.
const INITIAL_CAPACITY: usize = 536;

#[cfg(test)]
mod tests;
