//! The product behind a route, with its own API.

use std::sync::Arc;

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::route::UpstreamRoute;
use crate::upstream::product::api::{ApiClient, ApiError};
use crate::upstream::product::{Dialect, TaggedImage, Untagged};

/// A product with its own API.
#[derive(Clone)]
pub(super) struct ProductApi {
    pub(super) dialect: &'static dyn Dialect,
    /// `None` without a credential for it, or where it is at a host that only an answer names.
    pub(super) client: Option<Arc<ApiClient>>,
}

impl ProductApi {
    pub(super) fn of(to: UpstreamRoute<'_>) -> Self {
        let dialect = to.backend.product.dialect();
        let client = to.backend.api.as_ref();
        Self {
            dialect,
            client: client.filter(|client| client.is_of(dialect)).cloned(),
        }
    }

    fn client(&self) -> Result<&ApiClient, ApiError> {
        self.client.as_deref().ok_or(ApiError::Unsupported)
    }

    pub(super) async fn untag(&self, image: TaggedImage<'_>) -> Result<Untagged, ApiError> {
        self.dialect.untag(self.client()?, image).await
    }

    pub(super) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), ApiError> {
        let client = self.client()?;
        self.dialect
            .delete_manifest(client, repository, digest)
            .await
    }
}
