//! The list of repositories of products whose registry has none, or none for moorgate: by the
//! product's own API, one namespace after the other.

use std::collections::BTreeSet;

use http::Response;
use tokio::time::Instant;

use super::catalog::may_see;
use super::catalog::sorted::SortedPage;
use super::paging;
use super::product_api::ProductApi;
use crate::config::upstream::{LoginKind, UpstreamAuthorization};
use crate::registry::call::Call;
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::{Rejection, product};
use crate::request::route::UpstreamRoute;
use crate::request::site::{Backend, Site};
use crate::upstream::product::CatalogSource;
use crate::upstream::product::api::ApiError;

/// Whether it is the catalog of a product that lists repositories by its own API.
pub(super) fn is_listed_by_api(to: UpstreamRoute<'_>) -> bool {
    matches!(to.route.call(), Some(Call::Catalog { .. })) && has_own_list(to.backend)
}

/// Whether a product lists repositories by its own API, as far as it is known.
pub(in crate::request) fn has_own_list(backend: &Backend) -> bool {
    match backend.product.dialect().capabilities().catalog {
        CatalogSource::Registry => false,
        CatalogSource::Api => true,
        CatalogSource::ApiOrRegistry => backend.has_api(),
    }
}

/// A page of the repositories that the user may see. APIs list in orders of their own, so that it
/// is chosen from all names.
///
/// All requests together have the time of one response of the upstream.
pub(super) async fn catalog(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Response<ResponseBody>, Rejection> {
    let Some(Call::Catalog { page: pagination }) = to.route.call() else {
        return Err(Rejection::bad_target());
    };
    let route = to.route;
    let mut page = SortedPage::new(pagination);
    let found = |names: Vec<RepositoryName>| {
        let names = names.into_iter();
        page.add(names.filter(|name| may_see(route, name.as_str())));
    };
    let listing = RepositoryListing::new(route.site(), ProductApi::of(to.backend), found);
    let deadline = Instant::now() + cx.site.host.timeouts.upstream_head;
    cx.record.forwarded(None);
    let listed = tokio::time::timeout_at(deadline, listing.run()).await;
    cx.record.answered();
    listed.map_err(|_| Rejection::pages_timed_out())??;
    Ok(paging::catalog(&page.into_page(), pagination))
}

/// The repositories of a product by its own API, which go to `found` by the names that clients know.
pub(in crate::request) struct RepositoryListing<'a, F> {
    site: &'a Site,
    api: ProductApi,
    found: F,
    /// The namespaces that are listed; `None`: those that the names, the API and the login tell.
    namespaces: Option<BTreeSet<String>>,
    requests: usize,
}

/// The namespaces that are listed.
struct ListedNamespaces {
    /// By rules for names, or by the login.
    known: BTreeSet<String>,
    /// All others that the API shows.
    shown: BTreeSet<String>,
}

impl<'a, F: FnMut(Vec<RepositoryName>)> RepositoryListing<'a, F> {
    pub(in crate::request) fn new(site: &'a Site, api: ProductApi, found: F) -> Self {
        Self {
            site,
            api,
            found,
            namespaces: None,
            requests: 0,
        }
    }

    /// Lists these alone.
    pub(in crate::request) fn of_namespaces(self, namespaces: BTreeSet<String>) -> Self {
        Self {
            namespaces: Some(namespaces),
            ..self
        }
    }

    /// Errors: the API does not list them.
    pub(in crate::request) async fn run(mut self) -> Result<(), Rejection> {
        if self.api.client.is_none() {
            return Err(product::listing_failed(ApiError::Unsupported));
        }
        let ListedNamespaces { known, shown } = self.namespaces().await?;
        if known.is_empty() && shown.is_empty() {
            return Ok(());
        }
        let mut is_any_listed = false;
        for namespace in &known {
            let listed = self.add(namespace).await;
            listed.map_err(product::listing_failed)?;
            is_any_listed = true;
        }
        let mut denied = None;
        for namespace in &shown {
            match self.add(namespace).await {
                Ok(()) => is_any_listed = true,
                // The credentials are for another one.
                Err(error @ ApiError::Denied(_)) => denied = Some(error),
                Err(error) => return Err(product::listing_failed(error)),
            }
        }
        match denied {
            Some(error) if !is_any_listed => Err(product::listing_failed(error)),
            _ => Ok(()),
        }
    }

