//! Tags and repositories by the API of ECR, whose requests are signed with the keys of the login.

use serde_json::{Value, json};

use super::answering::{Answering, Reply, refusal, reply};
use super::between::client;
use crate::harness::Gateway;
use crate::harness::wire::Request;
use crate::store::image::sha256;

/// What an action is called with, and which one.
fn action(request: &Request) -> Option<(String, Value)> {
    let target = request.head.get("x-amz-target")?;
    let (_, name) = target.split_once('.').unwrap();
    let authorization = request.head.get("authorization").unwrap();
    assert!(
        authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIA/"),
        "{authorization}"
    );
    assert!(
        authorization.contains("/eu-central-1/ecr/aws4_request, "),
        "{authorization}"
    );
    assert!(authorization.contains("content-type;host;x-amz-date;x-amz-target,"));
    Some((
        name.to_owned(),
        serde_json::from_slice(&request.body).unwrap(),
    ))
}

/// ECR with one answer to one action.
async fn ecr(wanted: &'static str, answer: Reply) -> Answering {
    Answering::new(move |request| match action(request) {
        Some((name, _)) if name == "GetAuthorizationToken" => {
            let data = json!({ "authorizationToken": "QVdTOnBhc3N3b3Jk", "expiresAt": 4e9 });
            reply(200, json!({ "authorizationData": [data] }).to_string())
        }
        Some((name, input)) => {
            assert_eq!(
                (name.as_str(), &input["repositoryName"]),
                (wanted, &json!("team/app"))
            );
            answer.clone()
        }
        None if request.method() == "POST" => refusal(
            404,
            "NAME_UNKNOWN",
            "The repository with name 'team/app' does not exist",
        ),
        None => (404, String::new(), "<html>".to_owned()),
    })
    .await
}

async fn gateway(server: &Answering) -> Gateway {
    let keys = format!(
        "api = '{}'\ncreate = true\n[upstream.login]\nregion = 'eu-central-1'\n\
         access_key_id = 'AKIA'\nsecret_access_key = 'aws secret'",
        server.url()
    );
    server.gateway("ecr", &keys, "").await
}

/// An error of JSON 1.1, its type in a header or in the body.
fn aws(kind: &str, is_in_header: bool, message: &str) -> Reply {
    if is_in_header {
        let line = format!("x-amzn-ErrorType: {kind}:http://internal.amazon.com/\r\n");
        return (400, line, json!({ "message": message }).to_string());
    }
    let kind = format!("com.amazonaws.ecr#{kind}");
    reply(
        400,
        json!({ "__type": kind, "message": message }).to_string(),
    )
}

fn failure(code: &str, reason: &str) -> Reply {
    let failure = json!({ "failureCode": code, "failureReason": reason });
    reply(
        200,
        json!({ "imageIds": [], "failures": [failure] }).to_string(),
    )
}

#[tokio::test]
async fn what_aws_says_is_told_in_the_words_of_the_protocol() {
    let right = "User: gate is not authorized to perform: ecr:BatchDeleteImage";
    let tag = "/v2/team/app/manifests/v1";
    let manifest = format!("/v2/team/app/manifests/{}", sha256(b"a manifest"));
    for (method, target, answer, (status, code, words)) in [
        (
            "DELETE",
            tag,
            failure("ImageNotFound", "Requested image not found"),
            (404, "MANIFEST_UNKNOWN", "manifest unknown"),
        ),
        (
            "DELETE",
            &*manifest,
            failure("ImageReferencedByManifestList", "it is in a manifest list"),
            (403, "DENIED", "it is in a manifest list"),
        ),
        (
            "DELETE",
            tag,
            failure("KmsError", "no key"),
            (403, "DENIED", "no key"),
        ),
        (
            "DELETE",
            tag,
            aws("RepositoryNotFoundException", false, "none"),
            (404, "NAME_UNKNOWN", "repository name not known"),
        ),
        (
            "DELETE",
            tag,
            aws("AccessDeniedException", true, right),
            (403, "DENIED", right),
        ),
        (
            "DELETE",
            tag,
            aws("ThrottlingException", true, "Rate exceeded"),
            (429, "TOOMANYREQUESTS", "try again later"),
        ),
        (
            "DELETE",
            tag,
            aws("UnrecognizedClientException", false, "invalid"),
            (502, "UNAVAILABLE", "the AWS keys in [upstream.login]"),
        ),
        (
            "DELETE",
            tag,
            reply(500, "{}"),
            (502, "UNAVAILABLE", "status 500"),
        ),
        (
            "POST",
            "/v2/team/app/blobs/uploads/",
            aws("LimitExceededException", false, "too many repositories"),
            (403, "DENIED", "too many repositories"),
        ),
        (
            "POST",
            "/v2/team/app/blobs/uploads/",
            aws("AccessDeniedException", true, right),
            (403, "DENIED", right),
        ),
    ] {
        let wanted = if method == "POST" {
            "CreateRepository"
        } else {
            "BatchDeleteImage"
        };
        let name = format!("{method} {target} {answer:?}");
        let server = ecr(wanted, answer).await;
        let gateway = gateway(&server).await;
        let refused = client(&gateway).ask(method, target).await;
        let message = refused.refused(status, code);
        assert!(message.contains(words), "{name}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_digest_goes_by_the_api_where_the_registry_has_no_such_path() {
    let done = json!({ "imageIds": [{ "imageDigest": "x" }], "failures": [] });
    let server = ecr("BatchDeleteImage", reply(200, done.to_string())).await;
    let gateway = gateway(&server).await;
    let target = format!("/v2/team/app/manifests/{}", sha256(b"a manifest"));
    client(&gateway).ask("DELETE", &target).await.is(202);
    let asked = server.take();
    assert_eq!(asked, ["POST /", &format!("DELETE {target}"), "POST /"]);
}

#[tokio::test]
async fn a_repository_that_another_has_made_is_no_error() {
    let exists = aws("RepositoryAlreadyExistsException", true, "it exists");
    let server = ecr("CreateRepository", exists).await;
    let gateway = gateway(&server).await;
    let uploads = "/v2/team/app/blobs/uploads/";
    client(&gateway).ask("POST", uploads).await;
    let upload = format!("POST {uploads}");
    assert_eq!(server.take(), ["POST /", &upload, "POST /", &upload]);
}
