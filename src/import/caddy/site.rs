//! A site of a Caddyfile as moorgate could serve it: what both versions are translated into, and
//! what domain files are made of.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::address::SiteAddress;
use super::position::SourcePosition;

/// A site, its directives evaluated for requests below `/v2/` and for all others.
#[derive(Debug)]
pub(super) struct ImportedSite {
    pub(super) at: SourcePosition,
    pub(super) addresses: Vec<SiteAddress>,
    /// Addresses of the machine; all if empty.
    pub(super) bind: Vec<String>,
    pub(super) certificate: SiteCertificate,
    pub(super) access: SiteAccess,
    pub(super) realm: Option<String>,
    pub(super) registry: Option<ImportedUpstream>,
    pub(super) browser: Option<ImportedUpstream>,
    /// Why a browser is left out.
    pub(super) left_out: Vec<String>,
    pub(super) body_limit: Option<u64>,
    /// `[timeouts]` of the domain: keys and durations.
    pub(super) timeouts: BTreeMap<&'static str, String>,
}

/// Where the certificate of a site is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SiteCertificate {
    /// As the addresses say: a CA for public names, an internal one for others.
    #[default]
    Automatic,
    Acme {
        email: Option<String>,
    },
    Files {
        certificate: String,
        key: String,
    },
    Internal,
    /// No TLS at all.
    Plain,
}

/// A server behind a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImportedUpstream {
    pub(super) url: String,
    /// Further replicas of the same registry.
    pub(super) replicas: Vec<String>,
    /// Further servers of the same group, which a domain file has no place for.
    pub(super) others: Vec<String>,
    /// A PEM file of the only CAs to trust.
    pub(super) roots: Option<String>,
    /// The server's own user; the password goes into a file.
    pub(super) login: Option<UpstreamLogin>,
}

/// moorgate's credentials at a server.
#[derive(Clone, Debug)]
pub(super) struct UpstreamLogin {
    pub(super) username: String,
    pub(super) password: SecretString,
}

impl PartialEq for UpstreamLogin {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username
    }
}

impl Eq for UpstreamLogin {}

/// Who may do what at a site.
#[derive(Debug, Default)]
pub(super) struct SiteAccess {
    /// Each name once.
    pub(super) users: Vec<ImportedUser>,
    /// Without rules, every user may do everything.
    pub(super) rules: Vec<ImportedRule>,
    /// Why nobody gets in until somebody has decided.
    pub(super) closed: Vec<String>,
    /// Rules to choose from, as comments.
    pub(super) proposals: Vec<String>,
}

/// A user and the password as the Caddyfile has it.
#[derive(Clone, Debug)]
pub(super) struct ImportedUser {
    pub(super) name: String,
    pub(super) password: ImportedPassword,
    pub(super) at: SourcePosition,
}

#[derive(Clone, Debug)]
pub(super) enum ImportedPassword {
    Bcrypt(String),
    /// To be hashed.
    Plain(SecretString),
    /// What it is, such as "an argon2id hash".
    Unusable(String),
}

/// An access rule of a domain file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ImportedRule {
    pub(super) users: Vec<String>,
    pub(super) limits: RuleLimits,
    pub(super) is_deny: bool,
}

/// What a rule is limited to; everything where a list is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RuleLimits {
    pub(super) repositories: Vec<String>,
    pub(super) actions: Vec<&'static str>,
    pub(super) networks: Vec<String>,
}

/// The settings of `moorgate.toml` that a Caddyfile has for all sites.
#[derive(Debug, Default)]
pub(super) struct ImportedProcess {
    pub(super) email: Option<String>,
    pub(super) http_port: Option<u16>,
    pub(super) https_port: Option<u16>,
    /// Of version 1, for addresses without a port and a certificate.
    pub(super) default_port: Option<u16>,
    /// Addresses of the machine for sites that name none; all if empty.
    pub(super) bind: Vec<String>,
    /// Whether plain HTTP is left alone.
    pub(super) no_http: bool,
    pub(super) authority: Option<ImportedAuthority>,
    pub(super) challenges: Vec<&'static str>,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) admin: Option<String>,
    pub(super) json_log: bool,
    pub(super) log_level: Option<&'static str>,
    /// `[timeouts]` and `[limits]` of the process.
    pub(super) timeouts: BTreeMap<&'static str, String>,
    pub(super) head_limit: Option<u64>,
}

/// A `[[ca]]`.
#[derive(Clone, Debug, Default)]
pub(super) struct ImportedAuthority {
    pub(super) directory: String,
    pub(super) roots: Option<String>,
    pub(super) binding: Option<(String, SecretString)>,
}

impl PartialEq for ImportedAuthority {
    fn eq(&self, other: &Self) -> bool {
        let key = |ca: &Self| ca.binding.as_ref().map(|(id, _)| id.clone());
        self.directory == other.directory && self.roots == other.roots && key(self) == key(other)
    }
}

impl ImportedSite {
    pub(super) fn new(at: SourcePosition, addresses: Vec<SiteAddress>) -> Self {
        Self {
            at,
            addresses,
            bind: Vec::new(),
            certificate: SiteCertificate::default(),
            access: SiteAccess::default(),
            realm: None,
            registry: None,
            browser: None,
            left_out: Vec::new(),
            body_limit: None,
            timeouts: BTreeMap::new(),
        }
    }
}

impl SiteAccess {
    /// Closes the site until somebody has decided.
    pub(super) fn close(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.closed.contains(&reason) {
            self.closed.push(reason);
        }
    }
}
