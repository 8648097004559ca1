//! The registry API of a player: the calls of the distribution specification.

use bytes::Bytes;
use http::Method;

use super::answer::PlayedAnswer;
use super::grants::PlayedScope;
use super::{MissingProject, MissingRepository, Played, PlayedCatalog, RecordedRequest};

/// What a path of the specification names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayedResource<'a> {
    Ping,
    Catalog,
    Tags { name: &'a str },
    Manifest { name: &'a str, reference: &'a str },
    Blob { name: &'a str, digest: &'a str },
    Upload { name: &'a str, id: &'a str },
    Referrers { name: &'a str, digest: &'a str },
}

impl<'a> PlayedResource<'a> {
    pub fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2/")?;
        let resource = match path {
            "" => return Some(Self::Ping),
            "_catalog" => return Some(Self::Catalog),
            _ => path,
        };
        let parsed = if let Some(name) = resource.strip_suffix("/tags/list") {
            Self::Tags { name }
        } else if let Some((name, id)) = resource.rsplit_once("/blobs/uploads/") {
            Self::Upload { name, id }
        } else if let Some((name, digest)) = resource.rsplit_once("/blobs/") {
            Self::Blob { name, digest }
        } else if let Some((name, reference)) = resource.rsplit_once("/manifests/") {
            Self::Manifest { name, reference }
        } else {
            let (name, digest) = resource.rsplit_once("/referrers/")?;
            Self::Referrers { name, digest }
        };
        let is_fine = match parsed {
            Self::Blob { digest, .. } | Self::Referrers { digest, .. } => is_digest(digest),
            _ => true,
        };
        (is_fine && parsed.name().is_some_and(is_name)).then_some(parsed)
    }

    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Ping | Self::Catalog => None,
            Self::Tags { name }
            | Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Upload { name, .. }
            | Self::Referrers { name, .. } => Some(name),
        }
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Self::Ping => &[],
            Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => &[Method::GET],
            Self::Manifest { .. } => &[Method::DELETE, Method::GET, Method::HEAD, Method::PUT],
            Self::Blob { .. } => &[Method::DELETE, Method::GET, Method::HEAD],
            Self::Upload { id: "", .. } => &[Method::POST],
            Self::Upload { .. } => &[
                Method::DELETE,
                Method::GET,
                Method::HEAD,
                Method::PATCH,
                Method::PUT,
            ],
        }
    }
}

impl Played {
    pub fn registry(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        if let Some(answer) = self.throttled() {
            return answer;
        }
        let Some(resource) = PlayedResource::parse(request.path()) else {
            return PlayedAnswer::no_page();
        };
        if let Some(answer) = self.missing_project(resource) {
            return answer;
        }
        let user = match self.authorized(request, &self.needed(request, resource)) {
            Ok(user) => user,
            Err(answer) => return answer,
        };
        let methods = resource.methods();
        if !methods.is_empty() && !methods.contains(&request.method) {
            let allowed: Vec<_> = methods.iter().map(Method::as_str).collect();
            return PlayedAnswer::new(405)
                .header("allow", allowed.join(", "))
                .body("text/plain; charset=utf-8", "Method not allowed\n");
        }
        if let Some(answer) = resource
            .name()
            .and_then(|name| self.missing_repository(name))
        {
            return answer;
        }
        if let (PlayedResource::Tags { .. }, Some("ListImages")) =
            (resource, self.switches.denied_action)
        {
            let message = super::api::not_authorized("ListImages");
            return PlayedAnswer::error(403, "DENIED", &message);
        }
        match resource {
            PlayedResource::Ping => PlayedAnswer::json(200, &serde_json::json!({})),
            PlayedResource::Catalog => self.list_repositories(request, user),
            PlayedResource::Tags { name } => self.list_tags(request, name),
            PlayedResource::Manifest { name, reference } => {
                self.manifest(request, (name, reference))
            }
            PlayedResource::Blob { name, digest } => self.blob(request, (name, digest)),
            PlayedResource::Upload { name, id } => self.upload(request, (name, id)),
            PlayedResource::Referrers { name, digest } => self.list_referrers(name, digest),
        }
    }

    /// The scopes that a call needs.
    fn needed(&self, request: &RecordedRequest, resource: PlayedResource<'_>) -> Vec<PlayedScope> {
        let Some(name) = resource.name() else {
            let is_catalog = resource == PlayedResource::Catalog;
            return is_catalog.then(PlayedScope::catalog).into_iter().collect();
        };
        let actions: &[_] = match request.method {
            Method::GET | Method::HEAD => &["pull"],
            Method::DELETE if !matches!(resource, PlayedResource::Upload { .. }) => {
                &[self.switches.delete_action]
            }
            _ => &["pull", "push"],
        };
        let mut needed = vec![PlayedScope::repository(name, actions)];
        if let Some(from) = request.parameter("from").filter(|from| from != name) {
            needed.push(PlayedScope::repository(&from, &["pull"]));
        }
        needed
    }

