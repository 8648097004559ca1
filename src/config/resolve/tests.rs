use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::config::acme::{ChallengeKind, Fallback};
use crate::config::problem::{Colour, ProblemSeverity};
use crate::config::raw;
use crate::config::upstream::{LoginKind, Redirects, UpstreamAuthorization};
use crate::config::vhost::{
    AuthMode, CertificateSource, Limits, LocationForm, MissingContent, Timeouts, TokenSettings,
};

const REST: &str = "[tls]\ninternal = true\n[auth]\nhtpasswd = 'ci.htpasswd'\n[upstream]\nurl = 'http://registry:5000'\n";

/// A file of `keys` at the top and all that a domain must have.
fn complete(keys: &str) -> String {
    format!("{keys}\n{REST}")
}

/// A domain with another table in place of `[table]`.
pub(super) fn with(table: &str, content: &str) -> String {
    let mut text = "domain = 'ci.example.com'\n".to_owned();
    let tables = [
        ("tls", "[tls]\ninternal = true\n"),
        ("auth", "[auth]\nhtpasswd = 'ci.htpasswd'\n"),
        ("upstream", "[upstream]\nurl = 'http://registry:5000'\n"),
    ];
    for (name, usual) in tables {
        if name != table {
            text.push_str(usual);
        }
    }
    text + content
}

fn resolve(main: &str, domains: &[&str]) -> (Option<Snapshot>, Problems) {
    let mut problems = Problems::default();
    let source =
        |path: &str, text: &str| Arc::new(Source::new(PathBuf::from(path), text.to_owned()));
    let main = source("moorgate.toml", main);
    let main = MainFile {
        raw: raw::main(&main, &mut problems),
        source: main,
        bindings: Vec::new(),
        groups: None,
    };
    let mut files = Vec::new();
    for (name, text) in ["a", "b", "c"].into_iter().zip(domains) {
        let source = source(&format!("conf.d/{name}.toml"), text);
        let Some(raw) = raw::domain(&source, &mut problems) else {
            continue;
        };
        files.push(Arc::new(DomainFile {
            source,
            raw,
            groups: None,
        }));
    }
    let snapshot = snapshot(Path::new(""), main, files, &mut problems);
    problems.sort();
    (snapshot, problems)
}

pub(super) fn valid(main: &str, domains: &[&str]) -> Snapshot {
    let (snapshot, problems) = resolve(main, domains);
    assert!(problems.is_empty(), "{problems}");
    snapshot.expect("a snapshot")
}

pub(super) fn messages(main: &str, domains: &[&str]) -> Vec<String> {
    let (_, problems) = resolve(main, domains);
    let severity = |problem: &Problem| match problem.severity() {
        ProblemSeverity::Error => "",
        ProblemSeverity::Warning => "warning: ",
    };
    problems
        .iter()
        .map(|problem| format!("{}{}", severity(problem), problem.message()))
        .collect()
}

/// The problems as text.
pub(super) fn rendered(main: &str, domains: &[&str]) -> String {
    resolve(main, domains).1.render(Colour::Never)
}

#[test]
fn a_short_domain_file_gets_the_defaults() {
    let snapshot = valid("", &[&complete("domain = 'CI.example.com'")]);
    assert_eq!(snapshot.state, Path::new("/var/lib/moorgate"));
    assert_eq!(
        snapshot
            .https
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [":443"]
    );
    assert_eq!(
        snapshot
            .http
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [":80"]
    );
    assert_eq!((snapshot.admin, &snapshot.log), (None, &Default::default()));
    assert_eq!(snapshot.connection, Default::default());
    assert_eq!(
        (&snapshot.trusted_proxies, snapshot.failures),
        (&Default::default(), Default::default())
    );
    let host = &snapshot.domains[0];
    assert_eq!(
        (host.domain.as_str(), host.auth.realm.as_str()),
        ("ci.example.com", "ci.example.com")
    );
    assert_eq!(
        (host.listen.clone(), host.aliases.len()),
        (snapshot.https.clone(), 0)
    );
    assert_eq!(host.certificate, CertificateSource::Internal);
    assert_eq!(host.auth.htpasswd, Path::new("conf.d/ci.htpasswd"));
    assert_eq!(host.source, Path::new("conf.d/a.toml"));
    let upstream = host.registry.upstream().expect("it exists already");
    assert!(matches!(
        upstream.authorization,
        UpstreamAuthorization::Strip
    ));
    assert_eq!(
        (upstream.redirects, upstream.roots.is_none()),
        (Redirects::Pass, true)
    );
    assert_eq!(
        (host.limits, host.timeouts),
        (Limits::default(), Timeouts::default())
    );
    assert_eq!(host.browser, None);
    assert_eq!(host.locations, LocationForm::Absolute);
}

