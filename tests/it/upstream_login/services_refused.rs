//! Services that give no credentials: each answer that is of no use ends the exchange, and is told
//! without a secret.

use super::played::ask;
use crate::harness::played::PlayedRegistry;
use crate::harness::{Domain, Events, Gateway, Setup, Upstream};

/// The registry, its API and every service, in one.
async fn gateway(service: &Upstream, keys: &str) -> Gateway {
    let url = service.url();
    let keys = keys.replace("SERVICE", &url);
    let domain = Domain::new("ci.test", &url).upstream(&keys);
    Setup::new().domain(domain).start().await
}

/// The status for a client, and the event, where the service answers so, in this order. Fails if it
/// is asked for more.
async fn said(keys: &str, answers: &[(&str, &str)]) -> (u16, String) {
    let events = Events::kept();
    let service = Upstream::new().await;
    let gateway = gateway(&service, keys).await;
    let serve = async {
        for (status, body) in answers {
            let mut peer = service.accept().await;
            let head = peer.head().await;
            peer.bytes(head.length().unwrap_or_default()).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            peer.send(answer).await;
        }
    };
    let ((status, body), ()) = tokio::join!(ask(&gateway, "GET", "/v2/a/tags/list"), serve);
    service.untouched().await;
    let all = events.all() + &body;
    for secret in ["hunter2", "ey.web", "PRIVATE KEY", "stolen"] {
        assert!(!all.contains(secret), "{keys}: {all}");
    }
    (status, events.with("upstream fails").join("\n"))
}

/// The answers of the service, the status for a client, and what the event says.
type ServiceCase<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);

