//! Requests, uploads and upload sessions of one user. Others have their own.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{HttpsClient, counts};
use crate::harness::frames::{END_STREAM, HEADERS};
use crate::harness::{
    Domain, Events, Gateway, RawPeer, Setup, Upstream, basic, promptly, request, settle,
};

const MANIFEST: &str = "/v2/base/app/manifests/v1";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn limited(upstream: &Upstream, limits: &str) -> Gateway {
    let domain = Domain::new("ci.test", &upstream.url()).user("bob", "hunter2");
    let setup = Setup::new().domain(domain);
    setup.main(&format!("[limits]\n{limits}")).start().await
}

/// A client that has sent a request.
async fn asking(gateway: &Gateway, request: impl AsRef<[u8]>) -> HttpsClient {
    let mut client = promptly(gateway.client()).await;
    client.send(request).await;
    settle().await;
    client
}

fn of_bob() -> String {
    let authorization = basic("bob", "hunter2");
    format!("GET {MANIFEST} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n")
}

/// The connection of the gateway on which a request has come.
async fn asked(upstream: &Upstream) -> RawPeer<TcpStream> {
    let mut registry = promptly(upstream.accept()).await;
    promptly(registry.head()).await;
    registry
}

async fn passed(upstream: &Upstream, client: &mut RawPeer<TlsStream<TcpStream>>) {
    let mut registry = asked(upstream).await;
    registry.send(OK).await;
    assert_eq!(promptly(client.answer()).await.0.status(), 200);
}

async fn refused(client: &mut RawPeer<TlsStream<TcpStream>>) {
    let (head, body) = promptly(client.answer()).await;
    assert_eq!((head.status(), head.get("retry-after")), (429, Some("5")));
    assert!(String::from_utf8(body).unwrap().contains("TOOMANYREQUESTS"));
}

#[tokio::test]
async fn a_user_has_so_many_requests_in_flight_on_all_connections() {
    let events = Events::kept();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, "user_requests = 2").await;
    let get = request("GET", MANIFEST, "");
    let mut first = asking(&gateway, &get).await;
    let mut registry = asked(&upstream).await;
    let second = asking(&gateway, &get).await;
    let _held = asked(&upstream).await;
    let mut third = asking(&gateway, &get).await;
    refused(&mut third).await;
    let said = events.with("requests refused: too many of one user");
    assert!(
        said.len() == 1 && said[0].contains("domain=\"ci.test\" user=\"alice\" limit=2"),
        "{said:?}"
    );
    assert_eq!(counts(&gateway, "user_requests").await, [2, 2, 1]);
    let mut bob = asking(&gateway, of_bob()).await;
    passed(&upstream, &mut bob).await;

    // The users of a file that is read again are the same.
    let users = [("alice", "secret"), ("bob", "hunter2"), ("carol", "new")];
    let users = users.map(|(user, password)| (user.to_owned(), password.to_owned()));
    let file = gateway.path("conf.d/ci.test.htpasswd");
    std::fs::write(file, Domain::htpasswd(&users)).unwrap();
    gateway.app.refresh_files().await;
    third.send(&get).await;
    refused(&mut third).await;

    // An answer that has not ended counts, and a client that vanishes does not.
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await;
    promptly(first.head()).await;
    third.send(&get).await;
    refused(&mut third).await;
    drop(second);
    settle().await;
    third.send(&get).await;
    passed(&upstream, &mut third).await;
    registry.send("k").await;
    assert_eq!(promptly(first.bytes(2)).await, b"ok");
    settle().await;
    assert_eq!(counts(&gateway, "user_requests").await, [0, 2, 3]);
}

#[tokio::test]
async fn streams_of_one_connection_are_requests_of_its_user() {
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, "user_requests = 2").await;
    let mut client = promptly(gateway.frames()).await;
    for stream in [1, 3, 5] {
        client.request(stream, END_STREAM, "GET", MANIFEST).await;
        if stream < 5 {
            std::mem::forget(asked(&upstream).await);
        }
    }
    let refused = promptly(client.next_of(HEADERS)).await;
    assert_eq!((refused.stream, refused.status()), (5, 429));
}

