//! Where a granted request goes. A [`Route`] is made from a [`Grant`] and from nothing else.

use std::sync::Arc;

use super::authorize::Grant;
use super::obligations::{Obligations, TagObligation};
use super::rejection::Rejection;
use super::site::{Registry, Site, Target};
use super::target::RequestTarget;
use crate::auth::policy::Asker;
use crate::auth::upload_session::SessionOwner;
use crate::registry::call::Call;
use crate::store::Store;
use crate::upstream::transfer::TransferLimits;

/// Where a granted request goes.
pub(crate) struct Route {
    grant: Grant,
    site: Arc<Site>,
}

/// What answers a granted request.
pub(crate) enum Destination<'a> {
    /// A server behind.
    Upstream(&'a Target),
    /// moorgate's own registry.
    Store(&'a Arc<Store>, &'a Call),
}

/// Finds the target of a grant.
pub(crate) fn route(grant: Grant, site: &Arc<Site>) -> Result<Route, Rejection> {
    match grant.subject() {
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

    /// On which terms it may be had.
    pub(crate) fn obligations(&self) -> &Obligations {
        self.grant.obligations()
    }

    /// Who asks.
    pub(crate) fn asker(&self) -> Asker<'_> {
        self.grant.asker()
    }

    /// Whose an upload session is, of a call that is about one or opens one.
    pub(crate) fn sessions(&self) -> Option<&SessionOwner> {
        self.grant.sessions()
    }

    /// Takes out what is said of the tags to be written.
    pub(crate) fn take_tag_writes(&mut self) -> Vec<TagObligation> {
        self.grant.take_tag_writes()
    }

    /// The registry call, unless it is a page.
    pub(crate) fn call(&self) -> Option<&Call> {
        match self.grant.subject() {
            RequestTarget::Call(call) => Some(call),
            RequestTarget::Page(_) => None,
        }
    }

    /// What answers.
    pub(crate) fn destination(&self) -> Destination<'_> {
        match (self.grant.subject(), &self.site.registry) {
            (RequestTarget::Call(_), Registry::Upstream(target)) => Destination::Upstream(target),
            (RequestTarget::Call(call), Registry::Store(store)) => Destination::Store(store, call),
            (RequestTarget::Page(_), _) => {
                let browser = self.site.browser.as_ref();
                Destination::Upstream(browser.expect("without one a page has no route"))
            }
        }
    }

    /// The largest body that goes there.
    pub(crate) fn body_limit(&self) -> u64 {
        let limits = &self.site.host.limits;
        let other = limits.body_bytes.unwrap_or(u64::MAX);
        if self.call().is_some_and(Call::is_manifest_write) {
            limits.manifest_bytes.min(other)
        } else {
            other
        }
    }

    /// How long silence may last.
    pub(crate) fn transfer_limits(&self) -> TransferLimits {
        TransferLimits::new(
            &self.site.host.timeouts,
            self.call().is_some_and(Call::is_commit),
        )
    }
}
