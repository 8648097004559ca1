//! Credentials of services: ECR's password for a signed request, access tokens of Google.

use base64::Engine;
use moorgate::internal::app::StartError;

use super::played::ask;
use crate::harness::played::PlayedRegistry;
use crate::harness::{Clock, Domain, Events, Gateway, PATIENCE, Setup, Upstream, seconds, within};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LIST: &str = "/v2/acme/app/tags/list";

async fn gateway(played: &PlayedRegistry, keys: &str) -> Gateway {
    let keys = keys.replace("API", &played.api_url());
    let domain = Domain::new("ci.test", &played.url()).upstream(&keys);
    Setup::new().domain(domain).start().await
}

fn ecr(login: &str) -> String {
    format!(
        "product = \"ecr\"\napi = \"API\"\n[upstream.login]\nregion = \"eu-central-1\"\n{login}"
    )
}

/// How often the password was asked for since the last call.
fn exchanges(played: &PlayedRegistry) -> usize {
    let lines = played.take_lines();
    lines.iter().filter(|line| line.starts_with("api ")).count()
}

#[tokio::test]
async fn ecr_gives_a_password_for_static_keys_that_is_renewed_at_half_of_its_life() {
    let played = PlayedRegistry::ecr().await;
    played.make_repository("acme/app");
    let own = played.switches().credentials;
    let keys = format!(
        "access_key_id = \"{}\"\nsecret_access_key = \"{}\"",
        own.key_id, own.secret_key
    );
    let gateway = gateway(&played, &ecr(&keys)).await;
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    }
    assert_eq!(exchanges(&played), 1);
    let clock = Clock::stopped();
    let life = played.switches().token_life;
    clock.jump(life / 2 + seconds(60)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
    let mut renewed = 0;
    let waited = within(PATIENCE, async {
        while renewed == 0 {
            renewed += exchanges(&played);
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await, "the password is not renewed");
    assert_eq!(renewed, 1);
}

#[tokio::test]
async fn ecr_takes_a_profile_of_a_credentials_file_that_is_rotated() {
    let played = PlayedRegistry::ecr().await;
    played.make_repository("acme/app");
    let own = played.switches().credentials;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials");
    let profile = |secret: &str| {
        format!(
            "[ci]\naws_access_key_id = {}\naws_secret_access_key = {secret}\n",
            own.key_id
        )
    };
    std::fs::write(&file, profile("wrong")).unwrap();
    let keys = format!(
        "profile = \"ci\"\ncredentials_file = \"{}\"",
        file.display()
    );
    let events = Events::kept();
    let gateway = gateway(&played, &ecr(&keys)).await;
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 502);
    let lines = events.with("upstream fails");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("the AWS profile `ci` in "), "{lines:#?}");
    assert!(!events.all().contains("wrong"), "{}", events.all());
    super::played::replace(&file, &profile(&own.secret_key));
    assert_eq!(ask(&gateway, "GET", LIST).await.0, 200);
}

/// Answers requests of a service with these bodies, and returns their heads and bodies.
async fn serve(service: &Upstream, answers: &[&str]) -> Vec<(crate::harness::Head, String)> {
    let mut seen = Vec::new();
    for answer in answers {
        let mut peer = service.accept().await;
        let head = peer.head().await;
        let length = head.length().unwrap_or_default();
        let body = String::from_utf8(peer.bytes(length).await).unwrap();
        seen.push((head, body));
        let length = answer.len();
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"
        ))
        .await;
    }
    seen
}

