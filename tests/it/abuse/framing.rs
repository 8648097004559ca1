//! Where does the body end? Every way in which two servers were ever made to disagree about it.

use super::{AttackedGateway, Client, HIDDEN, hidden, refused};
use crate::harness::{basic, bound, request};

const UPLOAD: &str = "/v2/a/blobs/uploads/x";

/// How alice's request begins; lines and the empty line are still to come.
fn begun(method: &str) -> Vec<u8> {
    let head = request(method, UPLOAD, "");
    head.strip_suffix("\r\n").unwrap().as_bytes().to_vec()
}

/// A PATCH with these lines, byte for byte, and after them a body that ends at once when it is
/// chunked, before another request.
fn patch(lines: &[u8]) -> Vec<u8> {
    [
        &begun("PATCH"),
        lines,
        b"\r\n\r\n0\r\n\r\n",
        hidden().as_bytes(),
    ]
    .concat()
}

/// Each is refused with 400, the connection ends, and the upstream has seen nothing.
async fn all_refused(attacks: impl IntoIterator<Item = Vec<u8>>) {
    let fixture = AttackedGateway::new().await;
    for attack in attacks {
        let mut client = fixture.gateway.client().await;
        client.send(&attack).await;
        refused(&mut client, 400, &attack).await;
        assert_eq!(
            fixture.seen().await,
            [],
            "{:?}",
            String::from_utf8_lossy(&attack)
        );
    }
}

#[tokio::test]
async fn an_obscured_transfer_encoding_is_refused() {
    let lines: &[&[u8]] = &[
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunkedx",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked,",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: , chunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked x",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: ",
        b"Transfer-Encoding: \xff",
        b"Transfer-Encoding: chunked\xff",
        b"Transfer-Encoding: ch\xc3\xbcnked",
        b"Transfer-Encoding: chun\xe2\x84\xaaed",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: ",
        b"Content-Length: 5\r\nTransfer-Encoding: identity",
        b"Content-Length: 5\r\nTransfer-Encoding: xchunked",
        b"Transfer-Encoding: identity\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip\r\nContent-Length: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: ",
    ];
    all_refused(lines.iter().map(|lines| patch(lines))).await;
}

#[tokio::test]
async fn a_malformed_header_line_is_refused() {
    let lines: &[&[u8]] = &[
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Content-Length : 5",
        b" Transfer-Encoding: chunked",
        b"\tTransfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding:\r\n\tchunked",
        b"X: a\r\n Transfer-Encoding: chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: \x0cchunked",
        b"Transfer-Encoding: chunked\0",
        b"Transfer-Encoding: \0chunked",
        b"Transfer-Encoding\0: chunked",
        b"Transfer Encoding: chunked",
        b"Transfer-Encoding",
        b"Content-Length",
        b": chunked",
        b": x\r\nTransfer-Encoding: chunked",
        b":",
        b"X: a\rTransfer-Encoding: chunked",
        b"X: a\r\r\nTransfer-Encoding: chunked",
        b"\rTransfer-Encoding: chunked",
        b"X\r: a",
        b"X: a\0b",
        b"X: a\x08b",
        b"X: a\x7fb",
        b"X\xff: a",
        b"X\xc3\xa9: a",
        b"X(: a",
        b"X[0]: a",
        b"X@: a",
        b"X,Y: a",
        b"\"X\": a",
        b"X;: a",
        b"/: a",
    ];
    all_refused(lines.iter().map(|lines| patch(lines))).await;
}

#[tokio::test]
async fn an_obscured_content_length_is_refused() {
    let lines: &[&[u8]] = &[
        b"Content-Length: ",
        b"Content-Length:",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: -0",
        b"Content-Length: 0x5",
        b"Content-Length: 5x",
        b"Content-Length: 5 5",
        b"Content-Length: 5, 5",
        b"Content-Length: 5,5",
        b"Content-Length: 5, 6",
        b"Content-Length: 5,",
        b"Content-Length: ,5",
        b"Content-Length: 5;",
        b"Content-Length: 5.0",
        b"Content-Length: 5e0",
        b"Content-Length: 5_0",
        b"Content-Length: \"5\"",
        b"Content-Length: \xd9\xa5",
        b"Content-Length: 5\x0b",
        b"Content-Length: 9223372036854775808",
        b"Content-Length: 18446744073709551613",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 18446744073709551616",
        b"Content-Length: 18446744073709551621",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 0\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 0",
        b"Content-Length: 5\r\nContent-Length: +5",
        b"Content-Length: 5\r\nContent-Length: ",
        b"Content-Length: 5\r\nCONTENT-LENGTH: 05x",
    ];
    all_refused(lines.iter().map(|lines| patch(lines))).await;
}

