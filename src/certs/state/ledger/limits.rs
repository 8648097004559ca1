//! The published rate limits of each CA, as data. Where a CA uses token buckets, the window here is
//! the time that refills a whole bucket: a client that never exceeds the limit in any window never
//! empties the bucket.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::certs::state::paths::CaId;

/// At most `most` events in any window of length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub most: usize,
    pub per: Duration,
}

impl Rate {
    const fn new(most: usize, per: Duration) -> Self {
        Self { most, per }
    }

    /// The interval of events that never use up the limit.
    pub(super) fn pace(self) -> Duration {
        let most = u32::try_from(self.most).unwrap_or(u32::MAX);
        self.per.checked_div(most).unwrap_or(self.per)
    }
}

/// The limits of one CA. `None`: the CA has no limit of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaLimits {
    /// The name of the CA; `None`: the host names it.
    pub name: Option<&'static str>,
    /// Whether its certificates are publicly trusted.
    pub is_production: bool,
    /// New accounts of this machine.
    pub accounts: Rate,
    /// New orders of an account.
    pub orders: Rate,
    /// Failed authorizations of a name in an account.
    pub failures: Rate,
    /// Certificates for exactly the same names, in any account.
    pub duplicates: Rate,
    /// New certificates below a registered domain; renewals for the same names do not count.
    pub domain: Option<Rate>,
    /// Consecutive failed authorizations of a name, after which the CA pauses the name. Each day
    /// one stops counting.
    pub consecutive_failures: Option<u32>,
    /// Renewals that name the certificate they replace (RFC 9773 §5). CAs exempt them; this is our
    /// own limit, in case a CA suggests one renewal after the other.
    pub replacements: Rate,
}

impl CaLimits {
    /// Returns the limits of a CA by the host of its directory.
    pub(crate) fn for_ca(ca: &CaId) -> Self {
        match ca.host() {
            "acme-v02.api.letsencrypt.org" => LETS_ENCRYPT,
            "acme-staging-v02.api.letsencrypt.org" => LETS_ENCRYPT_STAGING,
            "acme.zerossl.com" => Self {
                name: Some("ZeroSSL"),
                is_production: true,
                ..UNPUBLISHED
            },
            "dv.acme-v02.api.pki.goog" => GOOGLE,
            "dv.acme-v02.test-api.pki.goog" => Self {
                name: Some("Google Trust Services (staging)"),
                is_production: false,
                ..GOOGLE
            },
            "api.buypass.com" => BUYPASS,
            "api.test4.buypass.no" => Self {
                name: Some("Buypass (staging)"),
                is_production: false,
                ..BUYPASS
            },
            _ => UNKNOWN,
        }
    }
}

/// As published for August 2026: one order refills in 36 s, one certificate of a domain in 202 min,
/// one of the same names in 34 h, one failure in 12 min, one account in 18 min.
const LETS_ENCRYPT: CaLimits = CaLimits {
    name: Some("Let's Encrypt"),
    is_production: true,
    accounts: Rate::new(10, Duration::from_hours(3)),
    orders: Rate::new(300, Duration::from_hours(3)),
    failures: Rate::new(5, Duration::from_hours(1)),
    duplicates: Rate::new(5, Duration::from_hours(5 * 34)),
    domain: Some(Rate::new(50, Duration::from_mins(50 * 202))),
    consecutive_failures: Some(1152),
    replacements: Rate::new(3, Duration::from_hours(24)),
};

/// As published; the same as production where nothing else is said.
const LETS_ENCRYPT_STAGING: CaLimits = CaLimits {
    name: Some("Let's Encrypt (staging)"),
    is_production: false,
    accounts: Rate::new(50, Duration::from_hours(3)),
    orders: Rate::new(1500, Duration::from_hours(3)),
    failures: Rate::new(60, Duration::from_hours(1)),
    duplicates: Rate::new(30_000, Duration::from_hours(7 * 24)),
    domain: Some(Rate::new(30_000, Duration::from_hours(7 * 24))),
    ..LETS_ENCRYPT
};

/// Google's published limits could not be verified. These are our own: the rate of orders that
/// Let's Encrypt allows, counted per hour.
const GOOGLE: CaLimits = CaLimits {
    name: Some("Google Trust Services"),
    is_production: true,
    orders: Rate::new(100, Duration::from_hours(1)),
    ..UNPUBLISHED
};

