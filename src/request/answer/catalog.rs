//! The catalog without the repositories that the user may not see: reads the pages of the registry
//! one after the other, filters them, and paginates the result as requested. Where the registry
//! knows repositories by other names, its order is not that of the names for clients: every page is
//! chosen from all of its names.

pub(super) mod sorted;

use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::Instant;

use self::sorted::SortedPage;
use super::own_calls::next_query;
use super::request_meta::RequestMeta;
use super::rewrite;
use super::{forward, page_size, paging, redirects};
use crate::registry::action::Action;
use crate::registry::call::{Call, Pagination, QueryText, encode_value, pairs};
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::Rejection;
use crate::request::route::{Route, UpstreamRoute};
use crate::store::{Page, PageRequest, Store, StoreError};
use crate::upstream::response_body::UpstreamBody;

/// 1,000 names of 255 bytes, doubled.
const MAX_PAGE_BYTES: usize = 512 * 1024;
/// The maximum number of upstream pages that are read for one page of the response.
const MAX_UPSTREAM_PAGES: usize = 1000;

/// The visible entries of one page so far.
struct FilteredPage {
    /// The maximum number of entries.
    limit: usize,
    page: Page,
}

impl FilteredPage {
    fn new(pagination: &Pagination) -> Self {
        Self {
            limit: paging::page_limit(pagination),
            page: Page {
                entries: Vec::new(),
                has_more: false,
            },
        }
    }

    /// Adds the names that the user may see. Returns whether the page is full and has a successor.
    fn add(&mut self, route: &Route, names: impl IntoIterator<Item = String>) -> bool {
        // No query can carry other names as `last`, so that the list would end there.
        let can_be_last = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic());
        let names = names.into_iter().filter(can_be_last);
        for name in names.filter(|name| may_see(route, name)) {
            if self.page.entries.len() == self.limit {
                self.page.has_more = true;
                return true;
            }
            self.page.entries.push(name);
        }
        false
    }
}

/// Whether the user may see a repository in the list.
pub(super) fn may_see(route: &Route, name: &str) -> bool {
    let policy = &route.site().policy;
    policy
        .decide(route.principal(), Action::Catalog, name, None)
        .allowed
}

/// The catalog of an upstream so far. Some registries paginate by opaque tokens, in a parameter of
/// their own (Quay: `next_page`) or in `last` (ECR). Such a registry does not understand a name in
/// `last`: the list is read from its beginning, and the entries up to that name are skipped.
struct UpstreamCatalog<'p> {
    pagination: &'p Pagination,
    /// The page of all entries.
    all: FilteredPage,
    /// The page of the entries after `last`, once the registry has listed it.
    after: Option<FilteredPage>,
    /// Whether the registry started after `last`; unknown before its first page.
    starts_at_last: Option<bool>,
    /// The page of a registry with other names, which is chosen from all of them.
    sorted: Option<SortedPage>,
    /// The number of entries that the registry is asked for.
    page_size: u32,
}

impl<'p> UpstreamCatalog<'p> {
    fn new(pagination: &'p Pagination, has_other_names: bool) -> Self {
        Self {
            pagination,
            all: FilteredPage::new(pagination),
            after: None,
            starts_at_last: has_other_names.then_some(false),
            sorted: has_other_names.then(|| SortedPage::new(pagination)),
            page_size: page_size::MAX_PAGE_SIZE,
        }
    }

    fn first_query(&self) -> String {
        let is_from_last = self.starts_at_last != Some(false);
        let last = self.pagination.last.as_ref().filter(|_| is_from_last);
        let last = last.map(|last| format!("&last={}", encode_value(last.as_str())));
        format!("n={}{}", self.page_size, last.unwrap_or_default())
    }

    /// Adds a page of the upstream and the query of its successor. Returns whether no other is
    /// needed.
    fn add(&mut self, route: &Route, mut names: Vec<String>, next: Option<&str>) -> bool {
        if let (Some(sorted), Some(map)) = (&mut self.sorted, route.site().names()) {
            let known = names.iter().filter_map(|name| map.to_client(name));
            sorted.add(known.filter(|name| may_see(route, name.as_str())));
            return false;
        }
        let Some(last) = self.pagination.last.as_ref().map(QueryText::as_str) else {
            return self.all.add(route, names);
        };
        let at = names.iter().position(|name| name == last);
        let is_by_name =
            || next.is_none_or(|next| names.last().is_some_and(|name| is_after(next, name)));
        let starts_at_last = *self
            .starts_at_last
            .get_or_insert_with(|| at.is_none() && is_by_name());
        if starts_at_last {
            return self.all.add(route, names);
        }
        if let Some(at) = at {
            names.drain(..=at);
            self.after = Some(FilteredPage::new(self.pagination));
        }
        if let Some(after) = &mut self.after {
            return after.add(route, names);
        }
        self.all.add(route, names);
        false
    }

