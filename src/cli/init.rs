//! `moorgate init DIR`: makes a configuration with one domain and its first user, from options or
//! from questions at the terminal. In an existing configuration it adds the domain.

mod files;
mod questions;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use data_encoding::BASE32_NOPAD;
use secrecy::zeroize::Zeroizing;

use super::htpasswd::{self, Password};
use crate::auth::UserName;
use crate::config::problem::Problem;
use crate::config::snapshot::Snapshot;
use crate::registry::host::HostName;
use files::ConfigurationFiles;
use questions::Questions;

/// What the configuration is to hold. On a terminal, what is missing is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct InitOptions {
    /// The name under which clients reach the registry.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// The registry to stand in front of; by default moorgate keeps one itself.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Order certificates from Let's Encrypt, whose notices go to this address.
    #[arg(long, value_name = "EMAIL", group = "source")]
    acme: Option<String>,
    /// Certificates of moorgate's own CA, which clients must be told to trust.
    #[arg(long, group = "source")]
    internal: bool,
    /// A certificate file with its chain; needs --key.
    #[arg(long, value_name = "FILE", group = "source", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of --certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The first user. The password is prompted for, or read from standard input; without one, a
    /// random password is printed.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The addresses to listen on for HTTPS [default: :443, or those of an existing moorgate.toml].
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The address for redirects to HTTPS and for http-01 challenges [default: :80].
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// The address of /healthz, /readyz, /status and /metrics [default: 127.0.0.1:9180].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The directory for what moorgate writes [default: DIR/state, or /var/lib/moorgate for
    /// /etc/moorgate].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What the files are made of.
struct InitialSettings {
    domain: HostName,
    registry: InitialRegistry,
    certificate: InitialCertificate,
    user: UserName,
    /// The listeners of the domain alone, where moorgate.toml exists already.
    listen: Vec<String>,
    /// What moorgate.toml is made of; `None` where it exists already.
    process: Option<InitialProcess>,
}

/// The settings of the process.
struct InitialProcess {
    https: Vec<String>,
    http: String,
    admin: String,
    state: PathBuf,
}

enum InitialRegistry {
    Upstream(String),
    /// The name of a store's directory.
    Store(String),
}

enum InitialCertificate {
    Acme(String),
    Internal,
    Files { certificate: PathBuf, key: PathBuf },
}

/// Writes the files, which must not exist, and prints the next commands. If there is an error in
/// them, it is printed, and they are removed again. Exit status 2 if other files have errors.
pub fn run(directory: &Path, options: InitOptions) -> anyhow::Result<ExitCode> {
    let questions = Questions::new();
    let settings = settle(directory, options, &questions)?;
    let files = ConfigurationFiles::new(directory, &settings);
    files.must_be_new()?;
    let (password, is_random) = password(&settings.user, &questions)?;
    let mut written = files.write(&settings)?;
    htpasswd::add(&files.users, &settings.user, &password)?;
    written.push(files.users.clone());
    let (port, code) = match crate::config::load(directory) {
        Ok(loaded) => (port(&loaded.snapshot, &settings.domain), ExitCode::SUCCESS),
        Err(problems) => {
            super::report_problems(&problems)?;
            let is_own = |problem: &Problem| written.iter().any(|path| path == problem.file());
            if problems.iter().any(is_own) {
                files::remove(&written)?;
                bail!("nothing was kept");
            }
            // Those of other domains.
            (None, ExitCode::from(2))
        }
    };
    for path in &written {
        eprintln!("wrote {}", path.display());
    }
    let shown = is_random.then_some(&password);
    print_next_steps(
        directory,
        &NextSteps {
            settings: &settings,
            port,
            random_password: shown.map(|password| password.as_slice()),
        },
    )?;
    Ok(code)
}

/// The port that clients name.
fn port(snapshot: &Snapshot, domain: &HostName) -> Option<u16> {
    let host = snapshot
        .domains
        .iter()
        .find(|host| host.domain == *domain)?;
    let mut ports = host.listen.iter().map(|listen| listen.0.port());
    let first = ports.clone().next()?;
    (first != 443 && !ports.any(|port| port == 443)).then_some(first)
}

/// Options and answers become settings.
fn settle(
    directory: &Path,
    options: InitOptions,
    questions: &Questions,
) -> anyhow::Result<InitialSettings> {
    let InitOptions {
        domain,
        upstream,
        acme,
        internal,
        certificate,
        key,
        user,
        listen,
        http,
        admin,
        state,
    } = options;
    let listeners = ListenOptions {
        listen,
        http,
        admin,
        state,
    };
    let (listen, process) = listeners.settle(directory)?;
    let domain = questions.required(domain, "--domain", "Domain name of the registry")?;
    let domain = HostName::parse(&domain)
        .with_context(|| format!("`{domain}` cannot be the name of a domain"))?;
    let registry = match questions.optional(
        upstream,
        "URL of the registry behind it (nothing: moorgate keeps one itself)",
    )? {
        Some(url) => InitialRegistry::Upstream(url),
        None => InitialRegistry::Store(store_name(&domain)),
    };
    let source = (acme, internal, certificate.zip(key));
    let certificate = certificate_source(&domain, source, questions)?;
    let user = questions.required(user, "--user", "First user")?;
    Ok(InitialSettings {
        domain,
        registry,
        certificate,
        user: UserName::new(&user)?,
        listen,
        process,
    })
}

