//! Looks for a manifest in the repositories from which a rule lets it be promoted.

use http::{HeaderValue, Method, StatusCode, header};

use crate::auth::policy::Principal;
use crate::registry::call::Call;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::pattern::RepositoryPattern;
use crate::registry::pattern::corresponding::Correspondence;
use crate::request::answer::own_calls::ANY_MANIFEST;
use crate::request::answer::{forward, upstream_login};
use crate::request::context::RequestContext;
use crate::request::obligations::SourceCondition;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route, StoreRoute, UpstreamRoute};
use crate::request::site::Site;
use crate::store::ManifestSearch;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::TokenNeed;

/// What is known of the sources of a manifest.
#[derive(Default)]
pub(super) struct Sources {
    known: Vec<(SourceCondition, bool)>,
}

impl Sources {
    /// Whether one of the sources has the manifest, apart from the repository that is written, and
    /// from those of which the user may not know what they have.
    pub(super) async fn have(
        &mut self,
        cx: &RequestContext<'_>,
        route: &Route,
        (condition, digest): (&SourceCondition, &Digest),
    ) -> Result<bool, Rejection> {
        if let Some((_, known)) = self.known.iter().find(|(known, _)| known == condition) {
            return Ok(*known);
        }
        let search = SourceSearch {
            route,
            condition,
            digest,
        };
        let found = match route.destination() {
            Destination::Store(to) => search.in_store(to).await?,
            Destination::Upstream(to) => search.at_upstream(cx, to).await?,
        };
        self.known.push((condition.clone(), found));
        Ok(found)
    }
}

struct SourceSearch<'a> {
    route: &'a Route,
    condition: &'a SourceCondition,
    digest: &'a Digest,
}

impl SourceSearch<'_> {
    /// The repositories to which the one that is written corresponds.
    fn corresponding(&self, target: &RepositoryName) -> Vec<RepositoryName> {
        let user = self.route.principal().user;
        let SourceCondition { from, repository } = self.condition;
        let found = from.iter().filter_map(|from| {
            Correspondence {
                of: repository,
                to: from,
            }
            .name(target, user)
        });
        found.filter(|source| source != target).collect()
    }

    async fn in_store(&self, to: StoreRoute<'_>) -> Result<bool, Rejection> {
        let target = to.call.repository().ok_or_else(Rejection::bad_target)?;
        let is_open = |from: &&RepositoryPattern| !from.is_literal();
        let principal = self.route.principal();
        let user = principal.user.map(str::to_owned);
        let (client, site) = (principal.client, self.route.site().clone());
        let patterns: Vec<_> = self
            .condition
            .from
            .iter()
            .filter(is_open)
            .cloned()
            .collect();
        let (of_user, written) = (user.clone(), target.clone());
        let search = ManifestSearch {
            digest: self.digest.clone(),
            likely: self.corresponding(target),
            others: Box::new(move |name| {
                let matches = |from: &RepositoryPattern| {
                    *name != written && from.matches(name.as_str(), of_user.as_deref())
                };
                patterns.iter().any(matches)
            }),
            has_others: self.condition.from.iter().any(|from| is_open(&from)),
            may_see: Box::new(move |name| {
                let user = user.as_deref();
                may_see(&site, Principal { user, client }, name)
            }),
        };
        let found = search.run(to.store).await;
        found.map_err(|error| Rejection::store(error, 0, None))
    }

    async fn at_upstream(
        &self,
        cx: &RequestContext<'_>,
        to: UpstreamRoute<'_>,
    ) -> Result<bool, Rejection> {
        let target = self.route.call().and_then(Call::repository);
        let target = target.ok_or_else(Rejection::bad_target)?;
        for source in self.corresponding(target) {
            if !may_see(cx.site, self.route.principal(), &source) {
                continue;
            }
            let mapped = match cx.site.names() {
                Some(names) => names.to_registry(&source).ok(),
                None => Some(source),
            };
            if let Some(source) = mapped
                && self.head(cx, to, &source).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `source`: the name at the registry.
    async fn head(
        &self,
        cx: &RequestContext<'_>,
        to: UpstreamRoute<'_>,
        source: &RepositoryName,
    ) -> Result<bool, Rejection> {
        let path = format!("/v2/{source}/manifests/{}", self.digest);
        let mut request = forward::own_request(cx, to, Method::HEAD, &path)?;
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static(ANY_MANIFEST));
        let scope = TokenScope::Repository {
            name: source.as_str(),
            need: TokenNeed::Read,
            from: None,
        };
        let limits = to.route.transfer_limits();
        let response = to.backend.send(request, None, limits, scope).await;
        let response =
            response.map_err(|error| Rejection::upstream_call(error, 0, to.route.call()))?;
        upstream_login::check(to, response.status(), response.headers())?;
        match response.status() {
            StatusCode::OK => Ok(true),
            // Some registries answer so for repositories that do not exist.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(false),
            _ => Err(Rejection::upstream_inconclusive()),
        }
    }
}

/// Whether the user could see with a HEAD request whether the repository has a manifest. Otherwise
/// the answer to a push must not tell it either.
fn may_see(site: &Site, principal: Principal<'_>, name: &RepositoryName) -> bool {
    site.policy.decide_head(principal, name.as_str()).allowed
}