#[tokio::test]
async fn a_malformed_request_line_is_refused() {
    let authorization = basic("alice", "secret");
    let lines: &[&str] = &[
        "GET /v2/",
        "GET",
        "GET  /v2/ HTTP/1.1",
        "GET /v2/  HTTP/1.1",
        "GET /v2/ HTTP/1.1 ",
        "GET /v2/ HTTP/1.1 HTTP/1.1",
        "GET /v2/ a HTTP/1.1",
        "GET\t/v2/\tHTTP/1.1",
        " GET /v2/ HTTP/1.1",
        "GET /v2/ HTTP/0.9",
        "GET /v2/ HTTP/1.2",
        "GET /v2/ HTTP/2.0",
        "GET /v2/ HTTP/2",
        "GET /v2/ HTTP/11",
        "GET /v2/ HTTP/1.10",
        "GET /v2/ HTTP/ 1.1",
        "GET /v2/ http/1.1",
        "GET /v2/ HTTPS/1.1",
        "GET /v2/ HTTP/1,1",
        "GET /v2/\0 HTTP/1.1",
        "GET /v2/\x0b HTTP/1.1",
        "GET /v2/\x7f HTTP/1.1",
        "G\0ET /v2/ HTTP/1.1",
        "G(T /v2/ HTTP/1.1",
        "GET: /v2/ HTTP/1.1",
        "GET v2/ HTTP/1.1",
        "GET ?/v2/ HTTP/1.1",
        "PRI * HTTP/2.0",
        "HTTP/1.1 200 OK",
        "{\"a\": 1}",
    ];
    let attack = |line: &&str| {
        let lines = format!("Host: ci.test\r\nAuthorization: {authorization}\r\n\r\n");
        format!("{line}\r\n{lines}{}", hidden()).into_bytes()
    };
    all_refused(lines.iter().map(attack)).await;
}

#[tokio::test]
async fn a_line_end_in_a_target_makes_no_second_line() {
    let authorization = basic("alice", "secret");
    let target = format!("/v2/\r\nX: GET {HIDDEN} HTTP/1.1");
    let attack =
        format!("GET {target} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n");
    all_refused([attack.into_bytes()]).await;
}

/// Bodies after `Transfer-Encoding: chunked`.
async fn chunks_never_arrive(bodies: &[&[u8]]) {
    let fixture = AttackedGateway::new().await;
    for body in bodies {
        let shown = String::from_utf8_lossy(body).into_owned();
        let head = [&begun("PATCH"), &b"Transfer-Encoding: chunked\r\n\r\n"[..]].concat();
        let mut client = fixture.gateway.client().await;
        client
            .send([&head, *body, hidden().as_bytes()].concat())
            .await;
        refused(&mut client, 400, body).await;
        assert_eq!(fixture.seen().await, [], "{shown:?}");
    }
}

#[tokio::test]
async fn a_chunk_of_ambiguous_size_is_an_incomplete_upload() {
    chunks_never_arrive(&[
        b"x\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"5\x0b\r\nhello\r\n0\r\n\r\n",
        b"\xff5\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
    ])
    .await;
}

#[tokio::test]
async fn a_chunk_with_a_malformed_end_is_an_incomplete_upload() {
    chunks_never_arrive(&[
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\nhello\r\n0\n\n",
        b"5\r\nhello\r\n0\r\rx",
        b"5\r\nhello\r\n0\r\n\rx",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"3;\n12\r\nabc\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0;a\n\r\n",
    ])
    .await;
}

/// Sends alice's request and asserts that one request with this body came out of it; returns its
/// client.
async fn passes(fixture: &AttackedGateway, attack: &[u8], body: &[u8]) -> Client {
    let shown = String::from_utf8_lossy(attack).into_owned();
    let mut client = fixture.gateway.client().await;
    client.send(attack).await;
    let (head, says) = client.answer().await;
    assert_eq!(head.status(), 200, "{shown:?}");
    assert!(says.ends_with(UPLOAD.as_bytes()), "{shown:?}");
    let seen = fixture.seen().await;
    assert_eq!(seen.len(), 1, "{shown:?}");
    assert_eq!(seen[0].body, body, "{shown:?}");
    client
}

#[tokio::test]
async fn what_hides_in_a_body_stays_in_the_body() {
    let fixture = AttackedGateway::new().await;
    let hidden = hidden();
    for method in ["PATCH", "GET", "HEAD", "DELETE"] {
        let length = format!("Content-Length: {}\r\n", hidden.len());
        let mut client = fixture.gateway.client().await;
        client.send(request(method, UPLOAD, &length)).await;
        client.send(&hidden).await;
        assert_eq!(client.head().await.status(), 200, "{method}");
        let seen = fixture.seen().await;
        assert_eq!(
            (seen.len(), &seen[0].body[..]),
            (1, hidden.as_bytes()),
            "{method}"
        );
    }
    let size = hidden.len();
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{hidden}\r\n0\r\n\r\n");
    passes(
        &fixture,
        &[&begun("PATCH"), chunk.as_bytes()].concat(),
        hidden.as_bytes(),
    )
    .await;
}

