//! Of a product that only an answer tells, the API at the registry's own host is used, and no other
//! one.

use super::answering::{Answering, Reply, refusal, reply};
use super::between::client;
use crate::harness::wire::Request;
use crate::harness::{Domain, Setup, basic};

const LOGIN: &str = "username = 'robot'\npassword = 'registry secret'";

/// A registry that asks for a login so, and whose API unties any tag.
async fn server(challenge: &'static str) -> Answering {
    Answering::new(move |request: &Request| -> Reply {
        let target = request.target();
        if target == "/v2/" {
            return (
                401,
                format!("WWW-Authenticate: {challenge}\r\n"),
                String::new(),
            );
        }
        match request.method() {
            "POST" => {
                let line = "Location: /v2/team/app/blobs/uploads/1\r\n".to_owned();
                (202, line, String::new())
            }
            "PUT" => reply(201, ""),
            "DELETE" if target.starts_with("/v2/") => refusal(405, "UNSUPPORTED", "no"),
            "DELETE" => reply(202, ""),
            _ => refusal(404, "MANIFEST_UNKNOWN", ""),
        }
    })
    .await
}

/// What is asked for the deletion of a tag, once the registry has told what it is.
async fn deletion(challenge: &'static str) -> (u16, Vec<String>, Vec<Option<String>>) {
    let server = server(challenge).await;
    let domain = Domain::new("ci.test", server.url()).upstream(LOGIN);
    let gateway = Setup::new()
        .domain(domain.user("root", "secret"))
        .start()
        .await;
    let mut client = client(&gateway);
    let blob = crate::store::image::sha256(b"blob");
    let target = format!("/v2/team/app/blobs/uploads/?digest={blob}");
    client.ask_with("POST", &target, &[], "blob").await;
    server.take();
    let answer = client.ask("DELETE", "/v2/team/app/manifests/v1").await;
    let authorization = server.header("authorization");
    (answer.status, server.take(), authorization)
}

#[tokio::test]
async fn the_api_at_the_registrys_own_host_is_used() {
    let (status, asked, authorization) = deletion("Basic realm=\"harbor\"").await;
    let path = "/api/v2.0/projects/team/repositories/app/artifacts/v1/tags/v1";
    assert_eq!((status, asked), (202, vec![format!("DELETE {path}")]));
    assert_eq!(authorization, [Some(basic("robot", "registry secret"))]);
}

#[tokio::test]
async fn an_api_elsewhere_gets_no_credentials() {
    for challenge in [
        "Basic realm=\"x\",service=\"ecr.amazonaws.com\"",
        "Basic realm=\"x\",service=\"registry.docker.io\"",
        "Basic realm=\"any\"",
    ] {
        let (status, asked, _) = deletion(challenge).await;
        assert_eq!(status, 404, "{challenge}");
        // The registry is asked, and a swap finds no such tag.
        let path = "/v2/team/app/manifests/v1";
        let known = [format!("DELETE {path}"), format!("HEAD {path}")];
        assert!(
            asked.iter().all(|line| known.contains(line)),
            "{challenge} {asked:?}"
        );
        assert_eq!(asked.last(), Some(&known[1]), "{challenge}");
    }
}
