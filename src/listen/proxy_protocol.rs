//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says before them about
//! who sent them (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Only trusted
//! proxies are asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What stood before the bytes of the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Preface {
    /// Who connected to the proxy; none if it does not say so, as for its own health checks.
    pub source: Option<SocketAddr>,
    /// What has been read of the bytes that follow.
    pub rest: Vec<u8>,
}

impl Preface {
    /// Nothing did.
    pub(crate) fn none() -> Self {
        Self {
            source: None,
            rest: Vec::new(),
        }
    }
}

/// Why a header is none.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    /// It begins like one and is broken.
    #[error("the PROXY header is broken")]
    Malformed,
    /// Over the bound.
    #[error("the PROXY header is longer than {MOST} bytes")]
    TooLong,
    /// The connection ended or failed.
    #[error(transparent)]
    Closed(#[from] io::Error),
}

/// Reads a header, if there is one. The caller bounds its time.
pub async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<Preface, ProxyProtocolError> {
    let mut bytes = Vec::with_capacity(FIRST);
    loop {
        match parse(&bytes)? {
            Parsed::Absent => {
                return Ok(Preface {
                    source: None,
                    rest: bytes,
                });
            }
            Parsed::Header { source, length } => {
                return Ok(Preface {
                    source,
                    rest: bytes.split_off(length),
                });
            }
            Parsed::Incomplete => {}
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return match bytes.is_empty() {
                // For TLS to find out.
                true => Ok(Preface {
                    source: None,
                    rest: bytes,
                }),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            };
        }
    }
}

/// What some first bytes are.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// The beginning of a header, or of what could be one.
    Incomplete,
    /// No header, and they never will be.
    Absent,
    /// A header of this length.
    Header {
        source: Option<SocketAddr>,
        length: usize,
    },
}

fn parse(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    for (signature, read) in [(V1, version1 as Read), (V2, version2)] {
        if bytes.starts_with(signature) {
            return read(bytes);
        }
        if signature.starts_with(bytes) {
            return Ok(Parsed::Incomplete);
        }
    }
    Ok(Parsed::Absent)
}

type Read = fn(&[u8]) -> Result<Parsed, ProxyProtocolError>;

/// `PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n`
fn version1(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some(end) = bytes
        .windows(2)
        .take(LONGEST_V1 - 1)
        .position(|pair| pair == b"\r\n")
    else {
        // A line feed ends no header, and nothing longer is one.
        let broken = bytes.len() >= LONGEST_V1 || bytes.contains(&b'\n');
        return if broken {
            Err(ProxyProtocolError::Malformed)
        } else {
            Ok(Parsed::Incomplete)
        };
    };
    let (line, _) = bytes.split_at(end);
    let line = std::str::from_utf8(line)
        .ok()
        .filter(|line| !line.contains('\n'));
    let source = line
        .and_then(source_of_line)
        .ok_or(ProxyProtocolError::Malformed)?;
    Ok(Parsed::Header {
        source,
        length: end + 2,
    })
}

/// The inner value is none where the proxy does not know.
fn source_of_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let [port, _] = [port(words.next()?)?, port(words.next()?)?];
    if words.next().is_some() {
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
fn version2(bytes: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(Parsed::Incomplete);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if 16 + length > MOST {
        return Err(ProxyProtocolError::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyProtocolError::Malformed),
    };
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Incomplete);
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
    Ok(Parsed::Header {
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

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const LONGEST_V1: usize = 107;
/// Version 2 may carry certificates and names of the proxy's own making. None that is known comes
/// near this.
const MOST: usize = 4096;
/// Enough for a header without such fields, and the beginning of TLS after it.
const FIRST: usize = 536;

#[cfg(test)]
mod tests;
