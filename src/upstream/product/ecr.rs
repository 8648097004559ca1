//! Amazon Elastic Container Registry.

use super::{Capabilities, Chunks, Deletion, Dialect};
use crate::registry::host::HostName;

pub(super) struct Ecr;

impl Dialect for Ecr {
    /// The API and the token service of the registry's region. Other hosts of the same domain belong
    /// to anybody.
    fn credential_hosts(&self, registry: &HostName) -> Vec<String> {
        let Some((region, domain)) = region(registry) else {
            return Vec::new();
        };
        ["api.ecr", "sts"]
            .iter()
            .map(|service| format!("{service}.{region}.{domain}"))
            .collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            chunks: Chunks::One,
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }
}

/// The region of a registry and the domain of its partition, as its name tells.
pub(crate) fn region(registry: &HostName) -> Option<(&str, &str)> {
    let name = registry.as_str();
    let (_, rest) = [".dkr.ecr.", ".dkr.ecr-fips.", ".dkr-ecr.", ".dkr-ecr-fips."]
        .iter()
        .find_map(|service| name.split_once(service))?;
    let (region, suffix) = rest.split_once('.')?;
    let domain = match suffix {
        "on.aws" => "amazonaws.com",
        "on.amazonwebservices.com.cn" => "amazonaws.com.cn",
        other => other,
    };
    Some((region, domain))
}