/// Where the certificate comes from: as the options say, or as the domain can have one.
fn certificate_source(
    domain: &HostName,
    source: (Option<String>, bool, Option<(PathBuf, PathBuf)>),
    questions: &Questions,
) -> anyhow::Result<InitialCertificate> {
    Ok(match source {
        (Some(email), ..) => InitialCertificate::Acme(email),
        (None, true, _) => InitialCertificate::Internal,
        (None, false, Some((certificate, key))) => InitialCertificate::Files {
            certificate: std::path::absolute(certificate)?,
            key: std::path::absolute(key)?,
        },
        (None, false, None) if !domain.is_public() => InitialCertificate::Internal,
        (None, false, None) => InitialCertificate::Acme(questions.required(
            None,
            "--acme EMAIL, --internal, or --certificate with --key",
            "E-mail address for Let's Encrypt",
        )?),
    })
}

/// The options about the process, and the listeners.
struct ListenOptions {
    listen: Vec<String>,
    http: Option<String>,
    admin: Option<String>,
    state: Option<PathBuf>,
}

impl ListenOptions {
    /// The listeners of the domain alone, and what moorgate.toml is made of, where there is none.
    fn settle(self, directory: &Path) -> anyhow::Result<(Vec<String>, Option<InitialProcess>)> {
        let Self {
            listen,
            http,
            admin,
            state,
        } = self;
        let main = directory.join("moorgate.toml");
        if main.symlink_metadata().is_ok() {
            let of_process = [
                ("http", http.is_some()),
                ("admin", admin.is_some()),
                ("state", state.is_some()),
            ];
            if let Some((option, _)) = of_process.iter().find(|(_, is_given)| *is_given) {
                bail!(
                    "{} exists already: set `{option}` in it, without --{option} here",
                    main.display()
                );
            }
            return Ok((listen, None));
        }
        let https = if listen.is_empty() {
            vec![":443".to_owned()]
        } else {
            listen
        };
        let process = InitialProcess {
            https,
            http: http.unwrap_or_else(|| ":80".to_owned()),
            admin: admin.unwrap_or_else(|| "127.0.0.1:9180".to_owned()),
            state: state.unwrap_or_else(|| default_state(directory)),
        };
        Ok((Vec::new(), Some(process)))
    }
}

/// The first label of the domain, or what stands for an address.
fn store_name(domain: &HostName) -> String {
    if domain.ip().is_some() {
        return "registry".to_owned();
    }
    let first = domain.as_str().split('.').next();
    first.unwrap_or("registry").to_owned()
}

fn default_state(directory: &Path) -> PathBuf {
    if directory == Path::new(SYSTEM_CONFIGURATION) {
        PathBuf::from(SYSTEM_STATE)
    } else {
        PathBuf::from("state")
    }
}

/// The password, and whether it is a random one.
fn password(user: &UserName, questions: &Questions) -> anyhow::Result<(Password, bool)> {
    if questions.can_ask() {
        let given =
            htpasswd::prompt_twice(&format!("New password for {user} (nothing: a random one)"))?;
        if !given.is_empty() {
            return Ok((given, false));
        }
    } else if !io::stdin().is_terminal() {
        let given = htpasswd::first_line(io::stdin().lock())?;
        if !given.is_empty() {
            return Ok((given, false));
        }
    }
    let random = crate::crypto::random_secret::<15>().context("the system has no randomness")?;
    let text = BASE32_NOPAD.encode(random.as_slice()).to_ascii_lowercase();
    Ok((Zeroizing::new(text.into_bytes()), true))
}

/// What the next steps depend on.
struct NextSteps<'a> {
    settings: &'a InitialSettings,
    /// The port that clients name, unless it is the default one.
    port: Option<u16>,
    random_password: Option<&'a [u8]>,
}

fn print_next_steps(directory: &Path, steps: &NextSteps<'_>) -> anyhow::Result<()> {
    let NextSteps {
        settings,
        port,
        random_password,
    } = steps;
    let out = &mut io::stdout().lock();
    if let Some(password) = random_password {
        let password = String::from_utf8_lossy(password);
        writeln!(out, "The password of {} is {password}\n", settings.user)?;
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let domain = &settings.domain;
    writeln!(out, "Next:")?;
    if is_installed_as_service(directory) {
        writeln!(out, "  systemctl restart moorgate")?;
    } else {
        writeln!(out, "  moorgate run --config {}", directory.display())?;
    }
    if matches!(settings.certificate, InitialCertificate::Internal) {
        writeln!(
            out,
            "  moorgate certs ca --config {} | install -D -m 644 /dev/stdin \
             /etc/docker/certs.d/{domain}{port}/ca.crt",
            directory.display()
        )?;
    }
    writeln!(
        out,
        "  docker login {domain}{port} --username {}",
        settings.user
    )?;
    Ok(out.flush()?)
}

/// Whether a unit serves this configuration.
fn is_installed_as_service(directory: &Path) -> bool {
    let mut places = ["/etc/systemd/system", "/usr/lib/systemd/system"].iter();
    directory == Path::new(SYSTEM_CONFIGURATION)
        && places.any(|place| Path::new(place).join("moorgate.service").exists())
}

const SYSTEM_CONFIGURATION: &str = "/etc/moorgate";
const SYSTEM_STATE: &str = "/var/lib/moorgate";
