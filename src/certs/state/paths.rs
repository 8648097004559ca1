//! The paths of the ACME files below `state`, and the format of an account. All files have mode
//! 0600 or lie below a directory of 0700, and are replaced by `state_file::atomic_write`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::crypto;
use crate::state_file::{FileLock, private_directory};

/// A certificate authority, known by the URL of its ACME directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CaId(String);

/// The text is not the URL of an ACME directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL of an ACME directory begins with https:// and a host")]
pub struct InvalidDirectoryUrl;

impl CaId {
    /// Parses an absolute URL. Scheme and host become lower case.
    pub fn new(directory: &str) -> Result<Self, InvalidDirectoryUrl> {
        let url: http::Uri = directory.parse().map_err(|_| InvalidDirectoryUrl)?;
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(InvalidDirectoryUrl);
        };
        let known = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
        if !known || authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(InvalidDirectoryUrl);
        }
        let (scheme, authority) = (
            scheme.to_ascii_lowercase(),
            authority.as_str().to_ascii_lowercase(),
        );
        let path = url
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self(format!("{scheme}://{authority}{path}")))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host of the URL, with its port where one is written.
    pub fn host(&self) -> &str {
        let (_, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        rest.split('/').next().unwrap_or(rest)
    }

    /// The name of the directory of the CA: unique for each URL, and safe as a file name.
    fn file_name(&self) -> String {
        let text = self.0.strip_prefix("https://").unwrap_or(&self.0);
        let name = utf8_percent_encode(text, ENCODED).to_string();
        let name = name.replace('/', "+");
        // A leading dot would hide the directory, and `..` would leave it.
        shortened(match name.strip_prefix('.') {
            Some(rest) => format!("%2E{rest}"),
            None => name,
        })
    }

    /// The CA whose directory has this name. `None`: not the directory of a CA, or the name was
    /// shortened.
    fn from_file_name(name: &str) -> Option<Self> {
        let encoded = name.replace('+', "/");
        let text = percent_decode_str(&encoded).decode_utf8().ok()?;
        let https = format!("https://{text}");
        let urls = [text.into_owned(), https];
        urls.iter()
            .filter_map(|url| Self::new(url).ok())
            .find(|ca| ca.file_name() == name)
    }
}

impl fmt::Display for CaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CaId {
    type Error = InvalidDirectoryUrl;

    fn try_from(text: String) -> Result<Self, InvalidDirectoryUrl> {
        Self::new(&text)
    }
}

impl From<CaId> for String {
    fn from(CaId(text): CaId) -> Self {
        text
    }
}

/// The paths below `state`:
///
/// ```text
/// acme/ledger.json                    orders and failures, see `ledger`
/// acme/ledger.lock                    held while the ledger is read, changed and written
/// acme/locks/NAME.lock                held by the process that orders for this domain
/// acme/domains/NAME.json              the record of this domain: `storage::DomainRecord`
/// acme/texts/NAME.json                the TXT records that are set for its challenges
/// acme/challenges/                    the responses to challenges, for all processes here
/// acme/CA/account.json, account.key   the account at this CA: [`StoredAccount`]; PKCS#8 in PEM
/// acme/CA/certificates/NAME.pem       private key and chain of this domain, in one file
/// acme/CA/unused/NAME.pem             the same of a certificate that is not put in force
/// acme/CA/orders/NAME.json, NAME.key  a pending order: `pending_order`; the key of its certificate
/// ```
///
/// CA is made from the directory URL, NAME is the domain of the domain file. Key and chain share a
/// file, because two files cannot be replaced at once: a crash between them would leave a pair that
/// does not match. `served::files::load` takes the same path twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePaths {
    root: PathBuf,
}

impl StatePaths {
    /// The paths below the directory `state` of the configuration. Creates nothing.
    pub fn new(state: &Path) -> Self {
        Self {
            root: state.join("acme"),
        }
    }