#[test]
fn every_setting_arrives() {
    let main = "https = [':8443']\nhttp = []\nstate = 'state'\ntrusted_proxies = ['10.0.0.0/8', '::1']\n\
        [admin]\nlisten = '127.0.0.1:9180'\n[auth]\naddress_failures = 30\nuser_failures = 40\nfailure_window = '5min'\n\
        [log]\nformat = 'json'\nlevel = 'debug'\naccess = false\n\
        [limits]\nmanifest = '2 MiB'\nbody = '1 GiB'\nhead = '16 KiB'\nhead_lines = 50\ntarget = 4096\nh2_streams = 10\n\
        connections = 20\nclient_connections = 7\nclient_connection_rate = 8\npasswords_waiting = 9\n\
        [timeouts]\nstall = '1min'\nhandshake = '1s'\nfirst_head = '2s'\nhead = '3s'\nidle = '4s'\nidle_unauthenticated = '3s'\nh2_ping = '5s'\ndrain = '6s'\n";
    let domain = "domain = 'ci.example.com'\naliases = ['localhost', '127.0.0.1']\nlisten = [':8443', '[::1]:5000']\n\
        [tls]\ncertificate = '../ci.pem'\nkey = '/keys/ci.key'\n[auth]\nhtpasswd = '../ci.htpasswd'\nrealm = 'CI'\n\
        [upstream]\nurl = 'https://registry/base/'\nroots = 'roots.pem'\nusername = 'me'\npassword = 's3cret'\n\
        authorization = 'strip'\nredirects = 'follow'\nfollow_hosts = ['minio:9000']\nlocations = 'relative'\n[browser]\nurl = 'http://browser'\n\
        [limits]\nbody = 'none'\nupstream_connections = 30\n\
        user_requests = 31\nuser_uploads = 32\nuser_upload_sessions = 33\n[timeouts]\nfirst_body_byte = '1s'\nupstream_connect = '2s'\nupstream_head = '3s'\n\
        upstream_commit = '4s'\nupstream_idle = '5s'\n";
    let snapshot = valid(main, &[domain]);
    insta::assert_debug_snapshot!(snapshot, @r#"
    Snapshot {
        directory: "",
        state: "state",
        written_listeners: [
            WrittenListener {
                address: ListenAddress(
                    [::]:8443,
                ),
                file: "conf.d/a.toml",
                span: 73..80,
            },
            WrittenListener {
                address: ListenAddress(
                    [::1]:5000,
                ),
                file: "conf.d/a.toml",
                span: 82..94,
            },
            WrittenListener {
                address: ListenAddress(
                    127.0.0.1:9180,
                ),
                file: "moorgate.toml",
                span: 101..117,
            },
        ],
        https: [
            ListenAddress(
                [::]:8443,
            ),
            ListenAddress(
                [::1]:5000,
            ),
        ],
        http: [],
        domains: [
            VirtualHost {
                domain: "ci.example.com",
                aliases: [
                    Authority {
                        host: "localhost",
                        port: None,
                    },
                    Authority {
                        host: "127.0.0.1",
                        port: None,
                    },
                ],
                listen: [
                    ListenAddress(
                        [::]:8443,
                    ),
                    ListenAddress(
                        [::1]:5000,
                    ),
                ],
                certificate: Files {
                    certificate: "conf.d/../ci.pem",
                    key: "/keys/ci.key",
                },
                auth: AuthSettings {
                    htpasswd: "conf.d/../ci.htpasswd",
                    realm: "CI",
                    mode: Basic,
                    anonymous: None,
                },
                access: AccessSettings {
                    rules: [],
                    groups: {},
                    inherits: true,
                    written: WrittenUsers {
                        references: [],
                        repositories: [],
                    },
                },
                registry: Upstream(
                    UpstreamSettings {
                        url: UpstreamUrl {
                            scheme: Https,
                            host: "registry",
                            port: 443,
                            base_path: "/base",
                        },
                        others: [],
                        check: None,
                        roots: Some(
                            "conf.d/roots.pem",
                        ),
                        authorization: Login(
                            LoginSettings {
                                kind: Password {
                                    username: "me",
                                    password: SecretSource(
                                        Literal(
                                            SecretBox<str>([REDACTED]),
                                        ),
                                    ),
                                },
                                endpoint: None,
                                region: None,
                            },
                        ),
                        product: None,
                        create: false,
                        untag: None,
                        admin: None,
                        api: None,
                        hosts: [],
                        names: NameMap {
                            rules: [],
                        },
                        spool: 10737418240,
                        spool_directory: "state/spool/ci.example.com",
                        redirects: Follow,
                        follow_hosts: [
                            Authority {
                                host: "minio",
                                port: Some(
                                    9000,
                                ),
                            },
                        ],
                    },
                ),
                locations: Relative,
                browser: Some(
                    BrowserSettings {
                        url: UpstreamUrl {
                            scheme: Http,
                            host: "browser",
                            port: 80,
                            base_path: "",
                        },
                    },
                ),
                limits: Limits {
                    manifest_bytes: 2097152,
                    body_bytes: None,
                    user_requests: 31,
                    user_uploads: 32,
                    user_upload_sessions: 33,
                    upstream_connections: 30,
                },
                timeouts: Timeouts {
                    first_body_byte: 1s,
                    stall: 60s,
                    upstream_connect: 2s,
                    upstream_head: 3s,
                    upstream_commit: 4s,
                    upstream_idle: 5s,
                },
                retention: None,
                quotas: [],
                source: "conf.d/a.toml",
            },
        ],
        shared_users: WrittenUsers {
            references: [],
            repositories: [],
        },
        acme: AcmeSettings {
            authorities: [
                CaSettings {
                    directory: Known(
                        LetsEncrypt,
                    ),
                    roots: None,
                    profile: None,
                    chain: None,
                    binding: None,
                    public: None,
                    ports: ValidationPorts {
                        http: 80,
                        tls: 443,
                    },
                },
            ],
            challenges: [
                TlsAlpn01,
            ],
            dns_command: None,
            resolvers: [],
        },
        admin: Some(
            127.0.0.1:9180,
        ),
        trusted_proxies: TrustedProxies(
            [
                Network(
                    10.0.0.0/8,
                ),
                Network(
                    ::1/128,
                ),
            ],
        ),
        failures: FailureBudgets {
            address: 30,
            user: 40,
            window: 300s,
        },
        log: LogSettings {
            format: Json,
            level: Debug,
            access: false,
        },
        connection: ConnectionSettings {
            handshake: 1s,
            first_head: 2s,
            head: 3s,
            idle: 4s,
            idle_unauthenticated: 3s,
            h2_ping: 5s,
            drain: 6s,
            head_bytes: 16384,
            head_lines: 50,
            target_bytes: 4096,
            h2_streams: 10,
            connections: 20,
            client_connections: Some(
                7,
            ),
            client_connection_rate: 8,
            passwords_waiting: 9,
        },
    }
    "#);
    let UpstreamAuthorization::Login(login) = &snapshot.domains[0]
        .registry
        .upstream()
        .unwrap()
        .authorization
    else {
        panic!("no credentials");
    };
    let LoginKind::Password { username, password } = &login.kind else {
        panic!("not a password");
    };
    let password = password.read().unwrap();
    assert_eq!(
        (username.as_str(), password.expose_secret()),
        ("me", "s3cret")
    );
    assert_eq!(snapshot.domains[0].timeouts.stall, Duration::from_secs(60));
}

#[test]
fn what_a_domain_must_have() {
    let cases: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "`domain` is missing",
                "no source of the certificate is given",
                "`auth.htpasswd` is missing: nobody could log in",
                "`upstream.url` is missing",
            ],
        ),
        (
            "domain = 1\ntls = 1\nauth = 1\nupstream = 1\nlisten = 1",
            &[
                "`domain` must be a string in quotes, not an integer",
                "`tls` must be a table, not an integer",
                "`auth` must be a table, not an integer",
                "`upstream` must be a table, not an integer",
                "`listen` must be a list, not an integer",
            ],
        ),
        (
            &with("tls", "[tls]"),
            &["no source of the certificate is given"],
        ),
        (
            &with("tls", "[tls]\ncertificate = 'a'"),
            &["`tls.key` is missing"],
        ),
        (
            &with("tls", "[tls]\nkey = 'a'"),
            &["`tls.certificate` is missing"],
        ),
        (
            &with("tls", "[tls]\nkey = 1"),
            &[
                "`tls.certificate` is missing",
                "`tls.key` must be a string in quotes, not an integer",
            ],
        ),
        (
            &with("tls", "[tls]\ninternal = 1"),
            &["`tls.internal` must be a boolean, not an integer"],
        ),
        (
            &with("tls", "[tls]\ninternal = false"),
            &["`tls.internal` is false, which has no effect"],
        ),
        (
            &with("tls", "[tls]\ninternal = true\nkey = 'a'"),
            &["`tls` names two sources of the certificate"],
        ),
        (
            &with(
                "tls",
                "[tls]\ninternal = true\ncertificate = 'b'\nkey = 'a'",
            ),
            &["`tls` names two sources of the certificate"],
        ),
        (
            &with("auth", "[auth]\nrealm = 'a'"),
            &["`auth.htpasswd` is missing: nobody could log in"],
        ),
        (
            &with("auth", "[auth]\nhtpasswd = 'x'\nrealm = 'a\"b'"),
            &["`auth.realm` is not a realm"],
        ),
        (&with("", "[browser]"), &["`browser.url` is missing"]),
        (
            &with("", "[browser]\nurl = 'x'"),
            &["`browser.url` does not begin with http:// or https://"],
        ),
        (
            &complete("domain = '10.0.0.1'"),
            &["`domain` is an address, not a name"],
        ),
        (
            &complete("domain = 'a.b'\nlisten = []"),
            &["`listen` is empty: nobody could reach this domain"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(messages("", &[text]), *expected, "{text}");
    }
}

