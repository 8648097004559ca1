//! Finds the CA of an item of another tool: by a URL, or by the name of a directory that was
//! derived from the URL.

use crate::certs::state::paths::CaId;
use crate::config::acme::KnownCa;

/// The CA whose ACME directory is at this URL.
pub(super) fn by_url(url: &str) -> Option<CaId> {
    CaId::new(url).ok()
}

/// The CA that a URL belongs to, like that of an account.
pub(super) fn by_any_url(url: &str) -> Option<CaId> {
    let host = CaId::new(url).ok()?.host().to_owned();
    by_name(&host)
}

/// The CA whose directory has this name: its host, or its URL without the scheme and with dashes
/// instead of slashes.
pub(super) fn by_name(name: &str) -> Option<CaId> {
    let name = name.to_ascii_lowercase();
    let is_called = |url: &&str| {
        let rest = url.trim_start_matches("https://").to_ascii_lowercase();
        rest.split('/').next() == Some(&name) || rest == name || rest.replace('/', "-") == name
    };
    // Of several CAs at one host, the first of the list is the usual one.
    KnownCa::ALL
        .map(KnownCa::url)
        .into_iter()
        .find(is_called)
        .and_then(by_url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::state::ledger::limits::CaLimits;
    use crate::config::acme::{AcmeDirectory, CaSettings};

    #[test]
    fn the_limits_of_each_known_ca_are_its_own() {
        for ca in KnownCa::ALL {
            let limits = CaLimits::for_ca(&by_url(ca.url()).expect("a URL"));
            assert!(limits.name.is_some(), "{ca:?}");
            let settings = CaSettings::new(AcmeDirectory::at(ca.url()));
            assert_eq!(limits.is_production, settings.is_public(), "{ca:?}");
            assert_eq!(by_any_url(ca.url()), by_url(ca.url()), "{ca:?}");
        }
    }

    #[test]
    fn each_way_of_naming_a_ca_is_understood() {
        let lets_encrypt = by_url("https://acme-v02.api.letsencrypt.org/directory");
        assert!(lets_encrypt.is_some());
        for name in [
            "acme-v02.api.letsencrypt.org",
            "acme-v02.api.letsencrypt.org-directory",
        ] {
            assert_eq!(by_name(name), lets_encrypt, "{name}");
        }
        assert_eq!(
            by_any_url("https://acme-v02.api.letsencrypt.org/acme/acct/123"),
            lets_encrypt
        );
        let zerossl = by_url("https://acme.zerossl.com/v2/DV90");
        assert_eq!(by_name("acme.zerossl.com-v2-dv90"), zerossl);
        assert_eq!(by_name("ca.example"), None);
    }
}
