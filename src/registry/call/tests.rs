use http::Method;
use proptest::prelude::*;

use super::*;
use crate::registry::digest::Digest;
use crate::registry::error_code::ErrorCode;
use crate::registry::reference::{Reference, Tag};

const SHA256: &str = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

fn call(method: Method, target: &str) -> Result<Call, CallError> {
    let target = target.replace("DIGEST", SHA256);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target.as_str(), None),
    };
    Call::parse(&method, path, query)
}

/// The name, repository and reference of a call.
fn summary(method: Method, target: &str) -> String {
    let call = call(method, target).unwrap_or_else(|error| panic!("{target}: {error}"));
    let repository = call.repository().map_or("-", RepositoryName::as_str);
    format!(
        "{} {repository} {}",
        call.name(),
        call.reference().unwrap_or("-").replace(SHA256, "DIGEST")
    )
}

#[test]
fn every_endpoint_is_read() {
    assert_eq!(summary(Method::GET, "/v2/"), "ping - -");
    assert_eq!(summary(Method::HEAD, "/v2"), "ping - -");
    assert_eq!(summary(Method::GET, "/v2/_catalog?n=2"), "catalog - -");
    assert_eq!(summary(Method::GET, "/v2/a/b/tags/list"), "tags.list a/b -");
    assert_eq!(
        summary(Method::GET, "/v2/a/manifests/latest"),
        "manifest.read a latest"
    );
    assert_eq!(
        summary(Method::HEAD, "/v2/a/manifests/DIGEST"),
        "manifest.read a DIGEST"
    );
    assert_eq!(
        summary(Method::PUT, "/v2/a/manifests/DIGEST?tag=x"),
        "manifest.write a DIGEST"
    );
    assert_eq!(
        summary(Method::DELETE, "/v2/a/manifests/x"),
        "manifest.delete a x"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/blobs/DIGEST"),
        "blob.read a DIGEST"
    );
    assert_eq!(
        summary(Method::DELETE, "/v2/a/blobs/DIGEST"),
        "blob.delete a DIGEST"
    );
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads/"),
        "upload.start a -"
    );
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads"),
        "upload.start a -"
    );
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads/?digest=DIGEST"),
        "upload.start a DIGEST"
    );
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads/?mount=DIGEST&from=b"),
        "upload.mount a DIGEST"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/blobs/uploads/u1?_state=x"),
        "upload.status a -"
    );
    assert_eq!(
        summary(Method::PATCH, "/v2/a/blobs/uploads/u1"),
        "upload.chunk a -"
    );
    assert_eq!(
        summary(Method::PUT, "/v2/a/blobs/uploads/u1?_state=x&digest=DIGEST"),
        "upload.commit a DIGEST"
    );
    assert_eq!(
        summary(Method::DELETE, "/v2/a/blobs/uploads/u1"),
        "upload.cancel a -"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/referrers/DIGEST"),
        "referrers a DIGEST"
    );
}

#[test]
fn repositories_may_be_called_like_endpoints() {
    assert_eq!(
        summary(Method::GET, "/v2/a/blobs/b/manifests/c"),
        "manifest.read a/blobs/b c"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/blobs/uploads/manifests/c"),
        "manifest.read a/blobs/uploads c"
    );
    assert_eq!(
        summary(Method::GET, "/v2/tags/list/tags/list"),
        "tags.list tags/list -"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/manifests/tags/list"),
        "tags.list a/manifests -"
    );
    assert_eq!(
        summary(Method::GET, "/v2/manifests/manifests/manifests"),
        "manifest.read manifests manifests"
    );
    assert_eq!(
        summary(Method::GET, "/v2/a/blobs/uploads/blobs/DIGEST"),
        "blob.read a/blobs/uploads DIGEST"
    );
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads/blobs/uploads/"),
        "upload.start a/blobs/uploads -"
    );
    assert_eq!(
        summary(Method::POST, "/v2/blobs/blobs/uploads"),
        "upload.start blobs -"
    );
    assert_eq!(
        summary(Method::PATCH, "/v2/a/manifests/blobs/uploads/uploads"),
        "upload.chunk a/manifests -"
    );
    assert_eq!(summary(Method::GET, "/v2/v2/tags/list"), "tags.list v2 -");
}