#[test]
fn what_goes_together_in_an_upstream() {
    let upstream = |more: &str| with("upstream", &format!("[upstream]\nurl = 'http://a'\n{more}"));
    let cases: &[(&str, &[&str])] = &[
        ("username = 'a'", &["`upstream.username` has no `password`"]),
        (
            "password = 's3cret'",
            &["`upstream.password` has no `username`"],
        ),
        ("authorization = 'pass'", &[]),
        (
            "authorization = 'strip'\nusername = 'a'\npassword = 'b'",
            &[],
        ),
        (
            "authorization = 'pass'\nusername = 'a'\npassword = 'b'",
            &["`upstream.authorization` cannot be \"pass\" beside credentials of moorgate's own"],
        ),
        (
            "username = 'a:b'\npassword = 'c'",
            &["`upstream.username` is not a user name"],
        ),
        (
            "username = 'a'\npassword = 1",
            &["`upstream.password` is not a secret"],
        ),
        ("roots = 'a'", &["`upstream.roots` has no effect with http"]),
    ];
    for (more, expected) in cases {
        assert_eq!(messages("", &[&upstream(more)]), *expected, "{more}");
    }
}

#[test]
fn what_goes_together_in_an_auth() {
    let auth = |more: &str, upstream: &str| {
        format!(
            "domain = 'ci.example.com'\n[tls]\ninternal = true\n[auth]\nhtpasswd = 'users'\n{more}\n\
             [upstream]\nurl = 'http://a'\n{upstream}\n"
        )
    };
    let mode = |more: &str| valid("", &[&auth(more, "")]).domains[0].auth.mode;
    assert_eq!(mode(""), AuthMode::Basic);
    assert_eq!(mode("mode = 'basic'"), AuthMode::Basic);
    let (minutes, days) = (
        |n: u64| Duration::from_secs(60 * n),
        |n: u64| Duration::from_secs(86_400 * n),
    );
    let default = TokenSettings {
        lifetime: minutes(5),
        refresh_lifetime: Some(days(90)),
    };
    assert_eq!(mode("mode = 'token'"), AuthMode::Token(default));
    assert_eq!(
        mode("mode = 'token'\ntoken_lifetime = '15min'\nrefresh_token_lifetime = '7d'"),
        AuthMode::Token(TokenSettings {
            lifetime: minutes(15),
            refresh_lifetime: Some(days(7)),
        })
    );
    assert_eq!(
        mode("mode = 'token'\nrefresh_tokens = true"),
        AuthMode::Token(default)
    );
    assert_eq!(
        mode("mode = 'token'\nrefresh_tokens = false"),
        AuthMode::Token(TokenSettings {
            refresh_lifetime: None,
            ..default
        })
    );
    let cases: &[(&str, &str, &[&str])] = &[
        ("mode = 'bearer'", "", &["`auth.mode` is not a known value"]),
        (
            "token_lifetime = '5min'",
            "",
            &["`auth.token_lifetime` is only for tokens"],
        ),
        (
            "mode = 'token'\ntoken_lifetime = '59s'",
            "",
            &["`auth.token_lifetime` is too short"],
        ),
        (
            "mode = 'token'\ntoken_lifetime = '25h'",
            "",
            &["`auth.token_lifetime` is too long"],
        ),
        (
            "mode = 'basic'\nrefresh_token_lifetime = '7d'",
            "",
            &["`auth.refresh_token_lifetime` is only for tokens"],
        ),
        (
            "mode = 'token'\nrefresh_token_lifetime = '59min'",
            "",
            &["`auth.refresh_token_lifetime` is too short"],
        ),
        (
            "refresh_tokens = false",
            "",
            &["`auth.refresh_tokens` is only for tokens"],
        ),
        (
            "mode = 'token'\nrefresh_tokens = 'no'",
            "",
            &["`auth.refresh_tokens` must be a boolean, not a string"],
        ),
        (
            "mode = 'token'\nrefresh_tokens = false\nrefresh_token_lifetime = '7d'",
            "",
            &["`auth.refresh_token_lifetime` has no effect with `refresh_tokens = false`"],
        ),
        (
            "mode = 'token'",
            "authorization = 'pass'",
            &["`upstream.authorization` cannot be \"pass\" with `auth.mode` \"token\""],
        ),
        ("mode = 'token'", "authorization = 'strip'", &[]),
        ("mode = 'token'", "username = 'a'\npassword = 's3cret'", &[]),
    ];
    for (more, upstream, expected) in cases {
        assert_eq!(messages("", &[&auth(more, upstream)]), *expected, "{more}");
    }
}

