//! The product behind a domain, with its own API.

use std::sync::Arc;

use super::pace::Pace;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::site::Backend;
use crate::upstream::product::api::{ApiClient, ApiError};
use crate::upstream::product::{ApiFuture, Dialect, ListedNames, PageOfApi, TaggedImage, Untagged};

/// A product with its own API.
#[derive(Clone)]
pub(in crate::request) struct ProductApi {
    pub(in crate::request) dialect: &'static dyn Dialect,
    /// `None` without a credential for it, or where it is at a host that only an answer names.
    pub(in crate::request) client: Option<Arc<ApiClient>>,
    /// `None`: a client waits for what it does.
    pace: Option<Arc<Pace>>,
}

impl ProductApi {
    pub(in crate::request) fn of(backend: &Backend) -> Self {
        let dialect = backend.product.dialect();
        let client = backend.api.as_ref();
        Self {
            dialect,
            client: client.filter(|client| client.is_of(dialect)).cloned(),
            pace: None,
        }
    }

    /// The same on moorgate's own account.
    pub(in crate::request) fn at_pace(self, pace: &Arc<Pace>) -> Self {
        Self {
            pace: Some(pace.clone()),
            ..self
        }
    }

    fn client(&self) -> Result<&ApiClient, ApiError> {
        self.client.as_deref().ok_or(ApiError::Unsupported)
    }

    pub(in crate::request) async fn untag(
        &self,
        image: TaggedImage<'_>,
    ) -> Result<Untagged, ApiError> {
        let client = self.client()?;
        self.paced(|| self.dialect.untag(client, image)).await
    }

    pub(in crate::request) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), ApiError> {
        let client = self.client()?;
        self.paced(|| self.dialect.delete_manifest(client, repository, digest))
            .await
    }

    pub(in crate::request) async fn repositories(
        &self,
        namespace: &str,
        page: PageOfApi<'_>,
    ) -> Result<ListedNames, ApiError> {
        let client = self.client()?;
        self.paced(|| self.dialect.repositories(client, namespace, page))
            .await
    }

    pub(in crate::request) async fn namespaces(
        &self,
        page: PageOfApi<'_>,
    ) -> Result<ListedNames, ApiError> {
        let client = self.client()?;
        self.paced(|| self.dialect.namespaces(client, page)).await
    }

    /// The result of a call, which is made again while the API throttles it and nobody waits.
    async fn paced<'a, T>(&self, call: impl Fn() -> ApiFuture<'a, T>) -> Result<T, ApiError> {
        let Some(pace) = &self.pace else {
            return call().await;
        };
        loop {
            pace.permit().await;
            match call().await {
                Err(ApiError::Throttled(seconds)) => {
                    let waits = pace.throttled(seconds);
                    waits.map_err(|_| ApiError::Throttled(seconds))?;
                }
                result => {
                    pace.answered();
                    return result;
                }
            }
        }
    }
}
