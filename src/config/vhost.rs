//! What a domain file becomes once it is valid: the decided settings of one virtual host.
//! Everything here is plain data; `resolve` is the only place that makes it from files.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::access::AccessSettings;
use super::acme::AcmeRequest;
use crate::registry::action::{Action, Actions};
use crate::registry::host::{Authority, HostName};

/// One virtual host: a domain, its listeners, its users and the registry behind it.
#[derive(Debug)]
pub struct VirtualHost {
    /// The public name, unique in the whole configuration.
    pub domain: HostName,
    /// Further names, each unique on every listener of this host, or, with a port, on the
    /// listeners with that port only: `localhost:5001`.
    pub aliases: Vec<Authority>,
    /// The https listeners that serve it, at least one.
    pub listen: Vec<ListenAddress>,
    /// Where its certificate comes from.
    pub certificate: CertificateSource,
    /// Who may log in.
    pub auth: AuthSettings,
    /// Who may do what.
    pub access: AccessSettings,
    /// The registry behind it.
    pub registry: RegistrySettings,
    /// What people see outside `/v2/`.
    pub browser: Option<BrowserSettings>,
    /// Bounds on sizes.
    pub limits: Limits,
    /// Bounds on silence.
    pub timeouts: Timeouts,
    /// The file that it came from, for messages.
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

    /// The names under which one of its listeners serves it.
    pub fn names_on(&self, listener: ListenAddress) -> impl Iterator<Item = &HostName> {
        let here =
            move |alias: &&Authority| alias.port.is_none_or(|port| port == listener.0.port());
        std::iter::once(&self.domain)
            .chain(self.aliases.iter().filter(here).map(|alias| &alias.host))
    }

    /// Whether a name is one of its own, on whichever listener.
    pub fn is_named(&self, name: &HostName) -> bool {
        self.domain == *name || self.aliases.iter().any(|alias| alias.host == *name)
    }
}

/// Where a listener binds. `":443"` is every address, IPv6 and IPv4 alike (`[::]:443`).
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

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files, re-read when they change.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key of the leaf.
        key: PathBuf,
    },
    /// A leaf from moorgate's own CA, for all names of the virtual host.
    Internal,
    /// A certificate that a CA gives for the asking, and that is renewed in time.
    Acme(AcmeRequest),
}

/// Who may log in, and what the challenge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// The htpasswd file, re-read when it changes.
    pub htpasswd: PathBuf,
    /// The realm of the Basic challenge, without quotes, backslashes or control characters.
    pub realm: String,
    /// How clients show who they are.
    pub mode: AuthMode,
    /// What may be done without a login, as far as the access rules allow it.
    pub anonymous: AnonymousAccess,
}

/// How clients of the registry show who they are. People with a browser use their password in
/// either mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// With user and password in each request.
    Basic,
    /// With tokens, which they get for the password.
    Token(TokenSettings),
}

impl AuthMode {
    /// How long tokens live, where there are tokens.
    pub fn tokens(&self) -> Option<&TokenSettings> {
        match self {
            Self::Basic => None,
            Self::Token(settings) => Some(settings),
        }
    }
}

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// From when it is given. A request that has begun goes on. Default 5 min.
    pub lifetime: Duration,
    /// Of a refresh token, from its last use. Default 90 days.
    pub refresh_lifetime: Duration,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            refresh_lifetime: Duration::from_secs(90 * 86_400),
        }
    }
}

/// What may be done without a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousAccess {
    /// Nothing.
    #[default]
    None,
    /// Pulling, and listing tags.
    Pull,
}

impl AnonymousAccess {
    /// As actions.
    pub fn actions(self) -> Actions {
        match self {
            Self::None => Actions::default(),
            Self::Pull => [Action::Pull, Action::List].into_iter().collect(),
        }
    }
}

/// The registry behind a virtual host.
#[derive(Clone, Debug)]
pub enum RegistrySettings {
    /// One that exists already.
    Upstream(UpstreamSettings),
    /// moorgate's own, in a directory.
    Store(StoreSettings),
}

impl RegistrySettings {
    /// The registry that exists already, if it is one.
    pub fn upstream(&self) -> Option<&UpstreamSettings> {
        match self {
            Self::Upstream(upstream) => Some(upstream),
            Self::Store(_) => None,
        }
    }

    /// moorgate's own registry, if it is that.
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
            Self::Upstream(upstream) => upstream.url.fmt(f),
            Self::Store(store) => write!(f, "directory {}", store.name),
        }
    }
}

/// A registry that moorgate keeps itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// As the domain file names it.
    pub name: String,
    /// Where it is: `store/NAME` below the state directory.
    pub directory: PathBuf,
    /// How often garbage is collected; `None`: only by the command. Default 24 h.
    pub collect_every: Option<Duration>,
    /// How long what nothing points at is left alone. Default 24 h.
    pub grace: Duration,
}

/// The registry behind a virtual host, where it exists already.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where it is.
    pub url: UpstreamUrl,
    /// PEM file of the only roots trusted for an https upstream; the system's without it.
    pub roots: Option<PathBuf>,
    /// What stands in `Authorization` towards it.
    pub authorization: UpstreamAuthorization,
    /// What becomes of redirects to other hosts.
    pub redirects: Redirects,
}

/// `scheme://host[:port][/base]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// Name or address.
    pub host: HostName,
    /// The port, the scheme's default filled in.
    pub port: u16,
    /// The path before `/v2/`: empty, or `/a/b` with a leading and no trailing slash.
    pub base_path: String,
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let authority = self.host.authority(self.port, self.scheme.default_port());
        write!(f, "{scheme}://{authority}{}", self.base_path)
    }
}

/// The scheme of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port where none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What stands in `Authorization` towards the upstream.
#[derive(Clone, Debug)]
pub enum UpstreamAuthorization {
    /// Nothing: the client's is taken off.
    Strip,
    /// The client's own, unchanged.
    Pass,
    /// moorgate's own Basic credentials.
    Basic {
        /// The user name, without a colon.
        username: String,
        /// The password.
        password: SecretString,
    },
}

/// What becomes of a redirect to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// The client gets it unchanged.
    Pass,
    /// moorgate fetches it, without `Authorization`.
    Follow,
}

/// What people see outside `/v2/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSettings {
    /// An http or https upstream.
    pub url: UpstreamUrl,
}

/// Bounds on sizes of one virtual host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest manifest that is accepted (413 above). Default 8 MiB.
    pub manifest_bytes: u64,
    /// The largest body of any other request; none by default.
    pub body_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 8 << 20,
            body_bytes: None,
        }
    }
}

/// Bounds on silence of one virtual host. None of them bounds a transfer's whole time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of an upload's head to the first byte of its body. Default 10 min.
    pub first_body_byte: Duration,
    /// Between two bytes of a body, either way. Default 120 s.
    pub stall: Duration,
    /// TCP connect and TLS handshake with the upstream. Default 5 s.
    pub upstream_connect: Duration,
    /// From the end of the request to the upstream's answer. Default 2 min.
    pub upstream_head: Duration,
    /// The same for an upload commit and a manifest PUT. Default 15 min.
    pub upstream_commit: Duration,
    /// How long an upstream connection is kept without use. Default 90 s.
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

/// A virtual host as the parts of the program share it.
pub type SharedVirtualHost = Arc<VirtualHost>;
