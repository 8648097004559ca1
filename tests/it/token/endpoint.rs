//! The token endpoint: who gets which token, in which form, and what is refused how.

use serde_json::json;

use super::fixture::{FORM, Kind, TokenFixture, part};
use crate::access::fixture::{INBOX, allow};
use crate::harness::{Domain, Gateway, RawPeer, Setup, basic};

#[tokio::test]
async fn a_login_gets_the_part_of_its_scopes_that_the_rules_allow() {
    let rules = format!(
        "{}{}",
        allow("base/**", "'pull', 'list'"),
        allow("own/*", "'pull', 'push', 'delete-tag'")
    );
    let fixture = TokenFixture::new(&rules).await;
    let scope = |query: &'static str| {
        let fixture = &fixture;
        async move {
            let query = format!("account=alice&service=ci.test&client_id=docker&{query}");
            let answer = fixture
                .get_token(Some(("alice", "secret")), &query)
                .await
                .is(200);
            assert_eq!(answer.header("cache-control"), "no-store");
            answer.json()["scope"].as_str().unwrap().to_owned()
        }
    };
    for (query, expected) in [
        ("scope=repository:base/app:pull", "repository:base/app:pull"),
        (
            "scope=repository:base/app:pull,push",
            "repository:base/app:pull",
        ),
        ("scope=repository:base/app:push", ""),
        (
            "scope=repository:own/a:push,pull",
            "repository:own/a:pull,push",
        ),
        (
            "scope=repository:own/a:*",
            "repository:own/a:pull,push,delete",
        ),
        (
            "scope=repository(plugin):own/a:pull",
            "repository:own/a:pull",
        ),
        // Several in one parameter, and several parameters.
        (
            "scope=repository:base/a:pull%20repository:own/b:push",
            "repository:base/a:pull repository:own/b:push",
        ),
        (
            "scope=repository:base/a:pull+repository:own/b:push",
            "repository:base/a:pull repository:own/b:push",
        ),
        (
            "scope=repository:base/a:pull&scope=repository:own/b:pull&scope=repository:own/b:push",
            "repository:base/a:pull repository:own/b:pull,push",
        ),
        // Nothing of this registry, and nothing of alice's.
        ("scope=repository:localhost:5000/own/a:pull", ""),
        ("scope=repository:elsewhere:pull,push", ""),
        ("scope=space:own/a:pull&scope=registry:catalog:*", ""),
        ("scope=repository:own/a:fly", ""),
        ("scope=", ""),
        ("", ""),
    ] {
        assert_eq!(scope(query).await, expected, "{query}");
    }
    let root = fixture
        .get_token(Some(("root", "secret")), "scope=registry:catalog:*")
        .await
        .json();
    assert_eq!(root["scope"], "registry:catalog:*");
}

#[tokio::test]
async fn the_answer_and_the_token_are_those_of_the_specification() {
    let fixture = TokenFixture::new(&allow("a", "'all'")).await;
    let answer = fixture
        .get_token(Some(("alice", "secret")), "scope=repository:a:pull")
        .await
        .is(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = answer.json();
    assert_eq!(answer["token"], answer["access_token"]);
    assert_eq!(answer["expires_in"], 300);
    assert!(
        answer.get("refresh_token").is_none(),
        "nobody asked for one"
    );
    let token = answer["token"].as_str().unwrap();
    let (_, kid) = fixture.key().await;
    assert_eq!(
        part(token, 0),
        json!({ "typ": "JWT", "alg": "ES256", "kid": kid })
    );
    let claims = part(token, 1);
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"]),
        (&json!("ci.test"), &json!("ci.test"), &json!("alice"))
    );
    assert_eq!(
        claims["access"],
        json!([{ "type": "repository", "name": "a", "actions": ["pull"] }])
    );
    let seconds = |claim: &str| claims[claim].as_u64().unwrap();
    assert_eq!(
        (
            seconds("exp") - seconds("iat"),
            seconds("iat") - seconds("nbf")
        ),
        (300, 60)
    );
    let other = fixture.token("alice", "repository:a:pull").await;
    assert_ne!(part(&other, 1)["jti"], claims["jti"]);
    let keys = fixture.client().get("/.well-known/jwks.json").await.is(200);
    assert_eq!(keys.header("content-type"), "application/json");
    assert_eq!(keys.json()["keys"].as_array().unwrap().len(), 1);
    assert!(keys.json()["keys"][0].get("d").is_none());
    let head = fixture
        .client()
        .ask("HEAD", "/.well-known/jwks.json")
        .await
        .is(200);
    assert_eq!(head.header("content-length"), keys.body.len().to_string());
    fixture
        .client()
        .ask("POST", "/.well-known/jwks.json")
        .await
        .is(405);
}

