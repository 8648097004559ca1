//! The pure parts that every request goes through: `cargo bench --bench hot_path`.
#![expect(
    clippy::too_many_lines,
    reason = "the inputs of a measurement stand beside it"
)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use moorgate::internal::auth::Htpasswd;
use moorgate::internal::auth::UserName;
use moorgate::internal::auth::basic;
use moorgate::internal::auth::{Bearer, TokenAccess, Tokens};
use moorgate::internal::auth::{Login, LoginAdmission, Verifier, VerifierSettings};
use moorgate::internal::auth::{Policy, Principal};
use moorgate::internal::config::ListenAddress;
use moorgate::internal::config::{
    AccessRule, AccessSettings, RuleLocation, Selector, TagConditions,
};
use moorgate::internal::config::{ConnectionSettings, FailureBudgets};
use moorgate::internal::journal::Journal;
use moorgate::internal::registry::Call;
use moorgate::internal::registry::Digest;
use moorgate::internal::registry::HostName;
use moorgate::internal::registry::{Action, Actions};
use moorgate::internal::registry::{Origin, ResponseKind, Rewriter};
use moorgate::internal::registry::{Pattern, RepositoryPattern};
use moorgate::internal::registry::{RepositoryName, Tag};
use moorgate::internal::registry::{Resource, Rights};
use moorgate::internal::request::headers;
use moorgate::internal::request::{ConnInfo, HandshakeName, Protocol};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse_a_call(criterion: &mut Criterion) {
    let blob = format!("/v2/base/app/blobs/{DIGEST}");
    let query = format!(
        "_state={}&digest=sha256%3A{}",
        "x".repeat(300),
        &DIGEST[7..]
    );
    let mut group = criterion.benchmark_group("parse a call");
    group.bench_function("manifest head", |b| {
        b.iter(|| {
            Call::parse(
                &Method::HEAD,
                black_box("/v2/base/app/manifests/latest"),
                None,
            )
        });
    });
    group.bench_function("blob get", |b| {
        b.iter(|| Call::parse(&Method::GET, black_box(&blob), None))
    });
    group.bench_function("upload commit", |b| {
        let path = "/v2/base/app/blobs/uploads/6b3c9a93-af5d-473f-a4ff-9710022185cd";
        b.iter(|| Call::parse(&Method::PUT, black_box(path), Some(black_box(&query))));
    });
    group.finish();
}

fn count_a_pull(criterion: &mut Criterion) {
    let journal = Journal::new("journal.redb".into());
    let repository = RepositoryName::parse("base/app").expect("valid");
    let (tag, digest) = (
        Tag::parse("latest").expect("valid"),
        Digest::parse(DIGEST).expect("valid"),
    );
    let mut group = criterion.benchmark_group("count a pull");
    group.bench_function("pending already", |b| {
        b.iter(|| journal.pulled(black_box(&repository), Some(&tag), &digest));
    });
    let many: Vec<_> = (0..10_000)
        .map(|n| Digest::parse(&format!("sha256:{n:064x}")).expect("valid"))
        .collect();
    let mut next = many.iter().cycle();
    group.bench_function("one of 10,000", |b| {
        b.iter(|| journal.pulled(black_box(&repository), Some(&tag), next.next()));
    });
    group.finish();
}

fn authenticate_a_remembered_user(criterion: &mut Criterion) {
    let users: String = (0..100)
        .map(|n| format!("user{n}:{}\n", bcrypt::hash("secret", 4).expect("hashed")))
        .collect();
    let users = Htpasswd::parse(users.as_bytes());
    let verifier = Verifier::new(VerifierSettings::default()).expect("a verifier");
    // `user42:secret`
    let header = "Basic dXNlcjQyOnNlY3JldA==";
    let credentials = basic::parse(header.as_bytes()).expect("Basic");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let admit = |credentials: &basic::Credentials| {
        let (client, budgets) = (
            "192.0.2.7".parse().expect("an address"),
            &FailureBudgets::default(),
        );
        verifier.admit(&Login {
            domain: "ci.example.com",
            users: &users,
            credentials,
            client,
            budgets,
        })
    };
    let Ok(LoginAdmission::Pending(first)) = admit(&credentials) else {
        panic!("not seen before")
    };
    runtime.block_on(verifier.verify(*first)).expect("right");
    criterion.bench_function("authenticate a remembered user", |b| {
        b.iter(|| {
            let credentials = basic::parse(black_box(header).as_bytes()).expect("Basic");
            assert!(matches!(
                admit(&credentials),
                Ok(LoginAdmission::Remembered(_))
            ));
        });
    });
}

