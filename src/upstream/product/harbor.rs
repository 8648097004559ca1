//! Harbor.

use http::{Method, StatusCode};
use serde_json::json;

use super::api::{ApiCall, ApiClient, ApiError, path_segment};
use super::{ApiFuture, Capabilities, Deletion, Dialect, TaggedImage, Untagged};
use crate::config::upstream::UpstreamUrl;
use crate::registry::name::RepositoryName;

pub(super) struct Harbor;

impl Dialect for Harbor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            immutable_tags: true,
            own_refusals: true,
            hides_missing_projects: true,
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

    fn container_of(&self, repository: &RepositoryName) -> String {
        project(repository).0.to_owned()
    }

    fn create<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: &'a RepositoryName,
    ) -> ApiFuture<'a, ()> {
        Box::pin(create_project(api, repository))
    }
}

/// The project of a repository, and the rest of its name.
fn project(repository: &RepositoryName) -> (&str, &str) {
    let name = repository.as_str();
    name.split_once('/').unwrap_or((name, ""))
}

async fn untag(
    api: &ApiClient,
    TaggedImage { repository, tag }: TaggedImage<'_>,
) -> Result<Untagged, ApiError> {
    let (project, name) = project(repository);
    // Its router decodes paths once more than others do.
    let name = path_segment(&path_segment(name));
    let path =
        format!("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{tag}/tags/{tag}");
    let response = api.send(ApiCall::new(Method::DELETE, path)).await?;
    match response.status {
        status if status.is_success() => Ok(Untagged::Done),
        _ => Err(response.refusal()),
    }
}

async fn create_project(api: &ApiClient, repository: &RepositoryName) -> Result<(), ApiError> {
    let (project, _) = project(repository);
    let body = json!({ "project_name": project, "metadata": { "public": "false" } });
    let call = ApiCall::new(Method::POST, "/api/v2.0/projects".to_owned()).with_body(body);
    let response = api.send(call).await?;
    match response.status {
        StatusCode::CONFLICT => Ok(()),
        status if status.is_success() => Ok(()),
        _ => Err(response.refusal()),
    }
}