#[tokio::test]
async fn a_client_computes_with_no_time_of_the_server() {
    let fixture = TokenFixture::new(&allow("a", "'all'")).await;
    let alice = Some(("alice", "secret"));
    let query = "scope=repository:a:pull&offline_token=true";
    let form = "grant_type=password&username=alice&password=secret&access_type=offline";
    for answer in [
        fixture.get_token(alice, query).await.is(200),
        fixture.post_form(form).await.is(200),
    ] {
        let keys = answer.json();
        let keys: Vec<_> = keys.as_object().unwrap().keys().collect();
        let expected = [
            "access_token",
            "expires_in",
            "refresh_token",
            "scope",
            "token",
            "token_type",
        ];
        assert_eq!(keys, expected);
        for name in ["expires", "set-cookie", "last-modified", "age"] {
            assert!(!answer.has(name), "{name}");
        }
    }
}

#[tokio::test]
async fn the_form_gets_what_the_query_gets() {
    let fixture = TokenFixture::new(&allow("own/**", "'pull', 'push'")).await;
    let form = "grant_type=password&service=ci.test&client_id=containerd-client&username=alice&password=secret\
                &scope=repository%3Aown%2Fa%3Apull%2Cpush+repository:other:pull";
    let answer = fixture.post_form(form).await.is(200).json();
    assert_eq!(answer["scope"], "repository:own/a:pull,push");
    assert_eq!(answer["token"], answer["access_token"]);
    let kind = (
        "content-type",
        "Application/X-WWW-Form-Urlencoded; charset=utf-8",
    );
    fixture
        .client()
        .ask_with("POST", "/token", &[kind], form)
        .await
        .is(200);
    fixture
        .client()
        .bearing(answer["token"].as_str().unwrap())
        .push_blob("own/a", b"blob")
        .await;
}

#[tokio::test]
async fn wrong_credentials_get_401_and_are_counted() {
    let fixture = TokenFixture::new("").await;
    // Tries come back with time.
    let _clock = crate::harness::Clock::stopped();
    for (user, password) in [("alice", "wrong"), ("nobody", "secret"), ("alice", "")] {
        let answer = fixture
            .get_token(Some((user, password)), "scope=repository:a:pull")
            .await;
        assert_eq!(
            answer.refused_token(401, "UNAUTHORIZED"),
            "wrong user name or password"
        );
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"ci.test\"");
        let form = format!("grant_type=password&username={user}&password={password}");
        fixture
            .post_form(&form)
            .await
            .refused_token(401, "UNAUTHORIZED");
    }
    let bare = fixture.get_token(None, "scope=repository:a:pull").await;
    assert_eq!(
        bare.refused_token(401, "UNAUTHORIZED"),
        "log in to use this registry"
    );
    assert_eq!(bare.header("www-authenticate"), "Basic realm=\"ci.test\"");
    fixture
        .get_token(Some(("", "")), "")
        .await
        .refused_token(401, "UNAUTHORIZED");
    fixture
        .post_form("grant_type=password&username=&password=")
        .await
        .refused_token(401, "UNAUTHORIZED");
    let bearer = [("authorization", "Bearer x")];
    fixture
        .client()
        .ask_with("GET", "/token", &bearer, "")
        .await
        .refused_token(401, "UNAUTHORIZED");
    // Whichever way a password comes, it is one try.
    for number in 0..30 {
        fixture
            .get_token(Some(("alice", &format!("guess {number}"))), "")
            .await;
    }
    let refused = fixture
        .post_form("grant_type=password&username=alice&password=another")
        .await;
    refused.refused_token(429, "TOOMANYREQUESTS");
    assert!(refused.has("retry-after"));
    assert_eq!(refused.json()["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn malformed_token_requests_get_oauth_errors() {
    let fixture = TokenFixture::new("").await;
    let alice = Some(("alice", "secret"));
    let invalid = |error: &'static str| {
        move |answer: crate::store::client::Answer| {
            answer.refused_token(400, "UNSUPPORTED");
            assert_eq!(answer.json()["error"], error, "{answer:?}");
        }
    };
    for query in [
        "account=bob",
        "service=other.test",
        "service=ci.test&service=ci.test",
        "service=%zz",
        "account=%ff",
    ] {
        invalid("invalid_request")(fixture.get_token(alice, query).await);
    }
    for query in [
        "scope=a",
        "scope=repository:a:pull%00",
        "scope=repository:a%20b:pull",
    ] {
        invalid("invalid_scope")(fixture.get_token(alice, query).await);
    }
    let form = |more: &str| format!("grant_type=password&username=alice&password=secret&{more}");
    for body in [
        "",
        "username=alice&password=secret",
        "grant_type=password",
        "grant_type=password&username=alice",
        "grant_type=refresh_token",
        &form("username=bob"),
        &form("service=other.test"),
        "grant_type=%",
    ] {
        invalid("invalid_request")(fixture.post_form(body).await);
    }
    for kind in ["authorization_code", "client_credentials", "Password"] {
        let answer = fixture
            .post_form(&format!("grant_type={kind}&username=alice&password=secret"))
            .await;
        invalid("unsupported_grant_type")(answer);
    }
    for kind in [("content-type", "application/json"), ("accept", "*/*")] {
        invalid("invalid_request")(
            fixture
                .client()
                .ask_with("POST", "/token", &[kind], form(""))
                .await,
        );
    }
    let large = form(&format!("x={}", "x".repeat(64 << 10)));
    fixture
        .post_form(&large)
        .await
        .refused_token(413, "SIZE_INVALID");
    fixture
        .post_form("grant_type=password&username=alice&password=a%00b")
        .await
        .refused_token(401, "UNAUTHORIZED");
    for method in ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = fixture
            .client()
            .ask_with(method, "/token", &[FORM], "")
            .await
            .is(405);
        assert_eq!(answer.header("allow"), "GET, POST");
    }
    let twice = format!(
        "GET /token HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {}\r\nAuthorization: Basic eDp5\r\n\r\n",
        basic("alice", "secret")
    );
    let mut peer = fixture.0.gateway.client().await;
    peer.send(twice).await;
    assert_eq!(peer.head().await.status(), 400);
}

