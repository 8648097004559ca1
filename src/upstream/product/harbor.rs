//! Harbor.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::ability::Ability;
use super::api::{ApiCall, ApiClient, ApiError, path_segment};
use super::inspection::ApiInspection;
use super::{
    ApiFuture, Capabilities, CatalogSource, Deletion, Dialect, ListedNames, PageOfApi, TaggedImage,
    Untagged,
};
use crate::config::upstream::UpstreamUrl;
use crate::registry::name::RepositoryName;

pub(super) struct Harbor;

impl Dialect for Harbor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            catalog: CatalogSource::ApiOrRegistry,
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

    fn repositories<'a>(
        &'a self,
        api: &'a ApiClient,
        project: &'a str,
        page: PageOfApi<'a>,
    ) -> ApiFuture<'a, ListedNames> {
        let path = format!("/api/v2.0/projects/{}/repositories", path_segment(project));
        Box::pin(names(api, path, page))
    }

    /// Those that the credentials are a member of or made for, and public ones. The list of all
    /// repositories would be shorter for robot accounts: it has only public ones for them.
    fn namespaces<'a>(
        &'a self,
        api: &'a ApiClient,
        page: PageOfApi<'a>,
    ) -> ApiFuture<'a, ListedNames> {
        Box::pin(names(api, "/api/v2.0/projects".to_owned(), page))
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

    fn inspect<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: Option<&'a RepositoryName>,
    ) -> ApiFuture<'a, ApiInspection> {
        Box::pin(inspect(api, repository))
    }
}

#[derive(Deserialize)]
struct HarborProject {
    project_id: u64,
}

/// One of the permissions that the API says the caller has.
#[derive(Deserialize)]
struct HarborPermission {
    resource: String,
    action: String,
}

/// The permissions of the credential in the project.
async fn inspect(
    api: &ApiClient,
    repository: Option<&RepositoryName>,
) -> Result<ApiInspection, ApiError> {
    let (project, _) = project(repository.ok_or(ApiError::Unsupported)?);
    let path = format!("/api/v2.0/projects/{project}");
    let response = api.send(ApiCall::new(Method::GET, path)).await?;
    if response.status != StatusCode::OK {
        return Err(response.refusal());
    }
    let HarborProject { project_id } =
        serde_json::from_slice(&response.body).map_err(|_| ApiError::Invalid)?;
    let scope = format!("scope=/project/{project_id}&relative=true");
    let path = format!("/api/v2.0/users/current/permissions?{scope}");
    let response = api.send(ApiCall::new(Method::GET, path)).await?;
    if response.status != StatusCode::OK {
        return Err(response.refusal());
    }
    let permissions: Vec<HarborPermission> =
        serde_json::from_slice(&response.body).map_err(|_| ApiError::Invalid)?;
    let has = |resource: &str, action: &str| {
        permissions
            .iter()
            .any(|permission| permission.resource == resource && permission.action == action)
    };
    Ok(ApiInspection {
        rights: vec![
            (Ability::Pull, has("repository", "pull")),
            (Ability::Push, has("repository", "push")),
            (Ability::Untag, has("tag", "delete")),
            (Ability::Delete, has("artifact", "delete")),
        ],
        ..ApiInspection::default()
    })
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

#[derive(Deserialize)]
struct NamedEntry {
    name: String,
}

/// A page of a list, counted from 1. Repositories have their whole names.
async fn names(
    api: &ApiClient,
    path: String,
    page: PageOfApi<'_>,
) -> Result<ListedNames, ApiError> {
    let number: u32 = page.unwrap_or("1").parse().map_err(|_| ApiError::Invalid)?;
    let path = format!("{path}?page={number}&page_size={PAGE_SIZE}");
    let response = api.send(ApiCall::new(Method::GET, path)).await?;
    // An empty list may be `null`.
    let listed: Option<Vec<NamedEntry>> = response.parsed()?;
    let listed = listed.unwrap_or_default();
    let has_next = !listed.is_empty() && (response.has_next() || listed.len() >= PAGE_SIZE);
    Ok(ListedNames {
        names: listed.into_iter().map(|listed| listed.name).collect(),
        next: has_next.then(|| number.saturating_add(1).to_string()),
    })
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

/// The most that Harbor gives.
const PAGE_SIZE: usize = 100;
