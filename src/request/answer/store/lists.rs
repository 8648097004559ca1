//! The lists: repositories, tags, referrers, in pages where they can be long.

use http::header::HeaderName;
use http::{HeaderValue, Response, header};
use serde_json::json;

use super::{Answered, Asked, ResponseBody, read, value};
use crate::registry::call::{Pagination, QueryText, Read};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::answer::catalog;
use crate::request::obligations::Obligations;
use crate::store::{Page, PageRequest};

/// Applies also where a client asks for more entries.
const MAX_PAGE_SIZE: usize = 10_000;
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn catalog(asked: &Asked<'_>, pagination: &Pagination) -> Answered {
    let listed = match asked.route.obligations() {
        Obligations::Filtered => catalog::of_store(asked.route, asked.store, pagination).await,
        _ => asked.store.catalog(page_request(pagination)).await,
    };
    Ok(paged_catalog(
        &listed.map_err(|error| asked.rejection(error))?,
        pagination,
    ))
}

/// A page of the catalog.
pub(in crate::request::answer) fn paged_catalog(
    page: &Page,
    pagination: &Pagination,
) -> Response<ResponseBody> {
    paged(
        "/v2/_catalog",
        page,
        pagination,
        json!({ "repositories": page.entries }),
    )
}

/// The maximum number of entries of the page that is asked for.
pub(in crate::request::answer) fn page_limit(pagination: &Pagination) -> usize {
    pagination
        .n
        .map_or(MAX_PAGE_SIZE, |n| {
            usize::try_from(n).unwrap_or(MAX_PAGE_SIZE)
        })
        .min(MAX_PAGE_SIZE)
}

pub(super) async fn tags(
    asked: &Asked<'_>,
    name: &RepositoryName,
    pagination: &Pagination,
) -> Answered {
    let listed = asked.store.tags(name, page_request(pagination)).await;
    let page = listed.map_err(|error| asked.rejection(error))?;
    let path = format!("/v2/{name}/tags/list");
    Ok(paged(
        &path,
        &page,
        pagination,
        json!({ "name": name.as_str(), "tags": page.entries }),
    ))
}

pub(super) async fn referrers(
    asked: &Asked<'_>,
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&QueryText>,
) -> Answered {
    let listed = asked
        .store
        .referrers(name, subject, artifact_type.map(QueryText::as_str))
        .await;
    let index = listed.map_err(|error| asked.rejection(error))?;
    let mut response = read::json(index, "application/vnd.oci.image.index.v1+json", Read::Get);
    if artifact_type.is_some() {
        response
            .headers_mut()
            .insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

fn page_request(pagination: &Pagination) -> PageRequest {
    let after = pagination
        .last
        .as_ref()
        .map_or(String::new(), |last| last.as_str().to_owned());
    PageRequest {
        limit: page_limit(pagination),
        after,
    }
}

fn paged(
    path: &str,
    page: &Page,
    pagination: &Pagination,
    document: serde_json::Value,
) -> Response<ResponseBody> {
    let mut response = read::json(
        document.to_string().into_bytes(),
        "application/json",
        Read::Get,
    );
    // Names and tags need no encoding in a query.
    if let Some(last) = page.entries.last().filter(|_| page.has_more) {
        let n = page_limit(pagination);
        let link = format!("<{path}?n={n}&last={last}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, value(link));
    }
    response
}
