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
    /// The addresses to listen on for HTTPS.
    #[arg(long, value_name = "ADDRESS", default_value = ":443")]
    listen: Vec<String>,
    /// The address for redirects to HTTPS and for http-01 challenges.
    #[arg(long, value_name = "ADDRESS", default_value = ":80")]
    http: String,
    /// The address of /healthz, /readyz, /status and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    admin: String,
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
    listen: Vec<String>,
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
    let mut code = ExitCode::SUCCESS;
    if let Err(problems) = crate::config::load(directory) {
        super::report_problems(&problems)?;
        if problems
            .iter()
            .any(|problem| written.iter().any(|path| path == problem.file()))
        {
            files::remove(&written)?;
            bail!("nothing was kept");
        }
        // Those of other domains.
        code = ExitCode::from(2);
    }
    for path in &written {
        eprintln!("wrote {}", path.display());
    }
    let shown = is_random.then_some(&password);
    print_next_steps(
        directory,
        &settings,
        shown.map(|password| password.as_slice()),
    )?;
    Ok(code)
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
    let certificate = match (acme, internal, certificate.zip(key)) {
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
    };
    let user = questions.required(user, "--user", "First user")?;
    Ok(InitialSettings {
        domain,
        registry,
        certificate,
        user: UserName::new(&user)?,
        listen,
        http,
        admin,
        state: state.unwrap_or_else(|| default_state(directory)),
    })
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

fn print_next_steps(
    directory: &Path,
    settings: &InitialSettings,
    random_password: Option<&[u8]>,
) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    if let Some(password) = random_password {
        let password = String::from_utf8_lossy(password);
        writeln!(out, "The password of {} is {password}\n", settings.user)?;
    }
    let port = settings
        .listen
        .first()
        .and_then(|address| address.rsplit(':').next())
        .filter(|port| *port != "443");
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
