//! Builds a virtual host from a domain file.

use std::path::Path;
use std::time::Duration;

use super::process::{self, Process};
use super::tls;
use super::{DomainFile, RequestedListener, access, retention, upstream};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawAuth, RawAuthorization, RawMode, Setting};
use crate::config::vhost::{
    AuthMode, AuthSettings, BrowserSettings, LocationForm, TokenSettings, VirtualHost,
};
use crate::registry::host::Authority;

/// The virtual host, or `None` if a required setting is missing or invalid. All problems of the
/// file are reported in either case.
pub(super) fn virtual_host(
    file: &DomainFile,
    listen: &[RequestedListener],
    directory: &Path,
    process: &Process,
    problems: &mut Problems,
) -> Option<VirtualHost> {
    let raw = &file.raw;
    if raw.domain.is_absent() {
        let help = "write domain = \"docker-ci.example.com\" at the top, above the first [table]";
        problems.push(Problem::in_file(
            file.source.path(),
            "`domain` is missing",
            help,
        ));
    }
    let aliases = aliases(file, listen, problems);
    let certificate = tls::certificate(file, &aliases, process, problems);
    let auth = auth(file, problems);
    let access = access::settings(
        file,
        directory,
        &process.rules,
        &process.trusted_proxies,
        problems,
    );
    let registry = upstream::registry(file, &process.state, problems);
    let browser = browser(file, problems);
    let retention = retention::retention(file, directory, problems);
    let quotas = retention::quotas(file, directory, problems);
    Some(VirtualHost {
        domain: raw.domain.given()?.clone(),
        aliases,
        listen: listen.iter().map(|listener| listener.address).collect(),
        certificate: certificate?,
        auth: auth?,
        access: access?,
        registry: registry?,
        locations: raw
            .upstream
            .given()
            .map_or(LocationForm::default(), |upstream| {
                upstream.locations.or_empty()
            }),
        browser,
        limits: process::limits(&raw.limits.or_empty(), process.limits),
        timeouts: process::timeouts(&raw.timeouts.or_empty(), process.timeouts),
        retention,
        quotas,
        source: file.source.path().to_owned(),
    })
}

fn browser(file: &DomainFile, problems: &mut Problems) -> Option<BrowserSettings> {
    let Setting::Given(browser, header) = &file.raw.browser else {
        return None;
    };
    if browser.url.is_absent() {
        let help = "write url = \"http://registry-browser:8080\", or leave the table out";
        problems.push(file.missing(Some(header), "`browser.url` is missing", help));
    }
    let url = browser.url.given()?.clone();
    Some(BrowserSettings { url })
}

/// The aliases without duplicates and without the domain itself.
fn aliases(
    file: &DomainFile,
    listen: &[RequestedListener],
    problems: &mut Problems,
) -> Vec<Authority> {
    let mut aliases: Vec<Authority> = Vec::new();
    for alias in file.raw.aliases.given().into_iter().flatten() {
        let name = alias.get_ref();
        let served = name.port.is_none_or(|port| {
            listen
                .iter()
                .any(|listener| listener.address.0.port() == port)
        });
        let message = if file.raw.domain.given() == Some(&name.host) {
            format!("the alias `{name}` is the domain itself")
        } else if !served {
            format!("the alias `{name}` is on none of the ports that this domain listens on")
        } else if aliases.contains(name) {
            format!("the alias `{name}` is named twice")
        } else {
            aliases.push(name.clone());
            continue;
        };
        problems.push(Problem::at(&file.source, &alias.span(), message, "leave it out").warning());
    }
    aliases
}

fn auth(file: &DomainFile, problems: &mut Problems) -> Option<AuthSettings> {
    let (raw, header) = file.raw.auth.table()?;
    let RawAuth {
        htpasswd,
        realm,
        anonymous,
        ..
    } = &raw;
    if htpasswd.is_absent() {
        let help = "write htpasswd = \"../credentials/NAME.htpasswd\" in [auth]; `moorgate htpasswd` makes one";
        let message = "`auth.htpasswd` is missing: nobody could log in";
        problems.push(file.missing(header, message, help));
    }
    let htpasswd = file.source.beside(htpasswd.given()?);
    let realm = match realm.given() {
        Some(realm) => realm.clone(),
        None => file.raw.domain.given()?.to_string(),
    };
    Some(AuthSettings {
        htpasswd,
        realm,
        mode: mode(file, &raw, problems)?,
        anonymous: anonymous.or_empty(),
    })
}

/// The mode of authentication. Token mode excludes an upstream that needs the client's password,
/// and basic mode excludes the settings of tokens.
fn mode(file: &DomainFile, raw: &RawAuth, problems: &mut Problems) -> Option<AuthMode> {
    let RawAuth {
        mode,
        token_lifetime,
        refresh_token_lifetime,
        refresh_tokens,
        ..
    } = raw;
    if matches!(mode, Setting::Invalid) {
        return None;
    }
    if mode.or_empty() == RawMode::Basic {
        let keys = [
            ("token_lifetime", token_lifetime.span()),
            ("refresh_token_lifetime", refresh_token_lifetime.span()),
            ("refresh_tokens", refresh_tokens.span()),
        ];
        for (key, span) in keys {
            let Some(span) = span else { continue };
            let message = format!("`auth.{key}` is only for tokens");
            let help = "write mode = \"token\" in [auth], or leave it out";
            problems.push(Problem::at(&file.source, span, message, help));
        }
        return Some(AuthMode::Basic);
    }
    let authorization = file
        .raw
        .upstream
        .given()
        .map(|upstream| &upstream.authorization);
    if let Some(Setting::Given(RawAuthorization::Pass, span)) = authorization {
        let message = "`upstream.authorization` cannot be \"pass\" with `auth.mode` \"token\"";
        let help = "a client then sends moorgate's tokens and no password: write `username` and `password` of \
                    moorgate's own here, or mode = \"basic\" in [auth]";
        problems.push(Problem::at(&file.source, span, message, help));
    }
    let default = TokenSettings::default();
    Some(AuthMode::Token(TokenSettings {
        lifetime: token_lifetime.or(default.lifetime),
        refresh_lifetime: refresh_lifetime(file, raw, default.refresh_lifetime, problems),
    }))
}

/// The lifetime of refresh tokens, where there are any.
fn refresh_lifetime(
    file: &DomainFile,
    raw: &RawAuth,
    default: Option<Duration>,
    problems: &mut Problems,
) -> Option<Duration> {
    let lifetime = &raw.refresh_token_lifetime;
    if raw.refresh_tokens.or(true) {
        return lifetime.given().copied().or(default);
    }
    if let Some(span) = lifetime.span() {
        let message = "`auth.refresh_token_lifetime` has no effect with `refresh_tokens = false`";
        let help = "leave one of the two out: without refresh tokens, clients keep the password";
        problems.push(Problem::at(&file.source, span, message, help));
    }
    None
}