#[test]
fn what_is_no_endpoint_is_unknown() {
    for target in [
        "/",
        "/v2x",
        "/v3/",
        "/v",
        "",
        "*",
        "/v2/a",
        "/v2/a/",
        "/v2/manifests/x",
        "/v2/tags/list",
        "/v2/blobs/uploads",
        "/v2/blobs/uploads/",
        "/v2/blobs/uploads/x",
        "/v2/a/uploads/x",
        "/v2/a/tags/list/",
        "/v2/a/tags/other",
        "/v2/a/manifests/",
        "/v2/a/blobs/",
        "/v2/_catalog/",
        "/v2/a/referrers/",
        "/v2/a/manifests/x/",
        "/v2/_oci/ext/discover",
        "/V2/",
        "/v2/a/Manifests/x",
        "/v2/xblobs/uploads/y",
    ] {
        assert_eq!(
            call(Method::GET, target),
            Err(CallError::Unknown),
            "{target}"
        );
    }
    for target in ["/v1", "/v1/", "/v1/_ping", "/v1/search"] {
        assert_eq!(call(Method::GET, target), Err(CallError::V1), "{target}");
    }
}

#[test]
fn paths_that_could_be_read_in_two_ways_are_refused() {
    for target in [
        "/v2/../v2/",
        "/v2/.",
        "/v2/..",
        "/v2/a/./tags/list",
        "/v2/a/../b/manifests/x",
        "/v2/a/manifests/..",
        "/v2/a/manifests/.",
        "//v2/",
        "/v2//",
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/a/blobs/uploads//",
        "/v2/%2e%2e/x",
        "/v2/a%2Fb/tags/list",
        "/v2/a/manifests/%6catest",
        "/v2/a/manifests/x%00",
        "/v2/a/manifests/x%",
        "/v2/a/manifests/x%3",
        "/v2/a/manifests/x%253A",
        "/v2/a%3Ab/tags/list",
        "/v2/a/blobs/sha256%3A%3A",
        "/v2/a\\b/tags/list",
        "/v2/a/manifests/x#y",
        "/v2/a/manifests/x;y=z",
        "/v2/;/",
        "/v2/a/manifests/x\0",
        "/v2/a/manifests/x y",
        "/v2/a/manifests/x\t",
        "/v2/\u{e9}/tags/list",
        "/v2/a/manifests/x\u{2024}",
        "/v1/../v2/",
        "/v2/a/blobs/uploads/..",
    ] {
        assert_eq!(
            call(Method::GET, target),
            Err(CallError::BadPath),
            "{target}"
        );
        assert_eq!(
            call(Method::POST, target),
            Err(CallError::BadPath),
            "{target}"
        );
    }
}

