//! The played APIs: the same contents as the registry's, for those who may.

use serde_json::{Value, json};

use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry};
use crate::harness::registry_client::ClientAnswer;
use crate::harness::{RegistryClient, basic};

const NAME: &str = "acme/app/part";
/// Where names have two levels.
const SHORT_NAME: &str = "acme/app";

/// A registry with two tags of one manifest and another one beside it; the digest of the first.
async fn filled(product: &str) -> (PlayedRegistry, &'static str, String) {
    let (_, switches) = PLAYED_PRODUCTS
        .iter()
        .find(|(name, _)| *name == product)
        .unwrap();
    let played = PlayedRegistry::start(switches()).await;
    let name = match played.switches().levels {
        Some(_) => SHORT_NAME,
        None => NAME,
    };
    let manifest = |n: u8| json!({"schemaVersion": 2, "mediaType": "a/b", "layers": [], "n": n});
    let digest = played.put_manifest(name, Some("v1"), &manifest(1));
    played.put_manifest(name, Some("v2"), &manifest(1));
    played.put_manifest(name, Some("v3"), &manifest(2));
    assert!(played.has_manifest(name, &digest));
    (played, name, digest)
}

/// Calls the API with an `Authorization`.
async fn call(
    played: &PlayedRegistry,
    authorization: &str,
    (method, target): (&str, &str),
    body: &Value,
) -> ClientAnswer {
    let client = RegistryClient::plain(played.addresses().api, Some(authorization));
    let body = match body {
        Value::Null => String::new(),
        Value::String(form) => form.clone(),
        _ => body.to_string(),
    };
    let kind = if body.starts_with('{') {
        "content-type: application/json"
    } else {
        "content-type: application/x-www-form-urlencoded"
    };
    client.send(method, target, &[kind], body.as_bytes()).await
}

/// The tags that are left.
fn tags(played: &PlayedRegistry, name: &str) -> Vec<String> {
    let tags = played.tags(name).into_iter();
    tags.map(|(tag, _)| tag).collect()
}

/// Unties `v1` by one request; others are not allowed to, and nobody twice.
async fn untags(
    (played, name): (&PlayedRegistry, &str),
    (allowed, other): (&str, &str),
    target: &str,
    statuses: [u16; 3],
) {
    let call = |authorization: String| {
        let request = ("DELETE", target);
        async move {
            call(played, &authorization, request, &Value::Null)
                .await
                .status
        }
    };
    let refused = call(other.to_owned()).await;
    assert_eq!(tags(played, name), ["v1", "v2", "v3"], "{target}");
    let done = call(allowed.to_owned()).await;
    assert_eq!(tags(played, name), ["v2", "v3"], "{target}");
    let again = call(allowed.to_owned()).await;
    assert_eq!([refused, done, again], statuses, "{target}");
}

