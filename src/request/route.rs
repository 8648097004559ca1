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
use crate::store::Store;
use crate::upstream::transfer::TransferLimits;

/// Where a granted request goes.
pub(crate) struct Route {
    grant: Grant,
    site: Arc<Site>,
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

/// Finds the destination of a grant.
///
/// Errors: 404 for a page where the site has none.
pub(crate) fn route(grant: Grant, site: &Arc<Site>) -> Result<Route, Rejection> {
    match grant.target() {
        RequestTarget::Call(_) => {}
        RequestTarget::Page(_) if site.browser.is_none() => return Err(Rejection::no_page()),
        RequestTarget::Page(_) => {}
    }
    Ok(Route {
        grant,
        site: site.clone(),
    })
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

    /// The owner of the upload session of a call that uses or opens one.
    pub(crate) fn session_owner(&self) -> Option<&SessionOwner> {
        self.grant.session_owner()
    }

    /// Takes the obligations of the tags out, for they own the rejections.
    pub(crate) fn take_tag_writes(&mut self) -> Vec<TagObligation> {
        self.grant.take_tag_writes()
    }

    /// The registry call, unless it is a page.
    pub(crate) fn call(&self) -> Option<&Call> {
        match self.grant.target() {
            RequestTarget::Call(call) => Some(call),
            RequestTarget::Page(_) => None,
        }
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
