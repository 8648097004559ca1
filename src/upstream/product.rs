//! What is different at each registry product. What all have in common is the distribution
//! specification; a file below says only where a product leaves it.

pub(crate) mod ability;
mod acr;
pub(crate) mod api;
mod distribution;
mod dockerhub;
mod ecr;
mod gar;
mod ghcr;
mod gitlab;
mod harbor;
pub(crate) mod inspection;
mod quay;

use std::pin::Pin;

use crate::config::upstream::UpstreamUrl;
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::registry::product::Product;
use crate::registry::reference::Tag;
use api::{ApiClient, ApiError};
pub(super) use ecr::region as ecr_region;
use inspection::ApiInspection;

/// The ways of one product.
pub(crate) trait Dialect: Send + Sync {
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

    /// Where the product's own API is, if that follows from where its registry is.
    fn api_url(&self, _registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        None
    }

    /// Takes a tag away by the product's own API.
    fn untag<'a>(
        &'a self,
        _api: &'a ApiClient,
        _image: TaggedImage<'a>,
    ) -> ApiFuture<'a, Untagged> {
        unsupported()
    }

    /// Deletes a manifest with all of its tags by the product's own API.
    fn delete_manifest<'a>(
        &'a self,
        _api: &'a ApiClient,
        _repository: &'a RepositoryName,
        _digest: &'a Digest,
    ) -> ApiFuture<'a, ()> {
        unsupported()
    }

    /// A page of the repositories of a namespace by the product's own API, by their whole names.
    fn repositories<'a>(
        &'a self,
        _api: &'a ApiClient,
        _namespace: &'a str,
        _page: PageOfApi<'a>,
    ) -> ApiFuture<'a, ListedNames> {
        unsupported()
    }

    /// A page of the namespaces that the credentials for the API can see, where it lists them.
    fn namespaces<'a>(
        &'a self,
        _api: &'a ApiClient,
        _page: PageOfApi<'a>,
    ) -> ApiFuture<'a, ListedNames> {
        unsupported()
    }

    /// What the product's own API says of its credential, and of limits. Changes nothing there.
    fn inspect<'a>(
        &'a self,
        _api: &'a ApiClient,
        _repository: Option<&'a RepositoryName>,
    ) -> ApiFuture<'a, ApiInspection> {
        unsupported()
    }

    /// What has to be made before the first push to a repository: itself, or what contains it.
    fn container_of(&self, repository: &RepositoryName) -> String {
        repository.to_string()
    }

    /// Makes it. That it is there already is success.
    fn create<'a>(
        &'a self,
        _api: &'a ApiClient,
        _repository: &'a RepositoryName,
    ) -> ApiFuture<'a, ()> {
        unsupported()
    }
}

/// What a product's own API does.
pub(crate) type ApiFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

fn unsupported<'a, T: Send + 'a>() -> ApiFuture<'a, T> {
    Box::pin(std::future::ready(Err(ApiError::Unsupported)))
}

/// A tag and its repository, by its name at the registry.
#[derive(Clone, Copy)]
pub(crate) struct TaggedImage<'a> {
    pub(crate) repository: &'a RepositoryName,
    pub(crate) tag: &'a Tag,
}

/// A page of a list of an API: the first one, or what the one before called its `next`.
pub(crate) type PageOfApi<'a> = Option<&'a str>;

/// Names of a page of a list of an API.
#[derive(Debug, Default)]
pub(crate) struct ListedNames {
    pub(crate) names: Vec<String>,
    /// What the dialect calls the next page. Never an address that the API gives: the next request
    /// has credentials.
    pub(crate) next: Option<String>,
}

/// What came of the deletion of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untagged {
    Done,
    /// The API would delete more than the tag: another manifest has to take it first.
    HasOtherTags,
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
    /// Whether it deletes a manifest with its last tag.
    pub(crate) image_goes_with_last_tag: bool,
    /// Of a manifest with all its tags.
    pub(crate) digest_deletion: Deletion,
    /// Of the list of repositories.
    pub(crate) catalog: CatalogSource,
    /// Of blobs that are uploaded in chunks.
    pub(crate) chunks: Chunks,
    /// Whether it may refuse to move a tag, also to where the tag is.
    pub(crate) immutable_tags: bool,
    /// Whether it refuses in other words than those of the specification.
    pub(crate) own_refusals: bool,
    /// Whether a missing project looks as if the credentials were wrong, or lacked the right.
    pub(crate) hides_missing_projects: bool,
}

impl Capabilities {
    /// Those of the distribution specification.
    const STANDARD: Self = Self {
        tag_deletion: Deletion::Registry,
        image_goes_with_last_tag: false,
        digest_deletion: Deletion::Registry,
        catalog: CatalogSource::Registry,
        chunks: Chunks::Any,
        immutable_tags: false,
        own_refusals: false,
        hides_missing_projects: false,
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

/// Where the list of repositories comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CatalogSource {
    /// The registry's own catalog.
    Registry,
    /// The product's own API: the registry has none.
    Api,
    /// The product's own API where there are credentials for it: the registry shows its own to
    /// administrators alone.
    ApiOrRegistry,
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