    /// What Harbor says, before it looks at credentials, of a project that it does not have.
    fn missing_project(&self, resource: PlayedResource<'_>) -> Option<PlayedAnswer> {
        let MissingRepository::RefusedProject {
            levels,
            as_: MissingProject::EmptyChallenge,
        } = self.switches.missing
        else {
            return None;
        };
        let name = resource.name()?;
        if self.has_project_of(name, levels) {
            return None;
        }
        let message = format!("project not found, name: {}", project_of(name, levels));
        Some(PlayedAnswer::error(401, "UNAUTHORIZED", &message).header("www-authenticate", ""))
    }

    /// What is said of a repository that must exist, and does not.
    fn missing_repository(&self, name: &str) -> Option<PlayedAnswer> {
        let (is_there, message) = match self.switches.missing {
            MissingRepository::Created
            | MissingRepository::RefusedProject {
                as_: MissingProject::EmptyChallenge | MissingProject::NotGranted,
                ..
            } => return None,
            MissingRepository::Refused(message) => (
                self.contents.repository(name).is_some(),
                message.replace("{name}", name),
            ),
            MissingRepository::RefusedProject { levels, .. } => {
                let project = project_of(name, levels);
                let repository = project.rsplit('/').next().unwrap_or_default();
                (
                    self.has_project_of(name, levels),
                    format!("Repository \"{repository}\" not found"),
                )
            }
        };
        (!is_there).then(|| PlayedAnswer::error(404, "NAME_UNKNOWN", &message))
    }

    /// Whether the first components of a name, so many of them, are a project.
    pub fn has_project_of(&self, name: &str, levels: usize) -> bool {
        self.contents.has_project(&project_of(name, levels))
    }

    fn blob(&mut self, request: &RecordedRequest, (name, digest): (&str, &str)) -> PlayedAnswer {
        let unknown = || {
            let detail = serde_json::json!(digest);
            PlayedAnswer::error_about(404, "BLOB_UNKNOWN", "blob unknown to registry", &detail)
        };
        let Some(blob) = self.contents.blob_of(name, digest).cloned() else {
            return unknown();
        };
        if request.method == Method::DELETE {
            self.contents.make_repository(name).blobs.remove(digest);
            return PlayedAnswer::new(202);
        }
        if self.switches.redirects_blobs && request.method == Method::GET {
            let storage = format!(
                "http://{}/blobs/{digest}?X-Amz-Signature=played",
                self.addresses.storage
            );
            let target = self.switches.blob_redirect.clone().unwrap_or(storage);
            return PlayedAnswer::new(307).header("location", target);
        }
        ranged(request, &blob, "application/octet-stream")
            .header("docker-content-digest", digest)
            .header("etag", format!("\"{digest}\""))
            .header("cache-control", "max-age=31536000")
    }

    /// A path of the registry, as its `Location`s name it.
    pub fn location(&self, path: &str) -> String {
        if let Some(hostile) = &self.switches.location {
            return hostile.clone();
        }
        if self.switches.has_absolute_locations {
            format!("http://{}{path}", self.addresses.registry)
        } else {
            path.to_owned()
        }
    }

    /// Whether the catalog shows a repository to a user.
    pub fn shows(&self, name: &str, is_admin: bool) -> bool {
        match self.switches.catalog {
            PlayedCatalog::Filtered => {
                let user = &self.switches.credentials.user;
                let namespace = user.split('+').next().unwrap_or_default();
                is_admin || name.split('/').next() == Some(namespace)
            }
            _ => true,
        }
    }
}

/// The part of a blob that a request wants.
pub fn ranged(request: &RecordedRequest, blob: &Bytes, kind: &str) -> PlayedAnswer {
    let size = blob.len();
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'));
    let Some((first, last)) = range else {
        return PlayedAnswer::new(200)
            .header("accept-ranges", "bytes")
            .body(kind, blob.clone());
    };
    let first: usize = first.parse().unwrap_or(size);
    let last = last.parse().unwrap_or(size).min(size.saturating_sub(1));
    if first >= size || first > last {
        return PlayedAnswer::new(416)
            .header("content-range", format!("bytes */{size}"))
            .body("text/plain; charset=utf-8", "invalid range\n");
    }
    PlayedAnswer::new(206)
        .header("accept-ranges", "bytes")
        .header("content-range", format!("bytes {first}-{last}/{size}"))
        .body(kind, blob.slice(first..=last))
}

/// The first components of a name, so many of them.
fn project_of(name: &str, levels: usize) -> String {
    let components: Vec<_> = name.split('/').take(levels).collect();
    components.join("/")
}

fn is_name(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    name.split('/').all(|component| {
        !component.is_empty()
            && component.chars().all(is_fine)
            && !component.starts_with(['.', '_', '-'])
            && !component.ends_with(['.', '_', '-'])
    })
}

pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