fn verify_a_token(criterion: &mut Criterion) {
    let users: String = (0..100)
        .map(|n| format!("user{n}:{}\n", bcrypt::hash("secret", 4).expect("hashed")))
        .collect();
    let users = Htpasswd::parse(users.as_bytes());
    let state = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let tokens = Tokens::open(state.path(), now).expect("keys");
    let user = UserName::new("user42").expect("a name");
    let domain = "ci.example.com";
    let entry = tokens.entry_tag(domain, &user, &users);
    let mut access = TokenAccess::default();
    access.add(
        Resource::from_type_and_name("repository", "base/app").expect("a name"),
        Rights::ALL,
    );
    let bearer = Bearer {
        domain,
        user: Some((&user, &entry)),
    };
    let give = |access: &TokenAccess| {
        tokens
            .issue(bearer, access, Duration::from_secs(300), now)
            .expect("signed")
    };
    let known = give(&access);
    // So long that it is not remembered.
    let mut much = access.clone();
    for number in 0..30 {
        let name = format!("base/application-{number}");
        much.add(
            Resource::from_type_and_name("repository", &name).expect("a name"),
            Rights::ALL,
        );
    }
    let long = give(&much);
    let mut group = criterion.benchmark_group("tokens");
    for (name, token) in [
        ("verify one that was seen before", &known),
        ("verify the signature of a long one", &long),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| tokens.verify(black_box(token), domain, &users, now))
        });
    }
    group.bench_function("sign", |b| b.iter(|| give(black_box(&access))));
    group.finish();
}

