//! What is said of upstreams that cannot be used, by the peers that people really have: nginx,
//! docker-registry and openssl where the other protocol is expected, certificates that do not fit,
//! and servers that are none of HTTP.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ports::free_port;
use super::process::{Process, command, tool};
use crate::harness::{Domain, Events, RawPeer, Setup, basic, cli};

/// A server certificate with its key, in files.
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

struct Peers {
    // Ended before their directory goes.
    processes: Vec<Process>,
    directory: tempfile::TempDir,
}

/// What a domain is in front of.
struct Row {
    /// The peer, in the table.
    name: &'static str,
    url: String,
    /// Keys of `[upstream]`.
    keys: String,
}

fn row(name: &'static str, url: String) -> Row {
    Row {
        name,
        url,
        keys: String::new(),
    }
}

impl Peers {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        let peers = Self {
            directory,
            processes: Vec::new(),
        };
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "A CA");
        let pem = ca.self_signed(&key).unwrap().pem();
        fs::write(peers.path().join("ca.pem"), pem).unwrap();
        let issuer = Issuer::new(ca, key);
        for (name, host, end) in [
            ("good", "127.0.0.1", 2999),
            ("other", "registry.test", 2999),
            ("expired", "127.0.0.1", 2001),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([host.to_owned()]).unwrap();
            params.not_after = date_time_ymd(end, 1, 1);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let files = peers.certificate(name);
            fs::write(files.certificate, certificate.pem()).unwrap();
            fs::write(files.key, key.serialize_pem()).unwrap();
        }
        peers
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn certificate(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.path().join(format!("{name}.pem")),
            key: self.path().join(format!("{name}.key")),
        }
    }

    /// Trusts the CA that has signed all certificates.
    fn trusting(&self, name: &'static str, url: String) -> Row {
        let keys = format!("roots = \"{}\"", self.path().join("ca.pem").display());
        Row { name, url, keys }
    }

    fn start(&mut self, name: &'static str, program: &str, arguments: &[&str]) {
        let mut command = command(&tool(program, program), self.path());
        command.args(arguments);
        let process = Process::start(name, command, &self.path().join("logs"));
        self.processes.push(process);
    }

    fn becomes_reachable(&mut self, at: &str) {
        let process = self.processes.last_mut().unwrap();
        process.becomes("listening", || std::net::TcpStream::connect(at).is_ok());
    }

    /// `openssl s_server` with a certificate. Returns its address.
    fn openssl(&mut self, name: &'static str, certificate: &str, arguments: &[&str]) -> String {
        let at = format!("127.0.0.1:{}", free_port());
        let CertificateFiles { certificate, key } = self.certificate(certificate);
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        let all = [
            "s_server",
            "-www",
            "-accept",
            &at,
            "-cert",
            certificate,
            "-key",
            key,
        ];
        self.start(name, "openssl", &[&all, arguments].concat());
        self.becomes_reachable(&at);
        at
    }

    /// docker-registry with further settings of `http`.
    fn docker_registry(&mut self, name: &'static str, http: &str) -> String {
        let at = format!("127.0.0.1:{}", free_port());
        let settings = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{inmemory: {{}}}}\n\
             http: {{addr: \"{at}\", secret: not-a-secret{http}}}\n"
        );
        let file = self.path().join(format!("{name}.yml"));
        fs::write(&file, settings).unwrap();
        self.start(name, "docker-registry", &["serve", file.to_str().unwrap()]);
        self.becomes_reachable(&at);
        at
    }

    /// nginx with a plain and a TLS port.
    fn nginx(&mut self) -> [String; 2] {
        let directory = self.path().display().to_string();
        let [plain, tls] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let CertificateFiles { certificate, key } = self.certificate("good");
        let settings = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {directory}/nginx.pid;\n\
             error_log {directory}/nginx.log;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path {directory}/b;\nproxy_temp_path {directory}/p;\n\
             fastcgi_temp_path {directory}/f;\nuwsgi_temp_path {directory}/u;\n\
             scgi_temp_path {directory}/s;\n\
             server {{ listen {plain}; }}\n\
             server {{ listen {tls} ssl; ssl_certificate {}; ssl_certificate_key {}; }}\n}}\n",
            certificate.display(),
            key.display()
        );
        let file = self.path().join("nginx.conf");
        fs::write(&file, settings).unwrap();
        let log = format!("{directory}/nginx.log");
        self.start(
            "nginx",
            "nginx",
            &["-e", &log, "-c", file.to_str().unwrap()],
        );
        self.becomes_reachable(&plain);
        [plain, tls]
    }
}

