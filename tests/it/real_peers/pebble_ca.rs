//! Pebble, the CA that Let's Encrypt tests clients with, its DNS server, and a moorgate that asks
//! it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::fixture::get;
use super::ports::free_port;
use super::process::{self, Output, Process, run, tool, until};
use crate::harness::Domain;

/// A CA and what is asked of it. Dropped in this order, the directory last.
pub struct Acme {
    pub moorgate: Option<Process>,
    pebble: Option<Process>,
    _dns: Process,
    /// The host of the CA's URLs, and its port.
    authority: String,
    ports: Ports,
    directory: tempfile::TempDir,
}

struct Ports {
    acme: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    https: u16,
    http: u16,
    admin: u16,
}

/// How the CA behaves.
#[derive(Clone, Copy, Default)]
pub struct Mood {
    /// Variables of its environment, beside the quick and friendly ones.
    pub environment: &'static [(&'static str, &'static str)],
    /// Keys of its configuration, in JSON.
    pub keys: &'static str,
    /// Whether it looks for tls-alpn-01 on a port where nobody listens.
    pub deaf_to_tls: bool,
    /// The host of its URLs, in place of an address: then it listens on port 443, in a network of
    /// the test's own.
    pub host: Option<&'static str>,
}

impl Acme {
    /// Starts the CA; moorgate is started by [`serve`](Self::serve).
    pub fn new(mood: Mood) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("moorgate-acme-")
            .tempdir()
            .unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("config/conf.d")).unwrap();
        fs::create_dir(path.join("logs")).unwrap();
        let [acme, management, dns, dns_management, https, http, admin] =
            [(); 7].map(|()| free_port());
        let acme = if mood.host.is_some() { 443 } else { acme };
        let ports = Ports {
            acme,
            management,
            dns,
            dns_management,
            https,
            http,
            admin,
        };
        let dns = start_dns(&ports, path);
        write_server_certificate(path, mood.host);
        let pebble = start_pebble(&ports, path, mood);
        let authority = mood
            .host
            .map_or_else(|| format!("127.0.0.1:{acme}"), str::to_owned);
        Self {
            moorgate: None,
            pebble: Some(pebble),
            _dns: dns,
            authority,
            ports,
            directory,
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Ends the CA and starts it again: it has forgotten everything, its roots are others.
    pub fn restart_ca(&mut self, mood: Mood) {
        self.stop_ca();
        self.pebble = Some(start_pebble(&self.ports, self.directory.path(), mood));
    }

    /// Ends the CA.
    pub fn stop_ca(&mut self) {
        let Some(mut pebble) = self.pebble.take() else {
            return;
        };
        pebble.signal(rustix::process::Signal::TERM);
        pebble.ended();
    }

    /// Writes the configuration: further TOML for `[[ca]]` and the top, and the domains with their
    /// `[tls]`.
    pub fn configure(&self, main: &str, ca: &str, domains: &[(&str, &str)]) {
        let Ports {
            https, http, admin, ..
        } = self.ports;
        let authority = &self.authority;
        let text = format!(
            "https = [\"127.0.0.1:{https}\"]\nhttp = [\"127.0.0.1:{http}\"]\nstate = \"../state\"\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n{main}\n\
             [[ca]]\ndirectory = \"https://{authority}/dir\"\nroots = \"../server.pem\"\n{ca}\n"
        );
        fs::write(self.path().join("config/moorgate.toml"), text).unwrap();
        let users = Domain::htpasswd(&[("ci".to_owned(), "secret".to_owned())]);
        fs::write(self.path().join("config/users.htpasswd"), users).unwrap();
        for (domain, tls) in domains {
            let file = self.path().join(format!("config/conf.d/{domain}.toml"));
            fs::write(file, domain_file(domain, tls)).unwrap();
        }
    }

    /// Starts moorgate and waits until it serves. That never waits for the CA.
    pub fn serve(&mut self) {
        let mut command = process::command(&process::moorgate(), self.path());
        command.args(["run", "--debug", "--config", "config"]);
        let mut moorgate = Process::start("moorgate", command, &self.path().join("logs"));
        let admin = self.ports.admin;
        moorgate.becomes("ready", || {
            get(admin, "/readyz").starts_with("HTTP/1.1 200")
        });
        self.moorgate = Some(moorgate);
    }

    /// Ends moorgate by a signal, and waits for that.
    pub fn stop(&mut self) {
        let mut moorgate = self.moorgate.take().unwrap();
        moorgate.signal(rustix::process::Signal::TERM);
        moorgate.ended();
    }

    /// Ends moorgate as a power cut would, and returns what it had said.
    pub fn kill(&mut self) -> String {
        let mut moorgate = self.moorgate.take().unwrap();
        moorgate.signal(rustix::process::Signal::KILL);
        moorgate.ended();
        moorgate.stderr()
    }

    /// Where the CA is, and where it looks for answers to http-01.
    pub fn urls(&self) -> (String, u16) {
        (format!("https://{}", self.authority), self.ports.http)
    }

    /// A moorgate command about this configuration.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = process::command(&process::moorgate(), self.path());
        run(command.args(arguments).args(["--config", "config"]), "")
    }

    /// Starts a second moorgate with the same state directory and these domains.
    pub fn serve_elsewhere(&self, domains: &[(&str, &str)]) -> Elsewhere {
        let (here, there) = (self.path().join("config"), self.path().join("elsewhere"));
        fs::create_dir_all(there.join("conf.d")).unwrap();
        let mut main = fs::read_to_string(here.join("moorgate.toml")).unwrap();
        let admin = free_port();
        for (port, other) in [
            (self.ports.https, free_port()),
            (self.ports.http, free_port()),
            (self.ports.admin, admin),
        ] {
            main = main.replace(&format!(":{port}\""), &format!(":{other}\""));
        }
        fs::write(there.join("moorgate.toml"), main).unwrap();
        fs::copy(here.join("users.htpasswd"), there.join("users.htpasswd")).unwrap();
        for (domain, tls) in domains {
            fs::write(
                there.join(format!("conf.d/{domain}.toml")),
                domain_file(domain, tls),
            )
            .unwrap();
        }
        let mut command = process::command(&process::moorgate(), self.path());
        command.args(["run", "--debug", "--config", "elsewhere"]);
        let mut moorgate = Process::start("elsewhere", command, &self.path().join("logs"));
        moorgate.becomes("ready", || {
            get(admin, "/readyz").starts_with("HTTP/1.1 200")
        });
        Elsewhere { moorgate, admin }
    }

    /// The common name of one of the CA's roots.
    pub fn root_name(&self, root: usize) -> String {
        let pem = self.management(&format!("roots/{root}"));
        let mut openssl = process::command(&tool("openssl", "openssl"), self.path());
        openssl.args(["x509", "-noout", "-subject", "-nameopt", "multiline"]);
        let text = run(&mut openssl, &pem).succeeded();
        let (_, name) = text.split_once("commonName").unwrap();
        name.trim_start_matches([' ', '='])
            .lines()
            .next()
            .unwrap()
            .trim()
            .to_owned()
    }

    /// A program of `config/` that sets TXT records in the CA's DNS, and writes down what it was
    /// called with. As long as there is a file `hold` beside it, it does not come to its end.
    pub fn write_dns_command(&self) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join("config/set-txt");
        let server = format!("http://127.0.0.1:{}", self.ports.dns_management);
        let script = format!(
            "#!/bin/sh\nset -e\necho \"$1 $2\" >>\"$(dirname \"$0\")/calls\"\n\
             while [ -e \"$(dirname \"$0\")/hold\" ]; do sleep 0.1; done\n\
             case $1 in\n\
             present) curl -sf {server}/set-txt -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" ;;\n\
             cleanup) curl -sf {server}/clear-txt -d \"{{\\\"host\\\":\\\"$2.\\\"}}\" ;;\n\
             esac\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What `/status` says of a domain's certificate.
    pub fn certificate(&self, domain: &str) -> Value {
        certificate(self.ports.admin, domain)
    }

    /// Waits until a domain has a certificate of the CA, and returns its serial number's words.
    #[track_caller]
    pub fn issued(&self, domain: &str) -> Value {
        self.until_certificate(domain, "issued", |certificate| {
            certificate["issuer"]
                .as_str()
                .is_some_and(|issuer| issuer.contains("Pebble"))
        })
    }

    /// Waits until what `/status` says of a domain is so.
    #[track_caller]
    pub fn until_certificate(
        &self,
        domain: &str,
        what: &str,
        so: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        until(&format!("the certificate of {domain} is {what}"), || {
            last = self.certificate(domain);
            so(&last)
        });
        last
    }

    /// Whether a client that trusts one of the CA's roots accepts the handshake for a name.
    pub fn is_trusted(&self, name: &str, root: usize) -> bool {
        let pem = self.management(&format!("roots/{root}"));
        let file = self.path().join(format!("root-{root}.pem"));
        fs::write(&file, pem).unwrap();
        let https = self.ports.https;
        let mut curl = process::command(&tool("curl", "curl"), self.path());
        curl.args([
            "--silent",
            "--output",
            "/dev/null",
            "--resolve",
            &format!("{name}:{https}:127.0.0.1"),
        ]);
        curl.arg("--cacert")
            .arg(file)
            .arg(format!("https://{name}:{https}/v2/"));
        run(&mut curl, "").status.success()
    }

    /// Whether a handshake for a name is refused.
    pub fn refuses(&self, name: &str) -> bool {
        let https = self.ports.https;
        let mut curl = process::command(&tool("curl", "curl"), self.path());
        curl.args([
            "--silent",
            "--insecure",
            "--resolve",
            &format!("{name}:{https}:127.0.0.1"),
        ]);
        // 35: the TLS handshake failed.
        run(curl.arg(format!("https://{name}:{https}/v2/")), "")
            .status
            .code()
            == Some(35)
    }

    /// A resource of the CA's management port.
    pub fn management(&self, path: &str) -> String {
        let mut curl = process::command(&tool("curl", "curl"), self.path());
        curl.args(["--silent", "--fail", "--cacert", "server.pem"]);
        run(
            curl.arg(format!(
                "https://127.0.0.1:{}/{path}",
                self.ports.management
            )),
            "",
        )
        .succeeded()
    }

    /// How often the CA was asked for something.
    pub fn asked(&self, what: &str) -> usize {
        let pebble = self.pebble.as_ref().expect("it runs");
        let (out, err) = (pebble.stdout(), pebble.stderr());
        out.matches(what).count() + err.matches(what).count()
    }

    /// The files below moorgate's state directory whose names end so.
    pub fn kept(&self, ending: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.path().join("state")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.to_string_lossy().ends_with(ending) {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A second moorgate on a state directory, on ports where the CA never looks.
pub struct Elsewhere {
    moorgate: Process,
    admin: u16,
}

impl Elsewhere {
    /// What its `/status` says of a domain's certificate.
    pub fn certificate(&self, domain: &str) -> Value {
        certificate(self.admin, domain)
    }

    /// Waits until it serves a certificate of the CA for a domain.
    #[track_caller]
    pub fn has(&self, domain: &str) {
        let words = format!("certificate in force domain={domain} ");
        until("the other one has it", || {
            self.moorgate.stderr().contains(&words)
        });
    }
}

/// What the `/status` of a moorgate says of a domain's certificate.
fn certificate(admin: u16, domain: &str) -> Value {
    let answer = get(admin, "/status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let all = status["certificates"].as_array().unwrap();
    all.iter()
        .find(|one| one["domain"] == domain)
        .unwrap()
        .clone()
}

fn domain_file(domain: &str, tls: &str) -> String {
    format!(
        "domain = \"{domain}\"\n[tls]\n{tls}\n[auth]\nhtpasswd = \"../users.htpasswd\"\n\
         [upstream]\nurl = \"http://127.0.0.1:9\"\n"
    )
}

/// Serves TLS for the CA. Its own root, so that trusting it trusts nothing that the CA issues.
fn write_server_certificate(path: &Path, host: Option<&str>) {
    let key = KeyPair::generate().unwrap();
    let names = ["127.0.0.1", "localhost"]
        .into_iter()
        .chain(host)
        .map(str::to_owned);
    let params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
    fs::write(
        path.join("server.pem"),
        params.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    fs::write(path.join("server.key"), key.serialize_pem()).unwrap();
}

fn start_dns(ports: &Ports, path: &Path) -> Process {
    let mut command = process::command(&tool("pebble-challtestsrv", "pebble"), path);
    command.args([
        "-http01",
        "",
        "-https01",
        "",
        "-tlsalpn01",
        "",
        "-defaultIPv6",
        "",
    ]);
    command.args(["-dns01", &format!("127.0.0.1:{}", ports.dns)]);
    command.args([
        "-management",
        &format!("127.0.0.1:{}", ports.dns_management),
    ]);
    let mut dns = Process::start("dns", command, &path.join("logs"));
    let port = ports.dns_management;
    dns.becomes("listening", || get(port, "/").starts_with("HTTP/1.1 "));
    dns
}

fn start_pebble(ports: &Ports, path: &Path, mood: Mood) -> Process {
    let Ports {
        acme,
        management,
        dns,
        https,
        http,
        ..
    } = ports;
    let https = if mood.deaf_to_tls {
        &free_port()
    } else {
        https
    };
    let keys = if mood.keys.is_empty() {
        "\"externalAccountBindingRequired\": false"
    } else {
        mood.keys
    };
    let config = format!(
        "{{\"pebble\": {{\"listenAddress\": \"127.0.0.1:{acme}\", \"managementListenAddress\": \"127.0.0.1:{management}\",\
         \"certificate\": \"server.pem\", \"privateKey\": \"server.key\", \"httpPort\": {http}, \"tlsPort\": {https},\
         \"ocspResponderURL\": \"\", {keys}}}}}"
    );
    fs::write(path.join("pebble.json"), config).unwrap();
    let mut command = process::command(&tool("pebble", "pebble"), path);
    command.args([
        "-config",
        "pebble.json",
        "-dnsserver",
        &format!("127.0.0.1:{dns}"),
    ]);
    command
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_WFE_NONCEREJECT", "0")
        .env("PEBBLE_AUTHZREUSE", "0");
    command.envs(mood.environment.iter().copied());
    let mut pebble = Process::start("pebble", command, &path.join("logs"));
    let port = *acme;
    // It answers plain HTTP by a sentence.
    pebble.becomes("listening", || {
        get(port, "/dir").starts_with("HTTP/1.0 400")
    });
    pebble
}

/// A key for external account binding, as a CA's page shows it.
pub fn binding_key() -> String {
    BASE64_STANDARD
        .encode([7; 32])
        .replace('+', "-")
        .replace('/', "_")
        .trim_end_matches('=')
        .to_owned()
}
