//! The registry products whose own ways moorgate knows.

use super::challenge::AuthChallenge;
use super::host::HostName;

/// A registry product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Azure Container Registry.
    Acr,
    /// Any registry that keeps to the distribution specification.
    Distribution,
    DockerHub,
    /// Amazon Elastic Container Registry.
    Ecr,
    /// Google Artifact Registry, and its `gcr.io` names.
    Gar,
    /// The container registry of GitHub Packages.
    Ghcr,
    Gitlab,
    Harbor,
    Quay,
}

impl Product {
    pub const ALL: [Self; 9] = [
        Self::Acr,
        Self::Distribution,
        Self::DockerHub,
        Self::Ecr,
        Self::Gar,
        Self::Ghcr,
        Self::Gitlab,
        Self::Harbor,
        Self::Quay,
    ];

    /// The name in the configuration, the log and `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acr => "acr",
            Self::Distribution => "distribution",
            Self::DockerHub => "dockerhub",
            Self::Ecr => "ecr",
            Self::Gar => "gar",
            Self::Ghcr => "ghcr",
            Self::Gitlab => "gitlab",
            Self::Harbor => "harbor",
            Self::Quay => "quay",
        }
    }

    /// How it deletes old images by itself, where somebody has set that up; `None`: it cannot.
    pub fn cleanup(self) -> Option<&'static str> {
        match self {
            Self::Acr => Some("retention policies and `acr purge` tasks"),
            Self::Ecr => Some("lifecycle policies"),
            Self::Gar | Self::Gitlab => Some("cleanup policies"),
            Self::Harbor => Some("tag retention rules"),
            Self::Quay => Some("auto-prune policies"),
            Self::Distribution | Self::DockerHub | Self::Ghcr => None,
        }
    }

    /// The product that a hosted service's name tells; `None` for names that anybody may have.
    pub fn of_host(host: &HostName) -> Option<Self> {
        let host = host.as_str();
        let ends_in = |suffixes: &[&str]| suffixes.iter().any(|suffix| host.ends_with(suffix));
        if ends_in(&[".azurecr.io", ".azurecr.cn", ".azurecr.us"]) {
            return Some(Self::Acr);
        }
        if ends_in(&[".docker.io"]) || host == "docker.io" {
            return Some(Self::DockerHub);
        }
        let is_amazon = ends_in(&[".amazonaws.com", ".amazonaws.com.cn", ".on.aws"]);
        if is_amazon
            && [".dkr.ecr", ".dkr-ecr"]
                .iter()
                .any(|part| host.contains(part))
        {
            return Some(Self::Ecr);
        }
        if host == "gcr.io" || ends_in(&[".gcr.io", "-docker.pkg.dev"]) {
            return Some(Self::Gar);
        }
        match host {
            "ghcr.io" => Some(Self::Ghcr),
            "registry.gitlab.com" => Some(Self::Gitlab),
            "quay.io" => Some(Self::Quay),
            _ => None,
        }
    }

    /// The product that a registry's challenge tells.
    pub(crate) fn of_challenge(challenge: &AuthChallenge<'_>) -> Option<Self> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let service = challenge.parameter("service").unwrap_or_default();
        match service {
            "registry.docker.io" => return Some(Self::DockerHub),
            "harbor-registry" => return Some(Self::Harbor),
            "ecr.amazonaws.com" => return Some(Self::Ecr),
            _ => {}
        }
        if challenge.is("basic") {
            return (realm == "harbor").then_some(Self::Harbor);
        }
        let host = HostName::parse(service).ok();
        if let Some(product) = host.as_ref().and_then(Self::of_host) {
            return Some(product);
        }
        let path = realm.split('?').next().unwrap_or_default();
        // Gitea has GitLab's service and Google's path.
        if service == "container_registry" {
            return path.ends_with("/jwt/auth").then_some(Self::Gitlab);
        }
        let paths = [
            ("/v2/auth", Self::Quay),
            ("/oauth2/token", Self::Acr),
            ("/v2/token", Self::Gar),
        ];
        let found = paths.iter().find(|(end, _)| path.ends_with(end));
        found.map(|(_, product)| *product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosted_services_are_told_by_their_names() {
        for (host, product) in [
            ("acme.azurecr.io", Some(Product::Acr)),
            ("acme.azurecr.us", Some(Product::Acr)),
            ("registry-1.docker.io", Some(Product::DockerHub)),
            ("docker.io", Some(Product::DockerHub)),
            (
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                Some(Product::Ecr),
            ),
            (
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
                Some(Product::Ecr),
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some(Product::Ecr),
            ),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some(Product::Ecr)),
            ("eu.gcr.io", Some(Product::Gar)),
            ("gcr.io", Some(Product::Gar)),
            ("europe-west1-docker.pkg.dev", Some(Product::Gar)),
            ("ghcr.io", Some(Product::Ghcr)),
            ("registry.gitlab.com", Some(Product::Gitlab)),
            ("quay.io", Some(Product::Quay)),
            ("s3.eu-central-1.amazonaws.com", None),
            ("azurecr.io.example.com", None),
            ("notgcr.io", None),
            ("registry.example.com", None),
        ] {
            let host = HostName::parse(host).expect("a host name");
            assert_eq!(Product::of_host(&host), product, "{host:?}");
        }
    }

    #[test]
    fn products_are_known_by_their_challenges() {
        use crate::registry::challenge::challenges;
        for (value, product) in [
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"",
                Some(Product::DockerHub),
            ),
            (
                "Bearer realm=\"https://h.example/service/token\",service=\"harbor-registry\"",
                Some(Product::Harbor),
            ),
            ("Basic realm=\"harbor\"", Some(Product::Harbor)),
            (
                "Bearer realm=\"https://git.example/jwt/auth\",service=\"container_registry\"",
                Some(Product::Gitlab),
            ),
            (
                "Bearer realm=\"https://gitea.example/v2/token\",service=\"container_registry\"",
                None,
            ),
            (
                "Bearer realm=\"https://q.example/v2/auth\",service=\"q.example\"",
                Some(Product::Quay),
            ),
            (
                "Bearer realm=\"https://r.example/oauth2/token\",service=\"r.example\"",
                Some(Product::Acr),
            ),
            (
                "Bearer realm=\"https://x.example/token\",service=\"ghcr.io\"",
                Some(Product::Ghcr),
            ),
            (
                "Bearer realm=\"https://eu.gcr.io/v2/token\",service=\"eu.gcr.io\"",
                Some(Product::Gar),
            ),
            (
                "Basic realm=\"https://1.dkr.ecr.x\",service=\"ecr.amazonaws.com\"",
                Some(Product::Ecr),
            ),
            (
                "Bearer realm=\"https://r.example/auth\",service=\"r\"",
                None,
            ),
            ("Basic realm=\"Registry\"", None),
            ("Bearer", None),
        ] {
            let found = challenges(value);
            let found = found.first().and_then(Product::of_challenge);
            assert_eq!(found, product, "{value}");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Product::ALL
            .iter()
            .map(|product| product.as_str())
            .collect();
        assert_eq!(names.len(), Product::ALL.len());
    }
}
