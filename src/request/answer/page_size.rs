//! The number of entries that an upstream is asked for in one page of a list. Some registries refuse
//! more than they give at once, instead of giving less.

use http::StatusCode;

use crate::registry::call::{Call, Parameter, RepositoryCall, pairs, with_value};

/// The limit of ECR, and the default of distribution and of what is made from it. A client finds
/// the rest by the link to the next page.
pub(in crate::request) const MAX_PAGE_SIZE: u32 = 1000;
/// The limit of Quay, which is the smallest of the known ones.
pub(in crate::request) const SMALL_PAGE_SIZE: u32 = 100;

/// Whether this is the response to a page that is too large.
pub(super) fn is_refused(status: StatusCode) -> bool {
    status == StatusCode::BAD_REQUEST
}

/// The query of a list with at most [`MAX_PAGE_SIZE`] entries; `None` if it stays as it is.
pub(super) fn bounded(call: &Call, query: Option<&str>) -> Option<String> {
    let query = query.filter(|_| is_list(call))?;
    (requested(query)? > MAX_PAGE_SIZE).then(|| with_page_size(query, MAX_PAGE_SIZE))
}

/// The query of a smaller page, for a registry that refuses the one of the client; `None` if that
/// is small already. A page without entries may be refused as well: it is made of one with an entry.
pub(super) fn smaller(call: &Call, query: Option<&str>) -> Option<String> {
    let query = query.filter(|_| is_list(call))?;
    match requested(query)? {
        0 if is_tags_list(call) => Some(with_page_size(query, 1)),
        n if n > SMALL_PAGE_SIZE => Some(with_page_size(query, SMALL_PAGE_SIZE)),
        _ => None,
    }
}

fn is_tags_list(call: &Call) -> bool {
    matches!(call.operation(), Some(RepositoryCall::TagsList { .. }))
}

fn is_list(call: &Call) -> bool {
    match call {
        Call::Ping { .. } => false,
        Call::Catalog { .. } => true,
        Call::Repository { operation, .. } => matches!(
            operation,
            RepositoryCall::TagsList { .. } | RepositoryCall::Referrers { .. }
        ),
    }
}

/// The number of entries that a query requests.
fn requested(query: &str) -> Option<u32> {
    let mut pairs = pairs(query).flatten();
    let (_, n) = pairs.find(|(name, _)| name == Parameter::N.as_str())?;
    n.parse().ok()
}

fn with_page_size(query: &str, size: u32) -> String {
    with_value(query, Parameter::N, &size.to_string())
}
