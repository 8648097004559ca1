//! What a product makes by its API alone is made when somebody who may push begins an upload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::answering::{Answering, Reply, refusal};
use super::between::client;
use crate::harness::wire::Request;

const LOGIN: &str = "username = 'robot'\npassword = 'secret'";
const CREATE: &str = "username = 'robot'\npassword = 'secret'\ncreate = true";
const UPLOADS: &str = "/v2/team/app/blobs/uploads/";
const PROJECTS: &str = "POST /api/v2.0/projects";

/// A Harbor without the project. Another client may make it at the same moment.
fn harbor(created: u16) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let exists = Arc::new(AtomicBool::new(false));
    move |request| {
        if request.target() == "/api/v2.0/projects" {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let wanted = json!({ "project_name": "team", "metadata": { "public": "false" } });
            assert_eq!(body, wanted);
            exists.store(created != 403, Ordering::SeqCst);
            return refusal(created, "SOME", "no right to create projects");
        }
        if !exists.load(Ordering::SeqCst) {
            let challenge = "WWW-Authenticate: Basic realm=\"harbor\"\r\n".to_owned();
            return (401, challenge, String::new());
        }
        let location = "Location: /v2/team/app/blobs/uploads/1\r\n".to_owned();
        (202, location, String::new())
    }
}

#[tokio::test]
async fn a_missing_project_is_made_and_the_upload_begun_again() {
    // 409: it was made in between.
    for created in [201, 409] {
        let server = Answering::new(harbor(created)).await;
        let gateway = server.gateway("harbor", CREATE, "").await;
        let mut client = client(&gateway);
        client.ask("POST", UPLOADS).await.is(202);
        let post = format!("POST {UPLOADS}");
        assert_eq!(server.take(), [&post, PROJECTS, &post]);
        client.ask("POST", UPLOADS).await.is(202);
        assert_eq!(server.take(), [post]);
    }
}

#[tokio::test]
async fn two_uploads_make_one_project() {
    let server = Answering::new(harbor(201)).await;
    let gateway = server.gateway("harbor", CREATE, "").await;
    let (mut one, mut other) = (client(&gateway), client(&gateway));
    let (first, second) = tokio::join!(one.ask("POST", UPLOADS), other.ask("POST", UPLOADS));
    assert_eq!((first.status, second.status), (202, 202));
    let asked = server.take();
    assert_eq!(
        asked.iter().filter(|asked| *asked == PROJECTS).count(),
        1,
        "{asked:?}"
    );
}

#[tokio::test]
async fn nothing_is_made_that_nobody_asked_for() {
    let rules = "[[access]]\nusers = ['root']\nrepositories = ['**']\nactions = ['all']\n\
                 [[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['pull']\n";
    for (keys, rules, method, target) in [
        (LOGIN, "", "POST", UPLOADS),
        (CREATE, rules, "POST", UPLOADS),
        (CREATE, "", "GET", "/v2/team/app/tags/list"),
        (CREATE, "", "HEAD", "/v2/team/app/manifests/v1"),
    ] {
        let server = Answering::new(harbor(201)).await;
        let gateway = server.gateway("harbor", keys, rules).await;
        let answer = client(&gateway).ask(method, target).await;
        assert!(answer.status >= 400, "{answer:?}");
        let asked = server.take();
        assert!(!asked.iter().any(|asked| asked == PROJECTS), "{asked:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_made_is_said() {
    let server = Answering::new(harbor(403)).await;
    let gateway = server.gateway("harbor", CREATE, "").await;
    let message = client(&gateway)
        .ask("POST", UPLOADS)
        .await
        .refused(403, "DENIED");
    assert_eq!(message, "no right to create projects");

    let missing = |_: &Request| refusal(404, "NAME_UNKNOWN", "repository name not known");
    let server = Answering::new(missing).await;
    let gateway = server.gateway("gitlab", CREATE, "").await;
    let message = client(&gateway)
        .ask("POST", UPLOADS)
        .await
        .refused(404, "NAME_UNKNOWN");
    assert!(message.contains("its administrator has to"), "{message}");
    assert_eq!(server.take(), [format!("POST {UPLOADS}")]);
}
