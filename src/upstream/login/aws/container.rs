//! The service that gives the keys of a container's role, as its environment says (Amazon ECS, EKS
//! Pod Identity).

use std::net::IpAddr;
use std::path::PathBuf;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::config::secret::SecretSource;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;
use crate::upstream::login::hosts::ServiceUrl;

/// Where the keys of a container's role are.
pub(super) struct ContainerService {
    pub(super) url: ServiceUrl,
    authorization: Option<ContainerToken>,
}

/// What the service wants in `Authorization`.
enum ContainerToken {
    Literal(SecretString),
    /// Read anew for each request: it is rotated.
    File(PathBuf),
}

impl ContainerService {
    /// That of the environment; `None` without one.
    pub(super) fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, &'static str> {
        let given = |name| variable(name).filter(|value: &String| !value.is_empty());
        let url = if let Some(path) = given(RELATIVE_URI) {
            let base = private(ECS_ADDRESS);
            let url = path.starts_with('/').then(|| ServiceUrl::new(&base, &path));
            url.flatten().ok_or(NO_PATH)?
        } else if let Some(url) = given(FULL_URI) {
            let url = ServiceUrl::parse(&url).ok_or(NO_URL)?;
            if !is_allowed(&url.origin) {
                return Err(NOT_ALLOWED);
            }
            url
        } else {
            return Ok(None);
        };
        let file = given(TOKEN_FILE).map(|path| ContainerToken::File(path.into()));
        let literal = || Some(ContainerToken::Literal(given(TOKEN)?.into()));
        Ok(Some(Self {
            url,
            authorization: file.or_else(literal),
        }))
    }

    /// The same path at a service that the configuration names.
    pub(super) fn at(self, endpoint: Option<&UpstreamUrl>) -> Self {
        let moved = endpoint.and_then(|base| ServiceUrl::new(base, self.url.target.as_str()));
        Self {
            url: moved.unwrap_or(self.url),
            ..self
        }
    }

    /// The value of `Authorization`, if the service wants one. Errors: why it cannot be read.
    pub(super) async fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let token = match &self.authorization {
            None => return Ok(None),
            Some(ContainerToken::Literal(token)) => token.clone(),
            Some(ContainerToken::File(path)) => {
                let source = SecretSource::of_file(path.clone());
                let token = run_blocking(move || source.read()).await;
                token.map_err(|cause| format!("its token {cause}"))?
            }
        };
        let mut value = HeaderValue::try_from(token.expose_secret())
            .map_err(|_| "its token does not fit into a header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Whether keys may come from there: over https, from this host, or from the addresses that AWS
/// documents for containers.
fn is_allowed(origin: &UpstreamUrl) -> bool {
    if origin.scheme == Scheme::Https {
        return true;
    }
    match origin.host.ip() {
        Some(address) => address.is_loopback() || CONTAINER_ADDRESSES.contains(&address),
        None => origin.host.as_str() == "localhost",
    }
}

/// The file of the token, if there is one.
pub(in crate::upstream::login) fn token_file() -> Option<PathBuf> {
    std::env::var_os(TOKEN_FILE).map(PathBuf::from)
}

/// The metadata service of a machine.
pub(super) fn machine_service() -> UpstreamUrl {
    private(IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)))
}

fn private(address: IpAddr) -> UpstreamUrl {
    UpstreamUrl {
        scheme: Scheme::Http,
        host: HostName::from(address),
        port: Scheme::Http.default_port(),
        base_path: String::new(),
    }
}

const ECS_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 170, 2));
/// Amazon ECS, and EKS Pod Identity with both of its addresses.
const CONTAINER_ADDRESSES: [IpAddr; 3] = [
    ECS_ADDRESS,
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const NO_PATH: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path";
const NO_URL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI is no URL";
const NOT_ALLOWED: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an address of \
                           this host or of AWS's services for containers";

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Option<String>, &'static str> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let service = ContainerService::from_environment(variable)?;
        Ok(service.map(|found| format!("{}{}", found.url.origin, found.url.target)))
    }

    #[test]
    fn keys_come_from_https_this_host_and_the_documented_addresses_alone() {
        for url in [
            "https://keys.example/v1?a=b",
            "https://10.0.0.1/v1",
            "http://127.0.0.1:8080/v1",
            "http://127.9.9.9/v1",
            "http://[::1]/v1",
            "http://localhost/v1",
            "http://169.254.170.2/v1",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert_eq!(found(&[(FULL_URI, url)]), Ok(Some(url.to_owned())));
        }
        for url in [
            "http://keys.example/v1",
            "http://10.0.0.1/v1",
            "http://169.254.169.254/v1",
            "http://169.254.170.3/v1",
            "http://[fd00:ec2::24]/v1",
            "http://localhost.example/v1",
            "http://169.254.170.2@keys.example/v1",
        ] {
            assert!(found(&[(FULL_URI, url)]).is_err(), "{url}");
        }
        assert_eq!(found(&[(FULL_URI, "/v1")]), Err(NO_URL));
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[(FULL_URI, "")]), Ok(None));
    }

    #[test]
    fn the_path_alone_counts_first() {
        let full = (FULL_URI, "https://keys.example/");
        let expected = Ok(Some("http://169.254.170.2/v2/credentials/1".to_owned()));
        assert_eq!(
            found(&[full, (RELATIVE_URI, "/v2/credentials/1")]),
            expected
        );
        assert_eq!(found(&[(RELATIVE_URI, "@keys.example/")]), Err(NO_PATH));
    }

    #[tokio::test]
    async fn the_token_of_a_file_is_read_anew_and_counts_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        let path = file.display().to_string();
        let variable = |name: &str| match name {
            FULL_URI => Some("http://169.254.170.23/v1/credentials".to_owned()),
            TOKEN_FILE => Some(path.clone()),
            TOKEN => Some("literal".to_owned()),
            _ => None,
        };
        let service = ContainerService::from_environment(variable);
        let service = service.expect("allowed").expect("a service");
        assert!(service.authorization().await.is_err());
        for token in ["first", "second"] {
            std::fs::write(&file, token).expect("written");
            let value = service
                .authorization()
                .await
                .expect("read")
                .expect("a token");
            assert_eq!(value, token);
            assert!(value.is_sensitive());
        }
    }
}
