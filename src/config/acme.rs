//! The validated settings of ACME: the CAs, the challenges, and the certificates of domains.
//! Plain data, which only `resolve` builds from files.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::registry::host::HostName;

/// The certificate that a domain orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeRequest {
    /// The contact address for the CA.
    pub contact: Option<String>,
    /// The names of the certificate, at least one, each once.
    pub names: Vec<CertifiedName>,
    /// The profile to request instead of the CA's default.
    pub profile: Option<String>,
    /// What is served until the first certificate is issued.
    pub fallback: Fallback,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertifiedName {
    /// A DNS name or an address.
    Host(HostName),
    /// `*.` and this name: the star stands for one label.
    Wildcard(HostName),
}

impl CertifiedName {
    /// The name without the star, which is what the CA authorizes (RFC 8555 §7.1.4).
    pub fn base(&self) -> &HostName {
        match self {
            Self::Host(name) | Self::Wildcard(name) => name,
        }
    }

    /// Whether only DNS challenges can validate it (RFC 8555 §8.4).
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Wildcard(_))
    }

    /// Whether a certificate with this name is valid for a host.
    pub fn covers(&self, host: &HostName) -> bool {
        match self {
            Self::Host(name) => name == host,
            Self::Wildcard(parent) => {
                let rest = host.as_str().split_once('.').map(|(_, rest)| rest);
                host.ip().is_none() && rest == Some(parent.as_str())
            }
        }
    }
}

impl fmt::Display for CertifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

/// What a domain serves before its CA has issued a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Handshakes are refused.
    #[default]
    Refuse,
    /// A certificate of moorgate's own CA.
    Internal,
}

/// The ACME settings of all domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The CAs in the order in which they are tried; at least one.
    pub authorities: Vec<CaSettings>,
    /// The challenges in order of preference; at least one.
    pub challenges: Vec<ChallengeKind>,
    /// The program that sets TXT records, with its first arguments.
    pub dns_command: Option<Vec<String>>,
    /// The DNS servers for the checks before an order; the system's if empty.
    pub resolvers: Vec<SocketAddr>,
}

/// One CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSettings {
    pub directory: AcmeDirectory,
    /// PEM file with the only trust anchors for its server; `None`: the system's.
    pub roots: Option<PathBuf>,
    /// The profile to request.
    pub profile: Option<String>,
    /// The common name of the issuer at the top of the preferred chain.
    pub chain: Option<String>,
    /// Binds the account to one that exists at the CA (RFC 8555 §7.3.4).
    pub binding: Option<ExternalBinding>,
    /// Whether it validates names from outside; `None`: it does if it is a known production CA.
    pub public: Option<bool>,
    /// The ports to which it connects to validate challenges.
    pub ports: ValidationPorts,
}

/// The ports of a host to which a CA connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationPorts {
    /// For http-01.
    pub http: u16,
    /// For tls-alpn-01.
    pub tls: u16,
}

impl Default for ValidationPorts {
    /// The ports of RFC 8555 §8.3 and RFC 8737 §3, which all public CAs use.
    fn default() -> Self {
        Self { http: 80, tls: 443 }
    }
}

impl CaSettings {
    /// The settings of a CA with defaults for everything but its directory.
    pub fn new(directory: AcmeDirectory) -> Self {
        let ports = ValidationPorts::default();
        Self {
            directory,
            roots: None,
            profile: None,
            chain: None,
            binding: None,
            public: None,
            ports,
        }
    }

    /// Whether it validates names from outside and has rate limits that last for days.
    pub fn is_public(&self) -> bool {
        self.public.unwrap_or_else(|| self.directory.is_public())
    }
}

/// The credentials of an existing account at a CA, which its web page shows.
#[derive(Clone, Debug)]
pub struct ExternalBinding {
    pub key_id: String,
    /// The key, in base64url without padding.
    pub hmac_key: SecretString,
}

/// Not in constant time: both sides come from configuration files.
impl PartialEq for ExternalBinding {
    fn eq(&self, other: &Self) -> bool {
        let Self { key_id, hmac_key } = self;
        *key_id == other.key_id && hmac_key.expose_secret() == other.hmac_key.expose_secret()
    }
}

impl Eq for ExternalBinding {}

/// The directory of a CA: a known CA, or an `https` URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AcmeDirectory {
    Known(KnownCa),
    Url(String),
}

impl AcmeDirectory {
    /// The directory at a URL; that of a known CA is recognized.
    pub fn at(url: &str) -> Self {
        // No two URLs of known CAs differ only in the case of letters.
        let known = KnownCa::ALL
            .into_iter()
            .find(|ca| ca.url().eq_ignore_ascii_case(url));
        known.map_or_else(|| Self::Url(url.to_owned()), Self::Known)
    }

    /// The URL of the directory object (RFC 8555 §7.1.1).
    pub fn url(&self) -> &str {
        match self {
            Self::Known(ca) => ca.url(),
            Self::Url(url) => url,
        }
    }

    /// The domain that identifies it in CAA records, if known (RFC 8659 §4.2).
    pub fn dns_identity(&self) -> Option<&'static str> {
        match self {
            Self::Known(ca) => Some(ca.caa_domain()),
            Self::Url(_) => None,
        }
    }

    /// Whether it certifies public names only and has rate limits that last for days.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Known(ca) if ca.is_production())
    }
}

impl fmt::Display for AcmeDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(ca) => f.write_str(ca.name()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// The CAs that the configuration knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownCa {
    LetsEncrypt,
    LetsEncryptStaging,
    ZeroSsl,
    Google,
    GoogleStaging,
    Buypass,
    BuypassStaging,
}

