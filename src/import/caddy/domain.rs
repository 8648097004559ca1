//! The text of domain files and of `moorgate.toml`.

use std::fmt::Write;
use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::placement::{HttpListening, PlacedSite, addresses};
use super::site::{
    ImportedProcess, ImportedRule, ImportedSite, ImportedUpstream, RuleLimits, SiteCertificate,
};
use super::users;

/// A file to write, below the directory of the configuration.
#[derive(Clone, Debug)]
pub(super) struct OutputFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Whether only the service's user may read it.
    pub(super) is_private: bool,
}

/// The files of a domain; `None` if the system has no randomness for a hash.
pub(super) fn files(placed: &PlacedSite<'_>, version: u8) -> Option<Vec<OutputFile>> {
    let (site, name) = (placed.site, &placed.domain);
    let mut files = vec![OutputFile {
        path: format!("conf.d/{name}.toml").into(),
        text: text(placed, version),
        is_private: false,
    }];
    files.push(OutputFile {
        path: format!("credentials/{name}.htpasswd").into(),
        text: users::htpasswd(&site.access.users, name)?,
        is_private: true,
    });
    if let Some(login) = site
        .registry
        .as_ref()
        .and_then(|registry| registry.login.as_ref())
    {
        files.push(OutputFile {
            path: format!("credentials/{name}.upstream").into(),
            text: format!("{}\n", login.password.expose_secret()),
            is_private: true,
        });
    }
    Some(files)
}

fn text(placed: &PlacedSite<'_>, version: u8) -> String {
    let (site, name) = (placed.site, &placed.domain);
    let mut text = format!("# Imported from Caddy {version}: {}\n", site.at);
    let _ = writeln!(text, "domain = {}", quoted(name));
    if !placed.aliases.is_empty() {
        let _ = writeln!(text, "aliases = {}", list(&placed.aliases));
    }
    if let Some(listen) = &placed.listen {
        let _ = writeln!(text, "listen = {}", list(listen));
    }
    let _ = writeln!(text, "\n[tls]\n{}", certificate(&placed.certificate));
    let htpasswd = quoted(&format!("../credentials/{name}.htpasswd"));
    let _ = writeln!(text, "\n[auth]\nhtpasswd = {htpasswd}");
    if let Some(realm) = site.realm.as_ref().filter(|realm| is_realm(realm)) {
        let _ = writeln!(text, "realm = {}", quoted(realm));
    }
    if let Some(registry) = &site.registry {
        text.push_str("\n[upstream]\n");
        upstream(&mut text, registry, name);
    }
    if let Some(browser) = &site.browser {
        let mark = if site.left_out.is_empty() { "" } else { "# " };
        text.push('\n');
        for reason in &site.left_out {
            let _ = writeln!(text, "# Left out: {}", comment(reason));
        }
        let _ = writeln!(
            text,
            "{mark}[browser]\n{mark}url = {}",
            quoted(&browser.url)
        );
        if mark.is_empty() {
            others(&mut text, browser);
        }
    }
    limits(&mut text, site);
    if !site.timeouts.is_empty() {
        text.push_str("\n[timeouts]\n");
        for (key, duration) in &site.timeouts {
            let _ = writeln!(text, "{key} = {}", quoted(duration));
        }
    }
    rules(&mut text, site);
    text
}

fn certificate(certificate: &SiteCertificate) -> String {
    match certificate {
        SiteCertificate::Acme { email: Some(email) } => format!("acme = {}", quoted(email)),
        SiteCertificate::Acme { email: None } => "acme = true".to_owned(),
        SiteCertificate::Files { certificate, key } => {
            format!(
                "certificate = {}\nkey = {}",
                quoted(certificate),
                quoted(key)
            )
        }
        SiteCertificate::Automatic | SiteCertificate::Internal | SiteCertificate::Plain => {
            "internal = true".to_owned()
        }
    }
}

fn upstream(text: &mut String, registry: &ImportedUpstream, name: &str) {
    if registry.replicas.is_empty() {
        let _ = writeln!(text, "url = {}", quoted(&registry.url));
    } else {
        let urls = std::iter::once(&registry.url).chain(&registry.replicas);
        let urls: Vec<_> = urls.map(|url| quoted(url)).collect();
        let _ = writeln!(text, "urls = [{}]", urls.join(", "));
    }
    others(text, registry);
    if let Some(roots) = &registry.roots {
        let _ = writeln!(text, "roots = {}", quoted(roots));
    }
    if let Some(login) = &registry.login {
        let file = quoted(&format!("../credentials/{name}.upstream"));
        let _ = writeln!(
            text,
            "username = {}\npassword = {{ file = {file} }}",
            quoted(&login.username)
        );
    }
}

fn others(text: &mut String, server: &ImportedUpstream) {
    for other in &server.others {
        let _ = writeln!(text, "# Caddy also used {}", comment(other));
    }
}

/// A manifest is a body, too: it must not become larger than all others may be.
fn limits(text: &mut String, site: &ImportedSite) {
    let Some(body) = site.body_limit else { return };
    let _ = writeln!(text, "\n[limits]\nbody = {body}");
    if body < MANIFEST_LIMIT {
        let _ = writeln!(text, "manifest = {}", body.max(1024));
    }
}

