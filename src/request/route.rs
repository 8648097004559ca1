//! Where a granted request goes. A [`Route`] is made from a [`Grant`] and from nothing else.

use std::sync::Arc;

use super::authorize::Grant;
use super::obligations::{Obligations, TagObligation};
use super::rejection::Rejection;
use super::site::{Backend, Registry, Site};
use super::target::RequestTarget;
use crate::auth::policy::Principal;
use crate::auth::upload_session::SessionOwner;
use crate::registry::call::Call;
use crate::registry::name::RepositoryName;
use crate::registry::name_map::NameMap;
use crate::registry::upload_id::{ReplicaId, UploadId};
use crate::store::{SessionUser, Store};
use crate::upstream::login::scope::TokenScope;
use crate::upstream::transfer::TransferLimits;

/// Where a granted request goes.
pub(crate) struct Route {
    grant: Grant,
    site: Arc<Site>,
    /// The call at a registry that knows the repositories by other names.
    registry_call: Option<Box<Call>>,
}

/// The server of a granted request.
pub(crate) enum Destination<'a> {
    Upstream(UpstreamRoute<'a>),
    /// moorgate's own registry.
    Store(StoreRoute<'a>),
}

/// A route to an upstream.
#[derive(Clone, Copy)]
pub(crate) struct UpstreamRoute<'a> {
    pub(crate) route: &'a Route,
    pub(crate) backend: &'a Backend,
}

/// A route to moorgate's own registry.
#[derive(Clone, Copy)]
pub(crate) struct StoreRoute<'a> {
    pub(crate) route: &'a Route,
    pub(crate) store: &'a Arc<Store>,
    pub(crate) call: &'a Call,
}

/// A call to a registry that knows the repositories by other names.
#[derive(Clone, Copy)]
pub(crate) struct MappedCall<'a> {
    pub(crate) names: &'a NameMap,
    /// With the names that clients know.
    pub(crate) client: &'a Call,
    /// With those of the registry.
    pub(crate) registry: &'a Call,
}

/// Finds the destination of a grant.
///
/// Errors: 404 for a page where the site has none; 404 or 400 for a repository that cannot exist at
/// the registry.
pub(crate) fn route(grant: Grant, site: &Arc<Site>) -> Result<Route, Rejection> {
    let registry_call = match (grant.target(), site.names()) {
        (RequestTarget::Call(call), Some(names)) => Some(registry_call(names, call, &grant)?),
        (RequestTarget::Call(_), None) => None,
        (RequestTarget::Page(_), _) if site.browser.is_none() => return Err(Rejection::no_page()),
        (RequestTarget::Page(_), _) => None,
    };
    Ok(Route {
        grant,
        site: site.clone(),
        registry_call,
    })
}

/// The call with the names of the registry.
fn registry_call(names: &NameMap, call: &Call, grant: &Grant) -> Result<Box<Call>, Rejection> {
    if let Obligations::Hidden(requested) = grant.obligations() {
        // Whether a repository of this name can exist is told to everyone alike.
        let mapped = names.to_registry(requested);
        mapped.map_err(|error| Rejection::unmapped_name(&error, call))?;
    }
    let mapped = names.to_registry_call(call);
    mapped
        .map(Box::new)
        .map_err(|error| Rejection::unmapped_name(&error, call))
}

impl<'a> UpstreamRoute<'a> {
    /// The registry call with the names that the registry knows.
    pub(crate) fn registry_call(self) -> Option<&'a Call> {
        self.route.registry_call()
    }

    /// What a token for the call has to allow.
    pub(crate) fn token_scope(self) -> TokenScope<'a> {
        let call = self.registry_call();
        call.map_or(TokenScope::Registry, TokenScope::from_call)
    }
}

impl Route {
    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The obligations of the response.
    pub(crate) fn obligations(&self) -> &Obligations {
        self.grant.obligations()
    }

    /// Who asks.
    pub(crate) fn principal(&self) -> Principal<'_> {
        self.grant.principal()
    }

    /// Who opens an upload session at a store or spool.
    pub(crate) fn session_user(&self) -> SessionUser {
        SessionUser {
            name: self.principal().user.map(str::to_owned),
            max: self.site().host.limits.user_upload_sessions,
        }
    }

    /// The owner of the upload session of a call that uses or opens one.
    pub(crate) fn session_owner(&self) -> Option<&SessionOwner> {
        self.grant.session_owner()
    }

    /// The replica of the upstream that has the upload session of the call.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        self.grant.replica()
    }

    /// An upload session of the registry, or of one of its replicas, for the client. `None`: nobody
    /// owns it, or the id is too long.
    pub(crate) fn bind_session(
        &self,
        repository: &RepositoryName,
        session: &UploadId,
        replica: Option<ReplicaId>,
    ) -> Option<UploadId> {
        let owner = self.session_owner()?;
        match replica {
            Some(replica) => owner.bind(repository, &UploadId::at_replica(replica, session).ok()?),
            None => owner.bind(repository, session),
        }
    }

    /// Takes the obligations of the tags out, for they own the rejections.
    pub(crate) fn take_tag_writes(&mut self) -> Vec<TagObligation> {
        self.grant.take_tag_writes()
    }

    /// The registry call, unless it is a page.
    pub(crate) fn call(&self) -> Option<&Call> {
        self.shared_call().map(Arc::as_ref)
    }

    /// The same, to be kept beyond the route.
    pub(crate) fn shared_call(&self) -> Option<&Arc<Call>> {
        match self.grant.target() {
            RequestTarget::Call(call) => Some(call),
            RequestTarget::Page(_) => None,
        }
    }

    /// The registry call with the names that the registry knows: for requests to it, and for what
    /// it is asked for in tokens. Everything else speaks of [`Self::call`].
    pub(crate) fn registry_call(&self) -> Option<&Call> {
        self.registry_call.as_deref().or_else(|| self.call())
    }

    /// The calls on both sides, if the registry knows the repositories by other names.
    pub(crate) fn mapped_call(&self) -> Option<MappedCall<'_>> {
        Some(MappedCall {
            names: self.site.names()?,
            client: self.call()?,
            registry: self.registry_call.as_deref()?,
        })
    }

    /// The server of the request.
    pub(crate) fn destination(&self) -> Destination<'_> {
        let upstream = |backend| {
            Destination::Upstream(UpstreamRoute {
                route: self,
                backend,
            })
        };
        match (self.grant.target(), &self.site.registry) {
            (RequestTarget::Call(_), Registry::Upstream(backend)) => upstream(backend),
            (RequestTarget::Call(call), Registry::Store(store)) => Destination::Store(StoreRoute {
                route: self,
                store,
                call,
            }),
            (RequestTarget::Page(_), _) => {
                let browser = self.site.browser.as_ref();
                upstream(browser.expect("without one a page has no route"))
            }
        }
    }

    /// The maximum size of the request body, in bytes.
    pub(crate) fn body_limit(&self) -> u64 {
        let limits = &self.site.host.limits;
        let other = limits.body_bytes.unwrap_or(u64::MAX);
        if self.call().is_some_and(Call::is_manifest_write) {
            limits.manifest_bytes.min(other)
        } else {
            other
        }
    }

    /// The timeouts of the exchange with an upstream.
    pub(crate) fn transfer_limits(&self) -> TransferLimits {
        TransferLimits::new(
            &self.site.host.timeouts,
            self.call().is_some_and(Call::is_commit),
        )
    }
}
