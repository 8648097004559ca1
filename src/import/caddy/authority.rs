//! The CA of a `tls` directive. moorgate has its CAs for all domains together.

use super::context::SiteContext;
use super::parser::Statement;
use super::site::ImportedAuthority;

/// Makes it the CA of all domains, if no other one is.
pub(super) fn set(
    statement: &Statement,
    authority: ImportedAuthority,
    context: &mut SiteContext<'_>,
) {
    let authority = ImportedAuthority {
        directory: directory(&authority.directory),
        ..authority
    };
    match &context.process.authority {
        None => {
            context.translated(statement, "[[ca]] in moorgate.toml, for all domains");
            context.process.authority = Some(authority);
        }
        Some(other) if *other == authority => {
            context.translated(statement, "[[ca]] in moorgate.toml, for all domains");
        }
        Some(_) => context.decision(
            statement,
            "all domains have the same CAs, and another site has another one: see [[ca]] in moorgate.toml",
        ),
    }
}

/// The CA of version 1 for Let's Encrypt was one that no longer exists.
pub(super) fn directory(written: &str) -> String {
    let written = written.replace(
        "acme-v01.api.letsencrypt.org",
        "acme-v02.api.letsencrypt.org",
    );
    let written = written.replace(
        "acme-staging.api.letsencrypt.org",
        "acme-staging-v02.api.letsencrypt.org",
    );
    if written.contains("://") {
        written
    } else {
        format!("https://{written}")
    }
}