    /// Handles a refusal of the first page. Returns whether another is to be tried: a smaller one,
    /// or then that from the beginning of the list, because the registry does not understand
    /// `last`.
    fn restart(&mut self, status: StatusCode) -> bool {
        let is_refused = page_size::is_refused(status) || status == StatusCode::METHOD_NOT_ALLOWED;
        if !is_refused {
            return false;
        }
        if self.page_size > page_size::SMALL_PAGE_SIZE {
            self.page_size = page_size::SMALL_PAGE_SIZE;
            return true;
        }
        if self.pagination.last.is_some() && self.starts_at_last.is_none() {
            self.page_size = page_size::MAX_PAGE_SIZE;
            self.starts_at_last = Some(false);
            return true;
        }
        false
    }

    /// The page to send when the time is over, with a successor. `None`: it would be empty or
    /// repeat the entries before `last`.
    fn partial_page(self) -> Option<Page> {
        if self.sorted.is_some() {
            return None;
        }
        let is_from_last = self.pagination.last.is_none() || self.starts_at_last == Some(true);
        let found = match self.after {
            Some(after) => after,
            None if is_from_last => self.all,
            None => return None,
        };
        let entries = found.page.entries;
        (!entries.is_empty()).then_some(Page {
            entries,
            has_more: true,
        })
    }

    /// The page of a complete list. If it did not contain `last`, which may have been deleted,
    /// repeated entries are better than none.
    fn into_page(self) -> Page {
        match self.sorted {
            Some(sorted) => sorted.into_page(),
            None => self.after.unwrap_or(self.all).page,
        }
    }
}

/// Whether a query requests the entries after a name.
fn is_after(query: &str, name: &str) -> bool {
    pairs(query)
        .any(|pair| pair.is_ok_and(|(parameter, value)| parameter == "last" && value == name))
}

/// A page of the catalog of moorgate's own registry.
pub(crate) async fn from_store(
    route: &Route,
    store: &std::sync::Arc<Store>,
    request: PageRequest,
) -> Result<Page, StoreError> {
    let may_see = |name: &RepositoryName| may_see(route, name.as_str());
    store.filtered_catalog(request, may_see).await
}

#[derive(Deserialize)]
struct CatalogDocument {
    repositories: Option<Vec<String>>,
}

/// Reads the catalog of an upstream, page by page. A first response that is not a list goes to the
/// client.
///
/// All pages together have the time of one response of the upstream. After that, the entries found
/// so far become a page with a link to the next one.
pub(super) async fn from_upstream(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Response<ResponseBody>, Rejection> {
    let Some(Call::Catalog { page: pagination }) = to.route.call() else {
        return Err(Rejection::bad_target());
    };
    let deadline = Instant::now() + cx.site.host.timeouts.upstream_head;
    let mut found = UpstreamCatalog::new(pagination, to.route.mapped_call().is_some());
    let mut query = found.first_query();
    let mut has_page = false;
    cx.record.forwarded(None);
    for _ in 0..MAX_UPSTREAM_PAGES {
        let exchange = tokio::time::timeout_at(deadline, page(cx, to, &query)).await;
        cx.record.answered();
        let Ok(listed) = exchange else {
            return match found.partial_page() {
                Some(page) => Ok(paging::catalog(&page, pagination)),
                None => Err(Rejection::pages_timed_out()),
            };
        };
        let (names, next) = match listed? {
            UpstreamPage::List { names, next } => (names, next),
            UpstreamPage::Other(_) if has_page => return Err(Rejection::upstream_inconclusive()),
            UpstreamPage::Other(response) if found.restart(response.status()) => {
                query = found.first_query();
                continue;
            }
            UpstreamPage::Other(response) => {
                let meta = RequestMeta::from_parts(to, &cx.parts);
                return rewrite::rewrite(cx, to, &meta, *response).await;
            }
        };
        has_page = true;
        let is_complete = found.add(to.route, names, next.as_deref());
        let Some(next) = next.filter(|next| !is_complete && *next != query) else {
            return Ok(paging::catalog(&found.into_page(), pagination));
        };
        query = next;
    }
    Err(Rejection::upstream_inconclusive())
}

/// The response to one request for a page.
enum UpstreamPage {
    /// Names, and the query of the next page.
    List {
        names: Vec<String>,
        next: Option<String>,
    },
    /// A response with another status than 200.
    Other(Box<Response<UpstreamBody>>),
}

async fn page(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    query: &str,
) -> Result<UpstreamPage, Rejection> {
    let path = format!("/v2/_catalog?{query}");
    let request = forward::own_request(cx, to, Method::GET, &path)?;
    let response = redirects::send(cx, to, request).await?;
    if response.status() != StatusCode::OK {
        return Ok(UpstreamPage::Other(Box::new(response)));
    }
    let UpstreamRoute { route, backend } = to;
    let next = next_query(route.site(), backend, "/v2/_catalog", response.headers());
    Ok(UpstreamPage::List {
        names: names(response).await?,
        next,
    })
}

async fn names(answer: Response<UpstreamBody>) -> Result<Vec<String>, Rejection> {
    let collected = Limited::new(answer.into_body(), MAX_PAGE_BYTES)
        .collect()
        .await;
    let bytes = collected
        .map_err(|_| Rejection::upstream_inconclusive())?
        .to_bytes();
    let document: CatalogDocument =
        serde_json::from_slice(&bytes).map_err(|_| Rejection::upstream_inconclusive())?;
    Ok(document.repositories.unwrap_or_default())
}
