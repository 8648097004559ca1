//! A registry-shaped HTTP/1.1 origin for `benches/run.sh`: it answers from memory and as cheaply as
//! it can, so that what is measured is the proxy in front of it. `origin ADDRESS:PORT` serves until
//! it is killed. At a second address, if one is given, it wants a token, which it gives to anybody.
//!
//! One blocking thread per connection: proxies keep a few dozen, and a blocking read costs less
//! than a readiness loop.
#![expect(clippy::disallowed_methods, reason = "ends with the process")]
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

/// 500 bytes, about what the manifest of a small image has.
const MANIFEST: &str = concat!(
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"#,
    r#""mediaType":"application/vnd.oci.image.config.v1+json","#,
    r#""digest":"sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910","size":1470},"#,
    r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","#,
    r#""digest":"sha256:49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14","size":1073741824}],"#,
    r#""annotations":{"org.opencontainers.image.title":"a small image.........................."}}"#,
);
const MANIFEST_DIGEST: &str =
    "sha256:361ba7e9a7d4fa3660106d0cc5c26db8347cae44541ee912a8a669fb1f39050c";

/// The blob is zeros, and this is their true digest: a client that checks it is content.
const BLOB_DIGEST: &str = "sha256:49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14";
const BLOB_SIZE: usize = 1 << 30;
/// What one write hands to the kernel. Divides [`BLOB_SIZE`].
const BLOB_PIECE: usize = 1 << 20;

/// Of about the length that tokens of registries have.
const TOKEN: &str = concat!(
    "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IkFCQ0Q6RUZHSCJ9.",
    "eyJpc3MiOiJvcmlnaW4iLCJzdWIiOiJnYXRlIiwiYXVkIjoib3JpZ2luIiwiYWNjZXNzIjpbeyJ0eXBlIjoicmVwb3Np",
    "dG9yeSIsIm5hbWUiOiJzbWFsbCIsImFjdGlvbnMiOlsicHVsbCJdfV0sImV4cCI6NDA3MDkwODgwMH0.",
    "MEUCIQDm3mZJ1lXo8yq0sH4u8Yk1v0v9t5q3bP4p7k2n6r8wXwIgY0b2Q3t6u9yBvC1x4z7A0d3F6h9J2k5M8n1Q4s7v0y8",
);

const READ_BUFFER: usize = 256 << 10;
const HEAD_LIMIT: u64 = 64 << 10;

fn main() -> ExitCode {
    // cargo runs every bench target with `--bench` and without an address: then there is nothing to
    // do.
    let mut addresses = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let Some(address) = addresses.next() else {
        eprintln!("usage: origin ADDRESS:PORT [ADDRESS:PORT]   (benches/run.sh starts it)");
        return ExitCode::SUCCESS;
    };
    if let Some(address) = addresses.next() {
        thread::spawn(move || report(&address, serve(&address, Answers::with_tokens(&address))));
    }
    report(&address, serve(&address, Answers::new()))
}