fn rewrite_headers(criterion: &mut Criterion) {
    let client = [
        ("host", "ci.example.com:5000"),
        (
            "user-agent",
            "docker/20.10 go/1.19 git-commit/5d6db84 kernel/6.1 os/linux arch/amd64",
        ),
        (
            "accept",
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
        ("accept-encoding", "gzip"),
        ("authorization", "Basic dXNlcjQyOnNlY3JldA=="),
        ("connection", "close"),
    ];
    let fields: HeaderMap = client
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect();
    let address: SocketAddr = "127.0.0.1:443".parse().expect("an address");
    let settings = ConnectionSettings::default();
    let conn = ConnInfo::new(
        ListenAddress(address),
        address,
        HandshakeName::Address,
        Protocol::Http1,
        &settings,
    );
    criterion.bench_function("headers to the upstream", |b| {
        b.iter_batched_ref(
            || fields.clone(),
            |fields| {
                headers::to_upstream(
                    fields,
                    &conn,
                    HeaderValue::from_static("ci.example.com:5000"),
                )
            },
            criterion::BatchSize::SmallInput,
        );
    });
    let host = HostName::parse("registry-ci").expect("a host");
    let upstream = Origin {
        https: false,
        host: &host,
        port: 5000,
        base_path: "",
    };
    let rewriter = Rewriter {
        upstream,
        is_public: &|_| false,
        public_host: "ci.example.com",
        request_path: "/v2/base/app/blobs/uploads/",
    };
    let location = format!(
        "http://registry-ci:5000/v2/base/app/blobs/uploads/abc?_state={}",
        "x".repeat(300)
    );
    criterion.bench_function("rewrite a location", |b| {
        b.iter(|| rewriter.location(black_box(&location), ResponseKind::Other));
    });
}

/// A thousand rules of the kinds that administrators write.
fn thousand_rules() -> Vec<AccessRule> {
    let groups: Vec<_> = (0..20)
        .map(|group| {
            let members: Vec<Box<str>> = (0..50)
                .map(|n| format!("user{}", group * 7 + n).into())
                .collect();
            Selector::Group {
                name: format!("team{group}").into(),
                members: members.into(),
            }
        })
        .collect();
    let rule = |n: usize| {
        let (users, repository) = match n % 10 {
            0 => (Selector::Authenticated, format!("team{n}/**")),
            1 => (Selector::Name(Pattern::new("ci-*")), format!("ci{n}/*")),
            2 => (
                Selector::Name(Pattern::new(&format!("user{n}"))),
                "${user}/**".to_owned(),
            ),
            3 => (Selector::Authenticated, format!("base/app{n}")),
            4 => (
                Selector::Name(Pattern::new(&format!("user{n}"))),
                format!("base/*-{n}/**"),
            ),
            _ => (groups[n % 20].clone(), format!("base/team{n}/**")),
        };
        AccessRule {
            deny: n.is_multiple_of(5),
            users: vec![users],
            repositories: vec![RepositoryPattern::parse(&repository).expect("a pattern")],
            tags: n.is_multiple_of(3).then(|| vec![Pattern::new("v*")]),
            actions: if n.is_multiple_of(2) {
                Actions::ALL
            } else {
                Action::Pull.into()
            },
            networks: n
                .is_multiple_of(4)
                .then(|| vec!["10.0.0.0/8".parse().expect("a network")]),
            conditions: TagConditions::default(),
            location: RuleLocation {
                file: "ci.toml".into(),
                line: n,
            },
        }
    };
    (0..1000).map(rule).collect()
}

/// A thousand rules of one kind, of which the wording of none helps to tell the others apart.
fn one_kind_each() -> Vec<(&'static str, Vec<AccessRule>)> {
    let rules = |users: &dyn Fn(usize) -> Selector, repository: &str, tag: Option<&str>| {
        let with = |text: &str, n: usize| text.replace('N', &n.to_string());
        let rule = |n: usize| AccessRule {
            deny: n.is_multiple_of(5),
            users: vec![users(n)],
            repositories: vec![RepositoryPattern::parse(&with(repository, n)).expect("a pattern")],
            tags: tag.map(|tag| vec![Pattern::new(&with(tag, n))]),
            actions: Actions::ALL,
            networks: None,
            conditions: TagConditions::default(),
            location: RuleLocation {
                file: "ci.toml".into(),
                line: n,
            },
        };
        (0..1000).map(rule).collect::<Vec<_>>()
    };
    let all = |_: usize| Selector::Authenticated;
    let own = |n: usize| Selector::Name(Pattern::new(&format!("user{n}")));
    let patterned = |n: usize| Selector::Name(Pattern::new(&format!("*r{n}*")));
    let grouped = |n: usize| {
        let members: Vec<Box<str>> = (0..50)
            .map(|member| format!("user{}", n + member).into())
            .collect();
        Selector::Group {
            name: format!("team{n}").into(),
            members: members.into(),
        }
    };
    vec![
        ("*-N/**", rules(&all, "*-N/**", None)),
        ("N-*/**", rules(&all, "N-*/**", None)),
        ("base/*/*N*", rules(&all, "base/*/*N*", None)),
        ("**/app-N", rules(&all, "**/app-N", None)),
        ("** and tags", rules(&all, "**", Some("vN.*"))),
        ("** for each user", rules(&own, "**", None)),
        (
            "** for patterns of users",
            rules(&patterned, "**", Some("x")),
        ),
        ("**/app-N for groups", rules(&grouped, "**/app-N", None)),
    ]
}

fn authorize(criterion: &mut Criterion) {
    let policy = |rules| {
        let settings = AccessSettings {
            rules,
            ..AccessSettings::default()
        };
        Policy::new(&settings, Actions::default())
    };
    let client = "10.1.2.3".parse().expect("an address");
    let mut group = criterion.benchmark_group("authorize by 1000 rules");
    let mixed = policy(thousand_rules());
    for (name, repository) in [
        ("the last rule allows", "base/team999/app"),
        ("no rule", "base/other/app/deep/down"),
        ("own", "user42/app"),
    ] {
        let principal = Principal {
            user: Some("user42"),
            client,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                mixed.decide(
                    black_box(principal),
                    Action::Push,
                    black_box(repository),
                    Some("v1"),
                )
            });
        });
    }
    // A write asks for two rights, and so does a mount.
    let principal = Principal {
        user: Some("user42"),
        client,
    };
    group.bench_function("a whole write", |b| {
        b.iter(|| {
            [Action::Push, Action::Overwrite].map(|action| {
                mixed
                    .decide(
                        black_box(principal),
                        action,
                        black_box("base/team999/app"),
                        Some("v1"),
                    )
                    .allowed
            })
        });
    });
    for (name, rules) in one_kind_each() {
        let policy = policy(rules);
        for (action, tag) in [(Action::Pull, None), (Action::Push, Some("v77.1"))] {
            group.bench_function(format!("{name}, {action}"), |b| {
                let repository = "base/team/app-project-77";
                b.iter(|| policy.decide(black_box(principal), action, black_box(repository), tag));
            });
        }
    }
    group.finish();
}

criterion_group!(
    hot_path,
    parse_a_call,
    authenticate_a_remembered_user,
    verify_a_token,
    authorize,
    rewrite_headers,
    count_a_pull
);
criterion_main!(hot_path);
