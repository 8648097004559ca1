//! Counts the request of a user, or of an anonymous client by its address, and refuses those beyond
//! the limits.

use std::sync::atomic::{AtomicU64, Ordering};

use super::authenticate::user_of;
use super::conn_info::ConnInfo;
use super::rejection::Rejection;
use super::site::{Site, Sites};
use crate::auth::running::{AnonymousClients, RequestBounds, RequestExcess, RunningRequest};
use crate::auth::{Identity, UserName};
use crate::config::network::client_network;
use crate::config::vhost::{AnonymousAccess, Limits};
use crate::observe::resource_use::ResourceUse;

/// The requests in flight that no user has, and what was refused since the start.
#[derive(Debug, Default)]
pub(crate) struct UserLimits {
    anonymous: AnonymousClients,
    refused_requests: AtomicU64,
    refused_uploads: AtomicU64,
}

impl UserLimits {
    /// Counts a request until the result is dropped. `has_body`: it is an upload.
    ///
    /// Errors: 429 beyond a limit.
    pub(crate) fn count(
        &self,
        site: &Site,
        conn: &ConnInfo,
        identity: &Identity,
        has_body: bool,
    ) -> Result<RunningRequest, Rejection> {
        let running = match identity {
            Identity::User(user) => user.running.clone(),
            Identity::Anonymous => self.anonymous.of(conn.client_address()),
        };
        let bounds = bounds(&site.host.limits);
        running
            .begin(has_body, bounds)
            .map_err(|excess| self.refuse(excess, site, conn, identity))
    }

    #[cold]
    fn refuse(
        &self,
        excess: RequestExcess,
        site: &Site,
        conn: &ConnInfo,
        identity: &Identity,
    ) -> Rejection {
        let bounds = bounds(&site.host.limits);
        let domain = site.host.domain.as_str();
        let user = user_of(identity).map(UserName::as_str);
        // The addresses of a user may be many.
        let client = match identity {
            Identity::User(_) => None,
            Identity::Anonymous => Some(client_network(conn.client_address()).to_string()),
        };
        match excess {
            RequestExcess::Requests => {
                self.refused_requests.fetch_add(1, Ordering::Relaxed);
                let limit = bounds.requests;
                tracing::warn!(
                    domain,
                    user,
                    client,
                    limit,
                    "requests refused: too many of one user"
                );
                Rejection::too_many_requests()
            }
            RequestExcess::Uploads => {
                self.refused_uploads.fetch_add(1, Ordering::Relaxed);
                let limit = bounds.uploads;
                tracing::warn!(
                    domain,
                    user,
                    client,
                    limit,
                    "uploads refused: too many of one user"
                );
                Rejection::too_many_running_uploads()
            }
        }
    }

    /// The requests and the uploads of those users who have the most, compared with their limits.
    pub(crate) fn usage(&self, sites: &Sites) -> [ResourceUse; 2] {
        let mut usage = [
            ResourceUse::new("user_requests", 0, u32::MAX as usize),
            ResourceUse::new("user_uploads", 0, u32::MAX as usize),
        ];
        let of_clients = most(self.anonymous.counts());
        for site in &sites.all {
            let of_users = most(site.users.current().running());
            add(&mut usage, of_users, bounds(&site.host.limits));
            if site.host.auth.anonymous == AnonymousAccess::Pull {
                add(&mut usage, of_clients, bounds(&site.host.limits));
            }
        }
        let refused = [&self.refused_requests, &self.refused_uploads];
        let [requests, uploads] = refused.map(|count| count.load(Ordering::Relaxed));
        let [of_requests, of_uploads] = usage;
        [of_requests.refused(requests), of_uploads.refused(uploads)]
    }
}

fn bounds(limits: &Limits) -> RequestBounds {
    RequestBounds {
        requests: limits.user_requests,
        uploads: limits.user_uploads,
    }
}

/// The most requests of one user, and the most uploads of one.
fn most(counts: impl Iterator<Item = (u32, u32)>) -> (u32, u32) {
    counts.fold((0, 0), |most, counts| {
        (most.0.max(counts.0), most.1.max(counts.1))
    })
}

fn add(usage: &mut [ResourceUse; 2], (requests, uploads): (u32, u32), bounds: RequestBounds) {
    let [of_requests, of_uploads] = usage;
    let requests = ResourceUse::new(
        of_requests.resource,
        requests as usize,
        bounds.requests as usize,
    );
    let uploads = ResourceUse::new(
        of_uploads.resource,
        uploads as usize,
        bounds.uploads as usize,
    );
    *of_requests = of_requests.fuller(requests);
    *of_uploads = of_uploads.fuller(uploads);
}
