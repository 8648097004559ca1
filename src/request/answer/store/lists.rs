//! Lists: repositories and tags, which are paginated, and referrers.

use http::HeaderValue;
use http::header::HeaderName;
use serde_json::json;

use super::{Answered, StoreRequest};
use crate::registry::call::{Pagination, QueryText, Read};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::answer::{catalog, paging};
use crate::request::obligations::Obligations;
use crate::request::respond;
use crate::store::PageRequest;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn catalog(request: &StoreRequest<'_>, pagination: &Pagination) -> Answered {
    let listed = match request.route.obligations() {
        Obligations::Filtered => {
            catalog::from_store(request.route, request.store, page_request(pagination)).await
        }
        _ => request.store.catalog(page_request(pagination)).await,
    };
    Ok(paging::catalog(
        &listed.map_err(|error| request.rejection(error))?,
        pagination,
    ))
}

pub(super) async fn tags(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    pagination: &Pagination,
) -> Answered {
    let listed = request.store.tags(name, page_request(pagination)).await;
    let page = listed.map_err(|error| request.rejection(error))?;
    let path = format!("/v2/{name}/tags/list");
    Ok(paging::page(
        &path,
        &page,
        pagination,
        json!({ "name": name.as_str(), "tags": page.entries }),
    ))
}

pub(super) async fn referrers(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&QueryText>,
) -> Answered {
    let listed = request
        .store
        .referrers(name, subject, artifact_type.map(QueryText::as_str))
        .await;
    let index = listed.map_err(|error| request.rejection(error))?;
    let mut response = respond::json(index, "application/vnd.oci.image.index.v1+json", Read::Get);
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
        limit: paging::page_limit(pagination),
        after,
    }
}
