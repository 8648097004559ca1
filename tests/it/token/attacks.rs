//! Tokens that were not given here, or not for this: none of them is worth anything.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::fixture::{TokenFixture, part};
use crate::harness::{Domain, Origin, Setup};
use crate::store::client::Endpoint;

const SCOPE: &str = "repository:a:pull,push";

async fn refused(fixture: &TokenFixture, token: &str) {
    for target in ["/v2/", "/v2/a/tags/list"] {
        let answer = fixture.client().bearing(token).get(target).await;
        answer.refused(401, "UNAUTHORIZED");
        let challenge = answer.header("www-authenticate");
        assert!(
            challenge.starts_with("Bearer realm=\"https://ci.test/token\""),
            "{challenge}"
        );
        assert!(
            challenge.ends_with(",error=\"invalid_token\""),
            "{token}: {challenge}"
        );
    }
}

/// Signed as moorgate would, by this key.
fn signed(key: &EncodingKey, id: &str, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    encode(&header, claims, key).unwrap()
}

#[tokio::test]
async fn tokens_with_other_signatures_are_refused() {
    let fixture = TokenFixture::new("").await;
    let good = fixture.token("alice", SCOPE).await;
    fixture.client().bearing(&good).get("/v2/").await.is(200);
    let claims = part(&good, 1);
    let (_, id) = fixture.key().await;
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("{good}")
    };
    for alg in ["none", "None", "NONE", ""] {
        let none =
            URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": alg, "kid": id }).to_string());
        refused(&fixture, &format!("{none}.{payload}.")).await;
        refused(&fixture, &format!("{none}.{payload}.{signature}")).await;
    }
    // The public key is no secret: its bytes must not verify an HS256 signature.
    let shown = fixture.client().get("/.well-known/jwks.json").await.is(200);
    let jwk = shown.json()["keys"][0].clone();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let [der, pem, pem_without_its_end] = spki(&point);
    let documents = [shown.body.to_vec(), jwk.to_string().into_bytes()];
    for secret in [point, der, pem, pem_without_its_end]
        .into_iter()
        .chain(documents)
    {
        for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(alg);
            header.kid = Some(id.clone());
            refused(
                &fixture,
                &encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap(),
            )
            .await;
        }
    }
    // A foreign key under the id of ours, under its own id, and embedded in the header.
    let other = TokenFixture::new("").await;
    let (key, other_id) = other.key().await;
    refused(&fixture, &signed(&key, &id, &claims)).await;
    refused(&fixture, &signed(&key, &other_id, &claims)).await;
    let mut header_with_key = Header::new(Algorithm::ES256);
    header_with_key.kid = Some(other_id);
    header_with_key.jwk = serde_json::from_value(
        other.client().get("/.well-known/jwks.json").await.json()["keys"][0].clone(),
    )
    .unwrap();
    header_with_key.jku = Some("https://other.test/.well-known/jwks.json".to_owned());
    refused(&fixture, &encode(&header_with_key, &claims, &key).unwrap()).await;
    // The right signature with another name of the key, or none.
    for kid in [
        json!("x"),
        json!(""),
        json!("../../../dev/null"),
        json!(null),
        json!(1),
        json!(["a"]),
    ] {
        let header =
            URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": "ES256", "kid": kid }).to_string());
        refused(&fixture, &format!("{header}.{payload}.{signature}")).await;
    }
    for broken in [
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{}", &signature[..60]),
        format!("{header}.{payload}.{}", "A".repeat(signature.len())),
        format!("{header}.{payload}.{signature}x"),
        format!("{header}..{signature}"),
        good[..good.len() / 2].to_owned(),
        "x".to_owned(),
        "...".to_owned(),
    ] {
        refused(&fixture, &broken).await;
    }
    let mut more = claims.clone();
    more["sub"] = "root".into();
    refused(
        &fixture,
        &format!(
            "{header}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(more.to_string())
        ),
    )
    .await;
}