#[tokio::test]
async fn ecr_takes_the_role_of_a_machine_and_one_that_a_token_assumes() {
    let played = PlayedRegistry::ecr().await;
    played.make_repository("acme/app");
    let own = played.switches().credentials;
    let (id, secret) = (own.key_id, own.secret_key);
    let service = Upstream::new().await;
    let endpoint = format!("endpoint = \"{}\"", service.url());
    let machine = gateway(&played, &ecr(&format!("instance_role = true\n{endpoint}"))).await;
    let document = format!(
        "{{\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"{secret}\",\"Token\":\"session\"}}"
    );
    let answers = ["imds-session", "ci-role", document.as_str()];
    let (asked, seen) = tokio::join!(ask(&machine, "GET", LIST), serve(&service, &answers));
    assert_eq!(asked.0, 200, "{asked:?}");
    let firsts: Vec<_> = seen.iter().map(|(head, _)| head.first.as_str()).collect();
    assert_eq!(
        firsts,
        [
            "PUT /latest/api/token HTTP/1.1",
            "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1",
            "GET /latest/meta-data/iam/security-credentials/ci-role HTTP/1.1",
        ]
    );
    assert_eq!(
        seen[1].0.get("x-aws-ec2-metadata-token"),
        Some("imds-session")
    );

    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "ey.web.identity").unwrap();
    let role = "arn:aws:iam::123456789012:role/ci";
    let keys = format!(
        "role = \"{role}\"\nweb_identity_token_file = \"{}\"\n{endpoint}",
        token.display()
    );
    let assuming = gateway(&played, &ecr(&keys)).await;
    let xml = format!(
        "<R><Credentials><SessionToken>session</SessionToken><SecretAccessKey>{secret}\
         </SecretAccessKey><AccessKeyId>{id}</AccessKeyId></Credentials></R>"
    );
    let answers = [xml.as_str()];
    let (asked, seen) = tokio::join!(ask(&assuming, "GET", LIST), serve(&service, &answers));
    assert_eq!(asked.0, 200, "{asked:?}");
    assert!(
        seen[0].1.contains("WebIdentityToken=ey.web.identity"),
        "{seen:?}"
    );
    assert!(
        seen[0].1.contains("Action=AssumeRoleWithWebIdentity"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn google_gives_a_token_for_a_service_account_and_for_a_machine() {
    let played = PlayedRegistry::gar().await;
    played.make_project("acme/app");
    let manifest = serde_json::json!({ "mediaType": MANIFEST, "schemaVersion": 2 });
    played.put_manifest("acme/app/image", Some("v1"), &manifest);
    let list = "/v2/acme/app/image/tags/list";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    std::fs::write(&file, played.service_account_key()).unwrap();
    let account = format!(
        "product = \"gar\"\n[upstream.login]\nservice_account = {{ file = \"{}\" }}\n\
         endpoint = \"API/token\"",
        file.display()
    );
    let machine = "product = \"gar\"\n[upstream.login]\nmetadata_server = true\nendpoint = \"API\"";
    for keys in [account.as_str(), machine] {
        let gateway = gateway(&played, keys).await;
        for _ in 0..3 {
            let (status, said) = ask(&gateway, "GET", list).await;
            assert_eq!(status, 200, "{said}");
        }
        assert_eq!(exchanges(&played), 1, "{keys}");
    }
}

#[tokio::test]
async fn google_gets_the_word_of_the_account_for_its_token_endpoint_alone() {
    let service = Upstream::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    let key = PlayedRegistry::gar().await.service_account_key();
    std::fs::write(&file, &key).unwrap();
    let endpoint = format!("{}/token", service.url());
    let keys = format!(
        "product = \"gar\"\n[upstream.login]\nservice_account = {{ file = \"{}\" }}\n\
         endpoint = \"{endpoint}\"",
        file.display()
    );
    let domain = Domain::new("ci.test", &service.url()).upstream(&keys);
    let gateway = Setup::new().domain(domain).start().await;
    let answers = ["{\"access_token\":\"a\",\"expires_in\":300}", "{}"];
    let (asked, seen) = tokio::join!(ask(&gateway, "GET", LIST), serve(&service, &answers));
    assert_eq!(asked.0, 200, "{asked:?}");
    assert_eq!(seen[0].0.first, "POST /token HTTP/1.1");
    assert_eq!(seen[1].0.get("authorization"), Some("Bearer a"));
    let (_, assertion) = seen[0].1.split_once("&assertion=").unwrap();
    let claims = assertion.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims);
    let claims = crate::harness::json(&claims.unwrap());
    assert_eq!(claims["aud"], endpoint);
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    assert_eq!(claims["scope"], scope);
    let account = crate::harness::json(key.as_bytes());
    assert_eq!(claims["iss"], account["client_email"]);
}

#[tokio::test]
async fn azure_gives_tokens_for_an_application_of_entra() {
    let events = Events::kept();
    let played = PlayedRegistry::acr().await;
    let manifest = serde_json::json!({ "mediaType": MANIFEST, "schemaVersion": 2 });
    for name in ["acme/app", "acme/other"] {
        played.put_manifest(name, Some("v1"), &manifest);
    }
    let own = played.switches().credentials;
    let keys = |secret: &str| {
        format!(
            "product = \"acr\"\napi = \"API\"\n[upstream.login]\ntenant = \"acme\"\n\
             client_id = \"{}\"\nclient_secret = \"{secret}\"\nendpoint = \"API\"",
            own.key_id
        )
    };
    let gateway_of_entra = gateway(&played, &keys(&own.secret_key)).await;
    for _ in 0..3 {
        let (status, said) = ask(&gateway_of_entra, "GET", LIST).await;
        assert_eq!(status, 200, "{said}");
    }
    let lines = played.take_lines().join("\n");
    assert_eq!(lines.matches("/oauth2/").count(), 3, "{lines}");
    let other = ask(&gateway_of_entra, "GET", "/v2/acme/other/tags/list").await;
    assert_eq!(other.0, 200, "{other:?}");
    let lines = played.take_lines().join("\n");
    assert_eq!(lines.matches("/oauth2/").count(), 1, "{lines}");
    // What was exchanged before is revoked.
    played.revoke_tokens();
    assert_eq!(ask(&gateway_of_entra, "GET", LIST).await.0, 200);

    let refused = gateway(&played, &keys("not-this-one")).await;
    assert_eq!(ask(&refused, "GET", LIST).await.0, 502);
    let lines = events.with("upstream fails");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("the Entra application `"), "{lines:#?}");
    assert!(!events.all().contains("not-this-one"), "{}", events.all());
}

#[tokio::test]
async fn a_login_that_cannot_work_is_refused_at_the_start() {
    let played = PlayedRegistry::ecr().await;
    for (keys, words) in [
        (
            "product = \"ecr\"\n[upstream.login]\ninstance_role = true",
            "does not tell the region of AWS",
        ),
        (
            "product = \"ecr\"\napi = \"http://api.example.com\"\n[upstream.login]\n\
             region = \"eu-central-1\"\ninstance_role = true",
            "get credentials: write https://",
        ),
        (
            "product = \"acr\"\n[upstream.login]\ntenant = \"a/b\"\nclient_id = \"c\"\n\
             client_secret = \"s\"",
            "is an id or a domain of Entra",
        ),
    ] {
        let domain = Domain::new("ci.test", &played.url()).upstream(keys);
        match Setup::new().domain(domain).try_start().await {
            Err(StartError::Configuration(problems)) => {
                assert!(problems.to_string().contains(words), "{problems}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started: {keys}"),
        }
    }
}
