//! Pages of tags where the registry gives all of them at once, whatever a client asks for
//! (distribution specification, "Listing tags").

use std::collections::BTreeSet;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;

use super::paging;
use crate::registry::call::{Call, Pagination, QueryText, RepositoryCall};
use crate::registry::json_strings::{Selected, StringReplacer, StringVisitor};
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::rejection::{Rejection, product};
use crate::request::route::UpstreamRoute;
use crate::store::Page;

/// Whether a call wants a part of a list of tags.
pub(super) fn is_paged(call: &Call) -> bool {
    part(call).is_some()
}

/// The repository and the part of its list that a call wants.
fn part(call: &Call) -> Option<(&RepositoryName, &Pagination)> {
    let Call::Repository {
        name,
        operation: RepositoryCall::TagsList { page },
    } = call
    else {
        return None;
    };
    (page.n.is_some() || page.last.is_some()).then_some((name, page))
}

/// Whether a response may be a whole list in place of the part that its request wants. A registry
/// that gives parts links to the next one, or the list is short.
pub(super) fn may_be_whole(to: UpstreamRoute<'_>, response: &Response<ResponseBody>) -> bool {
    let Some((_, pagination)) = to.route.call().and_then(part) else {
        return false;
    };
    let headers = response.headers();
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|coding| coding == "identity");
    if response.status() != StatusCode::OK || !is_plain {
        return false;
    }
    if pagination.n == Some(0) {
        return true;
    }
    !headers.contains_key(header::LINK) && !is_short(response, pagination)
}

/// Whether a response has no room for more tags than its request wants.
fn is_short(response: &Response<ResponseBody>, pagination: &Pagination) -> bool {
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match (pagination, length) {
        (
            Pagination {
                n: Some(n),
                last: None,
            },
            Some(length),
        ) => length / MIN_TAG_BYTES <= u64::from(*n),
        _ => false,
    }
}

/// The part of a whole list that the request wants, with a link to the next one. Any other response
/// as it is, unless it is too long to be kept until its end: then the tags alone.
///
/// Errors: 502 for a response that the registry does not send to its end, or in which no tags can be
/// found.
pub(super) async fn paged(
    to: UpstreamRoute<'_>,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let Some((name, pagination)) = to.route.call().and_then(part) else {
        return Ok(response);
    };
    let page = |page: &Page| {
        let path = format!("/v2/{name}/tags/list");
        let document = json!({ "name": name.as_str(), "tags": page.entries });
        paging::page(&path, page, pagination, document)
    };
    if pagination.n == Some(0) {
        return Ok(page(&Page {
            entries: Vec::new(),
            has_more: false,
        }));
    }
    let (mut parts, body) = response.into_parts();
    let ReadList { tags, document } = read(body, pagination).await?;
    let document = match (tags, document) {
        (Some(tags), Some(document)) if !tags.is_whole(pagination) => document,
        (Some(tags), _) => return Ok(page(&tags.into_page())),
        (None, Some(document)) => document,
        (None, None) => return Err(product::list_cut()),
    };
    let length = HeaderValue::from(document.len());
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.insert(header::CONTENT_LENGTH, length);
    Ok(Response::from_parts(
        parts,
        ResponseBody::own(document, false),
    ))
}

/// A list of tags that has been read.
struct ReadList {
    /// `None` if they cannot be found in the document.
    tags: Option<PageOfTags>,
    /// The document itself, unless it is long.
    document: Option<Vec<u8>>,
}

async fn read(mut body: ResponseBody, pagination: &Pagination) -> Result<ReadList, Rejection> {
    let selected = Selected::Elements("tags");
    let mut scanner = StringReplacer::new(selected, PageOfTags::new(pagination));
    let mut document = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| product::list_cut())?;
        let piece = scanner.next(&frame.into_data().unwrap_or_default());
        document = document.filter(|read| read.len() + piece.len() <= MAX_KEPT_BYTES);
        if let Some(read) = &mut document {
            read.extend(piece);
        }
    }
    let rest = scanner.end();
    if let Some(read) = &mut document {
        read.extend(rest);
    }
    Ok(ReadList {
        tags: scanner.into_visitor(),
        document,
    })
}

/// The first tags after the last one of the previous page. They may come in any order.
struct PageOfTags {
    limit: usize,
    last: Option<Box<str>>,
    /// One more than the page has, which tells whether there is another page.
    tags: BTreeSet<Box<str>>,
    /// Of all tags.
    count: usize,
    has_last: bool,
}

impl PageOfTags {
    fn new(pagination: &Pagination) -> Self {
        let last = pagination.last.as_ref().map(QueryText::as_str);
        Self {
            limit: paging::page_limit(pagination),
            last: last.map(Into::into),
            tags: BTreeSet::new(),
            count: 0,
            has_last: false,
        }
    }

    /// Whether the registry gave more than the request wants. One that gives what comes after `last`
    /// does not give `last`, which may also be a token of its own.
    fn is_whole(&self, pagination: &Pagination) -> bool {
        let n = pagination.n.and_then(|n| usize::try_from(n).ok());
        self.has_last || n.is_some_and(|n| self.count > n)
    }

    fn into_page(self) -> Page {
        let has_more = self.tags.len() > self.limit;
        let tags = self.tags.into_iter().take(self.limit);
        Page {
            entries: tags.map(String::from).collect(),
            has_more,
        }
    }
}

impl StringVisitor for PageOfTags {
    fn replaced(&mut self, tag: &str) -> Option<String> {
        self.count += 1;
        match self.last.as_deref() {
            Some(last) if tag == last => self.has_last = true,
            Some(last) if tag < last => {}
            _ => {
                self.tags.insert(tag.into());
                if self.tags.len() > self.limit + 1 {
                    self.tags.pop_last();
                }
            }
        }
        None
    }
}

/// A tag of one character, its quotation marks and a comma.
const MIN_TAG_BYTES: u64 = 4;
/// Google describes each manifest beside the tags, in some 400 bytes: those of ten thousand.
const MAX_KEPT_BYTES: usize = 4 << 20;
