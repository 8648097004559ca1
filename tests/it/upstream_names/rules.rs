//! Rules, sessions, tokens and logs are about the names outside.

use super::fixture::{KINDS, MAP, mapped_registry};
use crate::access::fixture::{Kind, Login, allow};
use crate::harness::{Domain, ProxiedPair, RawPeer, Setup, Upstream, log_lines, request, settle};
use crate::store::client::Answer;
use crate::store::image::{Image, MANIFEST, sha256};

const DENY: &str = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['ci/**']\n\
    actions = ['all']\n";

#[tokio::test]
async fn a_denied_repository_is_not_reached_by_its_name_inside() {
    for kind in KINDS {
        let rules = format!("{}{DENY}", allow("**", "'all'"));
        let fixture = mapped_registry(kind, &rules, MAP).await;
        let image = fixture.seeded(1, &["ci/a/b", "base/app"], "v1").await;
        let blob = sha256(&image.layers[0]);
        let mut alice = fixture.client("alice");
        alice.check("base/app", "v1", &image).await;
        for name in [
            "ci/a/b",
            "acme/ci-a--b",
            "acme/ci-a/b",
            "ci/a--b",
            "base/../ci/a/b",
        ] {
            for target in ["manifests/v1", "tags/list", &format!("blobs/{blob}")] {
                let answer = alice.get(&format!("/v2/{name}/{target}")).await;
                assert!(matches!(answer.status, 400 | 404), "{name}: {answer:?}");
            }
            let pushed = alice.push_manifest(name, "v1", &image.manifest).await;
            assert!(matches!(pushed.status, 400 | 403), "{name}: {pushed:?}");
            let deleted = alice
                .ask("DELETE", &format!("/v2/{name}/manifests/v1"))
                .await;
            assert!(
                matches!(deleted.status, 400 | 403 | 404),
                "{name}: {deleted:?}"
            );
            let from = name.replace('/', "%2F");
            let mount = format!("/v2/base/new/blobs/uploads/?mount={blob}&from={from}");
            let mounted = alice.ask("POST", &mount).await;
            assert_ne!(mounted.status, 201, "{name}");
        }
        alice
            .ask("HEAD", &format!("/v2/base/new/blobs/{blob}"))
            .await
            .is(404);
        fixture.client("root").check("ci/a/b", "v1", &image).await;
    }
}

/// What a client can tell of an answer.
fn seen(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let body = String::from_utf8_lossy(&answer.body).replace(name, "NAME");
    (answer.status, headers, body)
}

