//! The validated settings of one virtual host.
//! Plain data, which only `resolve` builds from files.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::AccessSettings;
use super::acme::AcmeRequest;
use super::retention::{QuotaSettings, RetentionSettings};
use super::upstream::{UpstreamSettings, UpstreamUrl};
use crate::registry::action::{Action, Actions};
use crate::registry::host::{Authority, HostName};

/// A virtual host: a domain, its listeners, its users and the registry behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct VirtualHost {
    /// The public name, unique in the whole configuration.
    pub domain: HostName,
    /// Further names, each unique on every listener of this host, or, with a port, on the
    /// listeners with that port only: `localhost:5001`.
    pub aliases: Vec<Authority>,
    /// The https listeners that serve it, at least one.
    pub listen: Vec<ListenAddress>,
    pub certificate: CertificateSource,
    pub auth: AuthSettings,
    pub access: AccessSettings,
    /// The registry behind it.
    pub registry: RegistrySettings,
    /// The form of `Location` in responses of the registry.
    pub locations: LocationForm,
    /// What is served outside `/v2/`.
    pub browser: Option<BrowserSettings>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// When tags are taken away; `None`: never.
    pub retention: Option<RetentionSettings>,
    /// How much areas of its store may hold.
    pub quotas: Vec<QuotaSettings>,
    /// The domain file, for messages.
    pub source: PathBuf,
}

impl VirtualHost {
    /// The domain and its aliases, each name once, the domain first.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        let named_before = |at: usize, name: &HostName| {
            self.aliases
                .iter()
                .take(at)
                .any(|alias| alias.host == *name)
        };
        let aliases = self.aliases.iter().map(|alias| &alias.host).enumerate();
        let aliases =
            aliases.filter(move |&(at, name)| *name != self.domain && !named_before(at, name));
        std::iter::once(&self.domain).chain(aliases.map(|(_, name)| name))
    }

    /// The names under which a listener serves it.
    pub fn names_on(&self, listener: ListenAddress) -> impl Iterator<Item = &HostName> {
        let here =
            move |alias: &&Authority| alias.port.is_none_or(|port| port == listener.0.port());
        std::iter::once(&self.domain)
            .chain(self.aliases.iter().filter(here).map(|alias| &alias.host))
    }

    /// Whether the name is the domain or an alias, on any listener.
    pub fn is_named(&self, name: &HostName) -> bool {
        self.domain == *name || self.aliases.iter().any(|alias| alias.host == *name)
    }
}

/// The address of a listener. `":443"` is every address, IPv6 and IPv4 (`[::]:443`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddress(pub SocketAddr);

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => write!(f, ":{}", self.0.port()),
            _ => self.0.fmt(f),
        }
    }
}

/// The source of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files, which are read again when they change.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key of the leaf.
        key: PathBuf,
    },
    /// A certificate of moorgate's own CA for all names of the virtual host.
    Internal,
    /// A certificate that is ordered from a CA and renewed.
    Acme(AcmeRequest),
}

/// Settings of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// The htpasswd file, which is read again when it changes.
    pub htpasswd: PathBuf,
    /// The realm of the Basic challenge, without quotes, backslashes or control characters.
    pub realm: String,
    pub mode: AuthMode,
    /// What is possible without a login, if the access rules allow it.
    pub anonymous: AnonymousAccess,
}

/// How registry clients authenticate. Browsers use passwords in either mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// With user name and password in each request.
    Basic,
    /// With tokens, which are issued for a password.
    Token(TokenSettings),
}

impl AuthMode {
    /// The settings of token mode.
    pub fn tokens(&self) -> Option<&TokenSettings> {
        match self {
            Self::Basic => None,
            Self::Token(settings) => Some(settings),
        }
    }
}

/// Lifetimes of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// Of a token, from its issue; requests that have begun continue. Default 5 min.
    pub lifetime: Duration,
    /// Of a refresh token, from its last use. Default 90 days. `None`: no refresh token is issued or
    /// accepted, and clients keep the password.
    pub refresh_lifetime: Option<Duration>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            refresh_lifetime: Some(Duration::from_secs(90 * 86_400)),
        }
    }
}

/// What is possible without a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousAccess {
    /// Nothing.
    #[default]
    None,
    /// Pulling, and listing tags.
    Pull,
}

