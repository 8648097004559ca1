use proptest::prelude::*;

use super::*;

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// Rewrites for the upstream `http://registry:5000{base}` behind `ci.example.com`.
fn with_rewriter<T>(base_path: &str, run: impl FnOnce(Rewriter<'_>) -> T) -> T {
    let upstream_host = host("registry");
    let public = host("ci.example.com");
    run(Rewriter {
        upstream: Origin {
            https: false,
            host: &upstream_host,
            port: 5000,
            base_path,
        },
        is_public: &|name| *name == public,
        public_host: "ci.example.com:8443",
        request_path: &format!("{base_path}/v2/a/blobs/uploads/"),
    })
}

fn rewrite(base: &str, value: &str, answer: ResponseKind) -> String {
    match with_rewriter(base, |rewriter| rewriter.location(value, answer)) {
        Rewritten::Path(path) => path,
        Rewritten::Beside(path) => format!("beside: {path}"),
        Rewritten::Foreign => "foreign".to_owned(),
        Rewritten::Refused => "refused".to_owned(),
    }
}

#[test]
fn an_answer_below_v2_is_ours_whatever_host_it_names() {
    for origin in [
        "http://registry:5000",
        "https://ci.example.com",
        "http://ci.example.com:80",
        "http://wrong.example:1234",
        "//localhost",
        "HTTPS://[::1]:5000",
    ] {
        let value = format!("{origin}/v2/a/blobs/uploads/u?_state=a%2Fb==&x=%20");
        assert_eq!(
            rewrite("", &value, ResponseKind::Other),
            "/v2/a/blobs/uploads/u?_state=a%2Fb==&x=%20",
            "{value}"
        );
    }
    assert_eq!(
        rewrite("", "/v2/a/blobs/uploads/u?_state=x", ResponseKind::Other),
        "/v2/a/blobs/uploads/u?_state=x"
    );
    assert_eq!(
        rewrite("", "https://storage.example/bucket", ResponseKind::Other),
        "foreign"
    );
    assert_eq!(
        rewrite("", "http://wrong.example/v2x/a", ResponseKind::Other),
        "foreign"
    );
    assert_eq!(
        rewrite("", "http://wrong.example/v2/../x", ResponseKind::Other),
        "foreign"
    );
    assert_eq!(
        rewrite("", "http://registry:81/uploads/1", ResponseKind::Other),
        "/uploads/1"
    );
}

#[test]
fn a_redirect_is_ours_only_at_the_upstream_or_a_public_name() {
    assert_eq!(
        rewrite("", "http://registry:5000/v2/", ResponseKind::Redirect),
        "/v2/"
    );
    assert_eq!(
        rewrite("", "http://REGISTRY.:5000/ui?x", ResponseKind::Redirect),
        "/ui?x"
    );
    assert_eq!(
        rewrite("", "http://registry:5000", ResponseKind::Redirect),
        "/"
    );
    assert_eq!(
        rewrite("", "http://registry:5000?x", ResponseKind::Redirect),
        "/?x"
    );
    assert_eq!(
        rewrite("", "http://ci.example.com/v2/", ResponseKind::Redirect),
        "/v2/"
    );
    assert_eq!(
        rewrite("", "http://ci.example.com/login", ResponseKind::Redirect),
        "/login"
    );
    assert_eq!(
        rewrite(
            "",
            "https://ci.example.com:5443/v2/",
            ResponseKind::Redirect
        ),
        "/v2/"
    );
    // The same names, but not the registry.
    assert_eq!(
        rewrite(
            "",
            "https://ci.example.com:9000/bucket/docker/registry/v2/blobs/x",
            ResponseKind::Redirect
        ),
        "foreign"
    );
    // With the client's scheme, and with its host and port.
    assert_eq!(
        rewrite("", "https://registry:5000/x", ResponseKind::Redirect),
        "/x"
    );
    assert_eq!(
        rewrite("", "http://CI.example.com:8443/x", ResponseKind::Redirect),
        "/x"
    );
    assert_eq!(
        rewrite("", "http://registry/v2/", ResponseKind::Redirect),
        "foreign"
    );
    assert_eq!(
        rewrite(
            "",
            "https://storage.example/v2/x?X-Amz-Signature=1",
            ResponseKind::Redirect
        ),
        "foreign"
    );
    assert_eq!(
        rewrite(
            "",
            "https://storage.example//v2/../x",
            ResponseKind::Redirect
        ),
        "foreign"
    );
    assert_eq!(
        rewrite("", "//storage.example/x", ResponseKind::Redirect),
        "foreign"
    );
}

#[test]
fn the_base_path_of_the_upstream_is_taken_off() {
    assert_eq!(
        rewrite("/b/c", "/b/c/v2/a?x=/b/c", ResponseKind::Other),
        "/v2/a?x=/b/c"
    );
    assert_eq!(
        rewrite(
            "/b/c",
            "http://registry:5000/b/c/v2/a",
            ResponseKind::Redirect
        ),
        "/v2/a"
    );
    assert_eq!(
        rewrite("/b/c", "http://wrong.example/b/c/v2/a", ResponseKind::Other),
        "/v2/a"
    );
    assert_eq!(
        rewrite("/b/c", "http://wrong.example/v2/a", ResponseKind::Other),
        "/v2/a"
    );
    assert_eq!(rewrite("/b/c", "/b/c?x", ResponseKind::Redirect), "/?x");
    assert_eq!(
        rewrite("/b/c", "/b/cd/v2/a", ResponseKind::Other),
        "beside: /b/cd/v2/a"
    );
    assert_eq!(
        rewrite("/b/c", "/uploads/1?x", ResponseKind::Other),
        "beside: /uploads/1?x"
    );
}

#[test]
fn relative_references_refer_to_the_request() {
    for base in ["", "/b"] {
        assert_eq!(
            rewrite(base, "u?_state=x", ResponseKind::Other),
            "/v2/a/blobs/uploads/u?_state=x"
        );
        assert_eq!(
            rewrite(base, "?_state=x:y", ResponseKind::Other),
            "/v2/a/blobs/uploads/?_state=x:y"
        );
        assert_eq!(
            rewrite(base, "../sha256:0", ResponseKind::Other),
            "/v2/a/blobs/sha256:0"
        );
        assert_eq!(
            rewrite(base, "./u/.", ResponseKind::Other),
            "/v2/a/blobs/uploads/u/"
        );
    }
    assert_eq!(
        rewrite("", "../../../../../../x", ResponseKind::Other),
        "/x"
    );
    assert_eq!(rewrite("", "/v2/a/../b", ResponseKind::Other), "/v2/b");
}

#[test]
fn nothing_leads_elsewhere_by_a_second_slash() {
    for value in [
        "http://registry:5000//evil.example",
        "/b//evil.example",
        "/.//evil.example",
        "/x/..//evil.example",
        "../../../..//evil.example",
        "http://ci.example.com//evil",
    ] {
        assert_eq!(
            rewrite("/b", value, ResponseKind::Redirect),
            "refused",
            "{value}"
        );
    }
    assert_eq!(
        rewrite("", "///evil.example", ResponseKind::Redirect),
        "refused"
    );
    assert_eq!(
        rewrite("", "/\\evil.example", ResponseKind::Redirect),
        "refused"
    );
}

#[test]
fn what_is_no_reference_is_refused() {
    for value in [
        "",
        "#x",
        "http:",
        "http:/x",
        "http:x",
        "https:///x",
        "http://",
        "http://user@registry:5000/v2/",
        "https://a:b@storage.example/x",
        "http://h:/v2/",
        "http://h:99999/v2/",
        "http://a b/v2/",
        "/v2/a b",
        "/v2/\r\nSet-Cookie: x",
        "/v2/\u{e9}",
        "/v2/\0",
        "/v2/\x7f",
        "http:\\\\h\\v2",
        "javascript:alert(1)",
        "ftp://h/v2/",
        "data:x",
        "sha256:0",
        "http://h%41/v2/",
        "/v2/<x>",
        "//",
        "//u@h/v2/",
    ] {
        assert_eq!(
            rewrite("", value, ResponseKind::Other),
            "refused",
            "{value:?}"
        );
        assert_eq!(
            rewrite("", value, ResponseKind::Redirect),
            "refused",
            "{value:?}"
        );
    }
}

#[test]
fn every_link_is_rewritten_and_nothing_else() {
    let link = |value: &str| with_rewriter("", |rewriter| rewriter.link(value));
    let same = |value: &str| assert_eq!(link(value).as_deref(), Some(value));
    assert_eq!(
        link("<http://registry:5000/v2/_catalog?last=a%2Cb&n=2>; rel=\"next\"").as_deref(),
        Some("</v2/_catalog?last=a%2Cb&n=2>; rel=\"next\"")
    );
    assert_eq!(
        link("<http://x/v2/a?b,c>; title=\"a, \\\"<http://x/v2/>\"; rel=next ,\t<https://other/y>;rel=z,<//x/v2/>").as_deref(),
        Some("</v2/a?b,c>; title=\"a, \\\"<http://x/v2/>\"; rel=next ,\t<https://other/y>;rel=z,</v2/>")
    );
    same("</v2/_catalog?last=x&n=1>; rel=\"next\"");
    same("");
    same("<https://other.example/x>");
    for value in [
        "http://x/v2/",
        "<http://x/v2/",
        "</v2/a b>; rel=next",
        "</v2/a>, <javascript:x>",
        "</v2/>; a=\"\n\"",
        "<>; rel=next",
    ] {
        assert_eq!(link(value), None, "{value}");
    }
}

fn reference() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,30}",
        "(http:|https:|)(//(registry:5000|ci\\.example\\.com|x|[a-z:@.\\[\\]]{0,6})|)(/(b|v2|a|\\.|\\.\\.|%2e|)){0,6}(\\?[ -~]{0,6})?(#x)?",
    ]
}

