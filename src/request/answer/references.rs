//! The references in an upstream's response, `Location` and `Link`, as the client can use them.
//! Any address on the registry's own host leads back there: an upload goes on at whatever address
//! the registry gave, in a session id that is bound to its user and repository.

use std::borrow::Cow;
use std::fmt;

use http::response::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use super::names;
use super::redirects::{self, is_call};
use super::request_meta::{RequestMeta, rewriter};
use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::digest::Digest;
use crate::registry::location::{ResponseKind, Rewriter, Rewritten};
use crate::registry::name::RepositoryName;
use crate::registry::reference::Reference;
use crate::registry::upload_id::{ReplicaId, UploadId};
use crate::request::context::RequestContext;
use crate::request::public_origin::PublicOrigin;
use crate::request::rejection::Rejection;
use crate::request::route::{Route, UpstreamRoute};

/// Rewrites the references of a response.
pub(super) fn rewrite(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    parts: &mut Parts,
) -> Result<(), Rejection> {
    let headers = &mut parts.headers;
    let host = meta.host(&cx.parts.uri);
    let is_public = |name: &_| to.route.site().host.is_named(name);
    let references = References {
        route: to.route,
        rewriter: rewriter(to, meta, host, &is_public),
        origin: PublicOrigin::new(to.route.site().host.locations, host),
        status: parts.status,
        replica: parts.extensions.get().copied().or(to.route.replica()),
    };
    if let Some(location) = headers.remove(header::LOCATION)
        && let Some(location) = references.location(location)?
    {
        headers.insert(header::LOCATION, location);
    }
    let links: Vec<HeaderValue> = headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|link| references.link(link.to_str().ok()?))
        .filter_map(|link| HeaderValue::try_from(link).ok())
        .collect();
    headers.remove(header::LINK);
    for link in links {
        headers.append(header::LINK, link);
    }
    Ok(())
}

/// The references of one response.
struct References<'a> {
    route: &'a Route,
    rewriter: Rewriter<'a>,
    origin: PublicOrigin<'a>,
    status: StatusCode,
    /// The replica that responded, if there are several.
    replica: Option<ReplicaId>,
}

