//! The files of a new configuration.

use std::fmt::Write;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{InitialCertificate, InitialProcess, InitialRegistry, InitialSettings};
use crate::state_file::{Access, atomic_write};

/// Where the files are.
pub(super) struct ConfigurationFiles {
    main: PathBuf,
    domain: PathBuf,
    pub(super) users: PathBuf,
}

impl ConfigurationFiles {
    pub(super) fn new(directory: &Path, settings: &InitialSettings) -> Self {
        // An IPv6 address has colons.
        let name = settings.domain.as_str().replace(':', "-");
        Self {
            main: directory.join("moorgate.toml"),
            domain: directory.join("conf.d").join(format!("{name}.toml")),
            users: directory
                .join("credentials")
                .join(format!("{name}.htpasswd")),
        }
    }

    /// Errors: a file of the domain is there already.
    pub(super) fn must_be_new(&self) -> anyhow::Result<()> {
        for path in [&self.domain, &self.users] {
            if path.symlink_metadata().is_ok() {
                bail!("{} exists already: nothing was written", path.display());
            }
        }
        Ok(())
    }

    /// Writes the settings and returns the paths. An existing moorgate.toml stays as it is.
    pub(super) fn write(&self, settings: &InitialSettings) -> anyhow::Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        if let Some(process) = &settings.process {
            write(&self.main, 0o755, &main_file(process))?;
            written.push(self.main.clone());
        }
        let users = self.users.file_name().unwrap_or_default();
        let users = Path::new("../credentials").join(users);
        write(&self.domain, 0o755, &domain_file(settings, &users))?;
        written.push(self.domain.clone());
        make_parent(&self.users, 0o750)?;
        Ok(written)
    }
}

/// Removes what was written.
pub(super) fn remove(written: &[PathBuf]) -> anyhow::Result<()> {
    for path in written {
        std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn write(path: &Path, directory_mode: u32, content: &str) -> anyhow::Result<()> {
    make_parent(path, directory_mode)?;
    atomic_write(path, content.as_bytes(), Access::Public)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn make_parent(path: &Path, mode: u32) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("cannot make {}", directory.display()))
}

fn main_file(process: &InitialProcess) -> String {
    let InitialProcess {
        https,
        http,
        admin,
        state,
    } = process;
    format!(
        "\
# Settings of the process, and defaults for all domains. `moorgate check` reports every problem.

https = [{}]
# Redirects to HTTPS and http-01 challenges, nothing else.
http = [{}]
# Everything that moorgate writes: certificates, keys, and the images of its own registries.
state = {}

# /healthz, /readyz, /status and /metrics, without a password.
[admin]
listen = {}
",
        list(https),
        quoted(http),
        quoted(&state.to_string_lossy()),
        quoted(admin),
    )
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    quoted.join(", ")
}

fn domain_file(settings: &InitialSettings, users: &Path) -> String {
    let mut text = format!("domain = {}\n", quoted(settings.domain.as_str()));
    if !settings.listen.is_empty() {
        text += &format!("listen = [{}]\n", list(&settings.listen));
    }
    text += "\n[tls]\n";
    let certificate = match &settings.certificate {
        InitialCertificate::Acme(email) => {
            format!(
                "# From Let's Encrypt, renewed by itself.\nacme = {}\n",
                quoted(email)
            )
        }
        InitialCertificate::Internal => {
            "# From moorgate's own CA: `moorgate certs ca` prints what clients must trust.\n\
             internal = true\n"
                .to_owned()
        }
        InitialCertificate::Files { certificate, key } => format!(
            "# Read again when they change.\ncertificate = {}\nkey = {}\n",
            quoted(&certificate.to_string_lossy()),
            quoted(&key.to_string_lossy())
        ),
    };
    let registry = match &settings.registry {
        InitialRegistry::Upstream(url) => format!("url = {}\n", quoted(url)),
        InitialRegistry::Store(name) => format!(
            "# A registry that moorgate keeps itself, in store/{name} below `state`.\ndirectory = {}\n",
            quoted(name)
        ),
    };
    let users = quoted(&users.to_string_lossy());
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{certificate}
[auth]
# `moorgate htpasswd FILE USER` adds a user or changes a password; that takes effect by itself.
htpasswd = {users}

[upstream]
{registry}
# Every user may do everything until there is a rule:
# [[access]]
# users = [{user}]
# repositories = [\"**\"]
# actions = [\"pull\", \"push\"]
",
        user = quoted(settings.user.as_str()),
    );
    text
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
