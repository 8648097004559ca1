//! A registry written in Go reads `digest`, `mount`, `from` and `_state` from the body of a form
//! before it looks at the query that was judged here: such a body must not look like a form to it.

use crate::harness::{Http2, ProxiedPair, no_body, request, request2};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What Go takes for a form. `\u{130}` is an `I` whose lower case is `i` there.
const FORMS: [&str; 7] = [
    "application/x-www-form-urlencoded",
    "Application/X-WWW-Form-URLEncoded; charset=utf-8",
    " application/x-www-form-urlencoded ;;",
    "multipart/form-data; boundary=x",
    "MULTIPART/Form-Data;boundary=x",
    "multipart/mixed; boundary=x",
    "appl\u{130}cation/x-www-form-urlencoded",
];

fn uploads() -> [(&'static str, String); 5] {
    [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?digest={DIGEST}")),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount={DIGEST}&from=b"),
        ),
        ("PATCH", "/v2/a/blobs/uploads/1?_state=x".to_owned()),
        ("PUT", format!("/v2/a/blobs/uploads/1?digest={DIGEST}")),
    ]
}

#[tokio::test]
async fn an_upload_never_looks_like_a_form_to_the_upstream() {
    let mut between = ProxiedPair::new().await;
    for (method, target) in uploads() {
        for form in FORMS {
            let lines = format!("Content-Type: {form}\r\nContent-Length: 0\r\n");
            let asked = between.passed(request(method, &target, &lines)).await;
            assert_eq!(
                asked.all("content-type"),
                ["application/octet-stream"],
                "{method} {target} {form}"
            );
        }
    }
}

#[tokio::test]
async fn an_upload_with_two_types_of_which_one_is_a_form_has_none_of_them() {
    let mut between = ProxiedPair::new().await;
    for (first, second) in [("text/plain", FORMS[0]), (FORMS[0], "text/plain")] {
        let lines =
            format!("Content-Type: {first}\r\nContent-Type: {second}\r\nContent-Length: 0\r\n");
        let asked = between
            .passed(request("POST", "/v2/a/blobs/uploads/", &lines))
            .await;
        assert_eq!(asked.all("content-type"), ["application/octet-stream"]);
    }
}

#[tokio::test]
async fn the_body_of_such_an_upload_passes_as_it_is() {
    let mut between = ProxiedPair::new().await;
    let lines = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n";
    between
        .forwarded(request("PATCH", "/v2/a/blobs/uploads/1", lines))
        .await;
    between.client.send("digest=x&a=b").await;
    assert_eq!(between.registry().bytes(12).await, b"digest=x&a=b");
}

#[tokio::test]
async fn an_upload_over_http2_never_looks_like_a_form() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let request = request2("POST", "/v2/a/blobs/uploads/").header("content-type", FORMS[0]);
    let answer = tokio::spawn(client.send(request.body(no_body()).unwrap()));
    assert_eq!(
        between.asked().await.get("content-type"),
        Some("application/octet-stream")
    );
    between
        .registry()
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(answer.await.unwrap().unwrap().0.status, 202);
}

#[tokio::test]
async fn other_types_of_an_upload_stay_and_none_is_added() {
    let mut between = ProxiedPair::new().await;
    for (method, target) in uploads() {
        let asked = between
            .passed(request(
                method,
                &target,
                "Content-Type: text/x-form\r\nContent-Length: 0\r\n",
            ))
            .await;
        assert_eq!(asked.get("content-type"), Some("text/x-form"));
        let asked = between
            .passed(request(method, &target, "Content-Length: 0\r\n"))
            .await;
        assert_eq!(asked.get("content-type"), None);
    }
}

#[tokio::test]
async fn a_manifest_that_looks_like_a_form_is_refused() {
    let between = ProxiedPair::new().await;
    for form in FORMS {
        let lines = format!("Content-Type: {form}\r\nContent-Length: 2\r\n");
        let (head, _) = between
            .own_answer_apart(request("PUT", "/v2/a/manifests/v1", &lines) + "{}")
            .await;
        assert_eq!(head.status(), 400, "{form}");
    }
}
