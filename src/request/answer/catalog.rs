//! The catalog as far as the asker may see it: the registry's pages are read one after the other,
//! what is not for the asker is left out, and the rest is cut into the pages that were asked for.

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::forward;
use super::rewrite::{self, Asked};
use super::store::lists;
use crate::registry::action::Action;
use crate::registry::call::{Pagination, QueryText, pairs};
use crate::registry::location::{Answer, Rewriter, Rewritten};
use crate::request::body::ResponseBody;
use crate::request::conn_info::ConnInfo;
use crate::request::record::Record;
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::request::site::Target;
use crate::store::{Page, PageRequest, Store, StoreError};
use crate::upstream::body::UpstreamBody;

/// Entries asked of an upstream at once: some registries refuse to give more.
const UPSTREAM_PAGE_SIZE: usize = 1000;
/// 1,000 names of 255 bytes, and as much again.
const MAX_PAGE_BYTES: usize = 512 * 1024;
/// Pages that are read from an upstream for one page of the answer.
const MAX_UPSTREAM_PAGES: usize = 1000;

/// What has been found of one page so far.
struct Found {
    /// The maximum number of entries.
    limit: usize,
    page: Page,
}

impl Found {
    fn new(pagination: &Pagination) -> Self {
        Self {
            limit: lists::page_limit(pagination),
            page: Page {
                entries: Vec::new(),
                has_more: false,
            },
        }
    }

    /// Adds what may be seen; true as soon as it is known that there is more than is wanted.
    fn add(&mut self, route: &Route, names: impl IntoIterator<Item = String>) -> bool {
        let asker = route.asker();
        let sees = |name: &String| {
            route
                .site()
                .policy
                .decide(asker, Action::Catalog, name, None)
                .allowed
        };
        for name in names.into_iter().filter(sees) {
            if self.page.entries.len() == self.limit {
                self.page.has_more = true;
                return true;
            }
            self.page.entries.push(name);
        }
        false
    }
}

/// What has been found so far where the registry may page by tokens of its own, which it gives
/// another name (Quay: `next_page`) or the same (ECR). It does not know what `last` is then: it
/// begins anew, or is to, and what stands before that name is left out here.
struct FromUpstream<'p> {
    pagination: &'p Pagination,
    /// Of all that it has listed.
    all: Found,
    /// Of what it has listed after `last`, once that was there.
    after: Option<Found>,
    /// Whether it has begun where it was asked to; not known before its first page.
    begins_there: Option<bool>,
}

impl<'p> FromUpstream<'p> {
    fn new(pagination: &'p Pagination) -> Self {
        Self {
            pagination,
            all: Found::new(pagination),
            after: None,
            begins_there: None,
        }
    }

    /// Adds a page, whose next one is asked for so; true as soon as no other is needed.
    fn add(&mut self, route: &Route, mut names: Vec<String>, next: Option<&str>) -> bool {
        let Some(last) = self.pagination.last.as_ref().map(QueryText::as_str) else {
            return self.all.add(route, names);
        };
        let at = names.iter().position(|name| name == last);
        let is_by_name =
            || next.is_none_or(|next| names.last().is_some_and(|name| is_after(next, name)));
        let begins_there = *self
            .begins_there
            .get_or_insert_with(|| at.is_none() && is_by_name());
        if begins_there {
            return self.all.add(route, names);
        }
        if let Some(at) = at {
            names.drain(..=at);
            self.after = Some(Found::new(self.pagination));
        }
        if let Some(after) = &mut self.after {
            return after.add(route, names);
        }
        self.all.add(route, names);
        false
    }

    /// Takes in that the registry has not begun at `last`. Whether it is to be asked again, from
    /// its beginning.
    fn begin_anew(&mut self, status: StatusCode) -> bool {
        let is_first = self.pagination.last.is_some() && self.begins_there.is_none();
        let is_refused = matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED
        );
        if is_first && is_refused {
            self.begins_there = Some(false);
        }
        is_first && is_refused
    }

    /// Where `last` has not been there at all, it may have been deleted: an entry twice is better
    /// than none.
    fn page(&self) -> &Page {
        &self.after.as_ref().unwrap_or(&self.all).page
    }
}

