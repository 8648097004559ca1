//! The global options of version 2.

use super::tls;
use crate::import::caddy::context::SiteContext;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::site::{ImportedAuthority, SiteCertificate};
use crate::import::caddy::values;

/// Whether names get certificates by themselves, and the issuer for all sites.
#[derive(Debug, Default)]
pub(in crate::import::caddy) struct GlobalChoices {
    pub(in crate::import::caddy) local_certificates: bool,
}

/// Translates the options.
pub(in crate::import::caddy) fn translate(
    options: &[Statement],
    context: &mut SiteContext<'_>,
) -> GlobalChoices {
    let mut choices = GlobalChoices::default();
    let mut authority = ImportedAuthority::default();
    for option in options {
        self::option(option, &mut authority, &mut choices, context);
    }
    let of_authority = ["acme_ca", "cert_issuer", "acme_eab"];
    let statement = options
        .iter()
        .find(|option| of_authority.contains(&option.name()));
    let Some(statement) = statement else {
        return choices;
    };
    if authority.directory.is_empty() && authority.binding.is_some() {
        // A binding without a CA is for ZeroSSL, Caddy's second one.
        "https://acme.zerossl.com/v2/DV90".clone_into(&mut authority.directory);
    }
    if !authority.directory.is_empty() {
        tls::global_authority(statement, authority, context);
    }
    choices
}

fn option(
    option: &Statement,
    authority: &mut ImportedAuthority,
    choices: &mut GlobalChoices,
    context: &mut SiteContext<'_>,
) {
    let arguments = option.arguments();
    match (option.name(), arguments.as_slice()) {
        ("email", [email]) => {
            context.process.email = Some(context.variables.expand_placeholders(email, &option.at));
            context.translated(option, "[acme] email");
        }
        ("acme_ca", [directory]) => {
            authority.directory = (*directory).to_owned();
            context.translated(option, "[[ca]] directory");
        }
        ("acme_ca_root", [file]) => {
            authority.roots = Some(context.existing_file(option, file));
            context.translated(option, "[[ca]] roots");
        }
        ("acme_eab", _) => binding(option, authority, context),
        ("cert_issuer", [kind, ..]) => issuer(option, kind, authority, choices, context),
        ("local_certs", _) => {
            choices.local_certificates = true;
            context.translated(option, "[tls] internal = true in each domain");
        }
        ("http_port" | "https_port", [port]) => ports(option, port, context),
        ("auto_https", [mode]) => automatic(option, mode, context),
        ("admin", [address]) => admin(option, address, context),
        ("log", _) => super::log(option, context),
        ("debug", _) => {
            context.process.log_level = Some("debug");
            context.translated(option, "[log] level = \"debug\"");
        }
        ("servers", _) => {
            for line in option.children() {
                servers(line, context);
            }
        }
        ("grace_period" | "shutdown_delay", _) => grace(option, context),
        ("acme_dns" | "dns", [provider, ..]) => {
            context.dns_provider(option, provider);
        }
        ("default_bind", addresses) => default_bind(option, addresses, context),
        ("storage", _) => {
            context.redundant(option, "name the directory to `moorgate certs import`")
        }
        (name, _) if let Some((_, reason)) = DROPPED.iter().find(|(known, _)| *known == name) => {
            context.dropped(option, *reason);
        }
        _ => context.decision(option, "this option is not known"),
    }
}

fn binding(option: &Statement, authority: &mut ImportedAuthority, context: &mut SiteContext<'_>) {
    let value = |name: &str| {
        let line = option.children().iter().find(|line| line.name() == name);
        line.and_then(|line| line.argument(1)).map(str::to_owned)
    };
    let (Some(id), Some(key)) = (value("key_id"), value("mac_key")) else {
        return context.error(option, "`acme_eab` has `key_id` and `mac_key`");
    };
    authority.binding = Some(context.binding(option, &id, &key));
}

