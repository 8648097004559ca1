//! Google Artifact Registry.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::api::{
    ApiAuthorization, ApiCall, ApiClient, ApiError, ApiResponse, path_segment, readable,
};
use super::{ApiFuture, Capabilities, Chunks, Dialect};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;

pub(super) struct Gar;

impl Dialect for Gar {
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["oauth2.googleapis.com", "artifactregistry.googleapis.com"]
            .map(str::to_owned)
            .to_vec()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chunks: Chunks::One,
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }

    fn api_url(&self, _registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        Some(UpstreamUrl {
            scheme: Scheme::Https,
            host: HostName::parse("artifactregistry.googleapis.com").ok()?,
            port: 443,
            base_path: String::new(),
        })
    }

    /// `PROJECT/REPOSITORY`, in which the first push makes any image.
    fn container_of(&self, repository: &RepositoryName) -> String {
        match place(repository) {
            Some((project, repository)) => format!("{project}/{repository}"),
            None => repository.to_string(),
        }
    }

    fn create<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: &'a RepositoryName,
    ) -> ApiFuture<'a, ()> {
        Box::pin(create_repository(api, repository))
    }
}

/// Project and repository of a name, which has an image behind them.
fn place(repository: &RepositoryName) -> Option<(&str, &str)> {
    let mut components = repository.as_str().splitn(3, '/');
    let (project, name) = (components.next()?, components.next()?);
    components.next().map(|_| (project, name))
}

/// The location of a registry. The names of gcr.io tell none: there, the first push makes all.
fn location<'a>(registry: &'a HostName, region: Option<&'a str>) -> Option<&'a str> {
    let name = registry.as_str();
    if name == "gcr.io" || name.ends_with(".gcr.io") {
        return None;
    }
    name.strip_suffix("-docker.pkg.dev").or(region)
}

/// A long-running operation.
#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    name: String,
    #[serde(default)]
    done: bool,
    error: Option<OperationError>,
}

#[derive(Deserialize)]
struct OperationError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
}

async fn create_repository(api: &ApiClient, repository: &RepositoryName) -> Result<(), ApiError> {
    let (project, name) = place(repository).ok_or(ApiError::Unsupported)?;
    let location = location(&api.registry().host, api.region()).ok_or(ApiError::Unsupported)?;
    let authorization = authorization(api)?;
    let [location, name] = [location, name].map(path_segment);
    let path =
        format!("/v1/projects/{project}/locations/{location}/repositories?repositoryId={name}");
    let call = ApiCall::new(Method::POST, path).bearing(authorization.clone());
    let response = api
        .send(call.with_body(json!({ "format": "DOCKER" })))
        .await?;
    if response.status == StatusCode::CONFLICT {
        // Somebody else was faster.
        return Ok(());
    }
    let mut operation = operation(&response)?;
    let mut interval = FIRST_POLL;
    while !operation.done {
        // The creation as a whole has a time limit.
        tokio::time::sleep(interval).await;
        interval = MAX_POLL_INTERVAL.min(interval * 2);
        let path = format!("/v1/{}", checked_name(&operation.name)?);
        let call = ApiCall::new(Method::GET, path).bearing(authorization.clone());
        operation = self::operation(&api.send(call).await?)?;
    }
    match operation.error {
        None => Ok(()),
        Some(error) if error.code == ALREADY_EXISTS => Ok(()),
        Some(error) => Err(ApiError::Denied(readable(&error.message))),
    }
}

/// The access token of the login, or one that is written in the place of a password. Google's API
/// takes no keys.
fn authorization(api: &ApiClient) -> Result<ApiAuthorization, ApiError> {
    match api.username() {
        None => Ok(ApiAuthorization::Usual),
        Some("oauth2accesstoken") => Ok(ApiAuthorization::Bearer),
        Some(_) => Err(ApiError::Unsupported),
    }
}

fn operation(response: &ApiResponse) -> Result<Operation, ApiError> {
    match response.status {
        StatusCode::OK => serde_json::from_slice(&response.body).map_err(|_| ApiError::Invalid),
        // The name is none for a repository.
        StatusCode::BAD_REQUEST => Err(ApiError::Denied(response.message())),
        _ => Err(response.refusal()),
    }
}

/// The name of an operation, which becomes a path.
fn checked_name(name: &str) -> Result<&str, ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    let is_operation = name.starts_with("projects/")
        && name.contains("/operations/")
        && name.bytes().all(is_plain)
        && !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    is_operation.then_some(name).ok_or(ApiError::Invalid)
}

/// `google.rpc.Code`.
const ALREADY_EXISTS: u32 = 6;
const FIRST_POLL: Duration = Duration::from_millis(200);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hosts_tell_what_contains_an_image() {
        let name = |text| RepositoryName::parse(text).expect(text);
        for (text, container) in [
            ("acme/app/web", "acme/app"),
            ("acme/app/web/api", "acme/app"),
            ("acme/app", "acme/app"),
            ("acme", "acme"),
        ] {
            assert_eq!(Gar.container_of(&name(text)), container);
            assert_eq!(place(&name(text)).is_some(), text.matches('/').count() > 1);
        }
        let host = |text| HostName::parse(text).expect(text);
        let found = |text, region| location(&host(text), region).map(str::to_owned);
        let europe = Some("europe".to_owned());
        assert_eq!(found("europe-docker.pkg.dev", None), europe);
        let near = Some("europe-west1".to_owned());
        assert_eq!(found("europe-west1-docker.pkg.dev", Some("us")), near);
        assert_eq!(found("mirror.example", Some("europe")), europe);
        assert_eq!(found("mirror.example", None), None);
        assert_eq!(found("gcr.io", Some("us")), None);
        assert_eq!(found("eu.gcr.io", Some("europe")), None);
    }

    #[test]
    fn an_operation_is_no_other_path() {
        assert!(checked_name("projects/acme/locations/europe/operations/1-a").is_ok());
        for name in [
            "",
            "operations/1",
            "projects/acme",
            "projects/../operations/1",
            "projects//operations/1",
            "projects/acme/operations/1?x=y",
            "projects/acme/operations/1 HTTP/1.1",
        ] {
            assert!(checked_name(name).is_err(), "{name}");
        }
    }
}
