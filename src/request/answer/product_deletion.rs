//! In which order the ways to delete a tag or a manifest at a product are tried: by the registry API
//! where it can, and by the product's own where only that can. Whose request it is does not matter.

use super::product_api::ProductApi;
use crate::config::upstream::Untag;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::rejection::{Rejection, product};
use crate::upstream::product::api::ApiError;
use crate::upstream::product::{Deletion, TaggedImage, Untagged};

/// What the deletion of a tag alone came to.
pub(in crate::request) enum NativeUntag<R> {
    /// By the product's own API.
    Done,
    /// What the registry API answered.
    Answered(R),
    /// Neither can do it.
    Impossible,
}

/// What the registry API answers to the deletion of a manifest.
pub(in crate::request) enum RegistryAnswer<R> {
    Known(R),
    /// It deletes none, or the server is no registry there.
    NoSuchCall(R),
}

/// Deletes a tag alone, as the settings allow it. `by_registry`: by the registry API, if need be.
pub(in crate::request) async fn untag<R, E: From<ApiError> + From<Rejection>>(
    api: &ProductApi,
    setting: Option<Untag>,
    image: TaggedImage<'_>,
    by_registry: impl Future<Output = Result<NativeUntag<R>, E>>,
) -> Result<NativeUntag<R>, E> {
    match setting {
        Some(Untag::Off) => return Err(product::tag_deletion_off().into()),
        Some(Untag::Swap) => return Ok(NativeUntag::Impossible),
        Some(Untag::Native) | None => {}
    }
    let native = match api.dialect.capabilities().tag_deletion {
        Deletion::Registry => by_registry.await?,
        Deletion::Api => match api.untag(image).await {
            Ok(Untagged::Done) => NativeUntag::Done,
            Ok(Untagged::HasOtherTags) => NativeUntag::Impossible,
            Err(ApiError::Unsupported) => by_registry.await?,
            Err(error) => return Err(error.into()),
        },
    };
    match native {
        NativeUntag::Impossible if setting == Some(Untag::Native) => {
            Err(product::no_tag_deletion().into())
        }
        native => Ok(native),
    }
}

/// Deletes a manifest with all of its tags. `by_registry`: by the registry API, if need be. `None`:
/// the product's own has done it.
pub(in crate::request) async fn delete_manifest<R, E: From<ApiError>>(
    api: &ProductApi,
    repository: &RepositoryName,
    digest: &Digest,
    by_registry: impl Future<Output = Result<RegistryAnswer<R>, E>>,
) -> Result<Option<R>, E> {
    if api.dialect.capabilities().digest_deletion == Deletion::Api {
        match api.delete_manifest(repository, digest).await {
            Ok(()) => return Ok(None),
            Err(ApiError::Unsupported) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = match by_registry.await? {
        RegistryAnswer::Known(answer) => return Ok(Some(answer)),
        RegistryAnswer::NoSuchCall(answer) => answer,
    };
    match api.delete_manifest(repository, digest).await {
        Ok(()) => Ok(None),
        Err(ApiError::Unsupported) => Ok(Some(answer)),
        Err(error) => Err(error.into()),
    }
}
