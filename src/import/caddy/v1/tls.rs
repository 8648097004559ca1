//! `tls` of version 1 in all its forms.

use crate::import::caddy::context::SiteContext;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::site::{ImportedAuthority, SiteCertificate};

/// Sets the certificate of a site.
pub(super) fn certificate(directives: &[Statement], context: &mut SiteContext<'_>) {
    for statement in directives.iter().filter(|one| one.name() == "tls") {
        let arguments = statement.arguments();
        match arguments.as_slice() {
            ["off"] => {
                context.site.certificate = SiteCertificate::Plain;
                context.decision(
                    statement,
                    "moorgate serves nothing in the clear: see `[tls]` in the domain file",
                );
            }
            ["self_signed"] => {
                context.site.certificate = SiteCertificate::Internal;
                let text = "[tls] internal = true: from now on, clients can trust the CA that `moorgate certs ca` prints";
                context.translated(statement, text);
            }
            [email] => {
                context.translated(statement, format!("[tls] acme = \"{email}\""));
                let email = Some((*email).to_owned());
                context.site.certificate = SiteCertificate::Acme { email };
            }
            [certificate, key] => context.certificate_files(statement, certificate, key),
            [] => context.redundant(statement, "see the options in its block"),
            _ => context.error(
                statement,
                "`tls` has an address, `off`, `self_signed`, or a certificate and a key",
            ),
        }
        for option in statement.children() {
            self::option(option, context);
        }
    }
}

fn option(option: &Statement, context: &mut SiteContext<'_>) {
    let arguments = option.arguments();
    match (option.name(), arguments.as_slice()) {
        ("ca", [directory]) => authority(option, directory, context),
        ("key_type" | "protocols" | "ciphers" | "curves" | "alpn", _) => {
            context.dropped(option, "moorgate has keys of P-256, and TLS 1.2 and 1.3 with the ciphers of rustls");
        }
        ("must_staple", _) => context.dropped(option, "CAs have given up OCSP, and refuse such certificates"),
        ("clients", ["request" | "verify_if_given", ..]) => {
            context.dropped(option, "moorgate does not request certificates of clients");
        }
        ("clients", _) => context.closed(
            option,
            "clients had to show a certificate, which moorgate does not request: passwords alone would open more",
        ),
        ("load", _) => context.decision(option, "name the certificate and the key of this domain in [tls]"),
        ("max_certs" | "ask", _) => {
            context.dropped(option, "moorgate orders certificates for the names in its files only");
        }
        ("dns", [provider, ..]) => {
            let text = format!("`{provider}` is asked by a program of yours: set `dns_command` in [acme] of moorgate.toml");
            context.decision(option, text);
        }
        ("wildcard", _) => context.decision(option, "name the wildcard as `names` in [tls], and set `dns_command`"),
        ("self_signed", _) => {
            context.site.certificate = SiteCertificate::Internal;
            context.translated(option, "[tls] internal = true");
        }
        _ => context.decision(option, "this option of `tls` is not known"),
    }
}

fn authority(option: &Statement, directory: &str, context: &mut SiteContext<'_>) {
    let authority = ImportedAuthority {
        directory: directory.to_owned(),
        ..ImportedAuthority::default()
    };
    super::super::authority::set(option, authority, context);
}