#[tokio::test]
async fn it_is_the_same_over_http2() {
    let fixture = TokenFixture::new(&allow("own/**", "'pull', 'push'")).await;
    let client = || crate::store::client::Endpoint::new(&fixture.0.gateway, "h2").client();
    let form =
        "grant_type=password&username=alice&password=secret&scope=repository:own/a:pull,push";
    let bare = client()
        .anonymous()
        .get("/v2/own/a/tags/list")
        .await
        .is(401);
    let challenge = "Bearer realm=\"https://ci.test/token\",service=\"ci.test\",scope=\"repository:own/a:pull\"";
    assert_eq!(bare.header("www-authenticate"), challenge);
    for answer in [
        client()
            .get("/token?service=ci.test&scope=repository:own/a:pull,push")
            .await,
        client()
            .anonymous()
            .ask_with("POST", "/token", &[FORM], form)
            .await,
    ] {
        let answer = answer.is(200).json();
        client()
            .bearing(answer["token"].as_str().unwrap())
            .push_blob("own/a", b"x")
            .await;
    }
}

#[tokio::test]
async fn a_stalled_form_is_timed_out() {
    let fixture = TokenFixture::new("").await;
    let mut peer = fixture.0.gateway.client().await;
    let (name, kind) = FORM;
    peer.send(format!(
        "POST /token HTTP/1.1\r\nHost: ci.test\r\n{name}: {kind}\r\nContent-Length: 50\r\n\r\ngrant"
    ))
    .await;
    peer.silent().await;
    crate::harness::jump(crate::harness::seconds(31)).await;
    assert_eq!(peer.head().await.status(), 408);
}