    /// The directory of all ACME files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.json")
    }

    /// The lock that is held while the ledger is read, changed and written.
    pub fn ledger_lock(&self) -> PathBuf {
        self.root.join("ledger.lock")
    }

    /// The lock that is held by the process that orders or imports for this domain.
    pub fn order_lock(&self, domain: &str) -> PathBuf {
        self.root
            .join("locks")
            .join(format!("{}.lock", domain_file(domain)))
    }

    /// The CAs that have a directory, in the order of their URLs.
    pub fn cas(&self) -> Vec<CaId> {
        let entries = std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten();
        let mut cas: Vec<CaId> = entries
            .filter_map(|entry| CaId::from_file_name(entry.file_name().to_str()?))
            .collect();
        cas.sort();
        cas
    }

    /// The paths of one CA.
    pub fn ca(&self, ca: &CaId) -> CaPaths {
        CaPaths {
            root: self.root.join(ca.file_name()),
        }
    }
}

/// The paths of one CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaPaths {
    root: PathBuf,
}

impl CaPaths {
    /// The account, a [`StoredAccount`] in JSON.
    pub fn account(&self) -> PathBuf {
        self.root.join("account.json")
    }

    /// The key of the account, ECDSA P-256 as PKCS#8 in PEM.
    pub fn account_key(&self) -> PathBuf {
        self.root.join("account.key")
    }

    /// The private key and the chain, leaf first, of a domain.
    pub fn certificate(&self, domain: &str) -> PathBuf {
        self.root
            .join("certificates")
            .join(format!("{}.pem", domain_file(domain)))
    }

    /// The private key and the chain of a certificate that was issued for a domain and is not put in
    /// force.
    pub fn unused(&self, domain: &str) -> PathBuf {
        self.root
            .join("unused")
            .join(format!("{}.pem", domain_file(domain)))
    }

    /// The pending order of a domain.
    pub fn order(&self, domain: &str) -> PathBuf {
        self.root
            .join("orders")
            .join(format!("{}.json", domain_file(domain)))
    }

    /// The private key of the certificate that the pending order is for.
    pub fn order_key(&self, domain: &str) -> PathBuf {
        self.root
            .join("orders")
            .join(format!("{}.key", domain_file(domain)))
    }

    /// Creates the directories of the paths.
    pub fn make_directories(&self) -> io::Result<()> {
        private_directory(&self.root.join("certificates"))?;
        private_directory(&self.root.join("orders"))
    }
}

/// An account at a CA. Its private key is in another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAccount {
    /// The CA.
    pub directory: CaId,
    /// The URL of the account, the `kid` of its requests (RFC 8555 §6.2).
    pub url: String,
    /// The contacts that the CA has, like `mailto:ops@example.com`.
    #[serde(default)]
    pub contacts: Vec<String>,
    /// The `caaIdentities` of the CA (RFC 8555 §7.1.1) in lower case, as of the last request for
    /// the account. Empty if the CA has none, and after an import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
}

/// Locks a file until the lock is dropped or the process ends. Creates the file and its directory.
/// `None`: another process, or another caller in this one, holds the lock.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<FileLock>> {
    make_parent(path)?;
    FileLock::try_acquire(path)
}

/// Like [`try_lock`], but blocks for up to `timeout`.
pub(crate) fn lock(path: &Path, timeout: Duration) -> io::Result<FileLock> {
    make_parent(path)?;
    FileLock::acquire(path, timeout)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), private_directory)
}

/// A domain as a file name, with a plus sign for the star, which shells would expand.
fn domain_file(domain: &str) -> String {
    shortened(domain.replacen('*', "+", 1).replace('/', "%2F"))
}

/// Replaces the end of a long name by a digest: file systems limit names to 255 bytes.
fn shortened(name: String) -> String {
    if name.len() <= MAX_FILE_NAME_BYTES {
        return name;
    }
    let digest = &crypto::sha256_hex(name.as_bytes())[..32];
    let kept: String = name
        .chars()
        .take(MAX_FILE_NAME_BYTES - digest.len() - 1)
        .filter(char::is_ascii)
        .collect();
    format!("{kept}~{digest}")
}

/// What is encoded in the name of a CA's directory. The slash becomes a plus sign, which is encoded
/// itself.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b':')
    .remove(b'[')
    .remove(b']');
