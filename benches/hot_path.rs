//! The pure parts that every request goes through: `cargo bench --bench hot_path`.
#![expect(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use moorgate::auth::basic;
use moorgate::auth::htpasswd::Htpasswd;
use moorgate::auth::verify::{Entry, Login, Verifier, VerifierSettings};
use moorgate::config::snapshot::{ConnectionSettings, FailureBudgets};
use moorgate::config::vhost::ListenAddress;
use moorgate::registry::call::Call;
use moorgate::registry::host::HostName;
use moorgate::registry::location::{Answer, Origin, Rewriter};
use moorgate::request::conn_info::{ConnInfo, Protocol};
use moorgate::request::headers;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse_a_call(criterion: &mut Criterion) {
    let blob = format!("/v2/base/app/blobs/{DIGEST}");
    let query = format!("_state={}&digest=sha256%3A{}", "x".repeat(300), &DIGEST[7..]);
    let mut group = criterion.benchmark_group("parse a call");
    group.bench_function("manifest head", |b| {
        b.iter(|| Call::parse(&Method::HEAD, black_box("/v2/base/app/manifests/latest"), None));
    });
    group.bench_function("blob get", |b| b.iter(|| Call::parse(&Method::GET, black_box(&blob), None)));
    group.bench_function("upload commit", |b| {
        let path = "/v2/base/app/blobs/uploads/6b3c9a93-af5d-473f-a4ff-9710022185cd";
        b.iter(|| Call::parse(&Method::PUT, black_box(path), Some(black_box(&query))));
    });
    group.finish();
}

fn authenticate_a_remembered_user(criterion: &mut Criterion) {
    let users: String =
        (0..100).map(|n| format!("user{n}:{}\n", bcrypt::hash("secret", 4).expect("hashed"))).collect();
    let users = Htpasswd::parse(users.as_bytes());
    let verifier = Verifier::new(VerifierSettings::default()).expect("a verifier");
    // `user42:secret`
    let header = "Basic dXNlcjQyOnNlY3JldA==";
    let credentials = basic::parse(header.as_bytes()).expect("Basic");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let admit = |credentials: &basic::Credentials| {
        let (client, budgets) = ("192.0.2.7".parse().expect("an address"), &FailureBudgets::default());
        verifier.admit(&Login { domain: "ci.example.com", users: &users, credentials, client, budgets })
    };
    let Ok(Entry::Admitted(first)) = admit(&credentials) else { panic!("not seen before") };
    runtime.block_on(verifier.verify(*first)).expect("right");
    criterion.bench_function("authenticate a remembered user", |b| {
        b.iter(|| {
            let credentials = basic::parse(black_box(header).as_bytes()).expect("Basic");
            assert!(matches!(admit(&credentials), Ok(Entry::Remembered(_))));
        });
    });
}

fn rewrite_headers(criterion: &mut Criterion) {
    let client = [
        ("host", "ci.example.com:5000"),
        ("user-agent", "docker/20.10 go/1.19 git-commit/5d6db84 kernel/6.1 os/linux arch/amd64"),
        ("accept", "application/vnd.docker.distribution.manifest.v2+json"),
        ("accept-encoding", "gzip"),
        ("authorization", "Basic dXNlcjQyOnNlY3JldA=="),
        ("connection", "close"),
    ];
    let fields: HeaderMap =
        client.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    let address: SocketAddr = "127.0.0.1:443".parse().expect("an address");
    let settings = ConnectionSettings::default();
    let conn = ConnInfo::new(ListenAddress(address), address, None, Protocol::Http1, &settings);
    criterion.bench_function("headers to the upstream", |b| {
        b.iter_batched_ref(
            || fields.clone(),
            |fields| headers::to_upstream(fields, &conn, HeaderValue::from_static("ci.example.com:5000")),
            criterion::BatchSize::SmallInput,
        );
    });
    let host = HostName::parse("registry-ci").expect("a host");
    let upstream = Origin { https: false, host: &host, port: 5000, base_path: "" };
    let rewriter = Rewriter { upstream, is_public: &|_| false, request_path: "/v2/base/app/blobs/uploads/" };
    let location =
        format!("http://registry-ci:5000/v2/base/app/blobs/uploads/abc?_state={}", "x".repeat(300));
    criterion.bench_function("rewrite a location", |b| {
        b.iter(|| rewriter.location(black_box(&location), Answer::Other));
    });
}

criterion_group!(hot_path, parse_a_call, authenticate_a_remembered_user, rewrite_headers);
criterion_main!(hot_path);