#[tokio::test]
async fn chunks_are_made_anew_without_extensions() {
    let fixture = AttackedGateway::new().await;
    for body in [
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"x;\"\r\nhello\r\n0;b\r\n\r\n",
        "0000005\r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n00\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ] {
        let attack = [
            &begun("PATCH"),
            &b"Transfer-Encoding: chunked\r\n\r\n"[..],
            body.as_bytes(),
        ]
        .concat();
        let mut client = passes(&fixture, &attack, b"hello").await;
        client.send(hidden()).await;
        assert_eq!(
            client.answer().await.0.status(),
            200,
            "the connection goes on after {body:?}"
        );
        assert_eq!(fixture.seen().await.len(), 1);
    }
}

#[tokio::test]
async fn a_length_beside_chunks_counts_for_nothing_and_ends_the_connection() {
    let fixture = AttackedGateway::new().await;
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 500\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: Chunked",
        "transfer-encoding: CHUNKED\r\ncontent-length: 5",
    ] {
        let body = format!("\r\n\r\n5\r\nhello\r\n0\r\n\r\n{}", hidden());
        let attack = [&begun("PATCH"), lines.as_bytes(), body.as_bytes()].concat();
        let mut client = passes(&fixture, &attack, b"hello").await;
        client.ended().await;
        assert_eq!(fixture.seen().await, [], "{lines}");
    }
}

#[tokio::test]
async fn the_same_length_twice_is_one_length() {
    let fixture = AttackedGateway::new().await;
    let lines = b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    passes(&fixture, &[&begun("PATCH"), &lines[..]].concat(), b"hello").await;
    let lines = b"Content-Length: 005\r\n\r\nhello";
    passes(&fixture, &[&begun("PATCH"), &lines[..]].concat(), b"hello").await;
}

#[tokio::test]
async fn bare_line_feeds_mean_the_same_on_both_sides() {
    let fixture = AttackedGateway::new().await;
    let (authorization, upload) = (basic("alice", "secret"), bound(UPLOAD));
    let lines = format!(
        "PATCH {upload} HTTP/1.1\nHost: ci.test\nAuthorization: {authorization}\nContent-Length: 5\n\nhello"
    );
    passes(&fixture, lines.as_bytes(), b"hello").await;
}

#[tokio::test]
async fn a_header_name_similar_to_a_framing_header_has_no_effect() {
    let fixture = AttackedGateway::new().await;
    for line in [
        "Transfer_Encoding: chunked",
        "Content_Length: 5",
        "X-Transfer-Encoding: chunked",
    ] {
        let mut client = passes(
            &fixture,
            &request("PATCH", UPLOAD, &format!("{line}\r\n")).into_bytes(),
            b"",
        )
        .await;
        client.send(hidden()).await;
        assert_eq!(
            client.answer().await.1,
            format!("GET {HIDDEN}").into_bytes()
        );
        let seen = fixture.seen().await;
        assert_eq!(seen.len(), 1, "{line}");
    }
}

#[tokio::test]
async fn connection_cannot_take_the_framing_off() {
    let fixture = AttackedGateway::new().await;
    for named in [
        "content-length",
        "transfer-encoding",
        "host",
        "Content-Length, close",
    ] {
        let lines = format!("Connection: {named}\r\nContent-Length: 5\r\n\r\nhello");
        passes(
            &fixture,
            &[&begun("PATCH"), lines.as_bytes()].concat(),
            b"hello",
        )
        .await;
        let lines = format!(
            "Connection: {named}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        passes(
            &fixture,
            &[&begun("PATCH"), lines.as_bytes()].concat(),
            b"hello",
        )
        .await;
    }
}

#[tokio::test]
async fn http_1_0_gets_no_chunks_and_no_guesses() {
    let fixture = AttackedGateway::new().await;
    let (authorization, upload) = (basic("alice", "secret"), bound(UPLOAD));
    let old = |lines: &str| {
        format!("PATCH {upload} HTTP/1.0\r\nAuthorization: {authorization}\r\n{lines}\r\n")
    };
    let attack = old("Host: ci.test\r\nContent-Length: 5\r\n") + "hello";
    let mut client = passes(&fixture, attack.as_bytes(), b"hello").await;
    client.ended().await;
    for lines in [
        "Host: ci.test\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\n",
    ] {
        let mut client = fixture.gateway.client().await;
        client
            .send(format!("{}0\r\n\r\n{}", old(lines), hidden()))
            .await;
        refused(&mut client, 400, lines).await;
        assert_eq!(fixture.seen().await, [], "{lines}");
    }
}