fn rules(text: &mut String, site: &ImportedSite) {
    let access = &site.access;
    for proposal in &access.proposals {
        let _ = writeln!(text, "\n# Perhaps, for {}", comment(proposal));
    }
    let mut rules = access.rules.clone();
    if !rules.is_empty() && rules.iter().all(|rule| rule.is_deny) {
        let everybody = ImportedRule {
            users: vec!["@authenticated".to_owned()],
            ..ImportedRule::default()
        };
        rules.insert(0, everybody);
    }
    for one in &rules {
        rule(text, one);
    }
    if access.closed.is_empty() {
        return;
    }
    text.push_str("\n# Nobody gets in until this is decided; then delete the rule:\n");
    for reason in &access.closed {
        let _ = writeln!(text, "# {}", comment(reason));
    }
    let nobody = ImportedRule {
        users: vec!["*".to_owned()],
        limits: RuleLimits::default(),
        is_deny: true,
    };
    rule(text, &nobody);
}

fn rule(text: &mut String, rule: &ImportedRule) {
    let or = |list: &[String], default: &str| {
        if list.is_empty() {
            vec![default.to_owned()]
        } else {
            list.to_vec()
        }
    };
    let RuleLimits {
        repositories,
        actions,
        networks,
    } = &rule.limits;
    let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        text,
        "\n[[access]]\nusers = {}\nrepositories = {}\nactions = {}",
        list(&rule.users),
        list(&or(repositories, "**")),
        list(&or(&actions, "all"))
    );
    if !networks.is_empty() {
        let _ = writeln!(text, "networks = {}", list(networks));
    }
    if rule.is_deny {
        text.push_str("deny = true\n");
    }
}

/// `moorgate.toml`, and the file of a CA's key; nothing if all is as by default.
pub(super) fn process_files(
    process: &ImportedProcess,
    version: u8,
    http: HttpListening,
) -> Vec<OutputFile> {
    let mut text = String::new();
    listeners(&mut text, process, http);
    if !process.trusted_proxies.is_empty() {
        let _ = writeln!(text, "trusted_proxies = {}", list(&process.trusted_proxies));
    }
    let mut files = Vec::new();
    acme(&mut text, process);
    authority(&mut text, process, &mut files);
    if let Some(admin) = &process.admin {
        let _ = writeln!(text, "\n[admin]\nlisten = {}", quoted(admin));
    }
    log_and_limits(&mut text, process);
    if !text.is_empty() {
        files.push(OutputFile {
            path: "moorgate.toml".into(),
            text: format!("# Imported from Caddy {version}.\n{text}"),
            is_private: false,
        });
    }
    files
}

fn authority(text: &mut String, process: &ImportedProcess, files: &mut Vec<OutputFile>) {
    if let Some(authority) = &process.authority {
        let _ = writeln!(
            text,
            "\n[[ca]]\ndirectory = {}",
            quoted(&authority.directory)
        );
        if let Some(roots) = &authority.roots {
            let _ = writeln!(text, "roots = {}", quoted(roots));
        }
        if let Some((id, key)) = &authority.binding {
            let _ = writeln!(
                text,
                "eab_key_id = {}\neab_hmac_key = {{ file = \"credentials/eab-hmac-key\" }}",
                quoted(id)
            );
            files.push(OutputFile {
                path: "credentials/eab-hmac-key".into(),
                text: format!("{}\n", key.expose_secret()),
                is_private: true,
            });
        }
    }
}

fn log_and_limits(text: &mut String, process: &ImportedProcess) {
    if process.json_log || process.log_level.is_some() {
        text.push_str("\n[log]\n");
        if process.json_log {
            text.push_str("format = \"json\"\n");
        }
        if let Some(level) = process.log_level {
            let _ = writeln!(text, "level = {}", quoted(level));
        }
    }
    if let Some(head) = process.head_limit {
        let _ = writeln!(text, "\n[limits]\nhead = {head}");
        if head <= TARGET_LIMIT {
            let _ = writeln!(text, "target = {}", head / 2);
        }
    }
    if !process.timeouts.is_empty() {
        text.push_str("\n[timeouts]\n");
        for (key, duration) in &process.timeouts {
            let _ = writeln!(text, "{key} = {}", quoted(duration));
        }
    }
}

fn listeners(text: &mut String, process: &ImportedProcess, http: HttpListening) {
    let port = process.http_port.unwrap_or(80);
    if process.https_port.is_some() || !process.bind.is_empty() {
        let https = addresses(&process.bind, process.https_port.unwrap_or(443));
        let _ = writeln!(text, "https = {}", list(&https));
    }
    let bind = match http {
        HttpListening::Off => {
            text.push_str("http = []\n");
            return;
        }
        HttpListening::At(bind) if !bind.is_empty() => bind,
        HttpListening::At(_) => process.bind.clone(),
    };
    if process.http_port.is_some() || !bind.is_empty() {
        let _ = writeln!(text, "http = {}", list(&addresses(&bind, port)));
    }
}

fn acme(text: &mut String, process: &ImportedProcess) {
    if process.email.is_none() && process.challenges.is_empty() {
        return;
    }
    text.push_str("\n[acme]\n");
    if let Some(email) = &process.email {
        let _ = writeln!(text, "email = {}", quoted(email));
    }
    if !process.challenges.is_empty() {
        let challenges: Vec<String> = process.challenges.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "challenges = {}", list(&challenges));
    }
}

/// A string of TOML, in which everything but printable ASCII is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A text that stays in its comment.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn is_realm(realm: &str) -> bool {
    !realm.is_empty()
        && realm.chars().all(|c| c.is_ascii_graphic() || c == ' ')
        && !realm.contains(['"', '\\'])
}

/// moorgate's own limit for a path and query, which must be below that for a head.
const TARGET_LIMIT: u64 = 8192;
/// moorgate's own limit for manifests.
const MANIFEST_LIMIT: u64 = 4 << 20;
