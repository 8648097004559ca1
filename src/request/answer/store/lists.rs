//! The lists: repositories, tags, referrers, in pages where they can be long.

use http::header::HeaderName;
use http::{HeaderValue, Response, header};
use serde_json::json;

use super::{Answered, Asked, ResponseBody, read, value};
use crate::registry::call::{Page, QueryText, Read};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::request::answer::catalog;
use crate::request::obligations::Obligations;
use crate::store::{Part, Window};

/// The most entries of a page, also where a client asks for more.
const MOST: usize = 10_000;
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) async fn catalog(asked: &Asked<'_>, page: &Page) -> Answered {
    let listed = match asked.route.obligations() {
        Obligations::Filtered => catalog::of_store(asked.route, asked.store, page).await,
        _ => asked.store.catalog(window(page)).await,
    };
    Ok(paged_catalog(
        &listed.map_err(|error| asked.rejection(error))?,
        page,
    ))
}

/// A page of the catalog.
pub(in crate::request::answer) fn paged_catalog(
    part: &Part,
    page: &Page,
) -> Response<ResponseBody> {
    paged(
        "/v2/_catalog",
        part,
        page,
        json!({ "repositories": part.entries }),
    )
}

/// How many entries a page is to have.
pub(in crate::request::answer) fn wanted(page: &Page) -> usize {
    page.n
        .map_or(MOST, |n| usize::try_from(n).unwrap_or(MOST))
        .min(MOST)
}

pub(super) async fn tags(asked: &Asked<'_>, name: &RepositoryName, page: &Page) -> Answered {
    let listed = asked.store.tags(name, window(page)).await;
    let part = listed.map_err(|error| asked.rejection(error))?;
    let path = format!("/v2/{name}/tags/list");
    Ok(paged(
        &path,
        &part,
        page,
        json!({ "name": name.as_str(), "tags": part.entries }),
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

fn window(page: &Page) -> Window {
    let after = page
        .last
        .as_ref()
        .map_or(String::new(), |last| last.as_str().to_owned());
    Window {
        most: wanted(page),
        after,
    }
}

fn paged(
    path: &str,
    part: &Part,
    page: &Page,
    document: serde_json::Value,
) -> Response<ResponseBody> {
    let mut response = read::json(
        document.to_string().into_bytes(),
        "application/json",
        Read::Get,
    );
    // Names and tags need no encoding in a query.
    if let Some(last) = part.entries.last().filter(|_| part.more) {
        let n = wanted(page);
        let link = format!("<{path}?n={n}&last={last}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, value(link));
    }
    response
}
