//! The names of repositories where the registry knows them by others: in the targets of requests, in
//! references of responses, in lists of tags and in errors.

mod renamed_body;

use std::borrow::Cow;

use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::registry::call::{
    Call, Parameter, RepositoryCall, repository_of, with_value, without_parameters,
};
use crate::registry::json_strings::{Selected, StringReplacer};
use crate::registry::name::RepositoryName;
use crate::registry::name_map::{NameMap, with_client_names};
use crate::request::body::ResponseBody;
use crate::request::rejection::Rejection;
use crate::request::route::{MappedCall, UpstreamRoute};
use crate::upstream::response_body::UpstreamBody;
use renamed_body::Renamed;
pub(crate) use renamed_body::RenamedBody;

/// Whether it is the catalog of a registry with other names, which is never passed as it is.
pub(super) fn is_mapped_catalog(to: UpstreamRoute<'_>) -> bool {
    let mapped = to.route.mapped_call();
    mapped.is_some_and(|mapped| matches!(mapped.client, Call::Catalog { .. }))
}

/// The path of a client's request with the name of the registry, everything else byte for byte.
pub(super) fn registry_path<'p>(call: MappedCall<'_>, path: &'p str) -> Cow<'p, str> {
    let (Some(client), Some(registry)) = (call.client.repository(), call.registry.repository())
    else {
        return Cow::Borrowed(path);
    };
    // A path of a call has its name literally, and only there: no encoding, no dots.
    let rest = path
        .strip_prefix("/v2/")
        .and_then(|path| path.strip_prefix(client.as_str()));
    match rest {
        Some(rest) => Cow::Owned(format!("/v2/{registry}{rest}")),
        None => Cow::Borrowed(path),
    }
}

/// The query of a client's request with the name of the registry in that of a mount, everything else
/// byte for byte; `None` if nothing of it is left.
pub(super) fn registry_query<'q>(call: MappedCall<'_>, query: &'q str) -> Option<Cow<'q, str>> {
    match (call.client.operation(), call.registry.operation()) {
        (Some(RepositoryCall::Mount { .. }), Some(RepositoryCall::UploadStart { .. })) => {
            without_mount(query).map(Cow::Owned)
        }
        (
            _,
            Some(RepositoryCall::Mount {
                from: Some(from), ..
            }),
        ) => Some(with_value(query, Parameter::From, from.as_str()).into()),
        _ => Some(Cow::Borrowed(query)),
    }
}

/// The query of an upload that takes the place of a mount; `None` if nothing of it is left.
pub(super) fn without_mount(query: &str) -> Option<String> {
    let query = without_parameters(query, &[Parameter::Mount, Parameter::From]);
    Some(query).filter(|query| !query.is_empty())
}

/// The path of a call at the registry with the name that clients know; `None` for anything else, and
/// for a repository that they cannot name.
pub(super) fn client_path(names: &NameMap, path: &str) -> Option<String> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let Some(name) = repository_of(path.get(..end)?).ok()? else {
        return Some(path.to_owned());
    };
    let rest = path.strip_prefix("/v2/")?.strip_prefix(name.as_str())?;
    let client = names.to_client(name.as_str())?;
    Some(format!("/v2/{client}{rest}"))
}

/// The body of a response with the names that clients know: of a list of tags, its `name`; of an
/// error, its texts. Any other passes as it is.
///
/// Errors: 502 for a short error that the upstream does not send to its end.
pub(super) async fn response_body(
    call: MappedCall<'_>,
    parts: &mut Parts,
    body: UpstreamBody,
    is_head: bool,
) -> Result<ResponseBody, Rejection> {
    let Some(replacer) = replacer(call, parts) else {
        return Ok(ResponseBody::streamed(body));
    };
    for name in OF_THESE_BYTES {
        parts.headers.remove(name);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    if is_head {
        return Ok(ResponseBody::streamed(body));
    }
    let size = body.size_hint().upper();
    let renamed = RenamedBody::new(body, replacer);
    let is_short = size.is_some_and(|size| size <= MAX_BUFFERED_BYTES);
    if !is_short || parts.status == StatusCode::OK {
        return Ok(ResponseBody::renamed(renamed));
    }
    let collected = renamed.collect().await;
    let document = collected
        .map_err(|_| Rejection::upstream_inconclusive())?
        .to_bytes();
    let length = HeaderValue::from(document.len());
    parts.headers.insert(header::CONTENT_LENGTH, length);
    Ok(ResponseBody::own(document, false))
}

/// Gives the body its names, if it has any.
fn replacer(call: MappedCall<'_>, parts: &Parts) -> Option<StringReplacer<Renamed>> {
    let is_plain = parts
        .headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|coding| coding == "identity");
    if !is_plain {
        return None;
    }
    let is_tags_list = matches!(
        call.client.operation(),
        Some(RepositoryCall::TagsList { .. })
    );
    if is_tags_list && parts.status == StatusCode::OK {
        let name = call.client.repository()?.to_string();
        let renamed: Renamed = Box::new(move |_| Some(name.clone()));
        return Some(StringReplacer::new(Selected::Member("name"), renamed));
    }
    let is_error = parts.status.is_client_error() || parts.status.is_server_error();
    if !is_error || !is_json(&parts.headers) {
        return None;
    }
    let names = names_of(call);
    let renamed: Renamed = Box::new(move |text| with_client_names(text, &names));
    Some(StringReplacer::new(Selected::All, renamed))
}

