//! The container registry of GitHub Packages.

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use serde::Deserialize;

use super::ability::Ability;
use super::api::{ApiAuthorization, ApiCall, ApiClient, ApiError, ApiResponse, path_segment};
use super::inspection::{ApiInspection, RequestLimit};
use super::{
    ApiFuture, Capabilities, CatalogSource, Chunks, Deletion, Dialect, ListedNames, PageOfApi,
    TaggedImage, Untagged,
};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;

pub(super) struct Ghcr;

impl Dialect for Ghcr {
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["api.github.com"].map(str::to_owned).to_vec()
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            digest_deletion: Deletion::Api,
            catalog: CatalogSource::Api,
            chunks: Chunks::AtMost(4 << 20),
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }

    fn api_url(&self, _registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        Some(UpstreamUrl {
            scheme: Scheme::Https,
            host: HostName::parse("api.github.com").ok()?,
            port: 443,
            base_path: String::new(),
        })
    }

    /// A version goes with all of its tags, and from under the indexes that contain it.
    fn untag<'a>(
        &'a self,
        _api: &'a ApiClient,
        _image: TaggedImage<'a>,
    ) -> ApiFuture<'a, Untagged> {
        Box::pin(std::future::ready(Ok(Untagged::HasOtherTags)))
    }

    fn delete_manifest<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> ApiFuture<'a, ()> {
        Box::pin(async move {
            let package = Package::find(api, repository).await?;
            let is_wanted = |version: &Version| version.name == digest.as_str();
            let version = package.version(is_wanted).await?;
            package.delete(&version).await
        })
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
        _repository: Option<&'a RepositoryName>,
    ) -> ApiFuture<'a, ApiInspection> {
        Box::pin(async move {
            // Does not count against the limit, and has the scopes of the token in its headers.
            let response = send(api, Method::GET, "/rate_limit".to_owned()).await?;
            if response.status != StatusCode::OK {
                return Err(response.refusal());
            }
            Ok(inspection(&response.headers))
        })
    }
}

/// Classic tokens have scopes, of which each includes those before it; others have none of these.
fn inspection(headers: &HeaderMap) -> ApiInspection {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let has = |scopes: &str, wanted: &[&str]| {
        let mut scopes = scopes.split(',').map(str::trim);
        scopes.any(|scope| wanted.contains(&scope))
    };
    let scopes = text("x-oauth-scopes").filter(|scopes| !scopes.is_empty());
    let right = |ability, wanted: &[&str]| Some((ability, has(scopes?, wanted)));
    const READ: &[&str] = &["read:packages", "write:packages"];
    let rights = [
        right(Ability::Pull, READ),
        right(Ability::List, READ),
        right(Ability::Catalog, READ),
        right(Ability::Push, &["write:packages"]),
        right(Ability::Untag, &["delete:packages"]),
        right(Ability::Delete, &["delete:packages"]),
    ];
    ApiInspection {
        rights: rights.into_iter().flatten().collect(),
        limits: RequestLimit::of_api(headers).into_iter().collect(),
        expires: text("github-authentication-token-expiration").map(str::to_owned),
    }
}

/// The versions of a package, each of which is a manifest with all of its tags.
struct Package<'a> {
    api: &'a ApiClient,
    path: String,
}

#[derive(Deserialize)]
struct Version {
    id: u64,
    /// The digest.
    name: String,
}

#[derive(Deserialize)]
struct PackageOwner {
    #[serde(rename = "type")]
    kind: String,
}

impl<'a> Package<'a> {
    async fn find(api: &'a ApiClient, repository: &RepositoryName) -> Result<Self, ApiError> {
        let (owner, name) = repository
            .as_str()
            .split_once('/')
            .ok_or(ApiError::NotFound)?;
        let packages = packages_of(api, owner).await?;
        let name = path_segment(name);
        Ok(Self {
            api,
            path: format!("{packages}/container/{name}/versions"),
        })
    }

    /// The first of them for which it holds; the newest come first.
    async fn version(&self, holds: impl Fn(&Version) -> bool) -> Result<Version, ApiError> {
        for page in 1..=MAX_PAGES {
            let path = format!("{}?per_page={PAGE_SIZE}&page={page}", self.path);
            let response = send(self.api, Method::GET, path).await?;
            let versions: Vec<Version> = response.parsed()?;
            let is_last = versions.len() < PAGE_SIZE;
            if let Some(version) = versions.into_iter().find(&holds) {
                return Ok(version);
            }
            if is_last {
                return Err(ApiError::NotFound);
            }
        }
        Err(ApiError::NotFound)
    }

    async fn delete(&self, version: &Version) -> Result<(), ApiError> {
        let path = format!("{}/{}", self.path, version.id);
        let response = send(self.api, Method::DELETE, path).await?;
        match response.status {
            status if status.is_success() => Ok(()),
            // The last version with a tag goes only with its package, one that many have pulled not
            // at all.
            StatusCode::BAD_REQUEST => Err(ApiError::Denied(response.message())),
            _ => Err(response.refusal()),
        }
    }
}

async fn send(api: &ApiClient, method: Method, path: String) -> Result<ApiResponse, ApiError> {
    static HEADERS: [(HeaderName, &str); 2] = [
        (header::ACCEPT, "application/vnd.github+json"),
        (
            HeaderName::from_static("x-github-api-version"),
            "2022-11-28",
        ),
    ];
    let call = ApiCall::new(method, path)
        .bearing(ApiAuthorization::Bearer)
        .with_headers(&HEADERS);
    api.send(call).await
}

/// The path of the packages of an owner: those of organizations and of users are at different
/// places.
async fn packages_of(api: &ApiClient, owner: &str) -> Result<String, ApiError> {
    let owner = path_segment(owner);
    let response = send(api, Method::GET, format!("/users/{owner}")).await?;
    let account: PackageOwner = response.parsed()?;
    let owners = if account.kind == "Organization" {
        "orgs"
    } else {
        "users"
    };
    Ok(format!("/{owners}/{owner}/packages"))
}

#[derive(Deserialize)]
struct ListedPackage {
    name: String,
}

/// A page is called by its path, with its number at the end.
async fn repositories(
    api: &ApiClient,
    owner: &str,
    page: PageOfApi<'_>,
) -> Result<ListedNames, ApiError> {
    let path = match page {
        Some(path) => path.to_owned(),
        None => {
            let packages = packages_of(api, owner).await?;
            format!("{packages}?package_type=container&per_page={PAGE_SIZE}&page=1")
        }
    };
    let response = send(api, Method::GET, path.clone()).await?;
    let packages: Vec<ListedPackage> = response.parsed()?;
    let has_next = !packages.is_empty() && (response.has_next() || packages.len() >= PAGE_SIZE);
    let names = packages.into_iter();
    Ok(ListedNames {
        names: names
            .map(|package| format!("{owner}/{}", package.name))
            .collect(),
        next: has_next.then(|| next_path(&path)).flatten(),
    })
}

fn next_path(path: &str) -> Option<String> {
    let (before, number) = path.rsplit_once('=')?;
    let number: u32 = number.parse().ok()?;
    Some(format!("{before}={}", number.checked_add(1)?))
}

/// The most that GitHub gives.
const PAGE_SIZE: usize = 100;
/// Ten thousand versions.
const MAX_PAGES: usize = 100;
