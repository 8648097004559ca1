//! How moorgate, nginx and Caddy end an HTTP/2 stream that they refuse before its body has come.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ports::free_port;
use super::process::{Process, command, run, tool};
use crate::harness::frames::{DATA, Frames, HEADERS, RST_STREAM};
use crate::harness::{Domain, Setup, client_config, promptly};

/// All of them want a login for it.
const REFUSED: &str = "/v2/base/app/manifests/v1";

/// A server that was made for the test, with a certificate for `ci.test`.
struct Peer {
    port: u16,
    roots: RootCertStore,
    _process: Process,
}

impl Peer {
    /// Starts the program with this configuration, in which `PORT` stands for its port.
    fn start(
        directory: &Path,
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        settings: &str,
    ) -> Self {
        let port = free_port();
        let key = rcgen::generate_simple_self_signed(["ci.test".to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), key.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        std::fs::write(
            directory.join("settings"),
            settings.replace("PORT", &port.to_string()),
        )
        .unwrap();
        let mut program = command(program, directory);
        program.args(arguments);
        let mut process = Process::start(name, program, directory);
        process.becomes("listening", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            port,
            roots,
            _process: process,
        }
    }

    fn nginx(directory: &Path) -> Self {
        let settings = "
            daemon off; master_process off; pid nginx.pid; error_log stderr;
            events {}
            http {
                access_log off; client_max_body_size 0;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                server {
                    listen 127.0.0.1:PORT ssl http2;
                    ssl_certificate cert.pem; ssl_certificate_key key.pem;
                    location / { return 401 no; }
                }
            }";
        let prefix = format!("{}/", directory.display());
        let arguments = ["-p", &prefix, "-c", "settings", "-e", "stderr"];
        Self::start(
            directory,
            "nginx",
            &tool("nginx", "nginx"),
            &arguments,
            settings,
        )
    }

    fn caddy(directory: &Path) -> Self {
        let settings = "
            {
                admin off
                auto_https off
            }
            https://ci.test:PORT {
                bind 127.0.0.1
                tls cert.pem key.pem
                respond no 401
            }";
        let arguments = ["run", "--adapter", "caddyfile", "--config", "settings"];
        Self::start(
            directory,
            "caddy",
            &tool("caddy", "caddy"),
            &arguments,
            settings,
        )
    }

    async fn frames(&self) -> Frames {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = TlsConnector::from(std::sync::Arc::new(client_config(
            self.roots.clone(),
            &["h2"],
        )));
        let name = ServerName::try_from("ci.test").unwrap();
        let io = connector.connect(name, tcp).await.unwrap();
        promptly(Frames::over(io, 65_535)).await
    }
}

/// Begins an upload of which more is to come.
async fn begin(client: &mut Frames) -> u32 {
    let stream = client.stream();
    let fields = [
        (":method", "PUT"),
        (":scheme", "https"),
        (":authority", "ci.test"),
        (":path", REFUSED),
    ];
    client.head(stream, &fields, false).await;
    client.data(stream, &[b'x'; 16_000], false).await;
    stream
}

/// The frames of a stream up to its end, of those that matter to its client.
async fn end_of(client: &mut Frames, stream: u32) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let frame = promptly(client.next()).await;
        if frame.stream != stream {
            continue;
        }
        let end = if frame.ends_stream() {
            " END_STREAM"
        } else {
            ""
        };
        match frame.kind {
            HEADERS => all.push(format!("HEADERS{end}")),
            DATA => all.push(format!("DATA{end}")),
            RST_STREAM => {
                all.push(format!("RST_STREAM {}", frame.reason()));
                return all;
            }
            _ => {}
        }
    }
}

/// Bytes that were under way when the stream was reset cost nothing but themselves.
async fn goes_on(client: &mut Frames, stream: u32) {
    client.data(stream, &[b'x'; 16_000], false).await;
    let next = begin(client).await;
    assert_eq!(promptly(client.next_of(HEADERS)).await.stream, next);
}

/// The status and the exit status of Debian's curl, which uploads 20 MB.
fn curl(directory: &Path, port: u16) -> String {
    std::fs::write(directory.join("upload"), vec![b'x'; 20_000_000]).unwrap();
    let mut curl = command(&tool("curl", "curl"), directory);
    curl.args(["--silent", "--insecure", "--http2", "--max-time", "60"]);
    curl.args(["--output", "answer", "--upload-file", "upload"]);
    curl.args(["--write-out", "%{http_version} %{http_code} %{exitcode}"]);
    curl.args(["--resolve", &format!("ci.test:{port}:127.0.0.1")]);
    curl.arg(format!("https://ci.test:{port}{REFUSED}"));
    run(&mut curl, "").stdout
}

/// Asserts how the stream of a refused upload ends.
async fn ends_cleanly(server: &str, mut client: Frames) {
    let stream = begin(&mut client).await;
    let end = end_of(&mut client, stream).await;
    // RFC 9113, section 8.1: after a complete response, NO_ERROR asks to send no more.
    let wanted = ["HEADERS", "DATA END_STREAM", "RST_STREAM 0"];
    assert_eq!(end, wanted, "{server}");
    goes_on(&mut client, stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_answers_end_as_those_of_the_peers() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for (name, start) in [
        ("nginx", Peer::nginx as fn(&Path) -> Peer),
        ("Caddy", Peer::caddy),
    ] {
        let peer = start(directory);
        ends_cleanly(name, peer.frames().await).await;
    }
    let ci = Domain::store("ci.test", "ci");
    let gateway = Setup::new().domain(ci).start().await;
    let port = gateway.https().port();
    ends_cleanly("moorgate", gateway.frames().await).await;
    // With both peers, it is a race for curl before 8.0 whether the reset comes with the answer.
    for _ in 0..3 {
        assert_eq!(curl(directory, port), "2 401 0");
    }
}
