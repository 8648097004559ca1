//! Two registries, moorgate in front of them with a domain for each, and a machine for clients.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::Machine;
use super::ports::free_port;
use super::process::{self, Output, Process, run, tool, until};

/// Everything that runs. Dropped in this order, the directory last.
pub struct RegistriesFixture {
    pub moorgate: Process,
    _registries: Vec<Process>,
    pub ci: Domain,
    pub cache: Domain,
    pub machine: Machine,
    admin: u16,
    directory: tempfile::TempDir,
}

/// A domain of the fixture: its own registry and its own user.
pub struct Domain {
    name: &'static str,
    shared_port: u16,
    own_port: u16,
    registry_port: u16,
    pub user: &'static str,
    pub password: &'static str,
}

impl Domain {
    fn new(
        name: &'static str,
        shared_port: u16,
        user: &'static str,
        password: &'static str,
    ) -> Self {
        Self {
            name,
            shared_port,
            own_port: free_port(),
            registry_port: free_port(),
            user,
            password,
        }
    }

    /// `NAME:PORT` on the listener that both domains share.
    pub fn by_name(&self) -> String {
        format!("{}:{}", self.name, self.shared_port)
    }

    /// `localhost:PORT` on the listener of its own.
    pub fn by_port(&self) -> String {
        format!("localhost:{}", self.own_port)
    }

    /// Where the registry itself is, with nobody in front.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.registry_port)
    }

    fn toml(&self, behind: Behind) -> String {
        let Self {
            name,
            shared_port,
            own_port,
            registry_port,
            ..
        } = self;
        let upstream = match behind {
            Behind::Registries(_) => format!("url = \"http://127.0.0.1:{registry_port}\""),
            Behind::Stores => format!("directory = \"{name}\""),
        };
        format!(
            "domain = \"{name}\"\naliases = [\"localhost:{own_port}\"]\n\
             listen = [\"127.0.0.1:{shared_port}\", \"127.0.0.1:{own_port}\"]\n\
             [tls]\ninternal = true\n[auth]\nhtpasswd = \"{name}.htpasswd\"\n\
             [upstream]\n{upstream}\n"
        )
    }
}

/// What is behind the domains.
#[derive(Clone, Copy)]
enum Behind {
    /// With these further settings.
    Registries(&'static str),
    /// moorgate itself.
    Stores,
}

/// A registry that verifies tokens by a certificate of no key that anybody has.
const TOKENS: &str = "auth: {token: {realm: \"https://auth.test/token\", service: inside, issuer: inside, \
                      rootcertbundle: ca.pem}}\n";

impl RegistriesFixture {
    /// Starts all of it and waits until it is ready.
    pub fn new() -> Self {
        Self::before(Behind::Registries(""))
    }

    /// The same, but the registries want tokens of a server of their own.
    pub fn wanting_tokens() -> Self {
        Self::before(Behind::Registries(TOKENS))
    }

    /// The same, but the registries of both domains are moorgate's own.
    pub fn of_stores() -> Self {
        Self::before(Behind::Stores)
    }

    fn before(behind: Behind) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("moorgate-peers-")
            .tempdir()
            .unwrap();
        let path = directory.path();
        let shared_port = free_port();
        let ci = Domain::new("docker-ci.test", shared_port, "ci-bot", "the ci's password");
        let cache = Domain::new(
            "docker-cache.test",
            shared_port,
            "cache-bot",
            "the cache's password",
        );
        let machine = Machine::new(path, &[ci.name, cache.name]);
        fs::create_dir_all(path.join("config/conf.d")).unwrap();
        fs::create_dir(path.join("logs")).unwrap();
        fs::create_dir(path.join("cwd")).unwrap();
        let registries = match behind {
            Behind::Registries(settings) => [("registry-ci", &ci), ("registry-cache", &cache)]
                .map(|(name, domain)| start_registry(name, domain, path, settings))
                .into(),
            Behind::Stores => Vec::new(),
        };
        let admin = free_port();
        let main = format!(
            "https = [\"127.0.0.1:{shared_port}\"]\nhttp = []\nstate = \"../state\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"
        );
        fs::write(path.join("config/moorgate.toml"), main).unwrap();
        for domain in [&ci, &cache] {
            let file = path.join("config/conf.d").join(domain.name);
            fs::write(file.with_extension("test.toml"), domain.toml(behind)).unwrap();
            let made = htpasswd(path, &["-nbB", domain.user, domain.password]).succeeded();
            fs::write(file.with_extension("test.htpasswd"), made).unwrap();
        }
        let mut command = process::command(&process::moorgate(), &path.join("cwd"));
        command.arg("run").arg("--config").arg(path.join("config"));
        let moorgate = Process::start("moorgate", command, &path.join("logs"));
        let mut fixture = Self {
            moorgate,
            _registries: registries,
            ci,
            cache,
            machine,
            admin,
            directory,
        };
        fixture.moorgate.becomes("ready", || {
            get(fixture.admin, "/readyz").starts_with("HTTP/1.1 200")
        });
        fixture
            .machine
            .trusts(&fixture.cli(&["certs", "ca"]).succeeded());
        fixture
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The image layout of a repository in a domain's store.
    pub fn layout(&self, domain: &Domain, repository: &str) -> PathBuf {
        let repositories = self
            .path()
            .join("state/store")
            .join(domain.name)
            .join("repositories");
        repositories.join(repository.replace('/', "+"))
    }

