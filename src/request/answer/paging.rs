//! Pages of a list, and the link to the next one (distribution specification, "Listing tags").

use http::{HeaderValue, Response, header};
use serde_json::json;

use crate::registry::call::{Pagination, Read, encode_value};
use crate::request::body::ResponseBody;
use crate::request::respond;
use crate::store::Page;

/// Also the maximum where a client asks for more entries.
const MAX_PAGE_SIZE: usize = 10_000;

/// The number of entries of a page.
pub(super) fn page_limit(pagination: &Pagination) -> usize {
    pagination
        .n
        .map_or(MAX_PAGE_SIZE, |n| {
            usize::try_from(n).unwrap_or(MAX_PAGE_SIZE)
        })
        .min(MAX_PAGE_SIZE)
}

/// A page of the catalog.
pub(super) fn catalog(page: &Page, pagination: &Pagination) -> Response<ResponseBody> {
    let document = json!({ "repositories": page.entries });
    self::page("/v2/_catalog", page, pagination, document)
}

/// A page of a list, with a link to the next one if there is more.
pub(super) fn page(
    path: &str,
    page: &Page,
    pagination: &Pagination,
    document: serde_json::Value,
) -> Response<ResponseBody> {
    let document = format!("{document}\n").into_bytes();
    let mut response = respond::json(document, "application/json", Read::Get);
    if let Some(last) = page.entries.last().filter(|_| page.has_more) {
        let n = page_limit(pagination);
        // The names of an upstream's repositories may be anything.
        let last = encode_value(last);
        let link = HeaderValue::try_from(format!("<{path}?n={n}&last={last}>; rel=\"next\""))
            .expect("a checked path and an encoded query");
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_any_name() {
        let pagination = Pagination {
            n: Some(1),
            last: None,
        };
        let link = |name: &str| {
            let page = Page {
                entries: vec![name.to_owned()],
                has_more: true,
            };
            let response = catalog(&page, &pagination);
            let link = response.headers().get(header::LINK).expect("more");
            link.to_str().expect("visible").to_owned()
        };
        assert_eq!(
            link("a\u{7}&b>\u{fc}"),
            "</v2/_catalog?n=1&last=a%07%26b%3E%C3%BC>; rel=\"next\""
        );
        assert_eq!(link("a/b-c"), "</v2/_catalog?n=1&last=a/b-c>; rel=\"next\"");
    }
}
