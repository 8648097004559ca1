//! Deletions by requests of moorgate itself, in a repository of any product.

use http::{Method, StatusCode};

use super::own_calls::{OwnCalls, refusal};
use super::product_api::ProductApi;
use super::product_deletion::{self, NativeUntag, RegistryAnswer};
use crate::config::upstream::Untag;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::rejection::{Rejection, UpstreamRefusal, product};
use crate::retention::registry::RegistryError;
use crate::upstream::product::TaggedImage;
use crate::upstream::product::api::ApiError;

/// Deletes in one repository.
#[derive(Clone)]
pub(in crate::request) struct OwnDeletion {
    /// For this repository.
    pub(in crate::request) calls: OwnCalls,
    pub(in crate::request) api: ProductApi,
    /// The name at the registry.
    pub(in crate::request) repository: RepositoryName,
}

/// How a registry answers a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::request) enum Deleted {
    Gone,
    Unknown,
}

/// Why something was not deleted.
#[derive(Debug)]
pub(in crate::request) enum DeletionError {
    /// The registry did not answer, or cannot delete it.
    Rejected(Rejection),
    /// The registry refuses it.
    Refused(UpstreamRefusal),
    /// The product's own API has not done it.
    Api(ApiError),
}

impl From<Rejection> for DeletionError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<ApiError> for DeletionError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl OwnDeletion {
    pub(in crate::request) fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }

    /// Deletes a manifest with all of its tags.
    ///
    /// Errors: 405 if the registry deletes none; what it says else.
    pub(in crate::request) async fn manifest(
        &self,
        digest: &Digest,
    ) -> Result<Deleted, DeletionError> {
        let path = self.manifest_path(digest.as_str());
        let by_registry = async {
            let response = self.calls.send(Method::DELETE, &path, None).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(RegistryAnswer::Known(Some(Deleted::Gone)));
            }
            match refusal(response).await {
                refusal if refusal.is_immutable() => Err(DeletionError::Refused(refusal)),
                // A server that knows no such path answers 404 as well, in other words.
                refusal if status == StatusCode::NOT_FOUND && refusal.is_of_registry() => {
                    Ok(RegistryAnswer::Known(Some(Deleted::Unknown)))
                }
                refusal if refusal.is_unsupported() || status == StatusCode::NOT_FOUND => {
                    Ok(RegistryAnswer::NoSuchCall(None))
                }
                refusal => Err(DeletionError::Refused(refusal)),
            }
        };
        let (api, repository) = (&self.api, &self.repository);
        match product_deletion::delete_manifest(api, repository, digest, by_registry).await {
            Ok(None) => Ok(Deleted::Gone),
            Ok(Some(Some(deleted))) => Ok(deleted),
            Ok(Some(None)) => Err(product::no_tag_deletion().into()),
            Err(error) => error.unless_unknown(),
        }
    }

    /// Deletes a tag alone, without a swap. `None`: the product cannot do that.
    pub(in crate::request) async fn tag(
        &self,
        tag: &Tag,
        setting: Option<Untag>,
    ) -> Result<Option<Deleted>, DeletionError> {
        let path = self.manifest_path(tag.as_str());
        let by_registry = async {
            let response = self.calls.send(Method::DELETE, &path, None).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(NativeUntag::Answered(Deleted::Gone));
            }
            let refusal = refusal(response).await;
            if refusal.deletes_no_tags() {
                return Ok(NativeUntag::Impossible);
            }
            if status == StatusCode::NOT_FOUND && refusal.is_of_registry() {
                return Ok(NativeUntag::Answered(Deleted::Unknown));
            }
            Err(DeletionError::Refused(refusal))
        };
        let image = TaggedImage {
            repository: &self.repository,
            tag,
        };
        match product_deletion::untag(&self.api, setting, image, by_registry).await {
            Ok(NativeUntag::Done) => Ok(Some(Deleted::Gone)),
            Ok(NativeUntag::Answered(deleted)) => Ok(Some(deleted)),
            Ok(NativeUntag::Impossible) => Ok(None),
            Err(error) => error.unless_unknown().map(Some),
        }
    }
}

impl DeletionError {
    /// The same for a client.
    pub(in crate::request) fn rejection(self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection,
            Self::Refused(refusal) => refusal.rejection(),
            Self::Api(error) => product::api_failed(error),
        }
    }

    /// Why the product deletes it for nobody, as it is now; `None`: it did not say so.
    pub(in crate::request) fn left_by_product(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) if refusal.is_in_use() || refusal.is_immutable() => {
                Some(refusal.explained())
            }
            Self::Api(ApiError::Denied(message)) if product::is_kept(message) => {
                Some(message.clone())
            }
            // By a swap.
            Self::Rejected(rejection) if rejection.is_denied() => {
                Some(rejection.explained()).filter(|text| product::is_kept(text))
            }
            Self::Refused(_) | Self::Api(_) | Self::Rejected(_) => None,
        }
    }

    /// The same for retention. `what`: what was to be deleted.
    pub(in crate::request) fn at(self, what: &str) -> RegistryError {
        match self {
            Self::Rejected(rejection) if rejection.is_unsupported() => {
                RegistryError::Unsupported(rejection.explained())
            }
            Self::Rejected(rejection) => {
                RegistryError::Failed(format!("{what}: {}", rejection.explained()))
            }
            Self::Refused(refusal) => {
                RegistryError::Failed(format!("{what}: {}", refusal.explained()))
            }
            Self::Api(error) => RegistryError::Failed(format!("{what}: {error}")),
        }
    }

    /// What the product's own API does not know is gone.
    fn unless_unknown(self) -> Result<Deleted, Self> {
        match self {
            Self::Api(ApiError::NotFound | ApiError::RepositoryUnknown) => Ok(Deleted::Unknown),
            error => Err(error),
        }
    }
}
