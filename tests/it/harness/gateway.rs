//! A gateway in this process, with a configuration of its own.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use moorgate::internal::app::{App, ListenerKind, StartError, StartOptions};
use moorgate::internal::auth::SessionKey;
use moorgate::internal::auth::UserName;
use moorgate::internal::config::ListenAddress;
use moorgate::internal::listen::InheritedSockets;
use moorgate::internal::observe::{LogQueues, LogWriters};
use moorgate::internal::registry::RepositoryName;
use moorgate::internal::registry::UploadId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::raw_peer::RawPeer;

/// With which upload sessions are bound to users, at every gateway of a setup.
const SESSION_KEY: [u8; 32] = [7; 32];

/// A target under which alice reaches an upload session of `ci.test`, for the one under which the
/// registry knows it; any other target as it is.
pub fn bound(target: &str) -> String {
    static KEY: LazyLock<SessionKey> = LazyLock::new(|| {
        let directory = tempfile::tempdir().unwrap();
        write_session_key(directory.path());
        SessionKey::open(directory.path()).unwrap()
    });
    let (path, rest) = target.split_at(target.find(['?', '#']).unwrap_or(target.len()));
    let parts = path
        .strip_prefix("/v2/")
        .and_then(|path| path.rsplit_once("/blobs/uploads/"));
    let names = parts.and_then(|(name, id)| {
        Some((
            RepositoryName::parse(name).ok()?,
            UploadId::parse(id).ok().filter(|_| !id.contains('~'))?,
        ))
    });
    let Some((name, id)) = names else {
        return target.to_owned();
    };
    let bound = KEY
        .owner("ci.test", UserName::new("alice").unwrap())
        .bind(&name, &id)
        .unwrap();
    format!("/v2/{name}/blobs/uploads/{bound}{rest}")
}

/// The URL of a path at `ci.test`, as a `Location` has it.
pub fn url(path: &str) -> String {
    format!("https://ci.test{path}")
}

/// Makes the state directory with the key in it, for what is to be started.
pub fn write_session_key(state: &Path) {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .unwrap();
    std::fs::write(state.join("upload-sessions.key"), SESSION_KEY).unwrap();
}

/// The value of an Authorization header.
pub fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    )
}

/// What is to be started.
pub struct Setup {
    top: String,
    main: String,
    admin: String,
    domains: Vec<Domain>,
}

/// A domain of a setup, with user `alice` and password `secret`.
pub struct Domain {
    name: String,
    users: Vec<(String, String)>,
    upstream: String,
    top: String,
    upstream_keys: String,
    tables: String,
    tls: String,
    auth: String,
}

impl Domain {
    /// A domain in front of the upstream at a URL.
    pub fn new(name: &str, upstream: &str) -> Self {
        Self {
            name: name.to_owned(),
            users: vec![("alice".to_owned(), "secret".to_owned())],
            upstream: upstream.to_owned(),
            top: String::new(),
            upstream_keys: String::new(),
            tables: String::new(),
            tls: "internal = true".to_owned(),
            auth: String::new(),
        }
    }

    /// A domain whose registry is moorgate's own.
    pub fn store(name: &str, directory: &str) -> Self {
        Self::new(name, "").upstream(&format!("directory = \"{directory}\""))
    }

    /// A further user.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// TOML above the first table: aliases, listen.
    pub fn top(mut self, toml: &str) -> Self {
        self.top = toml.to_owned();
        self
    }

    /// Keys of `[upstream]` beside the URL.
    pub fn upstream(mut self, toml: &str) -> Self {
        self.upstream_keys = toml.to_owned();
        self
    }

    /// Further tables: `[limits]`, `[timeouts]`, `[browser]`.
    pub fn tables(mut self, toml: &str) -> Self {
        self.tables = toml.to_owned();
        self
    }

    /// Keys of `[tls]` instead of `internal = true`.
    pub fn tls(mut self, toml: &str) -> Self {
        self.tls = toml.to_owned();
        self
    }

    /// A path before `/v2/` at the upstream.
    pub fn base_path(mut self, path: &str) -> Self {
        self.upstream.push_str(path);
        self
    }