#[test]
fn a_domain_may_have_a_registry_of_its_own() {
    let store = |more: &str| {
        let text = with("upstream", &format!("[upstream]\ndirectory = 'ci'\n{more}"));
        let snapshot = valid("state = '/state'", &[&text]);
        snapshot.domains[0]
            .registry
            .store()
            .expect("a store")
            .clone()
    };
    insta::assert_debug_snapshot!(store(""), @r#"
    StoreSettings {
        name: "ci",
        directory: "/state/store/ci",
        collect_every: Some(
            86400s,
        ),
        grace: 86400s,
        untagged: None,
        missing: Refuse,
    }
    "#);
    let set = store("gc = '90min'\ngc_grace = '7d'");
    assert_eq!(
        (set.collect_every, set.grace),
        (
            Some(Duration::from_secs(5400)),
            Duration::from_secs(604_800)
        )
    );
    assert_eq!(store("gc = 'never'").collect_every, None);
    assert_eq!(store("untagged = 'never'").untagged, None);
    let kept = store("untagged = '30d'\nmissing = 'allow'");
    assert_eq!(
        (kept.untagged, kept.missing),
        (
            Some(Duration::from_secs(30 * 86_400)),
            MissingContent::Allow
        )
    );
    assert_eq!(store("missing = 'refuse'").missing, MissingContent::Refuse);
}

#[test]
fn what_goes_together_in_a_store() {
    let upstream = |keys: &str| with("upstream", &format!("[upstream]\n{keys}"));
    let cases: &[(&str, &[&str])] = &[
        ("", &["`upstream.url` is missing"]),
        (
            "directory = 'ci'\nurl = 'http://a'",
            &[
                "`upstream.url` and `upstream.directory` exclude each other: a domain has one registry",
            ],
        ),
        (
            "directory = 'ci'\nusername = 'a'\npassword = 's3cret'\nroots = 'a'",
            &[
                "`upstream.username` is for a registry at a `url`, and this one is a `directory`",
                "`upstream.password` is for a registry at a `url`, and this one is a `directory`",
                "`upstream.roots` is for a registry at a `url`, and this one is a `directory`",
            ],
        ),
        (
            "url = 'http://a'\nfollow_hosts = ['b']",
            &["`upstream.follow_hosts` has no effect without `redirects = \"follow\"`"],
        ),
        (
            "directory = 'ci'\nauthorization = 'pass'\nredirects = 'follow'",
            &[
                "`upstream.authorization` is for a registry at a `url`, and this one is a `directory`",
                "`upstream.redirects` is for a registry at a `url`, and this one is a `directory`",
            ],
        ),
        (
            "url = 'http://a'\ngc = 'never'\ngc_grace = '1d'\nuntagged = 'never'\nmissing = 'allow'",
            &[
                "`upstream.gc` is only for a `directory`",
                "`upstream.gc_grace` is only for a `directory`",
                "`upstream.untagged` is only for a `directory`",
                "`upstream.missing` is only for a `directory`",
            ],
        ),
        (
            "directory = 'ci'\ngc = '59s'",
            &["`upstream.gc` is too short"],
        ),
        (
            "directory = 'ci'\ngc = 'no'",
            &["`upstream.gc` is not a duration"],
        ),
        (
            "directory = 'ci'\ngc_grace = '119min'",
            &["`upstream.gc_grace` is too short"],
        ),
        (
            "directory = 'ci'\ngc_grace = 'never'",
            &["`upstream.gc_grace` is not a duration"],
        ),
        (
            "directory = 'ci'\nuntagged = '23h'",
            &["`upstream.untagged` is too short"],
        ),
        (
            "directory = 'ci'\nuntagged = 'always'",
            &["`upstream.untagged` is not a duration"],
        ),
        (
            "directory = 'ci'\nmissing = 'ignore'",
            &["`upstream.missing` is not a known value"],
        ),
        (
            "directory = 1",
            &["`upstream.directory` must be a string in quotes, not an integer"],
        ),
    ];
    for (keys, expected) in cases {
        assert_eq!(messages("", &[&upstream(keys)]), *expected, "{keys}");
    }
    for name in ["", "..", "a/b", "/ci", "A", ".ci", "ci/", "a b", "-ci"] {
        let text = upstream(&format!("directory = '{name}'"));
        assert_eq!(
            messages("", &[&text]),
            ["`upstream.directory` is not the name of a store"],
            "{name}"
        );
    }
}

#[test]
fn problems_of_stores_say_what_to_write() {
    let file = |domain: &str, keys: &str| {
        with("upstream", &format!("[upstream]\n{keys}")).replace("ci.example.com", domain)
    };
    let one = file(
        "a.example.com",
        "directory = 'ci'\nurl = 'http://registry:5000'",
    );
    let two = file(
        "b.example.com",
        "directory = 'ci'\ngc = '10s'\ngc_grace = '1h'\nuntagged = '12h'\nmissing = true",
    );
    let three = file("c.example.com", "directory = '../ci'\n");
    let (_, problems) = resolve("", &[&one, &two, &three]);
    insta::assert_snapshot!(problems.render(Colour::Never), @r#"
    error: `upstream.url` and `upstream.directory` exclude each other: a domain has one registry
     --> conf.d/a.toml:8:7
      |
    8 | url = 'http://registry:5000'
      |       ^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: leave `directory` out for the registry at `url`, or `url` for one that moorgate keeps itself

    error: the directory `ci` is already the store of conf.d/a.toml
     --> conf.d/b.toml:7:13
      |
    7 | directory = 'ci'
      |             ^^^^
      |
      = help: use another name, or serve the one domain under both names with `aliases`

    error: `upstream.gc` is too short
     --> conf.d/b.toml:8:6
      |
    8 | gc = '10s'
      |      ^^^^^
      |
      = help: write at least "1min", or "never"

    error: `upstream.gc_grace` is too short
     --> conf.d/b.toml:9:12
      |
    9 | gc_grace = '1h'
      |            ^^^^
      |
      = help: write at least "2h"

    error: `upstream.untagged` is too short
      --> conf.d/b.toml:10:12
       |
    10 | untagged = '12h'
       |            ^^^^^
       |
       = help: write at least "24h", or "never"

    error: `upstream.missing` must be a string in quotes, not a boolean
      --> conf.d/b.toml:11:11
       |
    11 | missing = true
       |           ^^^^
       |
       = help: write "refuse" or "allow"

    error: `upstream.directory` is not the name of a store
     --> conf.d/c.toml:7:13
      |
    7 | directory = '../ci'
      |             ^^^^^^^
      |
      = help: write a name like "ci": lower-case letters, digits, and `-`, `_` or `.` between them
    "#);
}

#[test]
fn names_are_unique() {
    let file = |keys: &str| complete(keys);
    let cases: &[(&str, &str, &[&str])] = &[
        ("domain = 'a.b'", "domain = 'c.d'", &[]),
        (
            "domain = 'a.b'",
            "domain = 'A.b.'",
            &["the domain `a.b` is already in conf.d/a.toml"],
        ),
        (
            "domain = 'a.b'\nlisten = [':1']",
            "domain = 'a.b'\nlisten = [':2']",
            &["the domain `a.b` is already in conf.d/a.toml"],
        ),
        (
            "domain = 'a.b'",
            "domain = 'c.d'\naliases = ['a.b']",
            &["`a.b` is already served on `:443` by conf.d/a.toml"],
        ),
        (
            "domain = 'c.d'\naliases = ['a.b']\nlisten = [':1', ':2']",
            "domain = 'a.b'\nlisten = [':2']",
            &["`a.b` is already served on `:2` by conf.d/a.toml"],
        ),
        (
            "domain = 'c.d'\naliases = ['x.y']\nlisten = [':1']",
            "domain = 'a.b'\naliases = ['x.y']\nlisten = [':2']",
            &[],
        ),
        (
            "domain = 'a.b'\naliases = ['A.B', 'x.y', 'x.y']",
            "domain = 'c.d'",
            &[
                "warning: the alias `a.b` is the domain itself",
                "warning: the alias `x.y` is named twice",
            ],
        ),
        (
            "domain = 'a.b'\naliases = ['localhost:1']\nlisten = [':1', ':3']",
            "domain = 'c.d'\naliases = ['localhost:2']\nlisten = [':2', ':3']",
            &[],
        ),
        (
            "domain = 'a.b'\naliases = ['localhost:3']\nlisten = [':1', ':3']",
            "domain = 'c.d'\naliases = ['localhost', 'x.y:4']\nlisten = [':2', ':3']",
            &[
                "`localhost` is already served on `:3` by conf.d/a.toml",
                "warning: the alias `x.y:4` is on none of the ports that this domain listens on",
            ],
        ),
        // What is wrong otherwise in a file hides none of this.
        (
            "domain = 'a.b'\nlisten = [':1', 2]",
            "domain = 'a.b'",
            &[
                "`listen` must be a string in quotes, not an integer",
                "the domain `a.b` is already in conf.d/a.toml",
            ],
        ),
    ];
    for (one, two, expected) in cases {
        assert_eq!(
            messages("", &[&file(one), &file(two)]),
            *expected,
            "{one} {two}"
        );
    }
}

#[test]
fn listeners_can_be_bound() {
    const DEFAULT_HTTP: &str = "the https listener `:80` and the http listener `:80`, the default of moorgate.toml, exclude each other";
    let cases: &[(&str, &str, &[&str])] = &[
        ("", "", &[]),
        ("", "listen = [':443', ':5000']", &[]),
        ("", "listen = [':80']", &[DEFAULT_HTTP]),
        ("http = []", "listen = [':80']", &[]),
        ("http = [':0']\nhttps = [':0']", "", &[]),
        (
            "https = [':1']\nhttp = [':1']",
            "",
            &[
                "the http listener `:1` and the https listener `:1` of moorgate.toml exclude each other",
            ],
        ),
        (
            "[admin]\nlisten = '127.0.0.1:443'",
            "",
            &[
                "the admin listener `127.0.0.1:443` and the https listener `:443`, the default of moorgate.toml, exclude each other",
            ],
        ),
        (
            "",
            "listen = [':443', '127.0.0.1:443']",
            &[
                "the https listener `127.0.0.1:443` and the https listener `:443` of conf.d/a.toml exclude each other",
            ],
        ),
        (
            "",
            "listen = ['[::1]:443', '0.0.0.0:443', '127.0.0.1:443']",
            &[
                "the https listener `127.0.0.1:443` and the https listener `0.0.0.0:443` of conf.d/a.toml exclude each other",
            ],
        ),
        (
            "",
            "listen = ['[::1]:443', '127.0.0.1:443', '10.0.0.1:443']",
            &[],
        ),
        (
            "",
            "listen = [':1', ':1']",
            &["warning: `listen` names `:1` twice"],
        ),
        (
            "http = [':1', ':1']",
            "",
            &["warning: `http` names `:1` twice"],
        ),
        ("https = []", "listen = [':1']", &["`https` is empty"]),
        (
            "[admin]\nlisten = ':9180'",
            "",
            &["warning: `admin.listen` is not a loopback address: others can read what it reports"],
        ),
        ("[admin]\nlisten = '[::1]:0'", "", &[]),
        ("[admin]", "", &["`admin.listen` is missing"]),
        (
            "http = 80",
            "listen = [':80']",
            &["`http` must be a list, not an integer"],
        ),
        (
            "[limits]\nhead = '8 KiB'",
            "",
            &["`limits.target` is not below `limits.head`: the target is a part of the head"],
        ),
    ];
    for (main, keys, expected) in cases {
        let text = complete(&format!("domain = 'a.b'\n{keys}"));
        assert_eq!(messages(main, &[&text]), *expected, "{main} {keys}");
    }
}

#[test]
fn listeners_of_all_domains_are_together_once() {
    let file =
        |name: &str, listen: &str| complete(&format!("domain = '{name}'\nlisten = {listen}"));
    let domains = [file("a.b", "[':2', ':1']"), file("c.d", "[':1', ':3']")];
    let snapshot = valid("", &[&domains[0], &domains[1], &complete("domain = 'e.f'")]);
    let shown: Vec<_> = snapshot.https.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [":2", ":1", ":3", ":443"]);
    let clash = file("c.d", "['127.0.0.1:1']");
    assert_eq!(
        messages("", &[&domains[0], &clash]),
        [
            "the https listener `127.0.0.1:1` and the https listener `:1` of conf.d/a.toml exclude each other"
        ]
    );
}

#[test]
fn problems_of_several_files_are_shown_together() {
    let main = "http = [':443']\n[admin]\nlisten = '0.0.0.0:9180'\n";
    let one = "domain = 'ci.example.com'\n[tls]\ninternal = true\nkey = 'a'\n[upstream]\nusername = 'a'\npassword = 's3cret'\nauthorization = 'pass'\n";
    let two = complete("domain = 'cache.example.com'\naliases = ['ci.example.com']");
    let (_, problems) = resolve(main, &[one, &two]);
    insta::assert_snapshot!(problems.render(Colour::Never), @r#"
    error: `auth.htpasswd` is missing: nobody could log in
    --> conf.d/a.toml
     = help: write htpasswd = "../credentials/NAME.htpasswd" in [auth]; `moorgate htpasswd` makes one

    error: `tls` names two sources of the certificate
     --> conf.d/a.toml:4:7
      |
    4 | key = 'a'
      |       ^^^
      |
      = help: write acme = true, `certificate` and `key`, or internal = true, in [tls]

    error: `upstream.url` is missing
     --> conf.d/a.toml:5:1
      |
    5 | [upstream]
      | ^^^^^^^^^^
      |
      = help: write url = "http://registry:5000" in [upstream], or directory = "NAME" for a registry that moorgate keeps itself

    error: `upstream.authorization` cannot be "pass" beside credentials of moorgate's own
     --> conf.d/a.toml:8:17
      |
    8 | authorization = 'pass'
      |                 ^^^^^^
      |
      = help: leave them out, or write "strip": the upstream gets one or the other

    error: `ci.example.com` is already served on `:443` by conf.d/a.toml
     --> conf.d/b.toml:2:12
      |
    2 | aliases = ['ci.example.com']
      |            ^^^^^^^^^^^^^^^^
      |
      = help: name it in one of the two files, or give them different `listen` addresses

    error: the http listener `:443` and the https listener `:443`, the default of moorgate.toml, exclude each other
     --> moorgate.toml:1:9
      |
    1 | http = [':443']
      |         ^^^^^^
      |
      = help: use another port

    warning: `admin.listen` is not a loopback address: others can read what it reports
     --> moorgate.toml:3:10
      |
    3 | listen = '0.0.0.0:9180'
      |          ^^^^^^^^^^^^^^
      |
      = help: write "127.0.0.1:9180", unless a firewall or a private network stands before it
    "#);
}

#[test]
fn a_domain_may_ask_a_ca() {
    let main = "[acme]\nemail = 'ops@example.com'\ndns_command = ['./set-txt', '--zone']\n\
        [[ca]]\ndirectory = 'https://ca.example.com/dir'\nroots = 'ca.pem'\nprofile = 'short'\nchain = 'Root'\n\
        [[ca]]\ndirectory = 'letsencrypt-staging'\n";
    let tls = "[tls]\nacme = true\nnames = ['*.example.com', 'ci.example.com', '*.example.com']\nprofile = 'shortlived'\nfallback = 'internal'\n";
    let snapshot = valid(main, &[&with("tls", tls)]);
    let CertificateSource::Acme(request) = &snapshot.domains[0].certificate else {
        panic!("not from a CA")
    };
    assert_eq!(request.contact.as_deref(), Some("ops@example.com"));
    assert_eq!(
        request
            .names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["*.example.com", "ci.example.com"]
    );
    assert_eq!(
        (request.profile.as_deref(), request.fallback),
        (Some("shortlived"), Fallback::Internal)
    );
    let all: Vec<_> = snapshot
        .acme
        .authorities
        .iter()
        .map(|ca| ca.directory.to_string())
        .collect();
    assert_eq!(all, ["https://ca.example.com/dir", "letsencrypt-staging"]);
    assert_eq!(
        snapshot.acme.authorities[0].roots.as_deref(),
        Some(Path::new("ca.pem"))
    );
    assert_eq!(
        snapshot.acme.dns_command,
        Some(vec!["./set-txt".to_owned(), "--zone".to_owned()])
    );
    let kinds = [
        ChallengeKind::TlsAlpn01,
        ChallengeKind::Http01,
        ChallengeKind::Dns01,
    ];
    assert_eq!(snapshot.acme.challenges, kinds);

    let short = with("tls", "[tls]\nacme = 'me@example.com'\n").replacen(
        '\n',
        "\naliases = ['localhost', 'b.example.com']\n",
        1,
    );
    let snapshot = valid("", &[&short]);
    let CertificateSource::Acme(request) = &snapshot.domains[0].certificate else {
        panic!("not from a CA")
    };
    let names: Vec<_> = request.names.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["ci.example.com", "b.example.com"],
        "no public CA certifies localhost"
    );
    assert_eq!(
        snapshot.acme.authorities[0].directory.to_string(),
        "letsencrypt"
    );
}

#[test]
fn what_cannot_work_with_a_ca_is_said() {
    let asks = |keys: &str| with("tls", &format!("[tls]\nacme = true\n{keys}"));
    let cases: [(&str, String, &[&str]); 14] = [
        (
            "",
            with("tls", "[tls]\nacme = false"),
            &["`tls.acme` is false, which has no effect"],
        ),
        (
            "",
            with("tls", "[tls]\nacme = 'ops'"),
            &["`tls.acme` is not a mail address"],
        ),
        (
            "",
            asks("internal = true"),
            &["`tls` names two sources of the certificate"],
        ),
        (
            "",
            asks("key = 'a'"),
            &["`tls` names two sources of the certificate"],
        ),
        (
            "",
            with("tls", "[tls]\ninternal = true\nprofile = 'a'"),
            &["`tls.profile` has no effect without `acme`"],
        ),
        (
            "",
            asks("names = ['*.example.com']"),
            &["no challenge can prove `*.example.com`"],
        ),
        (
            "",
            asks("names = ['b.example.com']"),
            &["warning: no name in `tls.names` covers `ci.example.com`"],
        ),
        (
            "",
            asks("names = []"),
            &[
                "`tls.names` is empty",
                "warning: no name in `tls.names` covers `ci.example.com`",
            ],
        ),
        (
            "",
            asks("").replace("ci.example.com", "ci.internal"),
            &["no public CA certifies `ci.internal`"],
        ),
        (
            "[acme]\nchallenges = ['dns-01']",
            asks(""),
            &["\"dns-01\" needs `acme.dns_command`"],
        ),
        (
            "http = []\n[acme]\nchallenges = ['http-01']",
            asks(""),
            &["\"http-01\" needs a listener in `http`"],
        ),
        (
            "[[ca]]\ndirectory = 'zerossl'",
            asks(""),
            &["\"zerossl\" needs an external account binding"],
        ),
        (
            "[[ca]]\nprofile = 'a'",
            asks(""),
            &["`ca.directory` is missing"],
        ),
        (
            "ca = 'letsencrypt'",
            asks(""),
            &["`ca` must be an array of tables, not a string"],
        ),
    ];
    for (main, domain, expected) in cases {
        let said = messages(main, &[&domain]);
        assert_eq!(
            said,
            expected
                .iter()
                .map(|said| (*said).to_owned())
                .collect::<Vec<_>>(),
            "{main}\n{domain}"
        );
    }
}

#[test]
fn believing_everybody_is_warned_of() {
    let domain = complete("domain = 'ci.example.com'");
    let everybody = "trusted_proxies = ['0.0.0.0/0', '10.0.0.0/8', '::/0']";
    let warning =
        "warning: `trusted_proxies` contains all addresses: any client can claim any address";
    assert_eq!(messages(everybody, &[&domain]), [warning, warning]);
}

fn leads_to(main: &str, domains: &[(&str, &str)]) -> Vec<String> {
    let file = |(keys, target): &(&str, &str)| {
        let tls = "[tls]\ninternal = true\n[auth]\nhtpasswd = 'ci.htpasswd'\n";
        format!("{keys}\n{tls}[upstream]\n{target}\n")
    };
    let files: Vec<_> = domains.iter().map(file).collect();
    messages(main, &files.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn addresses_that_lead_back_to_moorgate_are_warned_of() {
    let warning = |listener: &str| {
        format!("warning: `upstream.url` leads back to moorgate, to its listener `{listener}`")
    };
    let admin = "http = ['127.0.0.1:80']\n[admin]\nlisten = '127.0.0.1:9180'";
    for (url, listener) in [
        ("https://a.test", ":443"),
        ("https://B.test:5000/x", ":5000"),
        ("https://localhost", ":443"),
        ("https://127.0.0.9:5000", ":5000"),
        ("https://[::1]", ":443"),
        ("http://0.0.0.0:443", ":443"),
        ("http://a.localhost", "127.0.0.1:80"),
        ("http://127.0.0.1:9180", "127.0.0.1:9180"),
        ("http://0.0.0.0:9180", "127.0.0.1:9180"),
    ] {
        let keys = "domain = 'a.test'\naliases = ['b.test:5000']\nlisten = [':443', ':5000']";
        let url = format!("url = '{url}'");
        assert_eq!(
            leads_to(admin, &[(keys, &url)]),
            [warning(listener)],
            "{url}"
        );
    }
    for url in [
        "https://a.test:5001",
        "https://b.test",
        "http://127.0.0.2:80",
        "http://192.0.2.1:443",
        "https://c.test",
        "http://localhost:5001",
    ] {
        let keys = "domain = 'a.test'\naliases = ['b.test:5000']\nlisten = [':443', ':5000']";
        let url = format!("url = '{url}'");
        assert_eq!(leads_to(admin, &[(keys, &url)]), [""; 0], "{url}");
    }
}

#[test]
fn a_domain_may_stand_in_front_of_another_one() {
    let (a, b) = ("domain = 'a.test'", "domain = 'b.test'");
    let chain = [(a, "url = 'https://b.test'"), (b, "directory = 'b'")];
    assert_eq!(leads_to("", &chain), [""; 0]);
    let round = [
        (a, "url = 'https://b.test'"),
        (b, "url = 'https://a.test'"),
        ("domain = 'c.test'", "url = 'https://a.test'"),
    ];
    assert_eq!(leads_to("", &round).len(), 3);
    let redirected = [(a, "url = 'http://b.test'"), (b, "directory = 'b'")];
    assert_eq!(leads_to("", &redirected).len(), 1);
}
