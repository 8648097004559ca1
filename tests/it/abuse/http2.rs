//! HTTP/2 heads that would be several lines, other requests or other lengths once they are
//! HTTP/1.1.

use super::{AttackedGateway, HIDDEN, hidden};
use crate::harness::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, block};
use crate::harness::{basic, bound, settle};

const PATH: &str = "/v2/a/tags/list";
const UPLOAD: &str = "/v2/a/blobs/uploads/x";

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

/// Alice's request, as it should be.
fn good(method: &str, path: &str) -> Fields {
    fields(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", "ci.test"),
        (":path", path),
        ("authorization", &basic("alice", "secret")),
    ])
}

async fn connect(fixture: &AttackedGateway) -> Frames {
    fixture.gateway.frames().await
}

/// Whether a head was turned down: by a status, or by the end of the stream or of the connection.
async fn turned_down(fixture: &AttackedGateway, head: &Fields) {
    let shown: Vec<_> = head
        .iter()
        .map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
        .collect();
    for end in [true, false] {
        let mut client = connect(fixture).await;
        let stream = client.stream();
        client.head(stream, head, end).await;
        let outcome = client.outcome(stream).await;
        let refused = matches!(
            outcome,
            Outcome::Answer(400 | 404 | 405 | 421 | 501, _) | Outcome::Reset(_) | Outcome::Gone
        );
        assert!(refused, "{shown:?}: {outcome:?}");
        assert_eq!(fixture.seen().await, [], "{shown:?}");
    }
}

#[tokio::test]
async fn no_part_of_a_head_can_hold_a_line_end() {
    let fixture = AttackedGateway::new().await;
    let injected = format!(" HTTP/1.1\r\nHost: ci.test\r\n\r\nGET {HIDDEN}");
    let pieces: [&[u8]; 8] = [
        injected.as_bytes(),
        b"\r\nX: y",
        b"\nX: y",
        b"\rX: y",
        b"\0",
        b"\r\n",
        b"\x7f",
        b" HTTP/1.1",
    ];
    for piece in pieces {
        for at in 0..4 {
            let mut head = good("GET", PATH);
            head[at].1.extend(piece);
            turned_down(&fixture, &head).await;
        }
        if piece != b" HTTP/1.1" && piece != injected.as_bytes() {
            let mut head = good("GET", PATH);
            head.push((b"x-a".to_vec(), [b"b", piece].concat()));
            turned_down(&fixture, &head).await;
        }
        let mut head = good("GET", PATH);
        head.push(([b"x-a", piece].concat(), b"b".to_vec()));
        turned_down(&fixture, &head).await;
    }
}

#[tokio::test]
async fn names_are_lower_case_tokens() {
    let fixture = AttackedGateway::new().await;
    let names = [
        "X-A", "x-A", "", "x a", "x:a", " x", "x ", "x\tb", "x(", "x\u{e9}", "host:", "x,y", "x;",
        "x/",
    ];
    for name in names {
        let mut head = good("GET", PATH);
        head.push((name.as_bytes().to_vec(), b"b".to_vec()));
        turned_down(&fixture, &head).await;
    }
}

#[tokio::test]
async fn no_byte_of_a_name_or_value_breaks_a_line_upstream() {
    let fixture = AttackedGateway::new().await;
    for byte in 0..=255 {
        let (name, value) = (vec![b'x', byte, b'y'], vec![b'a', byte, b'b']);
        for field in [(name, b"1".to_vec()), (b"x-value".to_vec(), value)] {
            let mut head = good("GET", PATH);
            head.push(field);
            let served = connect(&fixture).await.ask(&head).await.status() == Some(200);
            assert_eq!(
                fixture.seen().await.len(),
                usize::from(served),
                "byte {byte}"
            );
        }
    }
}

#[tokio::test]
async fn pseudo_headers_come_first_once_and_complete() {
    let fixture = AttackedGateway::new().await;
    for missing in [0, 1, 3] {
        let mut head = good("GET", PATH);
        head.remove(missing);
        turned_down(&fixture, &head).await;
    }
    for doubled in 0..4 {
        let mut head = good("GET", PATH);
        head.insert(doubled, head[doubled].clone());
        turned_down(&fixture, &head).await;
        let mut head = good("GET", PATH);
        head.push(head[doubled].clone());
        turned_down(&fixture, &head).await;
        let mut late = good("GET", PATH);
        let moved = late.remove(doubled);
        late.push(moved);
        turned_down(&fixture, &late).await;
        // The scheme alone leads nowhere: that TLS was spoken is known.
        let mut empty = good("GET", PATH);
        empty[doubled].1.clear();
        if doubled != 1 {
            turned_down(&fixture, &empty).await;
        }
    }
    for (name, value) in [
        (":status", "200"),
        (":protocol", "websocket"),
        (":path2", "/"),
        (":", "x"),
        (":host", "ci.test"),
    ] {
        let mut head = good("GET", PATH);
        head.insert(0, (name.into(), value.into()));
        turned_down(&fixture, &head).await;
    }
}

