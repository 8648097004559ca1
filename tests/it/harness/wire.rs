//! A reader of HTTP/1.1 requests that takes nothing on trust: what two servers could read in two
//! ways (RFC 9112 §11.2) is an error here. It stands where the registry stands.

use super::raw_peer::Head;

/// A request that can be read in one way only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.first.split(' ').next().unwrap()
    }

    pub fn target(&self) -> &str {
        self.head.first.split(' ').nth(1).unwrap()
    }
}

/// The first request of the bytes and how many of them it took; `None` as long as it is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // Even half a head must not begin with anything else than a request line.
        return match bytes.iter().take_while(|b| b.is_ascii_uppercase()).count() {
            0 if !bytes.is_empty() => Err("no request line".to_owned()),
            _ => Ok(None),
        };
    };
    let head = head(&bytes[..end])?;
    let rest = &bytes[end + 4..];
    let body = match framing(&head)? {
        Framing::None => Some((Vec::new(), 0)),
        Framing::Length(length) => rest.get(..length).map(|body| (body.to_vec(), length)),
        Framing::Chunked => chunked(rest)?,
    };
    Ok(body.map(|(body, taken)| (Request { head, body }, end + 4 + taken)))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn is_token(text: &[u8]) -> bool {
    let tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(tchar)
}

fn head(bytes: &[u8]) -> Result<Head, String> {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    let first = lines.remove(0);
    let mut words = first.split(|b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let method_is_fine =
        method.is_some_and(|m| !m.is_empty() && m.iter().all(u8::is_ascii_uppercase));
    let target_is_fine = target.is_some_and(|target| {
        target.starts_with(b"/") && target.iter().all(|b| b.is_ascii_graphic() && *b != b'#')
    });
    if !method_is_fine || !target_is_fine || version != Some(b"HTTP/1.1") || words.next().is_some()
    {
        return Err(format!("request line of {}", shown()));
    }
    let headers = lines.into_iter().map(|line| {
        let colon = line
            .iter()
            .position(|b| *b == b':')
            .ok_or_else(|| format!("no colon in {}", shown()))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let value_is_fine = value
            .iter()
            .all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
        if !is_token(name) || !value_is_fine {
            return Err(format!("header line in {}", shown()));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok((text(name).to_ascii_lowercase(), text(value)))
    });
    let headers = headers.collect::<Result<Vec<_>, String>>()?;
    let head = Head {
        first: String::from_utf8_lossy(first).into_owned(),
        headers,
    };
    if head.all("host").len() != 1 {
        Err(format!("not one Host in {head:?}"))
    } else {
        Ok(head)
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(head: &Head) -> Result<Framing, String> {
    match (
        &head.all("content-length")[..],
        &head.all("transfer-encoding")[..],
    ) {
        ([], []) => Ok(Framing::None),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            length
                .parse()
                .map(Framing::Length)
                .map_err(|_| format!("length in {head:?}"))
        }
        ([], ["chunked"]) => Ok(Framing::Chunked),
        _ => Err(format!("framing of {head:?}")),
    }
}

/// Chunks without extensions, leading zeros or trailers.
fn chunked(mut bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let whole = bytes.len();
    let mut body = Vec::new();
    loop {
        let Some(end) = find(bytes, b"\r\n") else {
            return if bytes.len() > 16 {
                Err("endless chunk size".to_owned())
            } else {
                Ok(None)
            };
        };
        let size = &bytes[..end];
        if size.is_empty() || size.len() > 8 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("chunk size {:?}", String::from_utf8_lossy(size)));
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("chunk without its end, or trailers".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[end + 2 + size + 2..];
        if size == 0 {
            return Ok(Some((body, whole - bytes.len())));
        }
    }
}

mod tests {
    use super::parse;

    #[test]
    fn the_strict_reader_reads_what_is_clear() {
        let plain = b"GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\nGET";
        assert_eq!(parse(plain).unwrap().unwrap().1, plain.len() - 3);
        let sized = parse(b"PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
            .unwrap()
            .unwrap();
        assert_eq!(
            (sized.0.method(), sized.0.target(), &sized.0.body[..]),
            ("PUT", "/a", &b"hi"[..])
        );
        let chunks =
            b"PUT /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert_eq!(parse(chunks).unwrap().unwrap().0.body, b"hi");
        for cut in 1..chunks.len() {
            assert_eq!(parse(&chunks[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn the_strict_reader_refuses_what_is_not() {
        for lines in [
            "",
            "host: a\r\nhost: a",
            "host: a\r\ncontent-length: 1\r\ncontent-length: 1",
            "host: a\r\ncontent-length: +1",
            "host: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "host: a\r\ntransfer-encoding: gzip, chunked",
            "host: a\r\nx : 1",
            "host: a\r\n: 1",
            "host: a\r\n x: 1",
            "host: a\nx: 1",
            "host: a\r\nx: \0",
            "host: a\r\nx",
        ] {
            assert!(
                parse(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes()).is_err(),
                "{lines:?}"
            );
        }
        for first in [
            "GET / HTTP/1.0",
            "GET  / HTTP/1.1",
            "GET a HTTP/1.1",
            "GET /#a HTTP/1.1",
            "get / HTTP/1.1",
            "GET /",
        ] {
            assert!(
                parse(format!("{first}\r\nhost: a\r\n\r\n").as_bytes()).is_err(),
                "{first}"
            );
        }
        for body in [
            "+1\r\na\r\n0\r\n\r\n",
            "1;x\r\na\r\n0\r\n\r\n",
            "1\r\nab\r\n",
            "0\r\nx: 1\r\n\r\n",
        ] {
            let head = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
            assert!(
                parse(format!("{head}{body}").as_bytes()).is_err(),
                "{body:?}"
            );
        }
    }
}
