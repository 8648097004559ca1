//! Every JSON document ends its line, for those who read it in a terminal, and lines of both logs
//! call the same thing by the same name.

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{Domain, Gateway, PATIENCE, RawPeer, Setup, cli, request};
use crate::store::client::Endpoint;
use crate::store::image::Image;

fn is_ended(text: &[u8]) -> bool {
    text.ends_with(b"\n")
        && !text.ends_with(b"\n\n")
        && serde_json::from_slice::<Value>(text).is_ok()
}

async fn gateway() -> Gateway {
    let domain = Domain::store("ci.test", "ci").auth("mode = \"token\"");
    Setup::new().domain(domain).start().await
}

#[tokio::test]
async fn documents_that_moorgate_makes_end_with_a_line_end() {
    let gateway = gateway().await;
    let mut client = Endpoint::new(&gateway, "http/1.1").client();
    let wrong = client.get("/v2/").await.is(401);
    let scopes = "/token?service=ci.test&scope=repository:a:pull,push&scope=registry:catalog:*";
    let token = client.get(scopes).await.is(200);
    let refused = client.get("/token?service=other").await;
    let keys = client.get("/.well-known/jwks.json").await;
    let bearer = token.json()["token"].as_str().unwrap().to_owned();
    let mut client = client.bearing(&bearer);
    let image = Image::small(1);
    client.push("a", "v1", &image).await;
    let mut answers = vec![wrong, token, refused, keys];
    let referrers = format!("/v2/a/referrers/{}", image.digest());
    for target in [
        "/v2/",
        "/v2/_catalog",
        "/v2/a/tags/list",
        "/v2/a/manifests/none",
        &referrers,
    ] {
        answers.push(client.get(target).await);
    }
    for answer in &answers {
        assert!(is_ended(&answer.body), "{answer:?}");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string()
        );
    }
    // What was pushed stays as it is.
    let manifest = client.get("/v2/a/manifests/v1").await.is(200);
    assert_eq!(manifest.body, image.manifest);
    let mut plain = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
    plain.send(request("GET", "/v2/", "")).await;
    assert!(is_ended(&plain.answer().await.1));
    let mut admin = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    admin
        .send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert!(is_ended(&admin.answer().await.1));
}

#[tokio::test]
async fn what_commands_print_as_json_ends_with_a_line_end() {
    let gateway = gateway().await;
    for command in [
        &["check"][..],
        &["certs"],
        &["explain", "alice", "pull", "a"],
        &["tokens", "list"],
        &["gc", "ci.test"],
        &["store", "verify"],
    ] {
        let arguments = [command, &["--json"]].concat();
        let (_, printed, said) = cli(gateway.directory.path(), &arguments).await;
        assert!(
            is_ended(printed.as_bytes()),
            "{command:?}: {printed:?} {said}"
        );
    }
}

#[tokio::test]
async fn lines_of_events_and_of_requests_have_one_name_for_the_time() {
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    let mut process = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .main("[log]\nformat = \"json\"")
        .spawn(&users, "http/1.1");
    let mut client = RawPeer::new(process.tls().await);
    client.send(request("GET", "/v2/", "")).await;
    client.answer().await;
    process.signal(Signal::TERM);
    let begun = std::time::Instant::now();
    while !process.has_ended() || !process.said().contains("stopped") {
        assert!(begun.elapsed() < PATIENCE, "{}", process.said());
        std::thread::yield_now();
    }
    let said = process.said();
    let mut kinds = [0, 0];
    for line in said.lines() {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        kinds[usize::from(object["message"].is_string())] += 1;
        let time = object["time"].as_str().unwrap_or_else(|| panic!("{line}"));
        assert!(
            time.len() == "2026-09-21T14:13:20.123Z".len() && time.ends_with('Z'),
            "{line}"
        );
        assert!(object.get("timestamp").is_none(), "{line}");
    }
    assert!(kinds.iter().all(|count| *count > 0), "{said}");
}