/// As published.
const BUYPASS: CaLimits = CaLimits {
    name: Some("Buypass"),
    is_production: true,
    duplicates: Rate::new(5, Duration::from_hours(7 * 24)),
    domain: Some(Rate::new(20, Duration::from_hours(7 * 24))),
    ..UNPUBLISHED
};

/// Our own limits for any other CA. Private CAs issue certificates that live for minutes: a limit
/// that is used up must not last longer than those.
const UNKNOWN: CaLimits = CaLimits {
    failures: Rate::new(5, Duration::from_mins(10)),
    duplicates: Rate::new(10, Duration::from_mins(10)),
    replacements: Rate::new(10, Duration::from_mins(10)),
    ..UNPUBLISHED
};

/// Our own limits for a public CA that publishes none.
const UNPUBLISHED: CaLimits = CaLimits {
    name: None,
    is_production: false,
    accounts: Rate::new(10, Duration::from_hours(3)),
    orders: Rate::new(300, Duration::from_hours(3)),
    failures: Rate::new(5, Duration::from_hours(1)),
    duplicates: Rate::new(10, Duration::from_hours(1)),
    domain: None,
    consecutive_failures: None,
    replacements: Rate::new(10, Duration::from_hours(1)),
};

/// Returns the registered domain of a name by the Public Suffix List including its private section,
/// as Let's Encrypt counts. For an IPv4 address that is the address, for an IPv6 address its /64
/// network, for a public suffix the name itself.
pub(crate) fn registered_domain(name: &str) -> Cow<'_, str> {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => return address.to_string().into(),
        Ok(IpAddr::V6(address)) => {
            let network = u128::from(address) >> 64 << 64;
            return format!("{}/64", Ipv6Addr::from(network)).into();
        }
        Err(_) => {}
    }
    let name = name.strip_prefix("*.").unwrap_or(name);
    psl::domain_str(name).unwrap_or(name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_domains_are_told_apart() {
        let table = [
            ("example.com", "example.com"),
            ("a.b.example.com", "example.com"),
            ("*.example.com", "example.com"),
            ("new.blog.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("com.example.com", "example.com"),
            ("a.b.example.ltd.uk", "example.ltd.uk"),
            ("a.city.kawasaki.jp", "city.kawasaki.jp"),
            ("a.example.kawasaki.jp", "a.example.kawasaki.jp"),
            ("example.kawasaki.jp", "example.kawasaki.jp"),
            ("a.somebody.github.io", "somebody.github.io"),
            ("*.somebody.github.io", "somebody.github.io"),
            ("xn--85x722f.com.cn", "xn--85x722f.com.cn"),
            ("a.b.unknown-top", "b.unknown-top"),
            ("localhost", "localhost"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ];
        for (name, domain) in table {
            assert_eq!(registered_domain(name), domain, "{name}");
        }
    }

    #[test]
    fn each_ca_has_its_own_limits() {
        let of = |url: &str| CaLimits::for_ca(&CaId::new(url).expect("a URL"));
        let production = of("https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(
            production.duplicates,
            Rate {
                most: 5,
                per: Duration::from_hours(170)
            }
        );
        assert_eq!(production.domain.map(|rate| rate.most), Some(50));
        assert!(production.is_production);
        assert!(!of("https://acme-staging-v02.api.letsencrypt.org/directory").is_production);
        assert_eq!(of("https://acme.zerossl.com/v2/DV90").name, Some("ZeroSSL"));
        assert_eq!(
            of("https://dv.acme-v02.api.pki.goog/directory").orders.most,
            100
        );
        assert_eq!(
            of("https://api.buypass.com/acme/directory")
                .domain
                .map(|rate| rate.most),
            Some(20)
        );
        assert_eq!(of("https://ca.internal:9000/acme/acme/directory"), UNKNOWN);
        let zerossl = of("https://acme.zerossl.com/v2/DV90");
        assert_eq!(zerossl.failures.per, Duration::from_hours(1));
    }

    #[test]
    fn a_window_refills_what_the_ca_says() {
        // The published time for one more, in seconds.
        let one = |rate: Rate| rate.per.as_secs() / rate.most as u64;
        let limits = LETS_ENCRYPT;
        assert_eq!(one(limits.orders), 36);
        assert_eq!(one(limits.failures), 12 * 60);
        assert_eq!(one(limits.duplicates), 34 * 3600);
        assert_eq!(limits.domain.map(one), Some(202 * 60));
        assert_eq!(one(limits.accounts), 18 * 60);
    }
}