fn issuer(
    option: &Statement,
    kind: &str,
    authority: &mut ImportedAuthority,
    choices: &mut GlobalChoices,
    context: &mut SiteContext<'_>,
) {
    match kind {
        "internal" => {
            choices.local_certificates = true;
            context.translated(option, "[tls] internal = true in each domain");
        }
        "acme" => {
            if let Some(directory) = option.argument(2) {
                authority.directory = directory.to_owned();
            }
            context.translated(option, "see its options");
            for line in option.children() {
                tls::option(line, authority, context);
            }
            // An address here is that of all sites.
            if let SiteCertificate::Acme { email } = std::mem::take(&mut context.site.certificate) {
                context.process.email = email.or(context.process.email.take());
            }
        }
        _ => context.decision(option, "name the CA in [[ca]] of moorgate.toml"),
    }
}

fn ports(option: &Statement, port: &str, context: &mut SiteContext<'_>) {
    let Ok(port) = port.parse() else {
        return context.error(option, "this is no port");
    };
    if option.name() == "http_port" {
        context.process.http_port = Some(port);
        context.translated(option, format!("http = [\":{port}\"]"));
    } else {
        context.process.https_port = Some(port);
        context.translated(option, format!("https = [\":{port}\"]"));
    }
}

fn automatic(option: &Statement, mode: &str, context: &mut SiteContext<'_>) {
    match mode {
        "off" => {
            context.process.no_http = true;
            context.translated(option, "http = [], no redirects");
        }
        "disable_redirects" => context.dropped(
            option,
            "moorgate redirects plain HTTP, and answers http-01 there: http = [] in moorgate.toml for neither",
        ),
        "disable_certs" | "ignore_loaded_certs" | "prefer_wildcard" => context.dropped(
            option,
            "each domain says in [tls] where its certificate is from",
        ),
        _ => context.decision(option, "this mode is not known"),
    }
}

fn admin(option: &Statement, address: &str, context: &mut SiteContext<'_>) {
    if address == "off" {
        return context.redundant(option, "there is no admin listener without [admin]");
    }
    let port = address.rsplit_once(':').map(|(_, port)| port.to_owned());
    match port.filter(|port| port.parse::<u16>().is_ok()) {
        Some(port) => {
            // Everywhere would show metrics to everybody.
            let address = format!("127.0.0.1:{port}");
            context.translated(
                option,
                format!("[admin] listen = \"{address}\": read-only health, status and metrics"),
            );
            context.process.admin = Some(address);
        }
        None => context.decision(
            option,
            "write an address such as \"127.0.0.1:9180\" as `listen` in [admin]",
        ),
    }
}

fn servers(line: &Statement, context: &mut SiteContext<'_>) {
    let arguments = line.arguments();
    match (line.name(), arguments.as_slice()) {
        ("trusted_proxies", ["static", networks @ ..]) => trusted(line, networks, context),
        ("trusted_proxies", _) => context.decision(
            line,
            "name the networks in `trusted_proxies` of moorgate.toml",
        ),
        ("timeouts", _) => {
            for line in line.children() {
                server_timeout(line, context);
            }
        }
        ("max_header_size", [size]) => match values::decimal_size(size) {
            Some(size) if (4096..=262_144).contains(&size) => {
                context.process.head_limit = Some(size);
                context.translated(line, format!("[limits] head = {size}"));
            }
            _ => context.dropped(line, "moorgate takes request heads of up to 32 KiB"),
        },
        ("strict_sni_host", ["insecure_off"]) => context.dropped(line, "SNI and Host must agree"),
        ("strict_sni_host", _) => context.redundant(line, "SNI and Host must agree"),
        ("listener_wrappers", _) => wrappers(line, context),
        (name, _) if SERVER_CHOICES.contains(&name) => {
            context.dropped(
                line,
                "moorgate speaks HTTP/1.1 and HTTP/2 over TLS, with its own log and metrics",
            );
        }
        _ => context.decision(line, "this option of `servers` is not known"),
    }
}

fn trusted(line: &Statement, networks: &[&str], context: &mut SiteContext<'_>) {
    for network in networks {
        if *network == "private_ranges" {
            let all = super::matcher::private_ranges();
            context.process.trusted_proxies.extend(all);
        } else {
            context.process.trusted_proxies.push((*network).to_owned());
        }
    }
    context.translated(line, "trusted_proxies");
}

