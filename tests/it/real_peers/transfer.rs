//! Blobs that are made while they go up and forgotten while they come down, with curl.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use aws_lc_rs::digest::{Context, SHA256};

use super::fixture::{Domain, RegistriesFixture};
use super::image::hex;
use super::process::run;

/// Bytes that no two blocks and no two seeds have in common.
pub struct Blob {
    pub seed: u64,
    pub blocks: u64,
}

impl Blob {
    pub const BLOCK: usize = 1 << 20;

    pub fn size(&self) -> u64 {
        self.blocks * Self::BLOCK as u64
    }

    /// Hands out block after block.
    pub fn each_block(&self, mut take: impl FnMut(u64, &[u8])) {
        let mut block = vec![0; Self::BLOCK];
        let mut state = self.seed;
        for word in block.chunks_exact_mut(8) {
            // Marsaglia's xorshift64: noise enough not to be compressible.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        for index in 0..self.blocks {
            block[..8].copy_from_slice(&index.to_le_bytes());
            take(index, &block);
        }
    }
}

/// Hashes what passes.
pub struct Hash(Context);

impl Hash {
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn digest(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

/// A curl that goes on uploading until it is finished.
pub struct Upload {
    curl: Child,
    body: Option<ChildStdin>,
}

impl Upload {
    /// Sends what is written to it, in chunks since curl does not know how much comes.
    pub fn start(mut curl: Command, method: &str, url: &str) -> Self {
        curl.args([
            "--request",
            method,
            "--upload-file",
            "-",
            "--write-out",
            "%{http_code}",
            url,
        ]);
        curl.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        let body = curl.stdin.take();
        Self { curl, body }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.body.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends the body; returns what curl says: the status of the answer, or what went wrong.
    pub fn finish(mut self) -> Result<String, String> {
        drop(self.body.take());
        let mut said = [String::new(), String::new()];
        self.curl
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said[0])
            .unwrap();
        self.curl
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said[1])
            .unwrap();
        let [status, error] = said;
        if self.curl.wait().unwrap().success() {
            Ok(status)
        } else {
            Err(error)
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

impl RegistriesFixture {
    /// curl as the user of a domain, in a protocol: `--http1.1` or `--http2`.
    pub fn curl_as_user(&self, domain: &Domain, protocol: &str) -> Command {
        let mut curl = self.curl();
        curl.args([
            protocol,
            "--fail-with-body",
            "--user",
            &format!("{}:{}", domain.user, domain.password),
        ]);
        curl
    }

    /// Starts an upload; returns the URL that the next request of it goes to.
    pub fn start_upload(&self, domain: &Domain, protocol: &str, repository: &str) -> String {
        let url = format!(
            "https://{}/v2/{repository}/blobs/uploads/",
            domain.by_name()
        );
        let mut curl = self.curl_as_user(domain, protocol);
        let head = run(
            curl.args(["--request", "POST", "--dump-header", "-", &url]),
            "",
        )
        .succeeded();
        location(domain, &head)
    }

    /// Downloads, hashes and forgets a blob: its digest and its size.
    pub fn download(&self, domain: &Domain, protocol: &str, path: &str) -> (String, u64) {
        let mut curl = self.curl_as_user(domain, protocol);
        let url = format!("https://{}{path}", domain.by_name());
        let mut curl = curl.arg(url).stdout(Stdio::piped()).spawn().unwrap();
        let (mut hash, mut size) = (Hash::new(), 0);
        let mut out = curl.stdout.take().unwrap();
        let mut buffer = vec![0; Blob::BLOCK];
        loop {
            let count = out.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            size += count as u64;
        }
        assert!(curl.wait().unwrap().success());
        (hash.digest(), size)
    }
}

/// Where an answer's `Location` leads: to the host and port that were asked.
pub fn location(domain: &Domain, head: &str) -> String {
    let url = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location")
            .then_some(value.trim())
    });
    let url = url.unwrap_or_else(|| panic!("no Location: {head}"));
    let here = format!("https://{}/v2/", domain.by_name());
    assert!(url.starts_with(&here), "{url}");
    url.to_owned()
}

/// `url` with a further query parameter.
pub fn with_digest(url: &str, digest: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}digest={digest}")
}
