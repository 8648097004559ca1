//! Tags go by the API of a product where its registry cannot do it.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::answering::{Answering, Reply, refusal, reply};
use super::between::client;
use crate::harness::basic;
use crate::harness::wire::Request;
use crate::store::image::sha256;

const LOGIN: &str = "username = 'robot'\npassword = 'registry secret'";

/// Whether it is a request for the product's own API.
fn is_api(request: &Request) -> bool {
    !request.target().starts_with("/v2/")
}

#[tokio::test]
async fn harbor_and_acr_take_a_tag_away_by_a_path_of_their_own() {
    for (product, status, path) in [
        (
            "harbor",
            200,
            "/api/v2.0/projects/team/repositories/app%252Fweb/artifacts/v1/tags/v1",
        ),
        ("acr", 202, "/acr/v1/team/app/web/_tags/v1"),
    ] {
        let server = Answering::new(move |_| reply(status, "")).await;
        let gateway = server.gateway(product, LOGIN, "").await;
        let target = "/v2/team/app/web/manifests/v1";
        client(&gateway).ask("DELETE", target).await.is(202);
        let authorization = Some(basic("robot", "registry secret"));
        assert_eq!(server.header("authorization"), [authorization], "{product}");
        assert_eq!(server.take(), [format!("DELETE {path}")]);
    }
}

#[tokio::test]
async fn the_credential_for_the_api_may_be_another() {
    for (admin, authorization) in [
        (
            "username = 'admin'\npassword = 'api secret'",
            basic("admin", "api secret"),
        ),
        ("token = 'api token'", "Bearer api token".to_owned()),
    ] {
        let server = Answering::new(|_| reply(200, "")).await;
        let keys = format!("{LOGIN}\n[upstream.admin]\n{admin}");
        let gateway = server.gateway("harbor", &keys, "").await;
        let mut client = client(&gateway);
        client
            .ask("DELETE", "/v2/team/app/manifests/v1")
            .await
            .is(202);
        assert_eq!(server.header("authorization"), [Some(authorization)]);
        server.take();
        client
            .ask("HEAD", "/v2/team/app/manifests/v1")
            .await
            .is(200);
        let login = Some(basic("robot", "registry secret"));
        assert_eq!(server.header("authorization"), [login]);
    }
}

#[tokio::test]
async fn what_an_api_says_is_told_in_the_words_of_the_protocol() {
    let immutable = "the tag v1 configured as immutable, cannot be deleted";
    let answers: Vec<(Reply, u16, &str, &str)> = vec![
        (reply(404, ""), 404, "MANIFEST_UNKNOWN", "manifest unknown"),
        (
            refusal(412, "PRECONDITION", immutable),
            403,
            "DENIED",
            immutable,
        ),
        (
            refusal(403, "FORBIDDEN", "no such right"),
            403,
            "DENIED",
            "no such right",
        ),
        (
            reply(401, ""),
            502,
            "UNAVAILABLE",
            "user robot in [upstream]",
        ),
        (reply(500, "{}"), 502, "UNAVAILABLE", "status 500"),
        (reply(429, ""), 429, "TOOMANYREQUESTS", "try again later"),
    ];
    for (answer, status, code, words) in answers {
        let name = format!("{answer:?}");
        let server = Answering::new(move |_| answer.clone()).await;
        let gateway = server.gateway("harbor", LOGIN, "").await;
        let target = "/v2/team/app/manifests/v1";
        let refused = client(&gateway).ask("DELETE", target).await;
        let message = refused.refused(status, code);
        assert!(message.contains(words), "{name}: {message}");
        assert!(!message.contains("secret"), "{message}");
        if status == 429 {
            assert_eq!(refused.header("retry-after"), "10");
        }
    }
}

#[tokio::test]
async fn an_api_is_not_followed_elsewhere() {
    let elsewhere = Answering::new(|_| reply(200, "")).await;
    let location = format!("Location: {}/\r\n", elsewhere.url());
    for status in [301, 302, 307, 308] {
        let location = location.clone();
        let server = Answering::new(move |_| (status, location.clone(), String::new())).await;
        let gateway = server.gateway("harbor", LOGIN, "").await;
        let target = "/v2/team/app/manifests/v1";
        let answer = client(&gateway).ask("DELETE", target).await;
        answer.refused(502, "UNAVAILABLE");
    }
    assert_eq!(elsewhere.take(), Vec::<String>::new());
}

#[tokio::test]
async fn docker_hub_gives_a_token_for_its_api_which_is_kept() {
    let answer = |request: &Request| match request.target() {
        "/v2/auth/token" => {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(
                body,
                json!({ "identifier": "robot", "secret": "registry secret" })
            );
            assert_eq!(request.head.get("authorization"), None);
            reply(200, json!({ "access_token": "short-lived" }).to_string())
        }
        _ => reply(204, ""),
    };
    let server = Answering::new(answer).await;
    let keys = format!("{LOGIN}\napi = '{}'", server.url());
    let gateway = server.gateway("dockerhub", &keys, "").await;
    let mut client = client(&gateway);
    for tag in ["v1", "v2"] {
        let target = format!("/v2/team/app/manifests/{tag}");
        client.ask("DELETE", &target).await.is(202);
    }
    let bearer = || Some("Bearer short-lived".to_owned());
    assert_eq!(server.header("authorization"), [None, bearer(), bearer()]);
    let path = "DELETE /v2/repositories/team/app/tags";
    let deletions = [format!("{path}/v1/"), format!("{path}/v2/")];
    let asked = server.take();
    assert_eq!(asked[0], "POST /v2/auth/token");
    assert_eq!(asked[1..], deletions);
}