fn wrappers(line: &Statement, context: &mut SiteContext<'_>) {
    let mut wrappers = line.children().iter();
    if wrappers.any(|line| line.name() == "proxy_protocol") {
        let text = "name who may send the PROXY protocol in `trusted_proxies` of moorgate.toml";
        context.decision(line, text);
    } else {
        context.redundant(
            line,
            "plain HTTP at an https port is answered with a sentence",
        );
    }
}

fn server_timeout(line: &Statement, context: &mut SiteContext<'_>) {
    let duration = line.argument(1).and_then(values::duration);
    match (line.name(), duration) {
        ("idle", Some(duration)) => {
            context.translated(line, format!("[timeouts] idle = \"{duration}\""));
            context.process.timeouts.insert("idle", duration);
        }
        ("read_header", Some(duration)) => {
            context.translated(line, format!("[timeouts] head = \"{duration}\""));
            context.process.timeouts.insert("head", duration);
        }
        _ => context.dropped(
            line,
            "moorgate's timeouts measure progress and never the total",
        ),
    }
}

/// Without it, moorgate would listen on every address.
fn default_bind(option: &Statement, addresses: &[&str], context: &mut SiteContext<'_>) {
    let are_addresses = addresses
        .iter()
        .all(|one| one.parse::<std::net::IpAddr>().is_ok());
    if are_addresses {
        context.translated(option, "`https`, `http` and `listen`");
        context.process.bind = addresses.iter().map(ToString::to_string).collect();
    } else {
        context.decision(option, "write the addresses themselves into `https` and `http` of moorgate.toml: until then moorgate is served on 127.0.0.1 only");
        context.process.bind = vec!["127.0.0.1".to_owned()];
    }
}

fn grace(option: &Statement, context: &mut SiteContext<'_>) {
    let duration = option.argument(1).and_then(values::duration);
    match (option.name(), duration) {
        ("grace_period", Some(duration)) => {
            context.translated(option, format!("[timeouts] drain = \"{duration}\""));
            context.process.timeouts.insert("drain", duration);
        }
        _ => context.dropped(
            option,
            "a stop waits for running transfers, an hour at most: see `drain` in [timeouts]",
        ),
    }
}

const SERVER_CHOICES: &[&str] = &[
    "protocols",
    "metrics",
    "name",
    "log_credentials",
    "keepalive_interval",
    "enable_full_duplex",
    "client_ip_headers",
    "trusted_proxies_strict",
    "trace",
    "allow_h2c",
    "keepalive_idle",
    "0rtt",
];

const DROPPED: &[(&str, &str)] = &[
    (
        "default_sni",
        "a client without a server name reaches a domain with an address among its names",
    ),
    (
        "fallback_sni",
        "a client without a server name reaches a domain with an address among its names",
    ),
    ("order", "moorgate has one order of its own"),
    (
        "metrics",
        "see /metrics of the admin listener: [admin] listen in moorgate.toml",
    ),
    (
        "renewal_window_ratio",
        "certificates are renewed when their CA says so, or after two thirds of their life",
    ),
    (
        "renew_interval",
        "certificates are renewed when their CA says so, or after two thirds of their life",
    ),
    ("storage_clean_interval", "nothing is left over"),
    ("storage_check", "nothing is left over"),
    ("persist_config", "moorgate is configured by files only"),
    ("key_type", "keys are of P-256"),
    ("preferred_chains", "see `chain` in [[ca]]"),
    ("ocsp_stapling", "CAs have given up OCSP"),
    ("ocsp_interval", "CAs have given up OCSP"),
    (
        "on_demand_tls",
        "moorgate orders certificates for the names in its files only",
    ),
    ("skip_install_trust", "moorgate installs its CA nowhere"),
    ("pki", "moorgate has one CA of its own"),
    ("ech", "the name in a handshake is not encrypted"),
    ("tls_resolvers", "see `resolvers` in [acme]"),
    ("filesystem", "moorgate serves no files"),
    ("events", "moorgate starts no programs"),
    ("cert_lifetime", "see `profile` in [tls]"),
];