#[tokio::test]
async fn headers_of_a_connection_are_none_of_http_2() {
    let fixture = AttackedGateway::new().await;
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "chunked"),
        ("te", "trailers, chunked"),
    ] {
        for method in ["GET", "PATCH"] {
            let mut head = good(method, &bound(if method == "GET" { PATH } else { UPLOAD }));
            head.push((name.into(), value.into()));
            turned_down(&fixture, &head).await;
        }
    }
}

#[tokio::test]
async fn the_host_is_the_authority() {
    let fixture = AttackedGateway::new().await;
    for (authority, host) in [
        (Some("ci.test"), Some("other.test")),
        (Some("other.test"), Some("ci.test")),
        (Some("other.test"), None),
        (None, Some("other.test")),
        (Some("ci.test,other.test"), None),
        (Some("other.test@ci.test"), None),
        (Some("alice:secret@ci.test"), None),
        (Some("ci.test:x"), None),
        (Some("ci.test/"), None),
        (Some("ci.test/v2"), None),
        (Some("ci.test?"), None),
        (Some("ci.test#"), None),
        (Some("ci.test "), None),
        (Some("unknown.test"), None),
        (None, None),
        (None, Some("")),
        (None, Some("ci.test, other.test")),
    ] {
        let mut head = good("GET", PATH);
        match authority {
            Some(authority) => head[2].1 = authority.into(),
            None => drop(head.remove(2)),
        }
        head.extend(host.map(|host| (b"host".to_vec(), host.into())));
        turned_down(&fixture, &head).await;
    }
    let mut two = good("GET", PATH);
    two.extend(fields(&[("host", "ci.test"), ("host", "ci.test")]));
    turned_down(&fixture, &two).await;
    let mut only_host = good("GET", PATH);
    only_host[2] = (b"host".to_vec(), b"ci.test".to_vec());
    only_host.swap(2, 3);
    let mut both = good("GET", PATH);
    both.push((b"host".to_vec(), b"CI.test".to_vec()));
    for head in [only_host, both] {
        assert_eq!(connect(&fixture).await.ask(&head).await.status(), Some(200));
        let seen = fixture.seen().await;
        assert_eq!(
            (seen.len(), seen[0].head.get("host")),
            (
                1,
                Some(fixture.origin.url().strip_prefix("http://").unwrap())
            )
        );
    }
}

#[tokio::test]
async fn methods_and_schemes_are_no_loopholes() {
    let fixture = AttackedGateway::new().await;
    for method in [
        "CONNECT",
        "get",
        "GET ",
        "PRI",
        "OPTIONS",
        "TRACE",
        "GET /v2/hidden/tags/list HTTP/1.1",
    ] {
        turned_down(&fixture, &good(method, PATH)).await;
    }
    let mut connect_properly = good("CONNECT", PATH);
    connect_properly.remove(3);
    connect_properly.remove(1);
    turned_down(&fixture, &connect_properly).await;
    for scheme in ["https://evil.example/", "a b"] {
        let mut head = good("GET", PATH);
        head[1].1 = scheme.into();
        turned_down(&fixture, &head).await;
    }
}

#[tokio::test]
async fn a_length_and_the_body_agree() {
    let fixture = AttackedGateway::new().await;
    for length in [
        "5",
        "1",
        "4",
        "6",
        "+5",
        "-1",
        "",
        "5, 5",
        "x",
        "9223372036854775808",
        "18446744073709551616",
    ] {
        // The head ends the stream: there is no body, whatever the length says.
        let mut head = good("PATCH", &bound(UPLOAD));
        head.push((b"content-length".to_vec(), length.into()));
        let outcome = connect(&fixture).await.ask(&head).await;
        assert!(
            !matches!(outcome, Outcome::Answer(200, _)),
            "{length}: {outcome:?}"
        );
        assert_eq!(fixture.seen().await, [], "{length}");
    }
    for (length, body) in [("4", "hello"), ("6", "hello"), ("500", "hello")] {
        let mut head = good("PATCH", &bound(UPLOAD));
        head.push((b"content-length".to_vec(), length.into()));
        let mut client = connect(&fixture).await;
        let stream = client.stream();
        client.head(stream, &head, false).await;
        client.data(stream, body.as_bytes(), true).await;
        let outcome = client.outcome(stream).await;
        assert!(
            !matches!(outcome, Outcome::Answer(200, _)),
            "{length}: {outcome:?}"
        );
        assert_eq!(fixture.seen().await, [], "{length}");
    }
    for lengths in [&["5", "6"][..], &["5", "5"], &["5"], &[]] {
        let mut head = good("PATCH", &bound(UPLOAD));
        head.extend(
            lengths
                .iter()
                .map(|length| (b"content-length".to_vec(), length.as_bytes().to_vec())),
        );
        let mut client = connect(&fixture).await;
        let stream = client.stream();
        client.head(stream, &head, false).await;
        client.data(stream, b"hel", false).await;
        client.data(stream, b"lo", true).await;
        let served = client.outcome(stream).await.status() == Some(200);
        let seen = fixture.seen().await;
        assert!(
            seen.len() == usize::from(served)
                && seen.iter().all(|request| request.body == b"hello"),
            "{lengths:?}"
        );
        assert_eq!(served, lengths != ["5", "6"], "{lengths:?}");
    }
}