#[tokio::test]
async fn a_user_has_so_many_uploads_running_and_other_requests_beside_them() {
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, "user_uploads = 1").await;
    let patch = request(
        "PATCH",
        "/v2/base/app/blobs/uploads/1",
        "Content-Length: 2\r\n",
    );
    let mut first = asking(&gateway, &patch).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway, format!("{patch}ok")).await;
    refused(&mut second).await;
    assert_eq!(counts(&gateway, "user_uploads").await, [1, 1, 1]);
    let mut other = asking(&gateway, request("GET", MANIFEST, "")).await;
    passed(&upstream, &mut other).await;
    first.send("ok").await;
    promptly(registry.bytes(2)).await;
    registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(first.answer()).await.0.status(), 202);
    let mut third = asking(&gateway, format!("{patch}ok")).await;
    promptly(registry.head()).await;
    registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(third.answer()).await.0.status(), 202);
}

#[tokio::test]
async fn anonymous_clients_count_by_their_addresses() {
    let events = Events::kept();
    let upstream = Upstream::new().await;
    let rules = "[[access]]\nusers = ['@anonymous']\nrepositories = ['**']\nactions = ['pull']";
    let domain = Domain::new("ci.test", &upstream.url())
        .auth("anonymous = 'pull'")
        .tables(&format!("{rules}\n[limits]\nuser_requests = 1"));
    let gateway = Setup::new().domain(domain).start().await;
    let get = format!("GET {MANIFEST} HTTP/1.1\r\nHost: ci.test\r\n\r\n");
    let asking = async |client: &str| {
        let mut client = RawPeer::new(promptly(gateway.tls_from(client)).await.unwrap());
        client.send(&get).await;
        client
    };
    let mut first = asking("127.0.0.5").await;
    let mut registry = asked(&upstream).await;
    let mut second = asking("127.0.0.5").await;
    refused(&mut second).await;
    let said = events.with("requests refused: too many of one user");
    assert!(
        said.len() == 1 && said[0].contains("client=\"127.0.0.5\" limit=1"),
        "{said:?}"
    );
    assert_eq!(counts(&gateway, "user_requests").await, [1, 1, 1]);
    let mut other = asking("127.0.0.6").await;
    passed(&upstream, &mut other).await;
    registry.send(OK).await;
    assert_eq!(promptly(first.answer()).await.0.status(), 200);
}

/// The two limits cannot wait for each other: a request is counted before it waits for a connection.
#[tokio::test]
async fn requests_that_wait_for_a_connection_count_and_refused_ones_do_not_wait() {
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, "user_requests = 2\nupstream_connections = 1").await;
    let get = request("GET", MANIFEST, "");
    let mut first = asking(&gateway, &get).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway, &get).await;
    let mut bob = asking(&gateway, of_bob()).await;
    let mut third = asking(&gateway, &get).await;
    refused(&mut third).await;
    registry.send(OK).await;
    assert_eq!(promptly(first.answer()).await.0.status(), 200);
    for client in [&mut second, &mut bob] {
        promptly(registry.head()).await;
        registry.send(OK).await;
        assert_eq!(promptly(client.answer()).await.0.status(), 200);
    }
}

#[tokio::test]
async fn a_user_has_so_many_upload_sessions_open() {
    let events = Events::kept();
    let domain = Domain::store("ci.test", "images").user("bob", "hunter2");
    let gateway = Setup::new()
        .domain(domain)
        .main("[limits]\nuser_upload_sessions = 2")
        .start()
        .await;
    let uploads = "/v2/base/app/blobs/uploads/";
    let mut client = promptly(gateway.client()).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        client
            .send(request("POST", uploads, "Content-Length: 0\r\n"))
            .await;
        let (head, _) = promptly(client.answer()).await;
        assert_eq!(head.status(), 202);
        let location = head.get("location").unwrap();
        sessions.push(location[location.find("/v2/").unwrap()..].to_owned());
    }
    client
        .send(request("POST", uploads, "Content-Length: 0\r\n"))
        .await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!((head.status(), head.get("retry-after")), (429, Some("60")));
    assert!(String::from_utf8(body).unwrap().contains("TOOMANYREQUESTS"));
    let said = events.with("upload sessions refused: too many of one user");
    assert!(
        said.len() == 1 && said[0].contains("user=\"alice\" limit=2"),
        "{said:?}"
    );
    assert_eq!(counts(&gateway, "user_upload_sessions").await, [2, 2, 1]);
    let authorization = basic("alice", "secret");
    let delete = format!(
        "DELETE {} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n",
        sessions[0]
    );
    client.send(delete).await;
    assert_eq!(promptly(client.head()).await.status(), 204);
    client
        .send(request("POST", uploads, "Content-Length: 0\r\n"))
        .await;
    assert_eq!(promptly(client.answer()).await.0.status(), 202);
}
