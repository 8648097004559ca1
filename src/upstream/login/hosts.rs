//! The hosts that may get moorgate's credentials for a registry. What a registry names is not
//! trusted: a stored credential is worth more than one answer.

use http::Uri;
use http::uri::PathAndQuery;

use super::error::LoginError;
use crate::config::upstream::{Scheme, UpstreamSettings, UpstreamUrl};
use crate::registry::host::Authority;

/// The hosts that may get the credentials for one registry.
#[derive(Debug)]
pub(super) struct CredentialHosts {
    registry: UpstreamUrl,
    /// Those of the configuration.
    named: Vec<Authority>,
    /// The services that belong to the product, where the product is certain.
    services: Vec<String>,
    /// Configured addresses.
    configured: Vec<UpstreamUrl>,
}

/// The address of a service that may get credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceUrl {
    /// Without a base path.
    pub(super) origin: UpstreamUrl,
    pub(super) target: PathAndQuery,
}

impl ServiceUrl {
    /// A path below an address.
    pub(super) fn new(base: &UpstreamUrl, path: &str) -> Option<Self> {
        let target = format!("{}{path}", base.base_path);
        Some(Self {
            origin: UpstreamUrl {
                base_path: String::new(),
                ..base.clone()
            },
            target: PathAndQuery::try_from(target).ok()?,
        })
    }
}

impl ServiceUrl {
    /// An absolute URL.
    pub(super) fn parse(url: &str) -> Option<Self> {
        parse(url)
    }
}

impl CredentialHosts {
    /// `services`: the hosts of the product, none where only the registry's answer told which it is.
    pub(super) fn new(
        settings: &UpstreamSettings,
        endpoint: Option<&UpstreamUrl>,
        services: Vec<String>,
    ) -> Self {
        Self {
            registry: settings.url.clone(),
            named: settings.hosts.clone(),
            services,
            configured: settings
                .others
                .iter()
                .chain(&settings.api)
                .chain(endpoint)
                .cloned()
                .collect(),
        }
    }

    /// The service at a URL that the registry gave. `is_private`: the registry itself is at a
    /// private address.
    pub(super) fn service(
        &self,
        url: &str,
        is_private: bool,
        credential: &str,
    ) -> Result<ServiceUrl, LoginError> {
        let service = parse(url).ok_or(LoginError::UnknownScheme(
            "the realm of its challenge is no URL",
        ))?;
        let origin = &service.origin;
        let refused = |why, remedy| LoginError::ServiceNotAllowed {
            service: origin.to_string(),
            credential: credential.to_owned(),
            why,
            remedy,
        };
        if !self.has(origin) {
            let host = origin
                .host
                .authority(origin.port, origin.scheme.default_port());
            let remedy = format!("write hosts = [\"{host}\"] in [upstream]");
            return Err(refused("which is not among its hosts", remedy));
        }
        let may_be_clear = self.registry.scheme == Scheme::Http && is_private;
        if origin.scheme == Scheme::Http && !may_be_clear {
            let remedy = "let it use https".to_owned();
            return Err(refused("which is not https", remedy));
        }
        Ok(service)
    }

    fn has(&self, origin: &UpstreamUrl) -> bool {
        let is_same = |url: &UpstreamUrl| url.host == origin.host && url.port == origin.port;
        let is_named = |named: &Authority| {
            named.host == origin.host && named.port.is_none_or(|port| port == origin.port)
        };
        let is_usual = origin.port == Scheme::Https.default_port();
        let host = origin.host.as_str();
        is_same(&self.registry)
            || self.configured.iter().any(is_same)
            || self.named.iter().any(is_named)
            || is_usual && self.services.iter().any(|service| service == host)
    }
}

/// An absolute URL.
fn parse(url: &str) -> Option<ServiceUrl> {
    let uri: Uri = url.parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let Authority { host, port } = Authority::parse(uri.authority()?.as_str()).ok()?;
    let origin = UpstreamUrl {
        scheme,
        host,
        port: port.unwrap_or(scheme.default_port()),
        base_path: String::new(),
    };
    let target = match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => target.clone(),
        _ => PathAndQuery::from_static("/"),
    };
    Some(ServiceUrl { origin, target })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::host::HostName;

    fn hosts(registry: &str) -> CredentialHosts {
        let registry = parse(registry).expect(registry).origin;
        let authority = |text| Authority::parse(text).expect(text);
        CredentialHosts {
            registry,
            named: vec![authority("auth.example:8443"), authority("any.example")],
            services: vec!["auth.docker.io".to_owned()],
            configured: vec![UpstreamUrl {
                scheme: Scheme::Https,
                host: HostName::parse("sts.example").expect("a name"),
                port: 443,
                base_path: "/x".to_owned(),
            }],
        }
    }

    #[test]
    fn only_the_registry_and_named_hosts_get_credentials() {
        let hosts = hosts("https://registry.example:5000");
        for url in [
            "https://registry.example:5000/token",
            "https://REGISTRY.example.:5000/token?a=b",
            "https://auth.example:8443/token",
            "https://any.example/",
            "https://any.example:9/",
            "https://auth.docker.io/token",
            "https://sts.example/",
        ] {
            assert!(hosts.service(url, false, "user").is_ok(), "{url}");
        }
        for url in [
            "https://registry.example/token",
            "https://registry.example:5001/token",
            "https://evil.registry.example:5000/token",
            "https://registry.example.evil:5000/token",
            "https://auth.example/token",
            "https://auth.docker.io:444/token",
            "https://xauth.docker.io/token",
            "https://registry.example:5000@evil.example/token",
            "https://evil.example/https://registry.example:5000/",
            "http://registry.example:5000/token",
            "http://any.example/token",
            "ftp://any.example/token",
            "//any.example/token",
            "/token",
            "any.example",
            "",
        ] {
            assert!(hosts.service(url, true, "user").is_err(), "{url}");
        }
    }

    #[test]
    fn credentials_go_in_the_clear_only_where_the_registry_is_private_and_does_so() {
        let clear = hosts("http://registry.example:5000");
        let url = "http://registry.example:5000/token";
        assert!(clear.service(url, true, "user").is_ok());
        assert!(clear.service(url, false, "user").is_err());
        assert!(clear.service("https://any.example/", false, "user").is_ok());
    }
}