/// A server that answers the first bytes of each connection with these and closes it.
async fn scripted(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    at
}

/// A server that accepts and says nothing.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut all = Vec::new();
        loop {
            all.push(listener.accept().await.unwrap());
        }
    });
    at
}

async fn rows(peers: &mut Peers) -> Vec<Row> {
    let [plain_nginx, tls_nginx] = peers.nginx();
    let plain_registry = peers.docker_registry("plain-registry", "");
    let files = peers.certificate("good");
    let tls = format!(
        ", tls: {{certificate: {}, key: {}}}",
        files.certificate.display(),
        files.key.display()
    );
    let tls_registry = peers.docker_registry("tls-registry", &tls);
    let good = peers.openssl("good", "good", &[]);
    let other = peers.openssl("other", "other", &[]);
    let expired = peers.openssl("expired", "expired", &[]);
    let http2 = peers.openssl("http2", "good", &["-alpn", "h2"]);
    let long: &'static [u8] = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(70_000))
        .into_bytes()
        .leak();
    let settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64";
    vec![
        row("nginx, plain", format!("https://{plain_nginx}")),
        row(
            "docker-registry, plain",
            format!("https://{plain_registry}"),
        ),
        row("nginx, TLS", format!("http://{tls_nginx}")),
        row("docker-registry, TLS", format!("http://{tls_registry}")),
        row("openssl, TLS", format!("http://{good}")),
        row("own CA", format!("https://{good}")),
        peers.trusting("another name", format!("https://{other}")),
        peers.trusting("expired", format!("https://{expired}")),
        peers.trusting("HTTP/2 by ALPN", format!("https://{http2}")),
        row("HTTP/2", format!("http://{}", scripted(settings).await)),
        row(
            "SSH",
            format!("http://{}", scripted(b"SSH-2.0-x\r\n").await),
        ),
        row(
            "SSH, https",
            format!("https://{}", scripted(b"SSH-2.0-x\r\n").await),
        ),
        row(
            "half a head",
            format!("http://{}", scripted(b"HTTP/1.1 200 OK\r\nA").await),
        ),
        row("no response", format!("http://{}", scripted(b"").await)),
        row("no handshake", format!("https://{}", scripted(b"").await)),
        row(
            "a broken head",
            format!("http://{}", scripted(b"HTTP/1.1 x\r\n\r\n").await),
        ),
        row("a long head", format!("http://{}", scripted(long).await)),
        row("silence", format!("http://{}", silent().await)),
        row("silence, https", format!("https://{}", silent().await)),
        row("a closed port", "http://127.94.0.1:9".to_owned()),
        row("a name that is none", "http://registry.invalid".to_owned()),
    ]
}

/// The status for a client of a domain.
async fn status(gateway: &crate::harness::Gateway, domain: &str) -> u16 {
    let mut client = RawPeer::new(gateway.tls(domain, &["http/1.1"]).await.unwrap());
    let authorization = basic("alice", "secret");
    let request =
        format!("GET /v2/ HTTP/1.1\r\nHost: {domain}\r\nAuthorization: {authorization}\r\n\r\n");
    client.send(request).await;
    client.answer().await.0.status()
}

