//! A Caddy that people run, and the moorgate that its configuration becomes: the same requests have
//! the same answers, but for what the import announced; and a whole project moves in with its
//! passwords, certificates and addresses.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::engine::Engine;
use super::fixture::get;
use super::image::write_oci_layout;
use super::machine::Machine;
use super::ports::free_port;
use super::process::{Process, command, moorgate, run, tool};
use crate::harness::acme_ca::AcmeCa;

/// Caddy, a registry and a page, in a directory.
struct OldServer {
    https: u16,
    registry_port: u16,
    page_port: u16,
    _registry: Process,
    _page: Process,
    /// Dropped last.
    directory: tempfile::TempDir,
}

impl OldServer {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir(path.join("logs")).unwrap();
        let names = ["ci.test".to_owned()];
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(path.join("cert.pem"), key.cert.pem()).unwrap();
        fs::write(path.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        // What everybody could read would be a warning.
        fs::set_permissions(path.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();

        let [https, registry_port, page_port] = [(); 3].map(|()| free_port());
        Self {
            _registry: registry("registry", registry_port, path),
            _page: page(page_port, path),
            directory,
            https,
            registry_port,
            page_port,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the Caddyfile of a site.
    fn configure(&self, directives: &str) {
        let (https, registry, page) = (self.https, self.registry_port, self.page_port);
        let text = format!(
            "{{\n  admin off\n  auto_https off\n}}\nhttps://ci.test:{https} {{\n  bind 127.0.0.1\n  \
             tls cert.pem key.pem\n{directives}\n}}\n"
        )
        .replace("REGISTRY", &format!("127.0.0.1:{registry}"))
        .replace("PAGE", &format!("127.0.0.1:{page}"));
        fs::write(self.path().join("Caddyfile"), text).unwrap();
    }

    /// Imports it into `config`, with a state directory and an admin listener of the test's own.
    fn import(&self) -> Value {
        let config = self.path().join("config");
        let _ = fs::remove_dir_all(&config);
        let mut import = command(&moorgate(), self.path());
        import.args([
            "import",
            "caddy",
            "Caddyfile",
            "--json",
            "--output",
            "config",
        ]);
        let done = run(&mut import, "");
        let report: Value = serde_json::from_str(&done.stdout).expect(&done.stderr);
        // That all rules deny is a warning, and meant so.
        let problems = report["problems"].to_string();
        assert!(!problems.contains(": error: "), "{report:#}");
        report
    }

    /// Each request's status, challenge and body.
    fn answers(&self, requests: &[[&str; 4]]) -> Vec<String> {
        let all = requests.iter().map(|[user, method, path, sent]| {
            let mut curl = command(&tool("curl", "curl"), self.path());
            curl.args(["--silent", "--insecure", "--http1.1", "--max-time", "60"]);
            match *method {
                "HEAD" => curl.arg("--head"),
                "GET" => curl.arg("--get"),
                _ => curl.args([
                    "--request",
                    method,
                    "--data-binary",
                    sent,
                    "--header",
                    MANIFEST,
                ]),
            };
            curl.args(["--resolve", &format!("ci.test:{}:127.0.0.1", self.https)]);
            curl.args(["--write-out", "\n%{http_code} %header{www-authenticate}"]);
            if !user.is_empty() {
                curl.args(["--user", user]);
            }
            let url = format!("https://ci.test:{}{path}", self.https);
            let said = run(curl.arg(url), "").succeeded();
            let (body, status) = said.rsplit_once('\n').unwrap();
            // What refuses a request is said in other words.
            let body = if status.starts_with("401") || status.starts_with("403") {
                "refused"
            } else if *method == "HEAD" {
                ""
            } else {
                body.trim()
            };
            format!("{user} {method} {path}: {status} {body}")
        });
        all.collect()
    }

    fn caddy(&self, program: &Path) -> Process {
        let mut caddy = command(program, self.path());
        caddy.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
        self.started("caddy", caddy)
    }

    fn moorgate(&self) -> Process {
        let config = self.path().join("config");
        in_front(&config, "state = \"../state\"");
        let mut program = command(&moorgate(), self.path());
        program.args(["run", "--config", "config"]);
        self.started("moorgate", program)
    }

    fn started(&self, name: &'static str, program: std::process::Command) -> Process {
        let mut process = Process::start(name, program, &self.path().join("logs"));
        let port = self.https;
        process.becomes("listening", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        process
    }

    /// What Caddy itself says that the file means.
    fn adapted(&self, program: &Path) -> Value {
        let mut caddy = command(program, self.path());
        caddy.args(["adapt", "--adapter", "caddyfile", "--config", "Caddyfile"]);
        serde_json::from_str(&run(&mut caddy, "").succeeded()).unwrap()
    }
}

/// Debian's Caddy, and the newest one, which `./ctl.sh test` installs beside the other tools.
fn caddies() -> [PathBuf; 2] {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    let newest = cache.join("moorgate").join(NEWEST).join("bin/caddy");
    assert!(
        newest.is_file(),
        "{} is missing: `./ctl.sh test` installs it",
        newest.display()
    );
    [tool("caddy", "caddy"), newest]
}

const NEWEST: &str = "caddy-2.11.7";

/// Puts a line before everything else in `moorgate.toml`.
fn in_front(config: &Path, line: &str) {
    let file = config.join("moorgate.toml");
    let text = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{line}\n{text}")).unwrap();
}

fn registry(name: &'static str, port: u16, path: &Path) -> Process {
    let yaml = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}/{name}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\", secret: not-a-secret}}\n",
        path.display()
    );
    let file = path.join(format!("{name}.yml"));
    fs::write(&file, yaml).unwrap();
    let mut program = command(&tool("docker-registry", "docker-registry"), path);
    program.arg("serve").arg(file);
    let mut registry = Process::start(name, program, &path.join("logs"));
    registry.becomes("listening", || get(port, "/").starts_with("HTTP/1.1 200"));
    registry
}

/// A server with one page: Caddy, too.
fn page(port: u16, path: &Path) -> Process {
    let mut program = command(&tool("caddy", "caddy"), path);
    let listen = format!("127.0.0.1:{port}");
    program.args(["respond", "--listen", &listen, "the page"]);
    let mut page = Process::start("page", program, &path.join("logs"));
    page.becomes("listening", || get(port, "/").contains("the page"));
    page
}

/// An entry of Caddy for a password, as `caddy hash-password` makes it.
fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// What clients of a registry send, and what strangers try.
const REQUESTS: &[[&str; 4]] = &[
    ["", "GET", "/v2/", ""],
    ["ci:wrong", "GET", "/v2/", ""],
    ["ci:secret", "GET", "/v2/", ""],
    ["reader:secret", "GET", "/v2/", ""],
    ["", "GET", "/v2/_catalog", ""],
    ["ci:secret", "GET", "/v2/none/tags/list", ""],
    ["ci:secret", "GET", "/v2/none/manifests/v1", ""],
    ["ci:secret", "HEAD", "/v2/none/manifests/v1", ""],
    ["", "PUT", "/v2/none/manifests/v1", "{}"],
    ["ci:secret", "PUT", "/v2/none/manifests/v1", "{}"],
    ["", "POST", "/v2/none/blobs/uploads/", ""],
    ["ci:secret", "POST", "/v2/none/blobs/uploads/", ""],
    ["", "GET", "/v2/secret/tags/list", ""],
];

/// Without it, curl would send a form.
const MANIFEST: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json";

/// A user of the site and what Caddy stores of the password.
fn users() -> String {
    format!("    ci {}\n    reader {}\n", hash("secret"), hash("secret"))
}

#[test]
fn the_same_requests_have_the_same_answers() {
    let server = OldServer::new();
    let users = users();
    for (directives, pages) in [
        (
            format!("  basicauth {{\n{users}  }}\n  reverse_proxy REGISTRY"),
            false,
        ),
        (
            format!(
                "  encode gzip\n  header Docker-Distribution-Api-Version registry/2.0\n  basicauth /v2/* {{\n{users}  }}\n  \
                 reverse_proxy REGISTRY {{\n    header_up X-Forwarded-Proto {{scheme}}\n    flush_interval -1\n  }}"
            ),
            false,
        ),
        (
            format!(
                "  basicauth * bcrypt \"The registry\" {{\n{users}  }}\n  handle /v2/* {{\n    reverse_proxy REGISTRY\n  }}\n  \
                 handle {{\n    reverse_proxy PAGE\n  }}"
            ),
            true,
        ),
        (
            format!(
                "  @outside not remote_ip 127.0.0.0/8\n  respond @outside 403\n  @writes method PUT POST PATCH DELETE\n  \
                 basicauth {{\n{users}  }}\n  reverse_proxy REGISTRY"
            ),
            false,
        ),
    ] {
        server.configure(&directives);
        let mut requests = REQUESTS.to_vec();
        if pages {
            requests.extend([["ci:secret", "GET", "/", ""], ["", "GET", "/index", ""]]);
        }
        let report = server.import();
        let after = {
            let _moorgate = server.moorgate();
            server.answers(&requests)
        };
        for program in caddies() {
            let _caddy = server.caddy(&program);
            let before = server.answers(&requests);
            assert_eq!(before, after, "{report:#}");
        }
        assert!(after[0].contains(": 401 Basic realm="), "{after:?}");
        assert!(after[2].contains(": 200 "), "{after:?}");
    }
}

/// What Caddy allowed to more people is closed, and the report says so.
#[test]
fn what_was_open_is_announced_and_closed() {
    let server = OldServer::new();
    let users = users();
    for directives in [
        "  reverse_proxy REGISTRY".to_owned(),
        format!(
            "  @writes method PUT POST PATCH DELETE\n  basicauth @writes {{\n{users}  }}\n  reverse_proxy REGISTRY"
        ),
        format!("  basicauth /v2/secret/* {{\n{users}  }}\n  reverse_proxy REGISTRY"),
        format!(
            "  @h header X-Key value\n  respond @h 403\n  basicauth {{\n{users}  }}\n  reverse_proxy REGISTRY"
        ),
    ] {
        server.configure(&directives);
        let report = server.import();
        let decisions = report["directives"].as_array().unwrap().iter();
        let decisions = decisions.filter(|one| one["outcome"] == "decision");
        assert!(decisions.count() > 0, "{report:#}");
        let before = {
            let [_, newest] = caddies();
            let _caddy = server.caddy(&newest);
            server.answers(REQUESTS)
        };
        let _moorgate = server.moorgate();
        for (before, after) in before.iter().zip(server.answers(REQUESTS)) {
            let status = |answer: &str| answer.rsplit_once(": ").unwrap().1[..3].to_owned();
            let is_closed = matches!(status(&after).as_str(), "401" | "403" | "404");
            assert!(*before == after || is_closed, "{before}\n{after}");
        }
    }
}

/// Who may go where is decided by logins of single areas in Caddy, and by access rules in moorgate.
#[test]
fn areas_of_some_users_stay_closed_to_others() {
    let server = OldServer::new();
    let (users, own) = (users(), format!("    ci {}\n", hash("secret")));
    let requests = ["ci:secret", "reader:secret"].map(|user| {
        ["none", "secret"].map(|repository| {
            let path = format!("/v2/{repository}/blobs/uploads/");
            [user.to_owned(), path]
        })
    });
    let requests: Vec<_> = requests.concat();
    let requests: Vec<_> = requests
        .iter()
        .map(|[user, path]| [user.as_str(), "POST", path.as_str(), ""])
        .collect();
    for directives in [
        format!(
            "  basicauth {{\n{users}  }}\n  basicauth /v2/secret/* {{\n{own}  }}\n  reverse_proxy REGISTRY"
        ),
        format!(
            "  basicauth {{\n{users}  }}\n  handle /v2/* {{\n    reverse_proxy REGISTRY\n  }}\n  \
             @secret path /v2/secret/*\n  handle @secret {{\n    basicauth {{\n{own}    }}\n    reverse_proxy REGISTRY\n  }}"
        ),
        format!(
            "  handle /v2/secret/* {{\n    basicauth {{\n{own}    }}\n    reverse_proxy REGISTRY\n  }}\n  \
             handle {{\n    basicauth {{\n{users}    }}\n    reverse_proxy REGISTRY\n  }}"
        ),
    ] {
        server.configure(&directives);
        server.import();
        let statuses = |answers: Vec<String>| -> Vec<bool> {
            answers
                .iter()
                .map(|answer| answer.contains(": 202 "))
                .collect()
        };
        let after = {
            let _moorgate = server.moorgate();
            statuses(server.answers(&requests))
        };
        assert_eq!(after, [true, true, true, false], "{directives}");
        for program in caddies() {
            let _caddy = server.caddy(&program);
            assert_eq!(statuses(server.answers(&requests)), after, "{directives}");
        }
    }
}

/// The strings at a key, anywhere in a document.
fn collect(value: &Value, key: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if name == key {
                    let all = inner
                        .as_array()
                        .cloned()
                        .unwrap_or_else(|| vec![inner.clone()]);
                    into.extend(all.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                collect(inner, key, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, into)),
        _ => {}
    }
}

#[test]
fn caddy_finds_the_same_hosts_upstreams_and_users_in_its_file() {
    let server = OldServer::new();
    server.configure(&format!(
        "  basicauth {{\n{}  }}\n  handle /v2/* {{\n    reverse_proxy REGISTRY\n  }}\n  handle {{\n    reverse_proxy PAGE\n  }}",
        users()
    ));
    server.import();
    let domain = fs::read_to_string(server.path().join("config/conf.d/ci.test.toml")).unwrap();
    let htpasswd =
        fs::read_to_string(server.path().join("config/credentials/ci.test.htpasswd")).unwrap();
    for program in caddies() {
        let adapted = server.adapted(&program);
        for (key, text, before) in [
            ("host", &domain, "domain = \""),
            ("dial", &domain, "url = \"http://"),
            ("username", &htpasswd, ""),
        ] {
            let mut known = BTreeSet::new();
            collect(&adapted, key, &mut known);
            assert!(!known.is_empty(), "{key}");
            let values = text.lines().filter_map(|line| line.strip_prefix(before));
            let values = values.filter(|line| !line.starts_with('#'));
            let found: BTreeSet<String> = if key == "username" {
                values
                    .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
                    .collect()
            } else {
                values
                    .map(|value| value.trim_end_matches('"').to_owned())
                    .collect()
            };
            assert_eq!(found, known, "{key}");
        }
    }
}

/// A certificate of the CA of before, as Caddy 2 stores it.
fn store_certificate(data: &Path, ca_url: &str, name: &str, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    params.not_before = (SystemTime::now() - Duration::from_secs(10 * 86_400)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(80 * 86_400)).into();
    let chain = params.signed_by(&key, issuer).unwrap().pem();
    let of_ca = ca_url
        .trim_start_matches("https://")
        .replace([':', '/'], "-");
    let directory = data.join("certificates").join(of_ca).join(name);
    fs::create_dir_all(&directory).unwrap();
    let about = json!({ "sans": [name], "issuer_data": { "url": format!("{ca_url}/certificate"), "ca": ca_url } });
    for (suffix, text) in [
        ("crt", chain),
        ("key", key.serialize_pem()),
        ("json", about.to_string()),
    ] {
        fs::write(directory.join(format!("{name}.{suffix}")), text).unwrap();
    }
}

/// A project of two domains, as people have it.
struct OldProject {
    machine: Machine,
    https: u16,
    own_port: u16,
    admin: u16,
    _registries: [Process; 2],
    /// Dropped last.
    directory: tempfile::TempDir,
}

const DOMAINS: [&str; 2] = ["docker-ci.example.com", "docker-cache.example.com"];

impl OldProject {
    fn new(ca: &AcmeCa) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["logs", "conf.d", "credentials"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let [https, own_port, http, admin, one, two] = [(); 6].map(|()| free_port());
        let table = ca.toml(path, "roots");
        let ca_url = table.split('"').nth(1).unwrap().to_owned();
        let main = format!(
            "{{\n  admin off\n  email ops@example.com\n  acme_ca {ca_url}\n  acme_ca_root roots.pem\n  http_port {http}\n  \
             https_port {https}\n  default_bind 127.0.0.1\n  storage file_system data\n}}\n\
             (registry) {{\n  basicauth {{\n    import credentials/{{args.0}}\n  }}\n  encode gzip\n  \
             reverse_proxy {{args.1}} {{\n    header_up X-Forwarded-Proto {{scheme}}\n  }}\n}}\n\
             import conf.d/*.caddy\n"
        );
        fs::write(path.join("Caddyfile"), main).unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "the CA of before");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_identifier_method = rcgen::KeyIdMethod::Sha256;
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        for (domain, port, addresses) in [
            (
                DOMAINS[0],
                one,
                format!("{}, {}:{own_port}", DOMAINS[0], DOMAINS[0]),
            ),
            (DOMAINS[1], two, DOMAINS[1].to_owned()),
        ] {
            let site = format!("{addresses} {{\n  import registry {domain} 127.0.0.1:{port}\n}}\n");
            fs::write(path.join(format!("conf.d/{domain}.caddy")), site).unwrap();
            let entry = format!("user {}\n", hash(domain));
            fs::write(path.join("credentials").join(domain), entry).unwrap();
            store_certificate(&path.join("data"), &ca_url, domain, &issuer);
        }
        let machine = Machine::new(path, &DOMAINS);
        machine.trusts(&root);
        let registries = [
            registry("registry-ci", one, path),
            registry("registry-cache", two, path),
        ];
        Self {
            directory,
            machine,
            https,
            own_port,
            admin,
            _registries: registries,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn authorities(&self) -> [String; 3] {
        let [ci, cache] = DOMAINS;
        [
            format!("{ci}:{}", self.https),
            format!("{cache}:{}", self.https),
            format!("{ci}:{}", self.own_port),
        ]
    }

    fn skopeo(&self, arguments: &[&str], input: &str) -> String {
        let mut skopeo = self.machine.command(&tool("skopeo", "skopeo"));
        skopeo.env("REGISTRY_AUTH_FILE", self.machine.home().join("auth.json"));
        run(skopeo.args(arguments), input).succeeded()
    }

    /// The certificate that is served under a name.
    fn certificate(&self, authority: &str) -> String {
        let name = authority.split(':').next().unwrap();
        let port = authority.rsplit(':').next().unwrap();
        let mut openssl = self.machine.command(&tool("openssl", "openssl"));
        openssl.args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-servername",
            name,
        ]);
        let said = run(&mut openssl, "").stdout;
        let begin = said.find("-----BEGIN").unwrap();
        let end = said.find("-----END").unwrap();
        said[begin..end].to_owned()
    }

    /// A command as an administrator types it in the project's directory.
    fn typed(&self, arguments: &[&str]) -> super::process::Output {
        run(command(&moorgate(), self.path()).args(arguments), "")
    }

    fn layout(&self) -> PathBuf {
        let layout = self.path().join("image");
        if !layout.exists() {
            write_oci_layout(&layout, &[("file", b"content")]);
        }
        layout
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_moves_in_with_its_passwords_certificates_and_addresses() {
    let ca = AcmeCa::new().await;
    let project = OldProject::new(&ca);
    let image = format!("oci:{}:v1", project.layout().display());
    let engine = Engine::start(&project.machine, &project.path().join("engine"));
    let of_docker = |authority: &str| format!("{authority}/docker/app:v1");
    let (certificates, mut caddy) = {
        let mut program = command(&tool("caddy", "caddy"), project.path());
        program.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
        let mut caddy = Process::start("caddy", program, &project.path().join("logs"));
        let port = project.https;
        caddy.becomes("listening", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        for authority in project.authorities() {
            let domain = authority.split(':').next().unwrap();
            project.skopeo(
                &[
                    "login",
                    "--username",
                    "user",
                    "--password-stdin",
                    &authority,
                ],
                domain,
            );
            let target = format!("docker://{authority}/base:v1");
            project.skopeo(&["copy", &image, &target], "");
            engine.login(&authority, "user", domain).succeeded();
            engine.import(&of_docker(&authority));
            engine.docker(&["push", &of_docker(&authority)]).succeeded();
        }
        (
            project.authorities().map(|one| project.certificate(&one)),
            caddy,
        )
    };

    let imported = project.typed(&["import", "caddy", "Caddyfile", "--output", "config"]);
    assert_eq!(
        imported.status.code(),
        Some(0),
        "{}{}",
        imported.stdout,
        imported.stderr
    );
    let admin = project.admin;
    in_front(&project.path().join("config"), "state = \"../state\"");
    let file = project.path().join("config/moorgate.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        format!("{text}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"),
    )
    .unwrap();
    let certs = project.typed(&["certs", "import", "data", "--config", "config"]);
    assert_eq!(
        certs.status.code(),
        Some(0),
        "{}{}",
        certs.stdout,
        certs.stderr
    );
    assert!(
        certs.stderr.starts_with("imported 2 into "),
        "{}",
        certs.stderr
    );

    caddy.signal(rustix::process::Signal::TERM);
    caddy.ended();
    let mut program = command(&moorgate(), project.path());
    program.args(["run", "--config", "config"]);
    let mut moorgate = Process::start("moorgate", program, &project.path().join("logs"));
    moorgate.becomes("ready", || {
        get(admin, "/readyz").starts_with("HTTP/1.1 200")
    });

    for (authority, before) in project.authorities().iter().zip(certificates) {
        assert_eq!(project.certificate(authority), before, "{authority}");
        // With the login of before.
        let repository = format!("docker://{authority}/base");
        let tags = project.skopeo(&["list-tags", &repository], "");
        assert!(tags.contains("\"v1\""), "{tags}");
        project.skopeo(&["copy", &image, &format!("{repository}:v2")], "");
        engine.push_and_pull(&of_docker(authority));
    }
    assert_eq!((ca.asked("order").len(), ca.issued().len()), (0, 0));
}
