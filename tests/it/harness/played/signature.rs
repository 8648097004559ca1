//! AWS signature version 4, verified: the request is what its sender signed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::{PlayedCredentials, Recipient, RecordedRequest};

/// The parts of `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
fn parts(request: &RecordedRequest) -> Option<(Vec<&str>, &str, &str)> {
    let all = request
        .header("authorization")?
        .strip_prefix("AWS4-HMAC-SHA256 ")?;
    let part = |name: &str| {
        all.split(',')
            .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let scope = part("Credential")?.split('/').collect();
    Some((scope, part("SignedHeaders")?, part("Signature")?))
}

/// The key that a request says it was signed with.
pub fn key_id(request: &RecordedRequest) -> Option<&str> {
    parts(request)?.0.first().copied()
}

/// Whether a request to ECR was signed with a secret key, with its host, its time and its action.
pub fn is_valid(request: &RecordedRequest, secret: &str) -> bool {
    let Some((scope, signed, signature)) = parts(request) else {
        return false;
    };
    let is_whole = ["host", "x-amz-date", "x-amz-target"]
        .iter()
        .all(|name| signed.split(';').any(|signed| signed == *name));
    let time = request.header("x-amz-date").unwrap_or_default();
    let is_current = scope.get(1).is_some_and(|date| time.starts_with(date));
    let is_of_ecr = scope.get(3) == Some(&"ecr");
    is_whole
        && is_current
        && is_of_ecr
        && compute(request, secret).is_some_and(|computed| computed == signature)
}

/// The signature that a request should have, by what it says of itself.
pub fn compute(request: &RecordedRequest, secret: &str) -> Option<String> {
    let (scope, signed, _) = parts(request)?;
    let &[_, date, region, service, end] = scope.as_slice() else {
        return None;
    };
    let time = request.header("x-amz-date")?;
    let headers: String = signed
        .split(';')
        .map(|name| {
            let value = request.header(name).unwrap_or_default().trim();
            format!("{name}:{value}\n")
        })
        .collect();
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let canonical = format!(
        "{}\n{path}\n{query}\n{headers}\n{signed}\n{}",
        request.method,
        hex_digest(&request.body)
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/{end}\n{}",
        hex_digest(canonical.as_bytes())
    );
    let first = format!("AWS4{secret}").into_bytes();
    let signature = [date, region, service, end, &to_sign]
        .iter()
        .fold(first, |key, text| {
            let key = Key::new(HMAC_SHA256, &key);
            sign(&key, text.as_bytes()).as_ref().to_vec()
        });
    Some(HEXLOWER.encode(&signature))
}

/// The header lines of a call of ECR's API.
pub fn signed_headers(
    own: &PlayedCredentials,
    host: &str,
    (action, body): (&str, &str),
) -> Vec<String> {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/20261130/eu-central-1/ecr/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=",
        own.key_id
    );
    let target = format!("AmazonEC2ContainerRegistry_V20150921.{action}");
    let lines = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-date", "20261130T120000Z"),
        ("x-amz-target", &target),
        ("authorization", &authorization),
    ];
    let mut builder = http::Request::post("/").header("host", host);
    for (name, value) in lines {
        builder = builder.header(name, value);
    }
    let (parts, ()) = builder.body(()).unwrap().into_parts();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = RecordedRequest::new(Recipient::Api, parts, body);
    let signature = compute(&request, &own.secret_key).unwrap();
    let with_signature = |(name, value): (&str, &str)| match name {
        "authorization" => format!("{name}: {value}{signature}"),
        _ => format!("{name}: {value}"),
    };
    lines.into_iter().map(with_signature).collect()
}

fn hex_digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

/// The published test vector `get-vanilla`.
#[test]
fn the_signature_is_that_of_the_test_vector() {
    let authorization = "AWS4-HMAC-SHA256 \
         Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=";
    let request = http::Request::get("/")
        .header("host", "example.amazonaws.com")
        .header("x-amz-date", "20150830T123600Z")
        .header("authorization", authorization)
        .body(())
        .unwrap();
    let (parts, ()) = request.into_parts();
    let request = RecordedRequest::new(Recipient::Api, parts, Bytes::new());
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    assert_eq!(
        compute(&request, secret).unwrap(),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    );
}