fn report(address: &str, served: io::Result<()>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("origin: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, answers: Answers) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let answers = Arc::new(answers);
    for stream in listener.incoming() {
        let stream = stream?;
        let answers = Arc::clone(&answers);
        thread::spawn(move || {
            // A proxy that drops a pooled connection is no news; a request that this origin cannot
            // read is.
            if let Err(error) = converse(stream, &answers)
                && error.kind() == ErrorKind::InvalidData
            {
                eprintln!("origin: {error}");
            }
        });
    }
    Ok(())
}

/// Answers the requests of one connection, in order, until either side ends it.
fn converse(stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(READ_BUFFER, stream);
    while let Some(request) = read_head(&mut reader)? {
        if request.expects_continue {
            reader
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match request.body {
            RequestBody::Length(length) => discard(&mut reader, length)?,
            RequestBody::Chunked => discard_chunked(&mut reader)?,
        }
        answers.answer(&request, reader.get_mut())?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// As much of a request head as decides the answer.
struct Request {
    method: String,
    target: String,
    body: RequestBody,
    keep_alive: bool,
    expects_continue: bool,
    has_token: bool,
}

/// How the end of a request's body is found (RFC 9112 §6.3).
enum RequestBody {
    /// So many bytes; 0 without a body.
    Length(u64),
    Chunked,
}

/// Reads one request head; `None` when the client is done.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(HEAD_LIMIT);
    let Some(line) = read_line(&mut head)? else {
        return Ok(None);
    };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(invalid("no request line"));
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        body: RequestBody::Length(0),
        keep_alive: version == "HTTP/1.1",
        expects_continue: false,
        has_token: false,
    };
    loop {
        let line = read_line(&mut head)?.ok_or_else(|| invalid("a head that breaks off"))?;
        if line.is_empty() {
            return Ok(Some(request));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid("a header line without a colon"))?;
        request.apply(name, value.trim())?;
    }
}

impl Request {
    fn apply(&mut self, name: &str, value: &str) -> io::Result<()> {
        if name.eq_ignore_ascii_case("content-length") {
            let length = value
                .parse()
                .map_err(|_| invalid("a Content-Length that is no number"))?;
            self.body = RequestBody::Length(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.body = RequestBody::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            self.keep_alive &= !value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("expect") {
            self.expects_continue = value.eq_ignore_ascii_case("100-continue");
        } else if name.eq_ignore_ascii_case("authorization") {
            self.has_token = value.strip_prefix("Bearer ") == Some(TOKEN);
        }
        Ok(())
    }
}

/// One line without its end; `None` when the client ended the connection before it.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let line = line
        .strip_suffix('\n')
        .ok_or_else(|| invalid("a line that breaks off or is too long"))?;
    Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn discard(reader: &mut impl BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let available = reader.fill_buf()?.len();
        if available == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        reader.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

/// Reads to the end of a chunked body, extensions and trailers included (RFC 9112 §7.1).
fn discard_chunked(reader: &mut impl BufRead) -> io::Result<()> {
    let broken = || io::Error::from(ErrorKind::UnexpectedEof);
    loop {
        let line = read_line(&mut reader.take(HEAD_LIMIT))?.ok_or_else(broken)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16)
            .map_err(|_| invalid("a chunk size that is no number"))?;
        if size == 0 {
            break;
        }
        discard(reader, size)?;
        if !read_line(&mut reader.take(HEAD_LIMIT))?
            .ok_or_else(broken)?
            .is_empty()
        {
            return Err(invalid("a chunk longer than its size"));
        }
    }
    while !read_line(&mut reader.take(HEAD_LIMIT))?
        .ok_or_else(broken)?
        .is_empty()
    {}
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Every answer, made once. Heads carry what a real registry sends, since passing headers on is
/// part of the work.
struct Answers {
    ping: String,
    manifest_head: String,
    manifest: String,
    blob_head: String,
    blob_piece: Vec<u8>,
    accepted: String,
    created: String,
    not_found: String,
    tokens: Option<TokenAnswers>,
}

/// The answers where a token is wanted.
struct TokenAnswers {
    challenge: String,
    token: String,
}

impl Answers {
    /// Those of a registry at this address that wants tokens.
    fn with_tokens(address: &str) -> Self {
        let realm = format!("http://{address}/token");
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"origin\"\r\n");
        let token = format!("{{\"token\":\"{TOKEN}\",\"expires_in\":86400}}");
        let head_of_token = head("200 OK", token.len(), "Content-Type: application/json\r\n");
        let tokens = TokenAnswers {
            challenge: head("401 Unauthorized", 0, &challenge),
            token: head_of_token + &token,
        };
        Self {
            tokens: Some(tokens),
            ..Self::new()
        }
    }

    fn new() -> Self {
        let manifest_head = head(
            "200 OK",
            MANIFEST.len(),
            &format!(
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\
                 Docker-Content-Digest: {MANIFEST_DIGEST}\r\nEtag: \"{MANIFEST_DIGEST}\"\r\n"
            ),
        );
        let blob_headers = format!(
            "Content-Type: application/octet-stream\r\nCache-Control: max-age=31536000\r\nAccept-Ranges: bytes\r\n\
             Docker-Content-Digest: {BLOB_DIGEST}\r\nEtag: \"{BLOB_DIGEST}\"\r\n"
        );
        let upload = "8b0f6b5c-5d3a-4f0a-9f3e-0c1d2e3f4a5b";
        let accepted = format!(
            "Location: /v2/big/blobs/uploads/{upload}?_state=eyJOYW1lIjoiYmlnIn0\r\n\
             Range: 0-0\r\nDocker-Upload-Uuid: {upload}\r\n"
        );
        let created = format!(
            "Location: /v2/big/blobs/{BLOB_DIGEST}\r\nDocker-Content-Digest: {BLOB_DIGEST}\r\n"
        );
        Self {
            ping: head("200 OK", 2, "Content-Type: application/json\r\n") + "{}",
            manifest: manifest_head.clone() + MANIFEST,
            manifest_head,
            blob_head: head("200 OK", BLOB_SIZE, &blob_headers),
            blob_piece: vec![0; BLOB_PIECE],
            accepted: head("202 Accepted", 0, &accepted),
            created: head("201 Created", 0, &created),
            not_found: head("404 Not Found", 0, ""),
            tokens: None,
        }
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
        let path = request.target.split('?').next().unwrap_or_default();
        if let Some(tokens) = self.tokens.as_ref().filter(|_| !request.has_token) {
            let is_token = path == "/token";
            let text = if is_token {
                &tokens.token
            } else {
                &tokens.challenge
            };
            return stream.write_all(text.as_bytes());
        }
        let is_blob = path.strip_prefix("/v2/big/blobs/") == Some(BLOB_DIGEST);
        let text = match (request.method.as_str(), path) {
            ("GET", "/v2/") => &self.ping,
            ("GET", "/v2/small/manifests/latest") => &self.manifest,
            ("HEAD", "/v2/small/manifests/latest") => &self.manifest_head,
            ("HEAD", _) if is_blob => &self.blob_head,
            ("GET", _) if is_blob => return self.blob(stream),
            ("POST" | "PATCH", _) if path.starts_with("/v2/big/blobs/uploads/") => &self.accepted,
            ("PUT", _) if path.starts_with("/v2/big/blobs/uploads/") => &self.created,
            _ => &self.not_found,
        };
        stream.write_all(text.as_bytes())
    }

    fn blob(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(self.blob_head.as_bytes())?;
        for _ in 0..BLOB_SIZE / BLOB_PIECE {
            stream.write_all(&self.blob_piece)?;
        }
        Ok(())
    }
}

fn head(status: &str, length: usize, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
         X-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n{headers}\r\n"
    )
}
