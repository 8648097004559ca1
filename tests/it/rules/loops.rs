//! Requests that come back to the domain that forwarded them are refused; those that pass through
//! several domains and processes are not.

use crate::harness::{
    Domain, Events, Gateway, Http2, ProxiedPair, Setup, Upstream, json, no_body, request, request2,
};

/// A domain that is reached by the address as well.
fn domain(name: &str, url: &str, root: &str) -> Domain {
    Domain::new(name, url)
        .top("aliases = [\"127.0.0.1\"]")
        .upstream(&format!("authorization = \"pass\"\nroots = \"{root}\""))
}

/// Puts the domain `ci.test` of a gateway in front of another one, or of itself.
async fn put_before(gateway: &Gateway, other: &Gateway) {
    let url = format!("https://{}", other.https());
    let root = other.path("state/internal-ca/ca.pem");
    Setup::new()
        .domain(domain("ci.test", &url, &root.to_string_lossy()))
        .write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
}

async fn gateway() -> Gateway {
    Setup::new()
        .domain(Domain::store("ci.test", "s").top("aliases = [\"127.0.0.1\"]"))
        .start()
        .await
}

#[tokio::test]
async fn a_domain_whose_upstream_is_itself_answers_508() {
    let gateway = gateway().await;
    put_before(&gateway, &gateway).await;
    let events = Events::kept();
    let mut client = gateway.client().await;
    client.send(request("GET", "/v2/a/manifests/v1", "")).await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status(), 508);
    assert_eq!(head.get("content-type"), Some("application/json"));
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
    let lines = events.with("508");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("came back") && lines[0].contains("ci.test"));
    assert_eq!(events.with("WARN").len(), 1, "{}", events.all());
}

#[tokio::test]
async fn a_loop_over_two_processes_is_found_and_their_chain_is_none() {
    let (first, second) = (gateway().await, gateway().await);
    put_before(&first, &second).await;
    let mut client = first.client().await;
    client.send(request("GET", "/v2/a/manifests/v1", "")).await;
    assert_eq!(client.answer().await.0.status(), 404);
    put_before(&second, &first).await;
    let target = "/v2/a/manifests/v1";
    let put = request("PUT", target, "Content-Length: 2\r\n") + "{}";
    for asked in [request("GET", target, ""), put] {
        let mut client = first.client().await;
        client.send(&asked).await;
        assert_eq!(client.answer().await.0.status(), 508, "{asked}");
    }
}

#[tokio::test]
async fn a_chain_of_domains_of_one_process_is_no_loop() {
    let gateway = gateway().await;
    let url = format!("https://{}", gateway.https());
    let root = gateway.path("state/internal-ca/ca.pem");
    let front = Domain::new("front.test", &url).upstream(&format!(
        "authorization = \"pass\"\nroots = \"{}\"",
        root.to_string_lossy()
    ));
    Setup::new()
        .domain(Domain::store("ci.test", "s").top("aliases = [\"127.0.0.1\"]"))
        .domain(front)
        .write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
    let mut client = Http2::connect(&gateway, "front.test").await;
    let asked = http::Request::get("https://front.test/v2/a/tags/list")
        .header("authorization", crate::harness::basic("alice", "secret"));
    let (head, _) = client.send(asked.body(no_body()).unwrap()).await.unwrap();
    assert_eq!(head.status, 404);
}

#[tokio::test]
async fn every_forwarded_request_names_the_proxy_and_keeps_those_before() {
    let mut between = ProxiedPair::new().await;
    let lines = "Via: 1.1 a.test\r\nVia: 1.0 b.test (b, c)\r\n";
    let first = between.passed(request("GET", "/v2/", lines)).await;
    let [a, b, own] = &first.all("via")[..] else {
        panic!("{first:?}");
    };
    assert_eq!((*a, *b), ("1.1 a.test", "1.0 b.test (b, c)"));
    let name = own.strip_prefix("1.1 ").unwrap().to_owned();
    let second = between.passed(request("GET", "/v2/", "")).await;
    assert_eq!(second.all("via"), [*own]);
    between.gateway.app.reload().await.unwrap();
    let after_reload = between.passed(request("GET", "/v2/", "")).await;
    assert_eq!(after_reload.all("via"), [*own]);
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("GET", "/v2/").body(no_body()).unwrap()));
    assert_eq!(between.asked().await.all("via"), [format!("2.0 {name}")]);
    drop(answer);
    // Joined to one line, as other proxies do.
    let lines = format!("Via: 1.1 a.test, 1.1 {name} (x), 1.1 b.test\r\n");
    let (head, _) = between.own_answer(request("GET", "/v2/", &lines)).await;
    assert_eq!(head.status(), 508);
}

/// The server of pages may itself ask the registry of the same domain.
#[tokio::test]
async fn from_the_pages_of_a_domain_to_its_registry_is_no_loop() {
    let pages = Upstream::new().await;
    let browser = format!("[browser]\nurl = \"{}\"", pages.url());
    let mut between = ProxiedPair::with(|domain| domain.tables(&browser)).await;
    between.client.send(request("GET", "/ui", "")).await;
    let mut server = pages.accept().await;
    let via = server.head().await.all("via").join(", ");
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 200);
    let lines = format!("Via: {via}\r\n");
    between.passed(request("GET", "/v2/", &lines)).await;
    let (head, _) = between.own_answer(request("GET", "/ui", &lines)).await;
    assert_eq!(head.status(), 508);
}

/// The requests that moorgate makes for another one carry the same.
#[tokio::test]
async fn a_filtered_catalog_of_a_loop_ends_too() {
    let gateway = gateway().await;
    let url = format!("https://{}", gateway.https());
    let root = gateway.path("state/internal-ca/ca.pem");
    let rules =
        "[[access]]\nusers = [\"alice\"]\nrepositories = [\"a/**\"]\nactions = [\"catalog\"]";
    Setup::new()
        .domain(domain("ci.test", &url, &root.to_string_lossy()).tables(rules))
        .write(gateway.directory.path());
    gateway.app.reload().await.unwrap();
    let mut client = gateway.client().await;
    client.send(request("GET", "/v2/_catalog", "")).await;
    assert_eq!(client.answer().await.0.status(), 508);
}