impl AnonymousAccess {
    pub fn actions(self) -> Actions {
        match self {
            Self::None => Actions::default(),
            Self::Pull => [Action::Pull, Action::List].into_iter().collect(),
        }
    }
}

/// The registry behind a virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrySettings {
    /// An existing registry.
    Upstream(Box<UpstreamSettings>),
    /// moorgate's own registry in a directory.
    Store(StoreSettings),
}

impl RegistrySettings {
    pub fn upstream(&self) -> Option<&UpstreamSettings> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            Self::Store(_) => None,
        }
    }

    pub fn store(&self) -> Option<&StoreSettings> {
        match self {
            Self::Upstream(_) => None,
            Self::Store(store) => Some(store),
        }
    }
}

impl fmt::Display for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The same for the same replicas in another order.
            Self::Upstream(upstream) => {
                let urls = upstream.urls().map(UpstreamUrl::to_string);
                f.write_str(&urls.min().unwrap_or_default())
            }
            Self::Store(store) => write!(f, "directory {}", store.name),
        }
    }
}

/// Settings of moorgate's own registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The name in the domain file.
    pub name: String,
    /// `store/NAME` below the state directory.
    pub directory: PathBuf,
    /// The interval of garbage collection; `None`: only by command. Default 24 h.
    pub collect_every: Option<Duration>,
    /// The minimum age of unreferenced content before it is removed. Default 24 h.
    pub grace: Duration,
    /// How long a manifest that no tag leads to stays after its push or its last pull, if that is
    /// longer than `grace`; `None`: for ever. Default `None`.
    pub untagged: Option<Duration>,
    /// Whether a manifest is stored although something that it references is missing. Default
    /// refuse.
    pub missing: MissingContent,
}

/// What happens to a manifest that references something that is missing or of another size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingContent {
    #[default]
    Refuse,
    /// It is stored. A wrong size is logged.
    Allow,
}

/// The form of a `Location` that leads to the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocationForm {
    /// A URL, with the host and port that the client named: some clients take nothing else.
    #[default]
    Absolute,
    /// A path, for where a proxy in front changes the Host.
    Relative,
}

/// What is served outside `/v2/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSettings {
    /// An http or https upstream.
    pub url: UpstreamUrl,
}

/// Limits on the sizes of one virtual host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest manifest that is accepted; larger ones get 413. Default 4 MiB: skopeo and podman
    /// pull no larger ones.
    pub manifest_bytes: u64,
    /// The largest body of any other request; none by default.
    pub body_bytes: Option<u64>,
    /// The maximum number of requests of one user in flight. Default 4096.
    pub user_requests: u32,
    /// Of these, the maximum number of those with a body. Default 2048.
    pub user_uploads: u32,
    /// The maximum number of open upload sessions of one user of a store or spool. Default 1000.
    pub user_upload_sessions: usize,
    /// The maximum number of connections to each upstream. Default 8192.
    pub upstream_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            body_bytes: None,
            user_requests: 4096,
            user_uploads: 2048,
            user_upload_sessions: 1000,
            upstream_connections: 8192,
        }
    }
}

/// Timeouts of one virtual host. None of them limits the total time of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of an upload's head to the first byte of its body. Default 10 min.
    pub first_body_byte: Duration,
    /// Between two bytes of a body, in either direction. Default 120 s.
    pub stall: Duration,
    /// TCP connect and TLS handshake with the upstream. Default 5 s.
    pub upstream_connect: Duration,
    /// From the end of a request to the head of the upstream's response. Default 2 min.
    pub upstream_head: Duration,
    /// The same for an upload commit and a manifest PUT. Default 15 min.
    pub upstream_commit: Duration,
    /// How long an unused connection to the upstream stays open. Default 90 s.
    pub upstream_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_body_byte: Duration::from_secs(600),
            stall: Duration::from_secs(120),
            upstream_connect: Duration::from_secs(5),
            upstream_head: Duration::from_secs(120),
            upstream_commit: Duration::from_secs(900),
            upstream_idle: Duration::from_secs(90),
        }
    }
}

/// A virtual host, shared by all parts of the program.
pub(crate) type SharedVirtualHost = Arc<VirtualHost>;
