//! `tls` of version 2 in all its forms.

use crate::import::caddy::authority;
use crate::import::caddy::context::SiteContext;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::site::{ImportedAuthority, SiteCertificate};

/// Sets the certificate of a site.
pub(super) fn certificate(statement: &Statement, context: &mut SiteContext<'_>) {
    match statement.arguments().as_slice() {
        ["internal"] => {
            context.site.certificate = SiteCertificate::Internal;
            let text = "[tls] internal = true: a CA of moorgate's own, which clients have to trust in place of Caddy's \
                        (`moorgate certs ca`)";
            context.translated(statement, text);
        }
        ["force_automate"] => {
            context.redundant(statement, "each domain has a certificate of its own")
        }
        [email] => {
            let email = context.variables.expand_placeholders(email, &statement.at);
            context.translated(statement, format!("[tls] acme = \"{email}\""));
            context.site.certificate = SiteCertificate::Acme { email: Some(email) };
        }
        [certificate, key] => context.certificate_files(statement, certificate, key),
        [] => context.redundant(statement, "see the options in its block"),
        _ => context.error(
            statement,
            "`tls` has an address, `internal`, or a certificate and a key",
        ),
    }
    let mut authority = ImportedAuthority::default();
    for line in statement.children() {
        option(line, &mut authority, context);
    }
    if !authority.directory.is_empty() {
        super::super::authority::set(statement, authority, context);
    } else if authority.binding.is_some() {
        context.decision(
            statement,
            "the binding has no CA: name it in [[ca]] of moorgate.toml",
        );
    }
}

/// Options of `tls`, of `issuer acme` and of the global `cert_issuer acme`.
pub(super) fn option(
    line: &Statement,
    authority: &mut ImportedAuthority,
    context: &mut SiteContext<'_>,
) {
    let arguments = line.arguments();
    match (line.name(), arguments.as_slice()) {
        ("ca" | "dir", [directory]) => {
            authority.directory = context.variables.expand_placeholders(directory, &line.at);
            context.translated(line, "[[ca]] directory");
        }
        ("ca_root" | "trusted_roots", [file]) => {
            authority.roots = Some(context.existing_file(line, file));
            context.translated(line, "[[ca]] roots");
        }
        ("eab", [id, key]) => {
            authority.binding = Some(context.binding(line, id, key));
        }
        ("email", [email]) => {
            context.site.certificate = SiteCertificate::Acme {
                email: Some((*email).to_owned()),
            };
            context.translated(line, format!("[tls] acme = \"{email}\""));
        }
        ("issuer", [kind, ..]) => issuer(line, kind, authority, context),
        ("client_auth", _) => client_auth(line, context),
        ("dns" | "dns_challenge_override_domain", [provider, ..]) => {
            context.dns_provider(line, provider);
        }
        ("dns" | "load" | "get_certificate", _) => {
            context.decision(line, "name the certificate and the key of this domain in [tls], or `dns_command` in [acme]");
        }
        ("resolvers", _) => context.decision(
            line,
            "name the servers as `resolvers` in [acme] of moorgate.toml",
        ),
        ("on_demand", _) => context.dropped(
            line,
            "moorgate orders certificates for the names in its files only",
        ),
        ("disable_http_challenge" | "disable_tlsalpn_challenge", _) => challenge(line, context),
        (name, _) if OWN_CHOICES.contains(&name) => {
            context.dropped(line, "moorgate has keys of P-256, TLS 1.2 and 1.3 with the ciphers of rustls, and renews by the CA's word");
        }
        _ => context.decision(line, "this option of `tls` is not known"),
    }
}

fn issuer(
    line: &Statement,
    kind: &str,
    authority: &mut ImportedAuthority,
    context: &mut SiteContext<'_>,
) {
    match kind {
        "internal" => {
            context.site.certificate = SiteCertificate::Internal;
            context.translated(line, "[tls] internal = true");
        }
        "acme" | "zerossl" => {
            if kind == "zerossl" {
                authority.directory = "https://acme.zerossl.com/v2/DV90".to_owned();
                context.decision(line, "ZeroSSL wants an external account: write eab_key_id and eab_hmac_key in [[ca]]");
            } else {
                context.translated(line, "see its options");
            }
            if let Some(directory) = line.argument(2) {
                authority.directory = directory.to_owned();
            }
            for line in line.children() {
                option(line, authority, context);
            }
        }
        _ => context.decision(
            line,
            "this issuer is not known: choose `acme`, files or `internal` in [tls]",
        ),
    }
}

fn client_auth(line: &Statement, context: &mut SiteContext<'_>) {
    let mode = line.children().iter().find(|line| line.name() == "mode");
    match mode.and_then(|mode| mode.argument(1)) {
        Some("request" | "verify_if_given") => {
            context.dropped(line, "moorgate does not request certificates of clients");
        }
        _ => context.closed(
            line,
            "clients had to show a certificate, which moorgate does not request: passwords alone would open more",
        ),
    }
}

/// Leaves the other challenge.
fn challenge(line: &Statement, context: &mut SiteContext<'_>) {
    let left = match line.name() {
        "disable_http_challenge" => "tls-alpn-01",
        _ => "http-01",
    };
    if !context.process.challenges.contains(&left) {
        context.process.challenges.push(left);
    }
    context.translated(line, "[acme] challenges");
}

/// Sets the CA of the global options.
pub(super) fn global_authority(
    statement: &Statement,
    authority: ImportedAuthority,
    context: &mut SiteContext<'_>,
) {
    authority::set(statement, authority, context);
}

const OWN_CHOICES: &[&str] = &[
    "protocols",
    "ciphers",
    "curves",
    "alpn",
    "key_type",
    "must_staple",
    "renewal_window_ratio",
    "reuse_private_keys",
    "insecure_secrets_log",
    "propagation_timeout",
    "propagation_delay",
    "dns_ttl",
    "timeout",
    "preferred_chains",
    "alt_http_port",
    "alt_tlsalpn_port",
    "profile",
    "lifetime",
    "sign_with_root",
    "test_dir",
];