#[tokio::test]
async fn a_tag_is_untied_by_each_products_own_api() {
    let (admin, robot) = (
        basic("admin", "admin-password"),
        basic("robot", "upstream-password"),
    );
    let (bearer, other) = ("Bearer admin-password", "Bearer upstream-password");

    let (played, name, _) = filled("acr").await;
    let target = format!("/acr/v1/{name}/_tags/v1");
    untags((&played, name), (&robot, bearer), &target, [401, 202, 404]).await;

    let (played, name, _) = filled("harbor").await;
    let repository = "/api/v2.0/projects/acme/repositories/app%252Fpart";
    let target = format!("{repository}/artifacts/v1/tags/v1");
    untags((&played, name), (&admin, &robot), &target, [401, 200, 404]).await;

    let (played, name, _) = filled("quay").await;
    let target = format!("/api/v1/repository/{name}/tag/v1");
    untags((&played, name), (bearer, other), &target, [401, 204, 404]).await;

    let (played, name, _) = filled("gitlab").await;
    let list = "/api/v4/projects/acme%2Fapp/registry/repositories?tags=true";
    let list = call(&played, bearer, ("GET", list), &Value::Null)
        .await
        .json();
    assert_eq!(list[0]["path"], name);
    let id = &list[0]["id"];
    let target = format!("/api/v4/projects/acme%2Fapp/registry/repositories/{id}/tags/v1");
    untags((&played, name), (bearer, other), &target, [403, 200, 404]).await;

    let (played, name, _) = filled("dockerhub").await;
    let mut tokens = Vec::new();
    for (user, password) in [("admin", "admin-password"), ("robot", "upstream-password")] {
        let body = json!({"identifier": user, "secret": password});
        let answer = call(&played, &robot, ("POST", "/v2/auth/token"), &body).await;
        let token = answer.json()["access_token"].clone();
        tokens.push(format!("Bearer {}", token.as_str().unwrap()));
    }
    let target = format!("/v2/repositories/{name}/tags/v1/");
    let logins = (tokens[0].as_str(), tokens[1].as_str());
    untags((&played, name), logins, &target, [403, 204, 404]).await;

    let (played, name, _) = filled("gar").await;
    let client = RegistryClient::plain(played.addresses().api, None);
    let target = "/computeMetadata/v1/instance/service-accounts/default/token";
    client.get(target).await.expect(403);
    let token = client.send("GET", target, &["metadata-flavor: Google"], b"");
    let token = token.await.json()["access_token"].clone();
    let token = format!("Bearer {}", token.as_str().unwrap());
    let repository = "/v1/projects/acme/locations/europe/repositories/app";
    let target = format!("{repository}/packages/part/tags/v1");
    untags(
        (&played, name),
        (&token, "Bearer none"),
        &target,
        [401, 200, 404],
    )
    .await;
}

#[tokio::test]
async fn a_version_of_github_goes_with_its_tags() {
    let (played, name, digest) = filled("ghcr").await;
    let versions = "/orgs/acme/packages/container/app%2Fpart/versions";
    let bearer = "Bearer admin-password";
    let list = call(&played, bearer, ("GET", versions), &Value::Null).await;
    let list = list.json();
    let found = list.as_array().unwrap().iter();
    let mut found = found.filter(|version| version["name"] == digest);
    let version = found.next().unwrap();
    let tagged = &version["metadata"]["container"]["tags"];
    assert_eq!(tagged, &json!(["v1", "v2"]));
    let target = format!("{versions}/{}", version["id"]);
    let request = ("DELETE", target.as_str());
    let other = "Bearer upstream-password";
    call(&played, other, request, &Value::Null)
        .await
        .expect(403);
    call(&played, bearer, request, &Value::Null)
        .await
        .expect(204);
    assert_eq!(tags(&played, name), ["v3"]);
    // The last one with a tag.
    let last = list[0]["id"].to_string();
    let target = format!("{versions}/{last}");
    let answer = call(&played, bearer, ("DELETE", &target), &Value::Null).await;
    answer.expect(400);
    let users = "/users/acme/packages/container/app%2Fpart/versions";
    let answer = call(&played, bearer, ("GET", users), &Value::Null).await;
    answer.expect(404);
}