impl KnownCa {
    pub const ALL: [Self; 7] = [
        Self::LetsEncrypt,
        Self::LetsEncryptStaging,
        Self::ZeroSsl,
        Self::Google,
        Self::GoogleStaging,
        Self::Buypass,
        Self::BuypassStaging,
    ];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LetsEncrypt => "letsencrypt",
            Self::LetsEncryptStaging => "letsencrypt-staging",
            Self::ZeroSsl => "zerossl",
            Self::Google => "google",
            Self::GoogleStaging => "google-staging",
            Self::Buypass => "buypass",
            Self::BuypassStaging => "buypass-staging",
        }
    }

    /// The URL of the directory.
    pub const fn url(self) -> &'static str {
        match self {
            Self::LetsEncrypt => "https://acme-v02.api.letsencrypt.org/directory",
            Self::LetsEncryptStaging => "https://acme-staging-v02.api.letsencrypt.org/directory",
            Self::ZeroSsl => "https://acme.zerossl.com/v2/DV90",
            Self::Google => "https://dv.acme-v02.api.pki.goog/directory",
            Self::GoogleStaging => "https://dv.acme-v02.test-api.pki.goog/directory",
            Self::Buypass => "https://api.buypass.com/acme/directory",
            Self::BuypassStaging => "https://api.test4.buypass.no/acme/directory",
        }
    }

    /// The domain in a CAA record that allows the CA (RFC 8659 §4.2).
    pub const fn caa_domain(self) -> &'static str {
        match self {
            Self::LetsEncrypt | Self::LetsEncryptStaging => "letsencrypt.org",
            Self::ZeroSsl => "sectigo.com",
            Self::Google | Self::GoogleStaging => "pki.goog",
            Self::Buypass | Self::BuypassStaging => "buypass.com",
        }
    }

    /// Whether it requires an external account binding.
    pub const fn needs_binding(self) -> bool {
        matches!(self, Self::ZeroSsl | Self::Google | Self::GoogleStaging)
    }

    const fn is_production(self) -> bool {
        matches!(
            self,
            Self::LetsEncrypt | Self::ZeroSsl | Self::Google | Self::Buypass
        )
    }
}

/// The types of ACME challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengeKind {
    /// A certificate in a handshake on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A file on port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A TXT record that changes each time (RFC 8555 §8.4).
    #[serde(rename = "dns-01")]
    Dns01,
    /// A TXT record that persists (draft-ietf-acme-dns-persist).
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
}

impl ChallengeKind {
    pub const ALL: [Self; 4] = [
        Self::TlsAlpn01,
        Self::Http01,
        Self::Dns01,
        Self::DnsPersist01,
    ];

    /// The name in the protocol and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Whether it can validate a name (RFC 8555 §7.1.3; RFC 8738 §7 for addresses).
    pub fn proves(self, name: &CertifiedName) -> bool {
        match self {
            Self::TlsAlpn01 | Self::Http01 => !name.is_wildcard(),
            Self::Dns01 | Self::DnsPersist01 => name.base().ip().is_none(),
        }
    }
}

impl fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_known_by_its_url_as_by_its_name() {
        let all = KnownCa::ALL.map(|ca| {
            let directory = AcmeDirectory::at(&ca.url().to_ascii_uppercase());
            assert_eq!(directory, AcmeDirectory::Known(ca));
            let settings = CaSettings::new(directory);
            let caa = settings.directory.dns_identity().unwrap_or_default();
            let public = if settings.is_public() {
                "public"
            } else {
                "for trials"
            };
            let binding = if ca.needs_binding() {
                "binding"
            } else {
                "no binding"
            };
            format!("{ca:?}: {}, {caa}, {public}, {binding}", ca.url())
        });
        insta::assert_snapshot!(all.join("\n"), @r"
        LetsEncrypt: https://acme-v02.api.letsencrypt.org/directory, letsencrypt.org, public, no binding
        LetsEncryptStaging: https://acme-staging-v02.api.letsencrypt.org/directory, letsencrypt.org, for trials, no binding
        ZeroSsl: https://acme.zerossl.com/v2/DV90, sectigo.com, public, binding
        Google: https://dv.acme-v02.api.pki.goog/directory, pki.goog, public, binding
        GoogleStaging: https://dv.acme-v02.test-api.pki.goog/directory, pki.goog, for trials, binding
        Buypass: https://api.buypass.com/acme/directory, buypass.com, public, no binding
        BuypassStaging: https://api.test4.buypass.no/acme/directory, buypass.com, for trials, no binding
        ");
        let other = "https://ca.example.com/acme/directory";
        assert_eq!(
            AcmeDirectory::at(other),
            AcmeDirectory::Url(other.to_owned())
        );
    }

    #[test]
    fn whether_a_ca_is_public_may_be_said() {
        let mut ca = CaSettings::new(AcmeDirectory::Known(KnownCa::LetsEncrypt));
        ca.public = Some(false);
        assert!(!ca.is_public());
        let mut ca = CaSettings::new(AcmeDirectory::at("https://ca.example.com/acme/directory"));
        assert!(!ca.is_public());
        ca.public = Some(true);
        assert!(ca.is_public());
    }

    #[test]
    fn settings_differ_by_their_secrets_too() {
        let with = |key: &str| {
            let binding = ExternalBinding {
                key_id: "id".into(),
                hmac_key: key.to_owned().into(),
            };
            CaSettings {
                binding: Some(binding),
                ..CaSettings::new(AcmeDirectory::Known(KnownCa::ZeroSsl))
            }
        };
        assert_eq!(with("a"), with("a"));
        assert_ne!(with("a"), with("b"));
    }
}