/// Whether a query asks for what comes after a name.
fn is_after(query: &str, name: &str) -> bool {
    pairs(query)
        .any(|pair| pair.is_ok_and(|(parameter, value)| parameter == "last" && value == name))
}

/// From moorgate's own registry.
pub(crate) async fn of_store(
    route: &Route,
    store: &std::sync::Arc<Store>,
    pagination: &Pagination,
) -> Result<Page, StoreError> {
    let mut found = Found::new(pagination);
    let mut after = pagination
        .last
        .as_ref()
        .map_or(String::new(), |last| last.as_str().to_owned());
    loop {
        let page = store
            .catalog(PageRequest {
                limit: UPSTREAM_PAGE_SIZE,
                after: after.clone(),
            })
            .await?;
        let next = page.entries.last().filter(|_| page.has_more).cloned();
        if found.add(route, page.entries) {
            return Ok(found.page);
        }
        let Some(next) = next else {
            return Ok(found.page);
        };
        after = next;
    }
}

#[derive(Deserialize)]
struct Document {
    repositories: Option<Vec<String>>,
}

/// From an upstream. What is no list is its answer to the client as it stands.
pub(crate) async fn of_upstream(
    (route, target): (&Route, &Target),
    pagination: &Pagination,
    conn: &ConnInfo,
    parts: &Parts,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Rejection> {
    let mut found = FromUpstream::new(pagination);
    let (mut query, mut has_page) = (first_query(pagination), false);
    record.forwarded(None);
    for _ in 0..MAX_UPSTREAM_PAGES {
        let path = format!("/v2/_catalog?{query}");
        let request = forward::own((route, target), conn, parts, (Method::GET, &path))?;
        let answer = target
            .upstream
            .send(request, None, route.transfer_limits())
            .await;
        record.answered();
        let answer = answer.map_err(|error| Rejection::upstream(error, 0))?;
        if answer.status() != StatusCode::OK {
            if has_page {
                return Err(Rejection::upstream_does_not_tell());
            }
            if found.begin_anew(answer.status()) {
                query = format!("n={UPSTREAM_PAGE_SIZE}");
                continue;
            }
            return rewrite::rewrite(
                (route, target),
                conn,
                &Asked::of(route, parts),
                answer,
                record,
            );
        }
        has_page = true;
        let next = next_query((route, target), &answer);
        let is_whole = found.add(route, names(answer).await?, next.as_deref());
        let Some(next) = next.filter(|next| !is_whole && *next != query) else {
            return Ok(lists::paged_catalog(found.page(), pagination));
        };
        query = next;
    }
    Err(Rejection::upstream_does_not_tell())
}

fn first_query(pagination: &Pagination) -> String {
    let last = pagination
        .last
        .as_ref()
        .map(|last| format!("&last={}", encoded(last.as_str())));
    format!("n={UPSTREAM_PAGE_SIZE}{}", last.unwrap_or_default())
}

fn encoded(text: &str) -> String {
    let encode = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(encode).collect()
}

async fn names(answer: Response<UpstreamBody>) -> Result<Vec<String>, Rejection> {
    let collected = Limited::new(answer.into_body(), MAX_PAGE_BYTES)
        .collect()
        .await;
    let bytes = collected
        .map_err(|_| Rejection::upstream_does_not_tell())?
        .to_bytes();
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|_| Rejection::upstream_does_not_tell())?;
    Ok(document.repositories.unwrap_or_default())
}

/// The query of the page after this one, as the registry wrote it: `last` may be a token of its
/// own.
fn next_query(
    (route, target): (&Route, &Target),
    answer: &Response<UpstreamBody>,
) -> Option<String> {
    let upstream = rewrite::origin(target.upstream.target());
    let is_public = |name: &_| route.site().host.is_named(name);
    let rewriter = Rewriter {
        upstream,
        is_public: &is_public,
        request_path: "/v2/_catalog",
    };
    let link = answer
        .headers()
        .get(header::LINK)
        .and_then(|link: &HeaderValue| link.to_str().ok())?;
    let (reference, _) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    let path = match rewriter.location(reference, Answer::Other) {
        Rewritten::Unchanged => reference.to_owned(),
        Rewritten::Path(path) => path,
        Rewritten::Foreign | Rewritten::Refused => return None,
    };
    path.strip_prefix("/v2/_catalog?").map(str::to_owned)
}