    /// Keys of `[auth]` beside the htpasswd file.
    pub fn auth(mut self, toml: &str) -> Self {
        self.auth = toml.to_owned();
        self
    }

    /// The domain file.
    pub fn toml(&self) -> String {
        let Self {
            name,
            upstream,
            top,
            upstream_keys,
            tables,
            tls,
            auth,
            ..
        } = self;
        let url = if upstream.is_empty() {
            String::new()
        } else {
            format!("url = \"{upstream}\"")
        };
        format!(
            "domain = \"{name}\"\n{top}\n[tls]\n{tls}\n[auth]\nhtpasswd = \"{name}.htpasswd\"\n{auth}\n\
             [upstream]\n{url}\n{upstream_keys}\n{tables}\n"
        )
    }

    /// Lines of an htpasswd file, at bcrypt's lowest cost.
    pub fn htpasswd(users: &[(String, String)]) -> String {
        users
            .iter()
            .map(|(user, password)| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap()))
            .collect()
    }
}

impl Setup {
    /// One https listener, one plain and one admin listener, all on ports of the system's choice.
    pub fn new() -> Self {
        Self {
            top: String::new(),
            main: String::new(),
            admin: "127.0.0.3:0".to_owned(),
            domains: Vec::new(),
        }
    }

    /// A further domain.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domains.push(domain);
        self
    }

    /// TOML for moorgate.toml above the first table.
    pub fn top(mut self, toml: &str) -> Self {
        self.top = toml.to_owned();
        self
    }

    /// As many wrong passwords as come, for tests of what each of them costs.
    pub fn unbounded(self) -> Self {
        self.main("[auth]\naddress_failures = 1000000\nuser_failures = 1000000")
    }

    /// Further TOML for moorgate.toml, tables only.
    pub fn main(mut self, toml: &str) -> Self {
        self.main = toml.to_owned();
        self
    }

    /// The admin listener on a port that the configuration names.
    pub fn admin(mut self, address: &str) -> Self {
        self.admin = address.to_owned();
        self
    }

    /// Writes the files into a directory.
    pub fn write(&self, directory: &Path) {
        let main = format!(
            "https = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.2:0\"]\nstate = \"state\"\n{}\n\
             [admin]\nlisten = \"{}\"\n{}\n",
            self.top, self.admin, self.main
        );
        std::fs::write(directory.join("moorgate.toml"), main).unwrap();
        self.write_domains(directory);
    }

    /// Writes the files of the domains alone.
    pub fn write_domains(&self, directory: &Path) {
        std::fs::create_dir_all(directory.join("conf.d")).unwrap();
        for domain in &self.domains {
            let file = |extension: &str| {
                directory
                    .join("conf.d")
                    .join(format!("{}.{extension}", domain.name))
            };
            std::fs::write(file("toml"), domain.toml()).unwrap();
            std::fs::write(file("htpasswd"), Domain::htpasswd(&domain.users)).unwrap();
        }
    }

    /// Starts a gateway on this thread.
    pub async fn start(self) -> Gateway {
        match self.try_start().await {
            Ok(gateway) => gateway,
            Err(StartError::Configuration(problems)) => panic!("{problems}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// The same, for setups that are wrong.
    pub async fn try_start(self) -> Result<Gateway, StartError> {
        let directory = tempfile::tempdir().unwrap();
        write_session_key(&directory.path().join("state"));
        self.try_start_in(directory).await
    }

    /// The same where something has been prepared.
    pub async fn try_start_in(self, directory: tempfile::TempDir) -> Result<Gateway, StartError> {
        self.write(directory.path());
        let options = StartOptions {
            directory: directory.path().to_owned(),
            workers: None,
            log_floor: None,
            logs: shown_log(),
            sockets: InheritedSockets::default(),
            predecessor: None,
            strict: false,
        };
        let app = start_app(options).await?;
        Ok(Gateway { app, directory })
    }
}

/// Shows events on standard error where that is asked for. The lines of requests are for the test.
fn shown_log() -> Option<LogQueues> {
    std::env::var_os("MOORGATE_TEST_LOG")?;
    let writers = Box::leak(Box::new(LogWriters::start().unwrap()));
    Some(LogQueues {
        access: Arc::default(),
        ..writers.queues()
    })
}

/// Starts an app and what is beside it, as `moorgate run` does.
pub async fn start_app(options: StartOptions) -> Result<Arc<App>, StartError> {
    let app = App::start(options).await?;
    moorgate::internal::admin::serve(&app);
    Ok(app)
}

/// A running gateway.
pub struct Gateway {
    pub app: Arc<App>,
    pub directory: tempfile::TempDir,
}

impl Gateway {
    /// A gateway with the domain `ci.test` in front of an upstream.
    pub async fn before(upstream: &str) -> Self {
        Setup::new()
            .domain(Domain::new("ci.test", upstream))
            .start()
            .await
    }

    fn address(&self, kind: ListenerKind, configured: &str) -> SocketAddr {
        self.app
            .address(kind, ListenAddress(configured.parse().unwrap()))
            .expect("it listens")
    }

    /// The https listener.
    pub fn https(&self) -> SocketAddr {
        self.address(ListenerKind::Https, "127.0.0.1:0")
    }

    /// The plain listener.
    pub fn http(&self) -> SocketAddr {
        self.address(ListenerKind::Http, "127.0.0.2:0")
    }

    /// The admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.address(ListenerKind::Admin, "127.0.0.3:0")
    }

    /// A file of the configuration.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The control socket.
    pub fn control_socket(&self) -> std::path::PathBuf {
        let mut all = std::fs::read_dir(self.path("state/control")).unwrap();
        all.next().unwrap().unwrap().path()
    }

    /// What `/status` tells.
    pub async fn status(&self) -> serde_json::Value {
        let mut client = RawPeer::new(TcpStream::connect(self.admin()).await.unwrap());
        let host = self.admin();
        client
            .send(&format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        super::json(&client.answer().await.1)
    }

    /// A TLS client configuration that trusts the gateway's own CA.
    pub fn client_config(&self, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let pem = self.path("state/internal-ca/ca.pem");
        roots
            .add(CertificateDer::from_pem_file(pem).unwrap())
            .unwrap();
        client_config(roots, alpn)
    }

    /// A TLS connection with a name and protocols to offer.
    pub async fn tls(&self, name: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.https()).await?;
        self.tls_over(tcp, name, alpn).await
    }

    /// The same from another loopback address.
    pub async fn tls_from(&self, client: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{client}:0").parse().unwrap())?;
        let tcp = socket.connect(self.https()).await?;
        self.tls_over(tcp, "ci.test", &["http/1.1"]).await
    }

    async fn tls_over(
        &self,
        tcp: TcpStream,
        name: &str,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.client_config(alpn)));
        connector
            .connect(ServerName::try_from(name.to_owned()).unwrap(), tcp)
            .await
    }

    /// Whether a handshake with a name shows a certificate (in DER) that is its own root.
    pub async fn shows(&self, name: &str, certificate: &[u8]) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(certificate.to_vec()))
            .unwrap();
        let config = client_config(roots, &["http/1.1"]);
        let tcp = TcpStream::connect(self.https()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .is_ok()
    }

    /// An HTTP/1.1 connection for `ci.test`, to be played byte by byte.
    pub async fn client(&self) -> RawPeer<TlsStream<TcpStream>> {
        RawPeer::new(self.tls("ci.test", &["http/1.1"]).await.unwrap())
    }

    /// Ends the gateway; what still runs has a minute.
    pub async fn stop(&self) -> bool {
        self.app.drain(Duration::from_secs(60)).await
    }
}

/// A TLS client configuration that trusts these roots.
pub fn client_config(roots: RootCertStore, alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    config
}

/// A request of `alice` to `ci.test`, without body: method, target and further header lines. An
/// upload session stands in it as the registry knows it.
pub fn request(method: &str, target: &str, lines: &str) -> String {
    let target = bound(target);
    let authorization = basic("alice", "secret");
    format!(
        "{method} {target} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n{lines}\r\n"
    )
}