    /// The domain's file in `conf.d`, or another file beside it.
    pub fn conf_d(&self, domain: &Domain, extension: &str) -> PathBuf {
        self.path()
            .join("config/conf.d")
            .join(format!("{}.{extension}", domain.name))
    }

    /// Changes the htpasswd file of a domain with Apache's tool.
    pub fn htpasswd(&self, options: &str, domain: &Domain, rest: &[&str]) {
        let file = self.conf_d(domain, "htpasswd");
        let mut arguments = vec![options, file.to_str().unwrap()];
        arguments.extend(rest);
        htpasswd(self.path(), &arguments).succeeded();
    }

    /// A moorgate command about this configuration.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = process::command(&process::moorgate(), &self.machine.home());
        run(
            command
                .args(arguments)
                .arg("--config")
                .arg(self.path().join("config")),
            "",
        )
    }

    /// curl in the clients' machine, silent but for errors.
    pub fn curl(&self) -> Command {
        let mut command = self.machine.command(&tool("curl", "curl"));
        command.args(["--silent", "--show-error"]);
        command
    }

    /// The status of `GET /v2/` for a user.
    pub fn login_status(&self, authority: &str, user: &str, password: &str) -> String {
        let mut curl = self.curl();
        curl.args([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--user",
        ]);
        run(
            curl.arg(format!("{user}:{password}"))
                .arg(format!("https://{authority}/v2/")),
            "",
        )
        .succeeded()
    }

    /// Whether a URL is answered, with whatever status.
    pub fn curl_succeeds(&self, url: &str) -> bool {
        run(self.curl().args(["--output", "/dev/null", url]), "")
            .status
            .success()
    }

    /// The lines of the access log with all of these words, as soon as there are any.
    pub fn logged(&self, words: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        until(&format!("the access log has {words:?}"), || {
            let log = self.moorgate.stdout();
            let has_all = |line: &&str| {
                words
                    .iter()
                    .all(|word| line.split(' ').any(|part| part == *word))
            };
            found = log.lines().filter(has_all).map(str::to_owned).collect();
            !found.is_empty()
        });
        found
    }
}

/// Starts docker-registry for a domain, with further settings.
pub fn start_registry(
    name: &'static str,
    domain: &Domain,
    path: &Path,
    settings: &'static str,
) -> Process {
    if !settings.is_empty() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let ca = ca.self_signed(&key).unwrap().pem();
        fs::write(path.join("ca.pem"), ca).unwrap();
    }
    let (registry, port) = (domain.registry(), domain.registry_port);
    let yaml = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}/{name}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"{registry}\", secret: not-a-secret}}\n{settings}",
        path.display()
    );
    let file = path.join(format!("{name}.yml"));
    fs::write(&file, yaml).unwrap();
    let mut command = process::command(&tool("docker-registry", "docker-registry"), path);
    command.arg("serve").arg(file);
    let mut registry = Process::start(name, command, &path.join("logs"));
    registry.becomes("listening", || get(port, "/").starts_with("HTTP/1.1 200"));
    registry
}

/// Apache's htpasswd.
fn htpasswd(home: &Path, arguments: &[&str]) -> Output {
    run(
        process::command(&tool("htpasswd", "apache2-utils"), home).args(arguments),
        "",
    )
}

/// A plain answer, or nothing as long as nobody listens.
pub fn get(port: u16, path: &str) -> String {
    let mut answer = Vec::new();
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )?;
        stream.read_to_end(&mut answer)
    });
    asked.map_or_else(
        |_| String::new(),
        |_| String::from_utf8_lossy(&answer).into_owned(),
    )
}