#[tokio::test]
async fn each_upstream_that_cannot_be_used_is_named_with_cause_and_remedy() {
    let mut peers = Peers::new();
    let rows = rows(&mut peers).await;
    let name = |index: usize| format!("d{index:02}.localhost");
    let mut setup = Setup::new();
    for (index, row) in rows.iter().enumerate() {
        let timeouts = "[timeouts]\nupstream_connect = \"2s\"\nupstream_head = \"2s\"";
        let domain = Domain::new(&name(index), &row.url).upstream(&row.keys);
        setup = setup.domain(domain.tables(timeouts));
    }
    let gateway = setup.start().await;
    let events = Events::kept();
    let mut statuses = Vec::new();
    for (index, _) in rows.iter().enumerate() {
        statuses.push(status(&gateway, &name(index)).await);
    }
    let shown = gateway.status().await;
    let (_, _, checked) = cli(gateway.directory.path(), &["check", "--live"]).await;
    let mut table = String::new();
    for (index, row) in rows.iter().enumerate() {
        let domains = shown["domains"].as_array().unwrap();
        let name = name(index);
        let domain = domains.iter().find(|domain| domain["domain"] == *name);
        let failure = &domain.unwrap()["upstream_health"]["last_failure"];
        let text = |field: &str| failure[field].as_str().unwrap_or("-").to_owned();
        let (reason, error) = (text("reason"), text("error"));
        // The event and the command say the same.
        let lines = events.with(&format!("domain=\"{name}\""));
        assert_eq!(lines.len(), 1, "{}: {lines:#?}", row.name);
        assert!(
            lines[0].contains(&format!("error={error:?} ")),
            "{lines:#?}"
        );
        assert_eq!(live(&checked, &row.url), error, "{}", row.name);
        let error = error.replace(&row.url, "URL");
        table += &format!("{}: {} {reason}: {error}\n", row.name, statuses[index]);
    }
    for text in ["InvalidContentType", "InvalidMessage", "os error", "hyper"] {
        assert!(!table.contains(text), "{table}");
    }
    let resolver = [
        "Name or service not known",
        "Temporary failure in name resolution",
    ];
    for text in resolver {
        table = table.replace(text, "RESOLVER");
    }
    insta::assert_snapshot!(table, @r"
    nginx, plain: 503 protocol: the upstream cannot be reached: the server answers in plain HTTP: write http:// in its `url`, or give it TLS
    docker-registry, plain: 503 protocol: the upstream cannot be reached: the server answers in plain HTTP: write http:// in its `url`, or give it TLS
    nginx, TLS: 502 protocol: the upstream sent no response: the server speaks TLS: write https:// in its `url`
    docker-registry, TLS: 502 protocol: the upstream sent no response: the server speaks TLS: write https:// in its `url`
    openssl, TLS: 502 closed: the upstream closed the connection before its response: see the upstream's own log; if it speaks TLS, write https:// in its `url`
    own CA: 503 tls: the upstream cannot be reached: the server's certificate is from a CA that is not trusted here: name the file of that CA's certificate in `roots`
    another name: 503 tls: the upstream cannot be reached: the server's certificate is for registry.test, not for 127.0.0.1: use its name in the URL, or give it a certificate for this one
    expired: 503 tls: the upstream cannot be reached: the server's certificate expired on 2001-01-01T00:00:00Z: renew it, or set the clock of this machine
    HTTP/2 by ALPN: 503 tls: the upstream cannot be reached: the server refused the TLS handshake with the alert no_application_protocol: it does not offer HTTP/1.1, which moorgate speaks to servers
    HTTP/2: 502 protocol: the upstream sent no response: the server speaks HTTP/2 alone: enable HTTP/1.1 there, which moorgate speaks to upstreams
    SSH: 502 protocol: the upstream sent no response: the server does not speak HTTP: correct the port in its `url`
    SSH, https: 503 tls: the upstream cannot be reached: the server does not answer in TLS: is this the port of another protocol, as plain HTTP?
    half a head: 502 closed: the upstream closed the connection before its response: see the upstream's own log
    no response: 502 closed: the upstream closed the connection before its response: see the upstream's own log; if it speaks TLS, write https:// in its `url`
    no handshake: 503 tls: the upstream cannot be reached: the server closed the connection in the TLS handshake: see the server's own log; if it speaks plain HTTP, write http:// in its `url`
    a broken head: 502 protocol: the upstream sent a response head that is not valid: invalid HTTP status-code parsed: see the upstream's own log, and what stands before it
    a long head: 502 protocol: the upstream sent a response head of more than 64 KiB or 128 lines: see the upstream's own log, and what stands before it
    silence: 504 timeout: the upstream did not answer in time: see the upstream's own log; if it needs longer, raise `upstream_head` or `upstream_commit`
    silence, https: 503 connect-timeout: the upstream did not complete a connection in time: check the host and port in its `url` and the firewalls between, or raise `upstream_connect`
    a closed port: 503 refused: the upstream cannot be reached: the connection was refused: start the server there, or correct host and port in its `url`
    a name that is none: 503 lookup: the upstream cannot be reached: its name cannot be looked up: RESOLVER: correct the name in its `url`, or the DNS of this machine
    ");
}

/// What `moorgate check --live` says of an upstream, the remedy behind the cause.
fn live(said: &str, url: &str) -> String {
    let start = format!("warning: {url}: ");
    let Some((_, found)) = said.split_once(&start) else {
        return format!("nothing of {url}: {said}");
    };
    let cause = found.lines().next().unwrap();
    let help = found.split_once("= help: ").unwrap().1;
    match help.lines().next().unwrap() {
        "correct it and check again" => cause.to_owned(),
        remedy => format!("{cause}: {remedy}"),
    }
}