#[test]
fn names_digests_tags_and_sessions_have_their_own_errors() {
    assert_eq!(
        call(Method::GET, "/v2/A/tags/list"),
        Err(CallError::NameInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/a:b/manifests/x"),
        Err(CallError::NameInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/_catalog/tags/list"),
        Err(CallError::NameInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/a/blobs/x"),
        Err(CallError::DigestInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/a/blobs/sha256:00"),
        Err(CallError::DigestInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/a/manifests/sha256:00"),
        Err(CallError::DigestInvalid)
    );
    assert_eq!(
        call(Method::GET, "/v2/a/referrers/x"),
        Err(CallError::DigestInvalid)
    );
    assert_eq!(
        call(Method::PATCH, "/v2/a/blobs/uploads/a:b"),
        Err(CallError::UploadUnknown)
    );
}

#[test]
fn a_manifest_with_a_bad_tag_is_unknown_but_cannot_be_written() {
    let target = "/v2/a/manifests/.INVALID_MANIFEST_NAME";
    assert_eq!(call(Method::GET, target), Err(CallError::ManifestUnknown));
    assert_eq!(call(Method::HEAD, target), Err(CallError::ManifestUnknown));
    assert_eq!(call(Method::PUT, target), Err(CallError::TagInvalid));
}

#[test]
fn a_digest_may_have_its_colon_encoded() {
    for target in [
        format!("/v2/a/blobs/{SHA256}"),
        format!("/v2/a/manifests/{SHA256}"),
        format!("/v2/a/referrers/{SHA256}"),
    ] {
        let plain = call(Method::GET, &target).unwrap();
        assert_eq!(
            call(Method::GET, &target.replace(':', "%3A")).unwrap(),
            plain
        );
        assert_eq!(
            call(Method::GET, &target.replace(':', "%3a")).unwrap(),
            plain
        );
    }
    assert_eq!(
        call(Method::GET, "/v2/a/tags/lis%3At"),
        Err(CallError::Unknown)
    );
    assert_eq!(
        call(Method::GET, "/v2/a/manifests/x%3Ay"),
        Err(CallError::DigestInvalid)
    );
}

#[test]
fn other_methods_are_told_what_is_allowed() {
    let allow = |method: &str, target: &str| match call(method.parse().unwrap(), target) {
        Err(CallError::MethodNotAllowed { allow }) => allow,
        other => panic!("{method} {target}: {other:?}"),
    };
    assert_eq!(allow("POST", "/v2/"), "GET, HEAD");
    assert_eq!(allow("HEAD", "/v2/_catalog"), "GET");
    assert_eq!(allow("DELETE", "/v2/a/tags/list"), "GET");
    assert_eq!(allow("POST", "/v2/a/manifests/x"), "DELETE, GET, HEAD, PUT");
    assert_eq!(allow("PUT", "/v2/a/blobs/DIGEST"), "DELETE, GET, HEAD");
    assert_eq!(allow("GET", "/v2/a/blobs/uploads/"), "POST");
    assert_eq!(allow("PUT", "/v2/a/blobs/uploads/?digest=DIGEST"), "POST");
    assert_eq!(
        allow("POST", "/v2/a/blobs/uploads/u"),
        "DELETE, GET, HEAD, PATCH, PUT"
    );
    assert_eq!(allow("OPTIONS", "/v2/a/referrers/DIGEST"), "GET");
    for method in ["OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"] {
        allow(method, "/v2/a/manifests/x");
    }
}

#[test]
fn queries_are_decoded() {
    let commit = call(Method::PUT, "/v2/a/blobs/uploads/u?digest=DIGEST").unwrap();
    let encoded = format!(
        "/v2/a/blobs/uploads/u?_state=%ff%00&%64igest={}&ns=x",
        SHA256.replace(':', "%3A")
    );
    assert_eq!(call(Method::PUT, &encoded).unwrap(), commit);
    // The same twice is still one meaning.
    assert_eq!(
        call(
            Method::PUT,
            "/v2/a/blobs/uploads/u?digest=DIGEST&digest=DIGEST"
        )
        .unwrap(),
        commit
    );
    let mount = call(Method::POST, "/v2/a/blobs/uploads/?from=b%2Fc&mount=DIGEST").unwrap();
    assert!(matches!(
        mount.operation(),
        Some(RepositoryCall::Mount { from: Some(from), .. }) if from.as_str() == "b/c"
    ));
    let anonymous = call(Method::POST, "/v2/a/blobs/uploads/?mount=DIGEST").unwrap();
    assert!(matches!(
        anonymous.operation(),
        Some(RepositoryCall::Mount { from: None, .. })
    ));
    // An empty value counts as none, and `from` alone means nothing.
    assert_eq!(
        summary(Method::POST, "/v2/a/blobs/uploads/?mount=&digest&from=b"),
        "upload.start a -"
    );
    let page = call(Method::GET, "/v2/_catalog?n=0100&last=a+b%2f").unwrap();
    assert!(
        matches!(page, Call::Catalog { page: Pagination { n: Some(100), last: Some(last) } } if last.as_str() == "a b/")
    );
    let tags = call(Method::PUT, "/v2/a/manifests/DIGEST?tag=x&tag=y").unwrap();
    assert!(matches!(
        tags.operation(),
        Some(RepositoryCall::ManifestWrite { tags, .. })
            if tags.iter().map(Tag::as_str).eq(["x", "y"])
    ));
}

#[test]
fn queries_with_two_meanings_are_refused() {
    use Parameter::*;
    let error = |method: Method, target: &str| match call(method, target) {
        Err(CallError::BadQuery(error)) => error,
        other => panic!("{target}: {other:?}"),
    };
    let start = |query: &str| error(Method::POST, &format!("/v2/a/blobs/uploads/?{query}"));
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(
        start("mount=DIGEST&from=a&from=b"),
        QueryError::Repeated(From)
    );
    assert_eq!(
        start("mount=DIGEST&from=&from=b"),
        QueryError::Repeated(From)
    );
    assert_eq!(
        start("mount=DIGEST&from=a&fro%6d=b"),
        QueryError::Repeated(From)
    );
    assert_eq!(
        start(&format!("digest=DIGEST&digest={other}")),
        QueryError::Repeated(Digest)
    );
    assert_eq!(start("mount=DIGEST&FROM=b"), QueryError::Spelling(From));
    assert_eq!(start("mount=DIGEST;from=b"), QueryError::Encoding);
    assert_eq!(start("mount=DIGEST&from=%zz"), QueryError::Encoding);
    assert_eq!(start("x=%"), QueryError::Encoding);
    assert_eq!(start("x=%4"), QueryError::Encoding);
    assert_eq!(start("x=\u{e9}"), QueryError::Encoding);
    assert_eq!(start("mount=DIGEST&from=%ff"), QueryError::Invalid(From));
    assert_eq!(start("mount=DIGEST&from=../b"), QueryError::Invalid(From));
    assert_eq!(start("mount=sha256:1&from=b"), QueryError::Invalid(Mount));
    assert_eq!(
        start("mount=DIGEST&digest=DIGEST"),
        QueryError::Contradiction
    );
    assert_eq!(
        error(Method::PUT, "/v2/a/blobs/uploads/u"),
        QueryError::Missing(Digest)
    );
    assert_eq!(
        error(Method::PUT, "/v2/a/blobs/uploads/u?digest="),
        QueryError::Missing(Digest)
    );
    assert_eq!(
        error(Method::PUT, "/v2/a/manifests/x?tag=y&tag="),
        QueryError::Invalid(Tag)
    );
    for n in ["-1", "%2B1", "1.0", "x", "4294967296", "1e3"] {
        let error = error(Method::GET, &format!("/v2/_catalog?n={n}"));
        assert_eq!(
            CallError::from(error).code(),
            ErrorCode::PaginationNumberInvalid,
            "{n}"
        );
    }
    assert_eq!(
        error(Method::GET, "/v2/_catalog?last=%0a"),
        QueryError::Invalid(Last)
    );
}

#[test]
fn commits_and_bodies_are_told_apart() {
    let flags = |method: Method, target: &str| {
        let call = call(method, target).unwrap();
        (
            call.is_commit(),
            call.is_upload_body(),
            call.is_manifest_write(),
        )
    };
    assert_eq!(
        flags(Method::POST, "/v2/a/blobs/uploads/"),
        (false, false, false)
    );
    assert_eq!(
        flags(Method::POST, "/v2/a/blobs/uploads/?digest=DIGEST"),
        (true, true, false)
    );
    assert_eq!(
        flags(Method::POST, "/v2/a/blobs/uploads/?mount=DIGEST"),
        (false, false, false)
    );
    assert_eq!(
        flags(Method::PATCH, "/v2/a/blobs/uploads/u"),
        (false, true, false)
    );
    assert_eq!(
        flags(Method::PUT, "/v2/a/blobs/uploads/u?digest=DIGEST"),
        (true, true, false)
    );
    assert_eq!(flags(Method::PUT, "/v2/a/manifests/x"), (true, false, true));
    assert_eq!(
        flags(Method::GET, "/v2/a/manifests/x"),
        (false, false, false)
    );
}

const NAME: &str = r"(blobs|manifests|tags|uploads|list|v2|[a-z0-9]{1,3}([._]|__|-{1,2})[a-z0-9]{1,3})(/(blobs|manifests|tags|uploads|referrers|[a-z0-9]{1,3})){0,3}";

fn repository() -> impl Strategy<Value = RepositoryName> {
    NAME.prop_map(|text| RepositoryName::parse(&text).unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        "sha256:[0-9a-f]{64}",
        "sha512:[0-9a-f]{128}",
        r"[a-z0-9]{1,3}[+._-][a-z0-9]{1,3}:[a-zA-Z0-9=_-]{32,40}"
    ]
    .prop_map(|text| Digest::parse(&text).unwrap())
}

fn tag() -> impl Strategy<Value = Tag> {
    "list|uploads|[A-Za-z0-9_][A-Za-z0-9._-]{0,8}".prop_map(|text| Tag::parse(&text).unwrap())
}

fn reference() -> impl Strategy<Value = Reference> {
    prop_oneof![
        tag().prop_map(Reference::Tag),
        digest().prop_map(Reference::Digest)
    ]
}

fn upload() -> impl Strategy<Value = UploadId> {
    "uploads|[A-Za-z0-9_=~-][A-Za-z0-9_=.~-]{0,8}".prop_map(|text| UploadId::parse(&text).unwrap())
}

fn query_text() -> impl Strategy<Value = Option<QueryText>> {
    proptest::option::of("[ -~]{1,8}".prop_map(|text| QueryText::parse(&text).unwrap()))
}

fn page() -> impl Strategy<Value = Pagination> {
    (any::<Option<u32>>(), query_text()).prop_map(|(n, last)| Pagination { n, last })
}

fn read() -> impl Strategy<Value = Read> {
    prop_oneof![Just(Read::Get), Just(Read::Head)]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        1 => read().prop_map(|read| Call::Ping { read }),
        1 => page().prop_map(|page| Call::Catalog { page }),
        13 => (repository(), repository_call())
            .prop_map(|(name, operation)| Call::Repository { name, operation }),
    ]
}

fn repository_call() -> impl Strategy<Value = RepositoryCall> {
    let some_digest = || proptest::option::of(digest());
    prop_oneof![
        1 => page().prop_map(|page| RepositoryCall::TagsList { page }),
        1 => (reference(), read())
            .prop_map(|(reference, read)| RepositoryCall::ManifestRead { reference, read }),
        1 => (reference(), proptest::collection::vec(tag(), 0..3))
            .prop_map(|(reference, tags)| RepositoryCall::ManifestWrite { reference, tags }),
        1 => reference().prop_map(|reference| RepositoryCall::ManifestDelete { reference }),
        1 => (digest(), read()).prop_map(|(digest, read)| RepositoryCall::BlobRead { digest, read }),
        1 => digest().prop_map(|digest| RepositoryCall::BlobDelete { digest }),
        1 => some_digest().prop_map(|digest| RepositoryCall::UploadStart { digest }),
        1 => (digest(), proptest::option::of(repository()))
            .prop_map(|(digest, from)| RepositoryCall::Mount { digest, from }),
        4 => (upload(), upload_step())
            .prop_map(|(session, step)| RepositoryCall::Upload { session, step }),
        1 => (digest(), query_text()).prop_map(|(digest, artifact_type)| {
            RepositoryCall::Referrers {
                digest,
                artifact_type,
            }
        }),
    ]
}

fn upload_step() -> impl Strategy<Value = UploadStep> {
    prop_oneof![
        read().prop_map(|read| UploadStep::Status { read }),
        Just(UploadStep::Chunk),
        digest().prop_map(|digest| UploadStep::Commit { digest }),
        Just(UploadStep::Cancel),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    proptest::sample::select(vec![
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ])
}

/// All readings of a path as `<name>` and an endpoint: what a router with one pattern an endpoint
/// could see.
fn readings(path: &str) -> Vec<String> {
    let text = path.strip_prefix("/v2/").unwrap();
    let mut found = Vec::new();
    for (at, _) in text.match_indices('/') {
        let (name, rest) = (&text[..at], &text[at + 1..]);
        let segments: Vec<&str> = rest.split('/').collect();
        let endpoint = match segments.as_slice() {
            ["manifests", reference] => Reference::parse(reference).is_ok(),
            ["tags", "list"] | ["blobs", "uploads"] | ["blobs", "uploads", ""] => true,
            ["blobs" | "referrers", digest] => Digest::parse(digest).is_ok(),
            ["blobs", "uploads", session] => UploadId::parse(session).is_ok(),
            _ => false,
        };
        if endpoint && RepositoryName::parse(name).is_ok() {
            found.push(name.to_owned());
        }
    }
    found
}

proptest! {
    #[test]
    fn reading_what_was_printed_gives_the_same_call(call in any_call()) {
        let (method, target) = call.print();
        prop_assert!(target.parse::<http::uri::PathAndQuery>().is_ok());
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target.as_str(), None),
        };
        prop_assert_eq!(Call::parse(&method, path, query), Ok(call));
    }

    #[test]
    fn nothing_panics_and_whatever_is_read_is_plain(
        method in method(),
        path in prop_oneof!["\\PC{0,40}", "/v2/[a-z./%\\\\;#:]{0,20}/(manifests|blobs/uploads|tags)/[a-z./%2e]{0,8}"],
        query in proptest::option::of("\\PC{0,40}"),
    ) {
        if let Ok(call) = Call::parse(&method, &path, query.as_deref()) {
            let (_, target) = call.print();
            let path = target.split('?').next().unwrap();
            prop_assert!(path.starts_with("/v2/") && !path.contains("//") && !path.contains(['%', '\\', ';', '#']));
            prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
        }
    }

    #[test]
    fn there_is_at_most_one_reading_of_a_path(
        segments in proptest::collection::vec("blobs|manifests|tags|list|uploads|referrers|a|sha256:[0-9a-f]{64}", 1..7),
        slash in any::<bool>(),
    ) {
        let path = format!("/v2/{}{}", segments.join("/"), if slash { "/" } else { "" });
        let readings = readings(&path);
        prop_assert!(readings.len() <= 1, "{:?}", readings);
        let read = method_results(&path);
        prop_assert_eq!(read, readings.into_iter().next());
    }
}

/// The repository that the path is read with, by whichever method the endpoint has.
fn method_results(path: &str) -> Option<String> {
    let calls = [Method::GET, Method::POST].map(|method| Call::parse(&method, path, None));
    calls
        .into_iter()
        .flatten()
        .next()
        .and_then(|call| call.repository().map(ToString::to_string))
}