/// Leaves space for a suffix and for the prefix of a temporary file.
const MAX_FILE_NAME_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn ca(url: &str) -> CaId {
        CaId::new(url).expect("a URL")
    }

    #[test]
    fn the_paths_are_these() {
        let state = StatePaths::new(Path::new("/s"));
        let ca = state.ca(&ca("https://ACME-v02.api.letsencrypt.org/directory"));
        let shown = [
            state.ledger(),
            state.ledger_lock(),
            state.order_lock("a.example.com"),
            ca.account(),
            ca.account_key(),
            ca.certificate("*.example.com"),
            ca.unused("*.example.com"),
            ca.order("2001:db8::1"),
            ca.order_key("a.example.com"),
        ]
        .map(|path| path.display().to_string())
        .join("\n");
        insta::assert_snapshot!(shown, @r"
        /s/acme/ledger.json
        /s/acme/ledger.lock
        /s/acme/locks/a.example.com.lock
        /s/acme/acme-v02.api.letsencrypt.org+directory/account.json
        /s/acme/acme-v02.api.letsencrypt.org+directory/account.key
        /s/acme/acme-v02.api.letsencrypt.org+directory/certificates/+.example.com.pem
        /s/acme/acme-v02.api.letsencrypt.org+directory/unused/+.example.com.pem
        /s/acme/acme-v02.api.letsencrypt.org+directory/orders/2001:db8::1.json
        /s/acme/acme-v02.api.letsencrypt.org+directory/orders/a.example.com.key
        ");
    }

    #[test]
    fn each_ca_has_a_directory_of_its_own() {
        let long = format!("https://ca.example/{}", "x".repeat(300));
        let longer = format!("{long}y");
        let urls = [
            "https://ca.example/a/b",
            "https://ca.example/a+b",
            "https://ca.example/a-b",
            "https://ca.example:14000/a/b",
            "http://ca.example/a/b",
            "https://ca.example/A/b",
            "https://../a",
            &long,
            &longer,
        ];
        let names: std::collections::BTreeSet<String> =
            urls.iter().map(|url| ca(url).file_name()).collect();
        assert_eq!(names.len(), urls.len());
        let read = urls
            .iter()
            .filter(|url| CaId::from_file_name(&ca(url).file_name()) == Some(ca(url)));
        assert_eq!(
            read.count(),
            urls.len() - 2,
            "all but those that are too long"
        );
        for other in ["challenges", "domains", "ledger.json", "%2", "%zz", "a%2fb"] {
            assert_eq!(CaId::from_file_name(other), None, "{other}");
        }
        assert!(
            names
                .iter()
                .all(|name| !name.contains('/') && !name.starts_with('.') && name.len() < 255)
        );
    }

    #[test]
    fn the_directory_names_of_cas_are_these() {
        let names = [
            (
                "https://acme.zerossl.com/v2/DV90",
                "acme.zerossl.com+v2+DV90",
            ),
            (
                "https://ca.example:14000/dir?a=1&b=%20+c~d",
                "ca.example:14000+dir%3Fa%3D1%26b%3D%2520%2Bc%7Ed",
            ),
            ("http://ca.example/", "http:++ca.example+"),
            ("https://[2001:db8::1]/a_b-c", "[2001:db8::1]+a_b-c"),
            ("https://.hidden/a.b", "%2Ehidden+a.b"),
            ("https://../a", "%2E.+a"),
            (
                "https://ca.example/!$'()*,;@",
                "ca.example+%21%24%27%28%29%2A%2C%3B%40",
            ),
        ];
        for (url, name) in names {
            assert_eq!(ca(url).file_name(), name);
            assert_eq!(CaId::from_file_name(name), Some(ca(url)), "{name}");
        }
        let long = ca(&format!("https://ca.example/{}~", "x".repeat(300)));
        assert_eq!(
            long.file_name(),
            format!(
                "ca.example+{}~c60165dc28d8f77c5baac5aa350b3b05",
                "x".repeat(156)
            )
        );
    }

    #[test]
    fn a_url_that_is_no_directory_is_rejected() {
        for text in [
            "",
            "ca.example",
            "/directory",
            "ftp://ca.example/",
            "https://user@ca.example/",
            "https://",
        ] {
            assert_eq!(CaId::new(text), Err(InvalidDirectoryUrl), "{text}");
        }
    }

    #[test]
    fn a_lock_is_held_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = StatePaths::new(directory.path()).order_lock("a.example.com");
        let held = try_lock(&path).expect("made").expect("free");
        assert!(try_lock(&path).expect("there").is_none());
        drop(held);
        assert!(try_lock(&path).expect("there").is_some());
    }
}
