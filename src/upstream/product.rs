//! What is different at each registry product. What all have in common is the distribution
//! specification; a file below says only where a product leaves it.

mod acr;
mod distribution;
mod dockerhub;
mod ecr;
mod gar;
mod ghcr;
mod gitlab;
mod harbor;
mod quay;

pub(super) use ecr::region as ecr_region;

use crate::registry::host::HostName;
use crate::registry::product::Product;

/// The ways of one product.
pub(crate) trait Dialect: Send + Sync {
    fn product(&self) -> Product;

    /// The hosts, beside the registry's own, to which credentials may be sent.
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        Vec::new()
    }

    /// The actions that a token needs for a repository, as its scope lists them.
    fn token_actions(&self, need: TokenNeed) -> &'static str {
        match need {
            TokenNeed::Read => "pull",
            TokenNeed::Write => "pull,push",
            TokenNeed::Delete => "pull,push,delete",
        }
    }

    /// Whether it takes no passwords, but tokens alone.
    fn wants_tokens(&self) -> bool {
        false
    }

    fn capabilities(&self) -> Capabilities;
}

/// What a token is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenNeed {
    Read,
    Write,
    Delete,
}

/// What a product can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Of a tag alone.
    pub(crate) tag_deletion: Deletion,
    /// Of a manifest with all its tags.
    pub(crate) digest_deletion: Deletion,
    /// Of the repositories.
    pub(crate) catalog: ListApi,
    /// Of blobs that are uploaded in chunks.
    pub(crate) chunks: Chunks,
    /// Whether its API makes a repository, or the project of one, that the first push does not.
    pub(crate) creation: bool,
    pub(crate) has_referrers: bool,
    /// The most entries of one page of a list.
    pub(crate) page_size: u32,
    /// The exact number of components of a name, where it is fixed.
    pub(crate) levels: Option<usize>,
}

impl Capabilities {
    /// Those of the distribution specification.
    const STANDARD: Self = Self {
        tag_deletion: Deletion::Registry,
        digest_deletion: Deletion::Registry,
        catalog: ListApi::Registry,
        chunks: Chunks::Any,
        creation: false,
        has_referrers: true,
        page_size: 1000,
        levels: None,
    };
}

/// By which API something is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// That of the registry.
    Registry,
    /// The product's own.
    Api,
}

/// By which API something is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListApi {
    /// That of the registry.
    Registry,
    /// The product's own.
    Api,
}

/// In which pieces a blob may be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// As the client likes.
    Any,
    /// In one stream.
    One,
    /// In chunks of at most so many bytes, or in one stream.
    AtMost(u64),
}

/// The ways of a product.
pub(crate) fn dialect(product: Product) -> &'static dyn Dialect {
    match product {
        Product::Acr => &acr::Acr,
        Product::Distribution => &distribution::Distribution,
        Product::DockerHub => &dockerhub::DockerHub,
        Product::Ecr => &ecr::Ecr,
        Product::Gar => &gar::Gar,
        Product::Ghcr => &ghcr::Ghcr,
        Product::Gitlab => &gitlab::Gitlab,
        Product::Harbor => &harbor::Harbor,
        Product::Quay => &quay::Quay,
    }
}