#[tokio::test]
async fn a_hidden_repository_answers_as_one_that_does_not_exist() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, &allow("base/**", "'pull', 'push'"), MAP).await;
        let image = fixture.seeded(1, &["ci/a/b"], "v1").await;
        let (digest, blob) = (image.digest(), sha256(&image.layers[0]));
        for (method, target) in [
            ("GET", "manifests/v1".to_owned()),
            ("HEAD", "manifests/v1".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("GET", format!("blobs/{blob}")),
            ("HEAD", format!("blobs/{blob}")),
            ("GET", format!("referrers/{digest}")),
            ("GET", "tags/list".to_owned()),
            ("GET", "tags/list?n=5&last=a".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
            ("DELETE", format!("blobs/{blob}")),
        ] {
            let at = |name: &str| format!("/v2/{name}/{target}");
            let truth = fixture.client("root").ask(method, &at("ci/n/l")).await;
            let truth = seen(&truth, "ci/n/l");
            for name in ["ci/a/b", "ci/n/l"] {
                let denied = fixture.client("alice").ask(method, &at(name)).await;
                assert_eq!(
                    seen(&denied, name),
                    truth,
                    "{kind:?} {method} {target} {name}"
                );
            }
            // Whether a name can exist is the same for everyone.
            for name in ["ci/a--b", "acme/ci-a--b"] {
                let [root, alice] = ["root", "alice"].map(|user| fixture.client(user));
                let [mut root, mut alice] = [root, alice];
                let root = root.ask(method, &at(name)).await;
                let alice = alice.ask(method, &at(name)).await;
                assert_eq!(
                    seen(&alice, name),
                    seen(&root, name),
                    "{method} {target} {name}"
                );
                assert_eq!(root.status, 404);
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_of_the_repository_that_its_client_knows() {
    let mut pair = ProxiedPair::with(|domain| domain.tables(MAP)).await;
    // Bound to `acme/ci-app`, as it would be if sessions had the names of the registry.
    let session = crate::harness::bound("/v2/acme/ci-app/blobs/uploads/0-1");
    let id = session.rsplit('/').next().unwrap();
    for name in ["ci/app", "base/app"] {
        let target = format!("/v2/{name}/blobs/uploads/{id}");
        let (head, _) = pair.own_answer_apart(request("PATCH", &target, "")).await;
        assert_eq!(head.status(), 404, "{name}");
    }
    let asked = pair
        .passed(request("PATCH", "/v2/ci/app/blobs/uploads/0-1", ""))
        .await;
    assert_eq!(
        asked.first,
        "PATCH /v2/acme/ci-app/blobs/uploads/0-1 HTTP/1.1"
    );
}

#[tokio::test]
async fn tokens_are_for_the_names_that_clients_know() {
    let rules = allow("ci/**", "'pull', 'push'");
    let fixture = crate::access::fixture::AccessFixture::with(
        Kind::Upstream,
        &format!("{rules}{MAP}"),
        |domain| domain.auth("mode = 'token'"),
    )
    .await;
    let image = Image::small(1);
    let mut alice = fixture.login(Login::Token, "alice", &["ci/a/b"]).await;
    alice.push("ci/a/b", "v1", &image).await;
    alice.check("ci/a/b", "v1", &image).await;
    let mut inside = fixture
        .login(Login::Token, "alice", &["acme/ci-a--b"])
        .await;
    inside.get("/v2/ci/a/b/manifests/v1").await.is(401);
    let challenge = fixture
        .anonymous()
        .get("/v2/ci/a/b/manifests/v1")
        .await
        .is(401);
    let challenge = challenge.header("www-authenticate").to_owned();
    assert!(
        challenge.contains("scope=\"repository:ci/a/b:pull\""),
        "{challenge}"
    );
}

#[tokio::test]
async fn the_access_log_has_the_names_that_clients_know() {
    let mut pair = ProxiedPair::with(|domain| domain.tables(MAP)).await;
    let (lines, writer) = log_lines(&pair.gateway);
    pair.passed(request("GET", "/v2/ci/a/b/manifests/v1", ""))
        .await;
    pair.passed(request("PATCH", "/v2/base/x/blobs/uploads/0-1", ""))
        .await;
    let refused = request("GET", "/v2/other/app/manifests/v1", "");
    pair.own_answer_apart(refused).await;
    drop(pair.client);
    drop(pair.registry);
    settle().await;
    pair.gateway.stop().await;
    pair.gateway.app.access_log().close();
    writer.join().unwrap();
    let repositories: Vec<_> = lines
        .try_iter()
        .filter_map(|line| {
            assert!(!line.contains("acme") && !line.contains("mirror"), "{line}");
            let (_, rest) = line.split_once(" repository=")?;
            Some(rest.split(' ').next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(repositories, ["ci/a/b", "base/x", "other/app"]);
}

#[tokio::test]
async fn domains_with_one_registry_share_the_lock_of_a_tag_whatever_they_call_it() {
    let upstream = Upstream::new().await;
    let rules = allow("**", "'push'");
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", &upstream.url()).tables(&format!("{rules}{MAP}")))
        .domain(Domain::new("plain.test", &upstream.url()).tables(&rules))
        .start()
        .await;
    let push = async |host: &str, repository: &str| {
        let mut client = RawPeer::new(gateway.tls(host, &["http/1.1"]).await.unwrap());
        let target = format!("/v2/{repository}/manifests/v1");
        let lines = format!("Content-Type: {MANIFEST}\r\nContent-Length: 2\r\n");
        let request = request("PUT", &target, &lines) + "{}";
        client.send(request.replace("ci.test", host)).await;
        client
    };
    let mut first = push("ci.test", "ci/a/b").await;
    let mut registry = upstream.accept().await;
    let asked = registry.head().await;
    assert_eq!(asked.first, "HEAD /v2/acme/ci-a--b/manifests/v1 HTTP/1.1");
    let mut second = push("plain.test", "acme/ci-a--b").await;
    upstream.untouched().await;
    second.silent().await;
    registry.send("HTTP/1.1 404 Not Found\r\n\r\n").await;
    let asked = registry.head().await;
    assert_eq!(asked.first, "PUT /v2/acme/ci-a--b/manifests/v1 HTTP/1.1");
    let created = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
    registry.send(created).await;
    assert_eq!(first.answer().await.0.status(), 201);
    let asked = upstream.accept().await.head().await;
    assert_eq!(asked.first, "HEAD /v2/acme/ci-a--b/manifests/v1 HTTP/1.1");
}