/// A version of a package of GitHub.
struct Version {
    id: u64,
    digest: String,
    tags: Vec<&'static str>,
}

/// The registry of GitHub and its API, with one package.
struct Github(Mutex<Vec<Version>>);

impl Github {
    fn new(tags: &[&'static str]) -> Self {
        let digest = sha256(b"a manifest");
        let tags = tags.to_vec();
        Self(Mutex::new(vec![Version {
            id: 1,
            digest,
            tags,
        }]))
    }

    fn answer(&self, request: &Request) -> Reply {
        const VERSIONS: &str = "/orgs/team/packages/container/app%2Fweb/versions";
        let mut versions = self.0.lock().unwrap();
        let (method, target) = (request.method(), request.target());
        if is_api(request) {
            let authorization = request.head.get("authorization");
            assert_eq!(authorization, Some("Bearer registry secret"));
        }
        let path = target.split('?').next().unwrap();
        match (method, path) {
            ("GET", "/v2/") => reply(200, ""),
            ("GET", "/users/team") => reply(200, json!({ "type": "Organization" }).to_string()),
            ("GET", VERSIONS) => {
                let list = versions.iter().rev().map(|version| {
                    let container = json!({ "tags": version.tags });
                    json!({ "id": version.id, "name": version.digest,
                            "metadata": { "container": container } })
                });
                reply(200, list.collect::<Value>().to_string())
            }
            ("DELETE", path) if path.starts_with(VERSIONS) => {
                let id = path.rsplit('/').next().unwrap().parse::<u64>().unwrap();
                versions.retain(|version| version.id != id);
                reply(204, "")
            }
            ("DELETE", _) => refusal(405, "UNSUPPORTED", "no deletion here"),
            ("HEAD", _) => {
                let found = versions.iter().find(|version| version.tags.contains(&"v1"));
                match found {
                    Some(version) => {
                        let line = format!("Docker-Content-Digest: {}\r\n", version.digest);
                        (200, line, String::new())
                    }
                    None => refusal(404, "MANIFEST_UNKNOWN", ""),
                }
            }
            ("POST", _) => {
                let location = "Location: /v2/team/app/web/blobs/uploads/1\r\n".to_owned();
                (202, location, String::new())
            }
            ("PUT", path) if path.ends_with("/manifests/v1") => {
                for version in versions.iter_mut() {
                    version.tags.retain(|tag| *tag != "v1");
                }
                let (id, tags) = (7, vec!["v1"]);
                let digest = sha256(&request.body);
                versions.push(Version { id, digest, tags });
                reply(201, "")
            }
            ("PUT", _) => reply(201, ""),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn github_deletes_a_tag_by_a_swap_and_keeps_its_version() {
    for (tags, left) in [(&["v1"][..], vec![]), (&["v1", "v2"][..], vec!["v2"])] {
        let github = std::sync::Arc::new(Github::new(tags));
        let played = github.clone();
        let server = Answering::new(move |request| played.answer(request)).await;
        let keys = format!("{LOGIN}\napi = '{}'", server.url());
        let gateway = server.gateway("ghcr", &keys, "").await;
        let mut client = client(&gateway);
        let target = "/v2/team/app/web/manifests/v1";
        client.ask("DELETE", target).await.is(202);
        let versions: Vec<_> = {
            let versions = github.0.lock().unwrap();
            let both = |version: &Version| (version.id, version.tags.clone());
            versions.iter().map(both).collect()
        };
        assert_eq!(versions, [(1, left)]);
        client
            .ask("DELETE", target)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn github_deletes_a_digest_by_its_version() {
    let github = Github::new(&["v1", "v2"]);
    let server = Answering::new(move |request| github.answer(request)).await;
    let keys = format!("{LOGIN}\napi = '{}'", server.url());
    let gateway = server.gateway("ghcr", &keys, "").await;
    let mut client = client(&gateway);
    let target = format!("/v2/team/app/web/manifests/{}", sha256(b"a manifest"));
    client.ask("DELETE", &target).await.is(202);
    client
        .ask("DELETE", &target)
        .await
        .refused(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_that_a_product_keeps_is_denied_with_its_words() {
    let in_use = "delete these first";
    for (product, answer, words) in [
        (
            "dockerhub",
            refusal(403, "UNAUTHORIZED", "still referenced"),
            "still referenced",
        ),
        (
            "gar",
            refusal(400, "GOOGLE_MANIFEST_DANGLING_TAG", "tagged"),
            in_use,
        ),
        ("quay", refusal(403, "DENIED", "read-only"), "read-only"),
    ] {
        let server = Answering::new(move |_| answer.clone()).await;
        let gateway = server.gateway(product, LOGIN, "").await;
        let target = format!("/v2/team/app/manifests/{}", sha256(b"a manifest"));
        let refused = client(&gateway).ask("DELETE", &target).await.is(403);
        let error = refused.json()["errors"][0].clone();
        assert_eq!(error["code"], "DENIED", "{product} {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{product} {message}");
    }
}