#[tokio::test]
async fn projects_are_made_by_those_who_may() {
    let played = PlayedRegistry::harbor().await;
    let (admin, robot) = (
        basic("admin", "admin-password"),
        basic("robot$moorgate", "upstream-password"),
    );
    let request = ("POST", "/api/v2.0/projects");
    let body = json!({"project_name": "new", "metadata": {"public": "false"}});
    let mut statuses = Vec::new();
    for authorization in [&robot, &admin, &admin] {
        statuses.push(call(&played, authorization, request, &body).await.status);
    }
    assert_eq!(statuses, [403, 201, 409]);
    let client = played.client("repository:new/app:pull,push").await;
    let begun = client.send("POST", "/v2/new/app/blobs/uploads/", &[], b"");
    begun.await.expect(202);

    let played = PlayedRegistry::gar().await;
    let key: Value = serde_json::from_str(&played.service_account_key()).unwrap();
    assert!(
        key["token_uri"]
            .as_str()
            .unwrap()
            .starts_with(&played.api_url())
    );
    let own = played.switches().credentials;
    let authorization = basic(&own.admin_user, &own.admin_password);
    let target = "/v1/projects/acme/locations/europe/repositories?repositoryId=new";
    let begun = call(&played, &authorization, ("POST", target), &json!({})).await;
    let operation = begun.json();
    assert_eq!(operation["done"], false);
    let target = format!("/v1/{}", operation["name"].as_str().unwrap());
    let done = call(&played, &authorization, ("GET", &target), &Value::Null).await;
    assert_eq!(done.json()["done"], true);
    let client = played.client("repository:acme/new/app:pull,push").await;
    let begun = client.send("POST", "/v2/acme/new/app/blobs/uploads/", &[], b"");
    begun.await.expect(202);
    played.make_project("acme/other");
    assert_eq!(played.repositories(), Vec::<String>::new());
}

#[tokio::test]
async fn entra_gives_tokens_for_a_registry() {
    let (played, name, _) = filled("acr").await;
    let login = "/tenant/oauth2/v2.0/token";
    let own = played.switches().credentials;
    let form = |secret: &str| {
        json!(format!(
            "grant_type=client_credentials&client_id={}&client_secret={secret}&scope=registry",
            own.key_id
        ))
    };
    let none = "";
    call(&played, none, ("POST", login), &form("wrong"))
        .await
        .expect(401);
    let entra = call(&played, none, ("POST", login), &form(&own.secret_key)).await;
    let token = entra.json()["access_token"].as_str().unwrap().to_owned();
    let registry = RegistryClient::plain(played.addresses().registry, None);
    let kind = "content-type: application/x-www-form-urlencoded";
    let post = async |target: &str, form: String| {
        registry
            .send("POST", target, &[kind], form.as_bytes())
            .await
    };
    let service = "service=played.azurecr.io";
    let form = format!("grant_type=access_token&{service}&tenant=t&access_token={token}");
    let refresh = post("/oauth2/exchange", form).await.json();
    let refresh = refresh["refresh_token"].as_str().unwrap();
    let scope = format!("scope=repository:{name}:pull");
    let form = format!("grant_type=refresh_token&{service}&{scope}&refresh_token={refresh}");
    let access = post("/oauth2/token", form).await.json();
    let access = format!("Bearer {}", access["access_token"].as_str().unwrap());
    let client = RegistryClient::plain(played.addresses().registry, Some(&access));
    client
        .get(&format!("/v2/{name}/tags/list"))
        .await
        .expect(200);
    let form = format!("grant_type=refresh_token&{service}&{scope}&refresh_token={token}");
    post("/oauth2/token", form).await.expect(401);
}

#[tokio::test]
async fn throttling_has_each_products_form() {
    for (product, status, retry) in [
        ("acr", 429, Some("retry-after")),
        ("dockerhub", 429, Some("x-retry-after")),
        ("ecr", 400, None),
        ("gar", 429, Some("retry-after")),
        ("ghcr", 403, Some("retry-after")),
        ("gitlab", 429, Some("retry-after")),
        ("harbor", 429, Some("retry-after")),
        ("quay", 429, Some("retry-after")),
    ] {
        let (played, name, _) = filled(product).await;
        played.set(|switches| {
            switches.api_throttled = 1;
            switches.throttled = 1;
        });
        let answer = call(&played, "Bearer admin-password", ("GET", "/"), &Value::Null).await;
        assert_eq!(answer.status, status, "{product}");
        let found = ["retry-after", "x-retry-after"];
        let found = found.into_iter().find(|name| answer.header(name).is_some());
        assert_eq!(found, retry, "{product}");
        let client = RegistryClient::plain(played.addresses().registry, None);
        let target = format!("/v2/{name}/tags/list");
        client.get(&target).await.expect(429);
        client.get(&target).await.expect(401);
    }
}
