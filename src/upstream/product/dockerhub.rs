//! Docker Hub.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::api::{ApiAuthorization, ApiCall, ApiClient, ApiError};
use super::{ApiFuture, Capabilities, Deletion, Dialect, TaggedImage, Untagged};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;

pub(super) struct DockerHub;

impl Dialect for DockerHub {
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["auth.docker.io", "hub.docker.com"]
            .map(str::to_owned)
            .to_vec()
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }

    fn api_url(&self, _registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        Some(UpstreamUrl {
            scheme: Scheme::Https,
            host: HostName::parse("hub.docker.com").ok()?,
            port: 443,
            base_path: String::new(),
        })
    }

    fn untag<'a>(&'a self, api: &'a ApiClient, image: TaggedImage<'a>) -> ApiFuture<'a, Untagged> {
        Box::pin(untag(api, image))
    }
}

async fn untag(
    api: &ApiClient,
    TaggedImage { repository, tag }: TaggedImage<'_>,
) -> Result<Untagged, ApiError> {
    let session = api.session(login(api), SESSION_LIFE).await?;
    let path = format!("/v2/repositories/{repository}/tags/{tag}/");
    let call = ApiCall::new(Method::DELETE, path).bearing(session);
    let response = match api.send(call).await {
        Err(error @ ApiError::Unauthorized(_)) => {
            api.end_session();
            return Err(error);
        }
        other => other?,
    };
    match response.status {
        status if status.is_success() => Ok(Untagged::Done),
        // Its storage refused its own token: the rights are missing, and another try changes
        // nothing.
        StatusCode::INTERNAL_SERVER_ERROR if response.message().contains("UNAUTHORIZED") => {
            Err(ApiError::Denied(response.message()))
        }
        _ => Err(response.refusal()),
    }
}

/// A token of the API for a name and its password, or a token of the account.
async fn login(api: &ApiClient) -> Result<SecretString, ApiError> {
    let identifier = api.username().ok_or(ApiError::Unsupported)?;
    let secret = api.secret().await?;
    let body = json!({ "identifier": identifier, "secret": secret.expose_secret() });
    let call = ApiCall::new(Method::POST, "/v2/auth/token".to_owned());
    let call = call.bearing(ApiAuthorization::None).with_body(body);
    let response = api.send(call).await?;
    if response.status != StatusCode::OK {
        return Err(response.refusal());
    }
    let document = response.json()?;
    let token = document
        .get("access_token")
        .and_then(|token| token.as_str());
    token.map(SecretString::from).ok_or(ApiError::Invalid)
}

/// A token lives for ten minutes.
const SESSION_LIFE: Duration = Duration::from_mins(8);