/// The repositories of a call: each as the registry and as clients know it.
fn names_of(call: MappedCall<'_>) -> Vec<(RepositoryName, RepositoryName)> {
    let both = [
        (call.registry.repository(), call.client.repository()),
        (source_of(call.registry), source_of(call.client)),
    ];
    let known = both
        .into_iter()
        .filter_map(|(registry, client)| registry.zip(client));
    known
        .map(|(registry, client)| (registry.clone(), client.clone()))
        .collect()
}

/// The repository that a mount takes the blob from.
fn source_of(call: &Call) -> Option<&RepositoryName> {
    match call.operation()? {
        RepositoryCall::Mount { from, .. } => from.as_ref(),
        _ => None,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|media_type| media_type.to_str().ok());
    let media_type = media_type.and_then(|text| text.split(';').next());
    media_type.is_some_and(|text| {
        let text = text.trim().to_ascii_lowercase();
        text.ends_with("/json") || text.ends_with("+json")
    })
}

/// Headers about bytes that are no longer these.
const OF_THESE_BYTES: [HeaderName; 5] = [
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];
/// A longer error is sent without its length.
const MAX_BUFFERED_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::registry::name_map::NameRule;

    fn maps() -> impl Strategy<Value = NameMap> {
        let part = "([ab]{1,2}/){0,2}";
        let separators = vec![".", "_", "__", "-", "--", "---"];
        let separator = prop::option::of(prop::sample::select(separators));
        let rule = (part, "([ab]{1,2}/){0,2}([ab][-_.]?)?", separator)
            .prop_filter_map("a rule", |(prefix, to, separator)| {
                NameRule::new(&prefix, &to, separator).ok()
            });
        // Of rules that exclude each other, those that come first.
        prop::collection::vec(rule, 1..6)
            .prop_map(|rules| {
                rules.into_iter().fold(Vec::new(), |kept, rule| {
                    let more: Vec<_> = kept.iter().cloned().chain([rule]).collect();
                    NameMap::new(more.clone()).map_or(kept, |_| more)
                })
            })
            .prop_map(|rules| NameMap::new(rules).expect("checked"))
    }

    fn names() -> impl Strategy<Value = RepositoryName> {
        "[ab]{1,2}((/|[-_.]|--|__)[ab]{1,2}){0,4}"
            .prop_filter_map("a name", |text| RepositoryName::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn a_target_leads_to_the_registry_and_back(map in maps(), name in names(), from in names()) {
            let digest = format!("sha256:{}", "0".repeat(64));
            for (method, target) in [
                (Method::GET, "tags/list?n=5&last=x%2F".to_owned()),
                (Method::PUT, "manifests/v1?x=%41".to_owned()),
                (Method::PUT, format!("blobs/uploads/0-1?digest={digest}")),
                (Method::POST, format!("blobs/uploads/?y&mount={digest}&from={from}&z=%7e")),
                (Method::GET, format!("blobs/{}?", digest.replace(':', "%3a"))),
            ] {
                let path = format!("/v2/{name}/{target}");
                let (path, query) = path.split_once('?').expect("a query");
                let client = Call::parse(&method, path, Some(query)).expect("a call");
                let Ok(registry) = map.to_registry_call(&client) else {
                    prop_assert!(map.to_registry(&name).is_err());
                    continue;
                };
                let call = MappedCall { names: &map, client: &client, registry: &registry };
                let there = registry_path(call, path);
                let asked = registry_query(call, query).unwrap_or_default();
                // What the registry reads is the mapped call, and nothing else changed.
                prop_assert_eq!(Call::parse(&method, &there, Some(&asked)), Ok(registry.clone()));
                prop_assert_eq!(client_path(&map, &there), Some(path.to_owned()));
                let same = query.replace(&format!("from={from}"), "from=");
                let inside = map.to_registry(&from).map_or(String::new(), |from| from.to_string());
                if method != Method::POST {
                    prop_assert_eq!(&*asked, query);
                } else if !inside.is_empty() {
                    prop_assert_eq!(asked.replace(&format!("from={inside}"), "from="), same);
                }
                let inside = registry.repository().expect("of a repository").as_str();
                let text = with_client_names(&format!("no '{inside}'"), &names_of(call));
                prop_assert_eq!(text.unwrap_or(format!("no '{inside}'")), format!("no '{name}'"));
            }
        }

        #[test]
        fn no_name_of_the_registry_leads_to_two(map in maps(), a in names(), b in names()) {
            if a != b && let (Ok(a), Ok(b)) = (map.to_registry(&a), map.to_registry(&b)) {
                prop_assert_ne!(a, b);
            }
        }

        #[test]
        fn what_clients_name_is_all_that_they_are_shown(map in maps(), name in names()) {
            let path = format!("/v2/{name}/tags/list");
            let shown = client_path(&map, &path);
            let client = map.to_client(name.as_str());
            prop_assert_eq!(&shown, &client.as_ref().map(|client| format!("/v2/{client}/tags/list")));
            if let Some(client) = client {
                prop_assert_eq!(map.to_registry(&client), Ok(name));
            }
        }
    }
}