impl References<'_> {
    /// The `Link` for the client; `None` if it has no use for it.
    fn link(&self, value: &str) -> Option<String> {
        let Some(mapped) = self.route.mapped_call() else {
            return self.rewriter.link(value);
        };
        let for_client = |path: String| names::client_path(mapped.names, &path);
        self.rewriter.link_with(value, for_client)
    }

    /// The `Location` for the client; `None` if it has no use for it.
    fn location(&self, value: HeaderValue) -> Result<Option<HeaderValue>, Rejection> {
        let text = value
            .to_str()
            .map_err(|_| Rejection::upstream_bad_location())?;
        let kind = ResponseKind::from_status(self.status);
        let own = match self.rewriter.location(text, kind) {
            Rewritten::Foreign => return Ok(Some(value)),
            Rewritten::Refused => return Err(Rejection::upstream_bad_location()),
            own @ (Rewritten::Path(_) | Rewritten::Beside(_)) => own,
        };
        let location = match self.route.call() {
            Some(Call::Repository { name, operation }) => {
                self.of_repository(name, operation, own)?
            }
            Some(Call::Ping { .. } | Call::Catalog { .. }) => self.of_protocol(&own),
            None => match own {
                Rewritten::Path(path) | Rewritten::Beside(path) => Some(path),
                Rewritten::Foreign | Rewritten::Refused => None,
            },
        };
        let value = location.map(HeaderValue::try_from).transpose();
        value.map_err(|_| Rejection::upstream_bad_location())
    }

    fn of_repository(
        &self,
        name: &RepositoryName,
        operation: &RepositoryCall,
        own: Rewritten,
    ) -> Result<Option<String>, Rejection> {
        let is_owned = self.route.session_owner().is_some();
        let registry_name = self.route.registry_call().and_then(Call::repository);
        if let Rewritten::Path(path) = &own
            && let Some((session, rest)) = session(registry_name.unwrap_or(name), path)
        {
            let session = match is_owned {
                true => {
                    let bound = self.route.bind_session(name, &session, self.replica);
                    bound.ok_or_else(|| Rejection::upstream_long_location(path.len()))?
                }
                false => session,
            };
            let origin = self.origin;
            return Ok(Some(format!(
                "{origin}/v2/{name}/blobs/uploads/{session}{rest}"
            )));
        }
        let location = self.of_protocol(&own);
        if location.is_some() {
            return Ok(location);
        }
        let is_redirect = redirects::is_redirect(self.status);
        match CreatedContent::of(operation).filter(|_| self.status == StatusCode::CREATED) {
            Some(content) => Ok(Some(format!("{}/v2/{name}/{content}", self.origin))),
            // Another method than that of a step does not reach a session.
            None if operation.session().is_some() => self.sealed(name, own).map(Some),
            None if is_redirect => Err(Rejection::upstream_unusable_redirect()),
            None if is_owned => self.sealed(name, own).map(Some),
            None => Ok(None),
        }
    }

    /// The reference, if it is a call that its client may make.
    fn of_protocol(&self, own: &Rewritten) -> Option<String> {
        let Rewritten::Path(path) = own else {
            return None;
        };
        let is_call = is_call(path, &Method::GET)
            || (redirects::is_redirect(self.status) && is_call(path, &Method::POST));
        let path = match self.route.mapped_call() {
            Some(mapped) => names::client_path(mapped.names, path)?.into(),
            None => Cow::from(path),
        };
        is_call.then(|| format!("{}{path}", self.origin))
    }

    /// An upload session of ours for an address of the registry.
    fn sealed(&self, name: &RepositoryName, own: Rewritten) -> Result<String, Rejection> {
        let address = match own {
            Rewritten::Path(path) => format!("{}{path}", self.rewriter.upstream.base_path),
            Rewritten::Beside(path) => path,
            Rewritten::Foreign | Rewritten::Refused => {
                return Err(Rejection::upstream_bad_location());
            }
        };
        let address = address.split('#').next().unwrap_or_default();
        // Without an owner nothing would prove that the registry gave the address.
        if self.route.session_owner().is_none() {
            return Err(Rejection::upstream_bad_location());
        }
        let session = UploadId::from_address(address).ok();
        let session =
            session.and_then(|session| self.route.bind_session(name, &session, self.replica));
        let session = session.ok_or_else(|| Rejection::upstream_long_location(address.len()))?;
        Ok(format!("{}/v2/{name}/blobs/uploads/{session}", self.origin))
    }
}

/// The upload session of a repository that a path names in the way of the protocol, and what
/// follows it.
fn session<'p>(name: &RepositoryName, path: &'p str) -> Option<(UploadId, &'p str)> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let below = path.strip_prefix("/v2/")?.strip_prefix(name.as_str())?;
    let session = UploadId::parse(below.strip_prefix("/blobs/uploads/")?).ok()?;
    // One that looks like an address would be taken for one.
    (!session.is_address()).then_some((session, rest))
}

/// The content that a request has created. Displayed, its path below the repository.
enum CreatedContent<'a> {
    Blob(&'a Digest),
    Manifest(&'a Reference),
}

impl<'a> CreatedContent<'a> {
    fn of(operation: &'a RepositoryCall) -> Option<Self> {
        match operation {
            RepositoryCall::UploadStart {
                digest: Some(digest),
            }
            | RepositoryCall::Mount { digest, .. }
            | RepositoryCall::Upload {
                step: UploadStep::Commit { digest },
                ..
            } => Some(Self::Blob(digest)),
            RepositoryCall::ManifestWrite { reference, .. } => Some(Self::Manifest(reference)),
            _ => None,
        }
    }
}

impl fmt::Display for CreatedContent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blobs/{digest}"),
            Self::Manifest(reference) => write!(f, "manifests/{reference}"),
        }
    }
}