#[test]
fn a_relative_reference_brings_nothing_odd_of_the_request_along() {
    let host = HostName::parse("registry").expect("a host name");
    let upstream = Origin {
        https: false,
        host: &host,
        port: 5000,
        base_path: "",
    };
    for request_path in ["/a\u{1}/b", "/#\u{1}/b", "/?\u{e9}/b", "/#\\/b"] {
        let rewriter = Rewriter {
            upstream,
            is_public: &|_| false,
            public_host: "",
            request_path,
        };
        assert_eq!(
            rewriter.location("x", ResponseKind::Other),
            Rewritten::Refused,
            "{request_path:?}"
        );
    }
}

proptest! {
    #[test]
    fn rewritten_references_are_path_absolute(
        value in reference(),
        redirect in any::<bool>(),
        base in prop_oneof![Just(""), Just("/base")],
    ) {
        let answer = if redirect { ResponseKind::Redirect } else { ResponseKind::Other };
        with_rewriter(base, |rewriter| {
            let kept = match rewriter.location(&value, answer) {
                Rewritten::Path(path) | Rewritten::Beside(path) => path,
                Rewritten::Foreign | Rewritten::Refused => return Ok(()),
            };
            prop_assert!(kept.starts_with('/') && !kept.starts_with("//"));
            prop_assert!(kept.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'));
            Ok(())
        })?;
    }

    #[test]
    fn a_query_is_kept_byte_for_byte(query in "[!$-;=?-\\[\\]-~]{0,20}") {
        let path = rewrite("", &format!("http://registry:5000/v2/a?{query}"), ResponseKind::Other);
        prop_assert_eq!(path, format!("/v2/a?{query}"));
    }

    #[test]
    fn links_never_panic_and_are_rewritten_once(value in prop_oneof!["\\PC{0,30}", "(<(http://x|)/v2/[a-z?=]{0,4}>(; ?[a-z]=(\"[ -~]{0,5}\"|[a-z]))? ?,? ?){0,3}"]) {
        with_rewriter("", |rewriter| {
            if let Some(link) = rewriter.link(&value) {
                prop_assert_eq!(rewriter.link(&link), Some(link));
            }
            Ok(())
        })?;
    }
}