async fn expect(keys: &str, cases: &[ServiceCase<'_>]) {
    for (answers, status, words) in cases {
        let (answered, event) = said(keys, answers).await;
        assert_eq!(answered, *status, "{answers:?}: {event}");
        assert!(event.contains(words), "{answers:?}: {event}");
    }
}

fn ecr(login: &str) -> String {
    format!(
        "product = \"ecr\"\napi = \"SERVICE\"\n[upstream.login]\nregion = \"eu-central-1\"\n{login}"
    )
}

const KEYS: &str = "access_key_id = \"AKID\"\nsecret_access_key = \"hunter2\"";

#[tokio::test]
async fn the_api_of_ecr_gives_no_password() {
    let no_pair = "{\"authorizationData\":[{\"authorizationToken\":\"QVdT\"}]}";
    let no_base64 = "{\"authorizationData\":[{\"authorizationToken\":\"stolen:\"}]}";
    let refusal =
        "{\"__type\":\"com.amazon.x#UnrecognizedClientException\",\"message\":\"stolen\"}";
    let odd = "{\"__type\":\"stolen text with hunter2\"}";
    let huge = "x".repeat(1 << 20);
    expect(
        &ecr(KEYS),
        &[
            (&[("200 OK", "<html>")], 502, "it has no password"),
            (&[("200 OK", &huge)], 502, "larger than 128 KiB"),
            (
                &[("200 OK", "{\"authorizationData\":[]}")],
                502,
                "it has no password",
            ),
            (&[("200 OK", no_pair)], 502, "its password is not valid"),
            (&[("200 OK", no_base64)], 502, "its password is not valid"),
            (
                &[("400 Bad Request", refusal)],
                502,
                "refused the AWS keys in [upstream.login] (400 Bad Request, \
                 UnrecognizedClientException)",
            ),
            (&[("403 Forbidden", odd)], 502, "(403 Forbidden)"),
            (
                &[("400 Bad Request", "{\"__type\":\"ThrottlingException\"}")],
                429,
                "",
            ),
            (
                &[("307 Temporary Redirect\r\nLocation: SERVICE/x", "")],
                502,
                "a redirect, and none is followed",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn sts_gives_no_keys() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "ey.web.identity").unwrap();
    let keys = ecr(&format!(
        "role = \"arn:aws:iam::123456789012:role/ci\"\nweb_identity_token_file = \"{}\"\n\
         endpoint = \"SERVICE\"",
        token.display()
    ));
    let no_session =
        "<R><AccessKeyId>a</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey></R>";
    let markup = "<R><AccessKeyId>a</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
                  <SessionToken><x>stolen</x></SessionToken></R>";
    expect(
        &keys,
        &[
            (
                &[("403 Forbidden", "<Error>stolen ey.web.identity</Error>")],
                502,
                "refused the AWS role `arn:aws:iam::123456789012:role/ci` (403 Forbidden)",
            ),
            (&[("200 OK", "{}")], 502, "it has no keys"),
            (&[("200 OK", no_session)], 502, "it has no keys"),
            (&[("200 OK", markup)], 502, "it has no keys"),
            (
                &[("302 Found\r\nLocation: http://127.0.0.1:1/", "")],
                502,
                "a redirect, and none is followed",
            ),
            (&[("503 Service Unavailable", "")], 503, ""),
        ],
    )
    .await;
    std::fs::remove_file(&token).unwrap();
    expect(&keys, &[(&[], 502, "its token names the file")]).await;
}

#[tokio::test]
async fn the_metadata_service_of_aws_gives_no_keys() {
    let keys = ecr("instance_role = true\nendpoint = \"SERVICE\"");
    let session = ("200 OK", "session");
    expect(
        &keys,
        &[
            (
                &[("404 Not Found", "")],
                502,
                "refused the AWS role of this machine (404 Not Found)",
            ),
            (
                &[("200 OK", "a\nb")],
                502,
                "its session token does not fit into a header",
            ),
            (
                &[session, ("404 Not Found", "")],
                502,
                "refused the AWS role of this machine (404 Not Found)",
            ),
            (&[session, ("200 OK", "")], 502, "the machine has no role"),
            (
                &[session, ("200 OK", "../../user-data")],
                502,
                "the machine has no role",
            ),
            (
                &[session, ("200 OK", "ci?x=y")],
                502,
                "the machine has no role",
            ),
            (
                &[
                    session,
                    ("200 OK", "ci"),
                    ("200 OK", "{\"Token\":\"stolen\"}"),
                ],
                502,
                "it has no keys",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn google_gives_no_token() {
    let key = PlayedRegistry::gar().await.service_account_key();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    std::fs::write(&file, key).unwrap();
    let account = format!(
        "product = \"gar\"\n[upstream.login]\nservice_account = {{ file = \"{}\" }}\n\
         endpoint = \"SERVICE\"",
        file.display()
    );
    let machine =
        "product = \"gar\"\n[upstream.login]\nmetadata_server = true\nendpoint = \"SERVICE\"";
    let invalid = "{\"error\":\"invalid_grant\",\"error_description\":\"stolen\"}";
    for (keys, name) in [
        (account.as_str(), "the service account key"),
        (machine, "the service account of this machine"),
    ] {
        let refused = format!("refused {name}");
        expect(
            keys,
            &[
                (&[("400 Bad Request", invalid)], 502, &refused),
                (&[("404 Not Found", "")], 502, &refused),
                (&[("200 OK", "{}")], 502, "it has no token"),
                (&[("200 OK", "<html>")], 502, "it is no JSON with a token"),
                (
                    &[("200 OK", "{\"access_token\":\"a\\nstolen\"}")],
                    502,
                    "its token does not fit into a header",
                ),
                (
                    &[("301 Moved\r\nLocation: http://127.0.0.1:1/", "")],
                    502,
                    "a redirect, and none is followed",
                ),
                (&[("429 Too Many Requests", "")], 429, ""),
            ],
        )
        .await;
    }
    for content in ["{}", "{\"client_email\":\"a\",\"private_key\":\"stolen\"}"] {
        let service = Upstream::new().await;
        let gateway = gateway(&service, &account).await;
        super::played::replace(&file, content);
        let events = Events::kept();
        assert_eq!(ask(&gateway, "GET", "/v2/a/tags/list").await.0, 502);
        service.untouched().await;
        let event = events.with("upstream fails").join("\n");
        assert!(event.contains("cannot be read: "), "{event}");
        assert!(!event.contains("stolen"), "{event}");
        let key = PlayedRegistry::gar().await.service_account_key();
        super::played::replace(&file, &key);
    }
}

#[tokio::test]
async fn entra_and_azure_give_no_token() {
    let keys = "product = \"acr\"\napi = \"SERVICE\"\n[upstream.login]\ntenant = \"acme\"\n\
                client_id = \"app\"\nclient_secret = \"hunter2\"\nendpoint = \"SERVICE\"";
    let ping = (
        "401 U\r\nWWW-Authenticate: Bearer realm=\"https://r.test/oauth2/token\",service=\"r.test\"",
        "",
    );
    let access = ("200 OK", "{\"access_token\":\"stolen\"}");
    let refresh = ("200 OK", "{\"refresh_token\":\"stolen\"}");
    let refused = "refused the Entra application `app` (401 Unauthorized)";
    let refusal = ("401 Unauthorized", "{\"error\":\"stolen\"}");
    let no_token = "it is no JSON with a token";
    let redirect = ("302 Found\r\nLocation: http://127.0.0.1:1/", "");
    expect(
        keys,
        &[
            (&[ping, refusal], 502, refused),
            (&[ping, ("200 OK", "{}")], 502, no_token),
            (&[ping, redirect], 502, "a redirect, and none is followed"),
            (&[ping, access, refusal], 502, refused),
            (&[ping, access, ("200 OK", "{}")], 502, no_token),
            (
                &[ping, access, redirect],
                502,
                "a redirect, and none is followed",
            ),
            // A refresh token that is new is not exchanged again.
            (&[ping, access, refresh, refusal], 502, refused),
            (
                &[ping, access, refresh, ("200 OK", "{}")],
                502,
                "it has no token",
            ),
            (
                &[ping, access, refresh, ("503 Service Unavailable", "")],
                503,
                "",
            ),
        ],
    )
    .await;
}