#[tokio::test]
async fn what_follows_a_body_of_no_length_is_dropped() {
    let fixture = AttackedGateway::new().await;
    let mut head = good("PATCH", &bound(UPLOAD));
    head.push((b"content-length".to_vec(), b"0".to_vec()));
    for later in [false, true] {
        let mut client = connect(&fixture).await;
        let stream = client.stream();
        client.head(stream, &head, false).await;
        if later {
            settle().await;
        }
        client.data(stream, hidden().as_bytes(), true).await;
        // Whichever comes first: the whole request goes on, or the stream is reset for what is too
        // much.
        let served = client.outcome(stream).await.status() == Some(200);
        let seen = fixture.seen().await;
        assert_eq!(seen.len(), usize::from(served), "{seen:?}");
        assert!(
            seen.iter().all(|request| request.body.is_empty()),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn two_logins_in_one_head_are_refused() {
    let fixture = AttackedGateway::new().await;
    for (first, second) in [
        ("secret", "wrong"),
        ("wrong", "secret"),
        ("secret", "secret"),
    ] {
        let mut head = good("GET", PATH);
        head[4].1 = basic("alice", first).into_bytes();
        head.push((
            b"authorization".to_vec(),
            basic("alice", second).into_bytes(),
        ));
        assert_eq!(connect(&fixture).await.ask(&head).await.status(), Some(400));
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn trailers_are_dropped() {
    let fixture = AttackedGateway::new().await;
    for trailers in [
        &[("x-trailer", "1")][..],
        &[("content-length", "5"), ("host", "other.test")],
        &[
            ("authorization", "Basic eDp5"),
            ("transfer-encoding", "chunked"),
        ],
        &[(":path", HIDDEN)],
        &[("x-forwarded-for", "6.6.6.6")],
    ] {
        let mut client = connect(&fixture).await;
        let stream = client.stream();
        client
            .head(stream, &good("PATCH", &bound(UPLOAD)), false)
            .await;
        client.data(stream, b"hello", false).await;
        let _ = client
            .try_send(HEADERS, END_HEADERS | END_STREAM, stream, &block(trailers))
            .await;
        let served = client.outcome(stream).await.status() == Some(200);
        let seen = fixture.seen().await;
        assert!(
            seen.len() <= 1 && seen.iter().all(|request| request.body == b"hello"),
            "{trailers:?}"
        );
        assert!(served || seen.is_empty() || seen.len() == 1);
    }
}

#[tokio::test]
async fn each_stream_logs_in_for_itself() {
    let fixture = AttackedGateway::new().await;
    let mut client = connect(&fixture).await;
    assert_eq!(client.ask(&good("GET", PATH)).await.status(), Some(200));
    let mut nobody = good("GET", PATH);
    nobody.pop();
    assert_eq!(client.ask(&nobody).await.status(), Some(401));
    let mut carol = good("GET", PATH);
    carol[4].1 = basic("carol", "secret3").into_bytes();
    assert_eq!(client.ask(&carol).await.status(), Some(401));
    assert_eq!(client.ask(&good("GET", PATH)).await.status(), Some(200));
    let mut elsewhere = good("GET", PATH);
    elsewhere[2].1 = b"other.test".to_vec();
    elsewhere[4].1 = basic("carol", "secret3").into_bytes();
    assert_eq!(client.ask(&elsewhere).await.status(), Some(421));
    assert_eq!(fixture.seen().await.len(), 2);
}

#[tokio::test]
async fn split_cookies_are_joined_for_a_page() {
    let origin = crate::harness::Origin::new().await;
    let browser = format!("[browser]\nurl = \"{}\"", origin.url());
    let domain = crate::harness::Domain::new("ci.test", &origin.url()).tables(&browser);
    let gateway = crate::harness::Setup::new().domain(domain).start().await;
    let mut client = gateway.frames().await;
    let mut head = good("GET", "/page");
    head.extend(fields(&[
        ("cookie", "a=1"),
        ("cookie", "b=2; c=3"),
        ("cookie", "d=4"),
    ]));
    assert_eq!(client.ask(&head).await.status(), Some(200));
    assert_eq!(
        origin.requests()[0].head.all("cookie"),
        ["a=1; b=2; c=3; d=4"]
    );
}