#[tokio::test]
async fn anonymous_tokens_grant_what_anonymous_may_do() {
    let rules =
        "[[access]]\nusers = ['@anonymous']\nrepositories = ['public/**']\nactions = ['all']\n";
    let fixture = TokenFixture::with(Kind::Store, "anonymous = 'pull'", rules).await;
    let image = fixture.seeded(&["public/app", "own/app"], "v1").await;
    let scopes = "scope=repository:public/app:pull,push&scope=repository:own/app:pull&scope=registry:catalog:*";
    let answer = fixture.get_token(None, scopes).await.is(200).json();
    assert_eq!(answer["scope"], "repository:public/app:pull");
    let token = answer["token"].as_str().unwrap();
    assert_eq!(part(token, 1)["sub"], "");
    fixture
        .client()
        .bearing(token)
        .check("public/app", "v1", &image)
        .await;
    // The empty pair that some clients send, in either form; and what it asks for beside.
    let empty = fixture
        .get_token(
            Some(("", "")),
            "scope=repository:public/app:pull&offline_token=true",
        )
        .await
        .is(200);
    assert!(empty.json().get("refresh_token").is_none());
    fixture
        .post_form("grant_type=password&username=&password=")
        .await
        .is(200);
    // A request with an account is a login.
    fixture
        .get_token(None, "account=alice")
        .await
        .refused_token(401, "UNAUTHORIZED");
    fixture
        .get_token(Some(("alice", "wrong")), "")
        .await
        .refused_token(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn an_inbox_grants_what_its_pushes_need() {
    let fixture = TokenFixture::new(INBOX).await;
    let query = "scope=repository:bob/site:pull,push,delete&scope=repository:alice/site:pull,push";
    let answer = fixture
        .get_token(Some(("bob", "secret")), query)
        .await
        .json();
    assert_eq!(answer["scope"], "repository:bob/site:push");
}

#[tokio::test]
async fn the_token_endpoint_exists_in_token_mode_alone() {
    let pages = crate::harness::Origin::new().await;
    let browser = format!("[browser]\nurl = '{}'", pages.url());
    let basic_domain = Domain::store("ci.test", "ci").tables(&browser);
    let gateway = Setup::new().domain(basic_domain).start().await;
    let mut client = gateway.client().await;
    for path in ["/token", "/.well-known/jwks.json"] {
        client.send(crate::harness::request("GET", path, "")).await;
        assert_eq!(client.answer().await.0.status(), 200);
    }
    assert_eq!(pages.requests().len(), 2, "pages like any other");
    let domain = Domain::store("ci.test", "ci")
        .tables(&browser)
        .auth("mode = 'token'");
    let gateway = Setup::new().domain(domain).start().await;
    let mut client = gateway.client().await;
    client
        .send(crate::harness::request("GET", "/token", ""))
        .await;
    assert!(
        String::from_utf8(client.answer().await.1)
            .unwrap()
            .contains("access_token")
    );
    assert_eq!(pages.requests().len(), 0);
    // People log in with their password there, as ever, and the page never sees it.
    client
        .send(crate::harness::request("GET", "/index.html", ""))
        .await;
    assert_eq!(client.answer().await.0.status(), 200);
    assert_eq!(pages.requests()[0].head.get("authorization"), None);
    client.send("GET / HTTP/1.1\r\nHost: ci.test\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert_eq!(
        (head.status(), head.get("www-authenticate")),
        (401, Some("Basic realm=\"ci.test\""))
    );
    client
        .send("GET / HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer x\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.0.status(), 401);
}

#[tokio::test]
async fn the_realm_has_the_host_of_the_request() {
    let domain = Domain::store("ci.test", "ci")
        .top("aliases = ['alias.test', '127.0.0.1']")
        .auth("mode = 'token'");
    let gateway = Setup::new().domain(domain).start().await;
    for (name, host) in [
        ("ci.test", "ci.test"),
        ("ci.test", "ci.test:8443"),
        ("alias.test", "alias.test:5000"),
        ("127.0.0.1", "127.0.0.1:5000"),
    ] {
        let mut client = client_of(&gateway, name).await;
        client
            .send(format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let (head, _) = client.answer().await;
        let challenge = format!("Bearer realm=\"https://{host}/token\",service=\"ci.test\"");
        assert_eq!(
            (head.status(), head.get("www-authenticate")),
            (401, Some(challenge.as_str()))
        );
        // A token from there is good at every name of the domain.
        let authorization = basic("alice", "secret");
        let service = host.replace(':', "%3A");
        client
            .send(format!("GET /token?service={service} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\r\n"))
            .await;
        let (head, body) = client.answer().await;
        assert_eq!(head.status(), 200, "{}", String::from_utf8_lossy(&body));
        let token = crate::harness::json(&body)["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut main = client_of(&gateway, "ci.test").await;
        main.send(format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: bearer  {token}\r\n\r\n"
        ))
        .await;
        assert_eq!(main.answer().await.0.status(), 200);
    }
}

async fn client_of(
    gateway: &Gateway,
    name: &str,
) -> RawPeer<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    RawPeer::new(gateway.tls(name, &["http/1.1"]).await.unwrap())
}
