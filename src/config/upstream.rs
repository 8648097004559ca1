//! The validated settings of an existing registry behind a virtual host.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::SecretSource;
use crate::registry::host::{Authority, HostName};
use crate::registry::name_map::NameMap;
use crate::registry::product::Product;

/// Settings of an existing registry behind a virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The address; the first of several.
    pub url: UpstreamUrl,
    /// The further replicas, which differ in nothing but host and port.
    pub others: Vec<UpstreamUrl>,
    /// How replicas are checked beside requests; `None`: only if they fail.
    pub check: Option<ReplicaCheck>,
    /// PEM file with the only trust anchors for an https upstream; `None`: the system's.
    pub roots: Option<PathBuf>,
    /// The `Authorization` that it receives.
    pub authorization: UpstreamAuthorization,
    /// The product; `None`: what its answer to `/v2/` tells.
    pub product: Option<Product>,
    /// Whether moorgate makes a repository that is missing when an upload to it begins. Default
    /// no.
    pub create: bool,
    /// How a tag alone is deleted; `None`: as the product can.
    pub untag: Option<Untag>,
    /// The credentials for deletion and creation, where they are others.
    pub admin: Option<AdminLogin>,
    /// The product's own API, where its address does not follow from `url`.
    pub api: Option<UpstreamUrl>,
    /// Further hosts, or hosts with a port, to which credentials may be sent.
    pub hosts: Vec<Authority>,
    /// The names of repositories there.
    pub names: NameMap,
    /// The room on disk for uploads in chunks that the product cannot take, in bytes. Default
    /// 10 GiB.
    pub spool: u64,
    /// `spool/DOMAIN` below the state directory.
    pub spool_directory: PathBuf,
    /// What is done with redirects to other hosts.
    pub redirects: Redirects,
    /// The hosts, or hosts with a port, to which redirects are followed although their addresses are
    /// private or of this host.
    pub follow_hosts: Vec<Authority>,
}

impl UpstreamSettings {
    /// Whether it is the same registry with the same login at it.
    pub(crate) fn is_same_login(&self, other: &Self) -> bool {
        let Self {
            url,
            others,
            check: _,
            roots,
            authorization,
            product,
            create: _,
            untag: _,
            admin: _,
            api,
            hosts,
            names: _,
            spool: _,
            spool_directory: _,
            redirects: _,
            follow_hosts: _,
        } = self;
        let login = ((url, others), roots, authorization, product, api, hosts);
        login
            == (
                (&other.url, &other.others),
                &other.roots,
                &other.authorization,
                &other.product,
                &other.api,
                &other.hosts,
            )
    }
}

/// Active checks of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCheck {
    pub interval: Duration,
    /// Below the base path. Default `/v2/`.
    pub path: String,
}

impl UpstreamSettings {
    /// The addresses of all replicas, the first one first.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &UpstreamUrl> {
        std::iter::once(&self.url).chain(&self.others)
    }
}

/// `scheme://host[:port][/base]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    pub scheme: Scheme,
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
    Http,
    Https,
}

impl Scheme {
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The `Authorization` that the upstream receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAuthorization {
    /// None: the client's is removed.
    Strip,
    /// The client's own, unchanged.
    Pass,
    /// moorgate's own, of which it gets what the registry wants.
    Login(LoginSettings),
}

/// moorgate's own credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSettings {
    pub kind: LoginKind,
    /// The service that exchanges them, where it is not the usual one: Entra, STS, Google's token
    /// endpoint, a metadata server.
    pub endpoint: Option<UpstreamUrl>,
    /// Where the registry is, if its host does not tell: a region of AWS, a location of Google.
    pub region: Option<String>,
}

/// The kinds of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// Sent as they are, or exchanged for a token where the registry wants one.
    Password {
        /// The user name, without a colon.
        username: String,
        password: SecretSource,
    },
    /// For ECR: what signs the request for its password.
    Aws { keys: AwsKeys },
    /// For ACR: an application of Microsoft Entra.
    Entra {
        tenant: String,
        client_id: String,
        client_secret: SecretSource,
    },
    /// For Google: the key file of a service account, JSON.
    ServiceAccount { key: SecretSource },
    /// For Google: the service account of the machine.
    MetadataServer,
}

/// Where AWS credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsKeys {
    Static {
        access_key_id: SecretSource,
        secret_access_key: SecretSource,
        /// Of temporary credentials.
        session_token: Option<SecretSource>,
    },
    /// A profile of a shared credentials file.
    Profile { name: String, file: Option<PathBuf> },
    /// A role that is assumed with a token in a file.
    WebIdentity { role: String, token_file: PathBuf },
    /// The role of the machine or container.
    InstanceRole,
}

/// The credentials for a product's own API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminLogin {
    Password {
        /// The user name, without a colon.
        username: String,
        password: SecretSource,
    },
    /// A token of the API itself.
    Token(SecretSource),
}

/// How a tag is deleted while its manifest and the manifest's other tags stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untag {
    /// By the registry API or the product's own.
    Native,
    /// A manifest of its own takes the tag, and is then deleted.
    Swap,
    /// Not at all: 405.
    Off,
}

/// What is done with a redirect to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// The client receives it unchanged.
    Pass,
    /// moorgate follows it, without `Authorization`.
    Follow,
}
