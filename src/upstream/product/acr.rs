//! Azure Container Registry.

use http::Method;

use super::api::{ApiCall, ApiClient, ApiError};
use super::{ApiFuture, Capabilities, Deletion, Dialect, TaggedImage, TokenNeed, Untagged};
use crate::config::upstream::UpstreamUrl;
use crate::registry::host::HostName;

pub(super) struct Acr;

impl Dialect for Acr {
    /// The data endpoints and the storage get no credentials: blobs are behind signed addresses.
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["login.microsoftonline.com"].map(str::to_owned).to_vec()
    }

    /// Registries with ABAC know rights to metadata beside those to content.
    fn token_actions(&self, need: TokenNeed) -> &'static str {
        match need {
            TokenNeed::Read => "pull,metadata_read",
            TokenNeed::Write => "pull,push,metadata_read,metadata_write",
            TokenNeed::Delete => "pull,delete,metadata_read,metadata_write",
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            // Those that are locked.
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }

    /// Beside the registry, at the same host.
    fn api_url(&self, registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        Some(registry.clone())
    }

    fn untag<'a>(&'a self, api: &'a ApiClient, image: TaggedImage<'a>) -> ApiFuture<'a, Untagged> {
        Box::pin(untag(api, image))
    }
}

async fn untag(
    api: &ApiClient,
    TaggedImage { repository, tag }: TaggedImage<'_>,
) -> Result<Untagged, ApiError> {
    let path = format!("/acr/v1/{repository}/_tags/{tag}");
    let call = ApiCall::new(Method::DELETE, path).within(repository, TokenNeed::Delete);
    let response = api.send(call).await?;
    match response.status {
        status if status.is_success() => Ok(Untagged::Done),
        // 405: the tag is locked.
        _ => Err(response.refusal()),
    }
}