    /// The namespaces of the rules for names. Where names may be in any: those that the API shows,
    /// or that of the login.
    async fn namespaces(&mut self) -> Result<ListedNamespaces, Rejection> {
        if let Some(known) = self.namespaces.take() {
            let shown = BTreeSet::new();
            return Ok(ListedNamespaces { known, shown });
        }
        let rules = self.site.names();
        let of_rules = rules.map(|names| names.namespaces().collect::<BTreeSet<_>>());
        let of_rules = of_rules.unwrap_or_else(|| BTreeSet::from([None]));
        let has_any = of_rules.contains(&None);
        let named = of_rules.into_iter().flatten();
        let mut known: BTreeSet<_> = named.map(str::to_owned).collect();
        let mut shown = BTreeSet::new();
        if has_any {
            match self.shown().await {
                Ok(found) => shown = found,
                Err(ApiError::Unsupported) => known.extend(self.namespace_of_login()),
                Err(error) => return Err(product::listing_failed(error)),
            }
            if known.is_empty() && self.requests == 0 {
                return Err(product::no_namespace());
            }
        }
        shown.retain(|namespace| !known.contains(namespace));
        Ok(ListedNamespaces { known, shown })
    }

    /// The namespaces that the API shows.
    async fn shown(&mut self) -> Result<BTreeSet<String>, ApiError> {
        let mut found = BTreeSet::new();
        let mut page: Option<String> = None;
        loop {
            let listed = self.api.namespaces(page.as_deref()).await?;
            self.count()?;
            found.extend(listed.names);
            let Some(next) = listed.next else {
                return Ok(found);
            };
            page = Some(next);
        }
    }

    /// Adds the repositories of a namespace. One that is not there has none.
    async fn add(&mut self, namespace: &str) -> Result<(), ApiError> {
        let mut page: Option<String> = None;
        loop {
            self.count()?;
            let listing = self.api.repositories(namespace, page.as_deref());
            let listed = match listing.await {
                Err(ApiError::NotFound) => return Ok(()),
                other => other?,
            };
            self.add_names(&listed.names);
            let Some(next) = listed.next else {
                return Ok(());
            };
            page = Some(next);
        }
    }

    /// Adds those that have a name for clients.
    fn add_names(&mut self, names: &[String]) {
        let map = self.site.names();
        let known = names.iter().filter_map(|name| match map {
            Some(map) => map.to_client(name),
            None => RepositoryName::parse(name).ok(),
        });
        (self.found)(known.collect());
    }

    /// Counts a request. An API that never ends its pages would be asked for ever.
    fn count(&mut self) -> Result<(), ApiError> {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(ApiError::TooManyPages);
        }
        Ok(())
    }

    /// The namespace that belongs to the account of the login.
    fn namespace_of_login(&self) -> Option<String> {
        let settings = self.site.host.registry.upstream()?;
        let UpstreamAuthorization::Login(login) = &settings.authorization else {
            return None;
        };
        let LoginKind::Password { username, .. } = &login.kind else {
            return None;
        };
        // Accounts may be written in capitals, names of repositories may not.
        let name = username.to_ascii_lowercase();
        let is_component = !name.contains('/') && RepositoryName::parse(&name).is_ok();
        is_component.then_some(name)
    }
}

/// The most requests to the API for one page of a client: a hundred thousand repositories.
const MAX_REQUESTS: usize = 1000;