/// A public key as the files have it that libraries are given for it: a SubjectPublicKeyInfo of
/// P-256 (RFC 5480 §2) in DER and in PEM (RFC 7468 §13).
fn spki(point: &[u8]) -> [Vec<u8>; 3] {
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = [&HEAD[..], point].concat();
    let base64 = STANDARD.encode(&der);
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----",
        lines.join("\n")
    );
    let whole = format!("{pem}\n");
    let (rest, key) = SubjectPublicKeyInfo::from_der(&der).expect("a public key");
    assert!(rest.is_empty() && key.subject_public_key.data == point);
    [der, whole.into_bytes(), pem.into_bytes()]
}

#[tokio::test]
async fn tokens_with_other_claims_are_refused() {
    let fixture = TokenFixture::new("").await;
    let claims = part(&fixture.token("alice", SCOPE).await, 1);
    let (key, id) = fixture.key().await;
    let with = |claim: &str, value: Value| {
        let mut claims = claims.clone();
        claims[claim] = value;
        signed(&key, &id, &claims)
    };
    let now = claims["iat"].as_u64().unwrap();
    fixture
        .client()
        .bearing(&with("jti", "same otherwise".into()))
        .get("/v2/")
        .await
        .is(200);
    for (claim, value) in [
        ("exp", json!(now - 61)),
        ("exp", json!(0)),
        ("nbf", json!(now + 3600)),
        ("aud", json!("other.test")),
        ("aud", json!(["ci.test"])),
        ("aud", json!("")),
        ("iss", json!("other.test")),
        ("sub", json!("nobody")),
        ("sub", json!("bob")),
        ("entry", json!("")),
        ("access", json!("all")),
        ("exp", json!("tomorrow")),
    ] {
        refused(&fixture, &with(claim, value)).await;
    }
    for claim in ["exp", "nbf", "iss", "aud", "sub", "access"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(claim);
        refused(&fixture, &signed(&key, &id, &claims)).await;
    }
}

#[tokio::test]
async fn a_token_of_ten_mebibytes_is_not_read() {
    let fixture = TokenFixture::new("").await;
    let mut client = fixture.0.gateway.client().await;
    // The gateway stops reading long before the end.
    let head = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer ";
    client.send(head).await;
    let chunk = "A".repeat(64 << 10);
    for _ in 0..160 {
        if client.try_send(&chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(client.head().await.status(), 431);
    // One that fits into a head is refused like any other.
    refused(&fixture, &"A".repeat(16 << 10)).await;
}

#[tokio::test]
async fn a_token_of_one_domain_is_refused_at_another() {
    let origin = Origin::new().await;
    let domain = |name| Domain::new(name, &origin.url()).auth("mode = 'token'");
    let setup = Setup::new()
        .domain(domain("ci.test"))
        .domain(domain("other.test"));
    let basic = Domain::new("basic.test", &origin.url());
    let gateway = setup.domain(basic).start().await;
    let answer = Endpoint::new(&gateway, "http/1.1")
        .client()
        .get("/token?scope=repository:a:pull&offline_token=1")
        .await;
    let answer = answer.is(200).json();
    let token = answer["token"].as_str().unwrap();
    for (name, status) in [("ci.test", 200), ("other.test", 401), ("basic.test", 401)] {
        let mut peer =
            crate::harness::RawPeer::new(gateway.tls(name, &["http/1.1"]).await.unwrap());
        peer.send(format!(
            "GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        assert_eq!(peer.answer().await.0.status(), status, "{name}");
    }
    // The users of both have the same password, even the same entry: nor is the refresh token.
    let refresh = answer["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    for (name, status) in [("ci.test", 200), ("other.test", 401)] {
        let mut peer =
            crate::harness::RawPeer::new(gateway.tls(name, &["http/1.1"]).await.unwrap());
        peer.send(format!(
            "POST /token HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        ))
        .await;
        assert_eq!(peer.answer().await.0.status(), status, "{name}");
    }
}
