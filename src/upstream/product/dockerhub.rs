//! Docker Hub.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::api::{ApiAuthorization, ApiCall, ApiClient, ApiError, ApiResponse, path_segment};
use super::inspection::{ApiInspection, RequestLimit};
use super::{
    ApiFuture, Capabilities, CatalogSource, Deletion, Dialect, ListedNames, PageOfApi, TaggedImage,
    Untagged,
};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;

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
            catalog: CatalogSource::Api,
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

    fn repositories<'a>(
        &'a self,
        api: &'a ApiClient,
        namespace: &'a str,
        page: PageOfApi<'a>,
    ) -> ApiFuture<'a, ListedNames> {
        Box::pin(repositories(api, namespace, page))
    }

    fn inspect<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: Option<&'a RepositoryName>,
    ) -> ApiFuture<'a, ApiInspection> {
        Box::pin(inspect(api, repository))
    }
}

/// Its tokens do not say what they may; those of the registry do.
async fn inspect(
    api: &ApiClient,
    repository: Option<&RepositoryName>,
) -> Result<ApiInspection, ApiError> {
    let named = repository.and_then(|name| name.as_str().split_once('/'));
    let namespace = named.map(|(namespace, _)| namespace).or(api.username());
    let namespace = path_segment(namespace.ok_or(ApiError::Unsupported)?);
    let path = format!("/v2/namespaces/{namespace}/repositories?page_size=1");
    let response = send(api, Method::GET, path).await?;
    Ok(ApiInspection {
        limits: RequestLimit::of_api(&response.headers)
            .into_iter()
            .collect(),
        ..ApiInspection::default()
    })
}

async fn untag(
    api: &ApiClient,
    TaggedImage { repository, tag }: TaggedImage<'_>,
) -> Result<Untagged, ApiError> {
    let path = format!("/v2/repositories/{repository}/tags/{tag}/");
    let response = send(api, Method::DELETE, path).await?;
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

#[derive(Deserialize)]
struct RepositoryPage {
    #[serde(default)]
    results: Vec<ListedRepository>,
    /// An address, which only tells that there is a next page.
    next: Option<String>,
}

#[derive(Deserialize)]
struct ListedRepository {
    name: String,
}

/// The pages are numbered from 1.
async fn repositories(
    api: &ApiClient,
    namespace: &str,
    page: PageOfApi<'_>,
) -> Result<ListedNames, ApiError> {
    let number: u32 = page.unwrap_or("1").parse().map_err(|_| ApiError::Invalid)?;
    let segment = path_segment(namespace);
    let path = format!("/v2/namespaces/{segment}/repositories?page={number}&page_size={PAGE_SIZE}");
    let listed: RepositoryPage = send(api, Method::GET, path).await?.parsed()?;
    let next = listed.next.filter(|_| !listed.results.is_empty());
    let names = listed.results.into_iter();
    Ok(ListedNames {
        names: names
            .map(|listed| format!("{namespace}/{}", listed.name))
            .collect(),
        next: next.map(|_| number.saturating_add(1).to_string()),
    })
}

/// Sends a request with a token of the API. One that the API no longer takes is exchanged once.
async fn send(api: &ApiClient, method: Method, path: String) -> Result<ApiResponse, ApiError> {
    let mut is_again = false;
    loop {
        let session = api.session(login(api), SESSION_LIFE).await?;
        let call = ApiCall::new(method.clone(), path.clone()).bearing(session);
        match api.send(call).await {
            Err(ApiError::Unauthorized(_)) if !is_again => {
                api.end_session();
                is_again = true;
            }
            Err(error @ ApiError::Unauthorized(_)) => {
                api.end_session();
                return Err(error);
            }
            other => return other,
        }
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
/// The most that the API gives.
const PAGE_SIZE: u32 = 100;
