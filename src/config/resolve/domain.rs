//! Builds a virtual host from a domain file.

use std::path::Path;
use std::time::Duration;

use super::process::{self, Process};
use super::tls;
use super::{DomainFile, RequestedListener, access};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawAuth, RawAuthorization, RawMode, RawUpstream, Setting};
use crate::config::source::Span;
use crate::config::vhost::{
    AuthMode, AuthSettings, BrowserSettings, LocationForm, Redirects, RegistrySettings, Scheme,
    StoreSettings, TokenSettings, UpstreamAuthorization, UpstreamSettings, VirtualHost,
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
    let registry = registry(file, &process.state, problems);
    let browser = browser(file, problems);
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

/// Exactly one of `url` and `directory`.
fn registry(file: &DomainFile, state: &Path, problems: &mut Problems) -> Option<RegistrySettings> {
    let (raw, header) = file.raw.upstream.table()?;
    if raw.directory.is_absent() {
        return upstream(file, &raw, header, problems).map(RegistrySettings::Upstream);
    }
    let RawUpstream {
        url,
        directory,
        gc,
        gc_grace,
        untagged,
        missing,
        roots,
        username,
        password,
        authorization,
        redirects,
        follow_hosts,
        // For both kinds.
        locations: _,
    } = &raw;
    if let Some(span) = url.span() {
        let message =
            "`upstream.url` and `upstream.directory` exclude each other: a domain has one registry";
        let help = "leave `directory` out for the registry at `url`, or `url` for one that moorgate keeps itself";
        problems.push(Problem::at(&file.source, span, message, help));
    }
    let others = [
        ("roots", roots.span()),
        ("username", username.span()),
        ("password", password.span()),
        ("authorization", authorization.span()),
        ("redirects", redirects.span()),
        ("follow_hosts", follow_hosts.span()),
    ];
    for (key, span) in others {
        let Some(span) = span else { continue };
        let message =
            format!("`upstream.{key}` is for a registry at a `url`, and this one is a `directory`");
        problems.push(Problem::at(&file.source, span, message, "leave it out"));
    }
    let name = directory.given()?.clone();
    Some(RegistrySettings::Store(StoreSettings {
        directory: state.join("store").join(&name),
        name,
        collect_every: gc.or(Some(DEFAULT_GC_INTERVAL)),
        grace: gc_grace.or(DEFAULT_GRACE),
        untagged: untagged.or(None),
        missing: missing.or_empty(),
    }))
}

const DEFAULT_GC_INTERVAL: Duration = Duration::from_hours(24);
const DEFAULT_GRACE: Duration = Duration::from_hours(24);

fn upstream(
    file: &DomainFile,
    upstream: &RawUpstream,
    header: Option<&Span>,
    problems: &mut Problems,
) -> Option<UpstreamSettings> {
    if upstream.url.is_absent() {
        let help = "write url = \"http://registry:5000\" in [upstream], or directory = \"NAME\" \
                    for a registry that moorgate keeps itself";
        problems.push(file.missing(header, "`upstream.url` is missing", help));
    }
    for (key, span) in [
        ("gc", upstream.gc.span()),
        ("gc_grace", upstream.gc_grace.span()),
        ("untagged", upstream.untagged.span()),
        ("missing", upstream.missing.span()),
    ] {
        let Some(span) = span else { continue };
        let message = format!("`upstream.{key}` is only for a `directory`");
        problems.push(Problem::at(&file.source, span, message, "leave it out"));
    }
    let is_clear = upstream
        .url
        .given()
        .is_some_and(|url| url.scheme == Scheme::Http);
    if let Some(span) = upstream.roots.span().filter(|_| is_clear) {
        let help = "write https:// in `upstream.url`, or leave `roots` out";
        problems.push(Problem::at(
            &file.source,
            span,
            "`upstream.roots` has no effect with http",
            help,
        ));
    }
    let authorization = authorization(file, upstream, problems);
    Some(UpstreamSettings {
        url: upstream.url.given()?.clone(),
        roots: upstream.roots.given().map(|path| file.source.beside(path)),
        authorization: authorization?,
        redirects: upstream.redirects.or(Redirects::Pass),
        follow_hosts: follow_hosts(file, upstream, problems),
    })
}

/// The hosts to which redirects are followed whatever their addresses are.
fn follow_hosts(
    file: &DomainFile,
    upstream: &RawUpstream,
    problems: &mut Problems,
) -> Vec<Authority> {
    let follows = upstream.redirects.given() == Some(&Redirects::Follow);
    if let Some(span) = upstream.follow_hosts.span().filter(|_| !follows) {
        let message = "`upstream.follow_hosts` has no effect without `redirects = \"follow\"`";
        let help = "write redirects = \"follow\" in [upstream], or leave it out";
        problems.push(Problem::at(&file.source, span, message, help));
    }
    let hosts = upstream.follow_hosts.given().into_iter().flatten();
    hosts.map(|host| host.get_ref().clone()).collect()
}

/// The credentials for the upstream: `username` and `password` together, or the client's own.
fn authorization(
    file: &DomainFile,
    raw: &RawUpstream,
    problems: &mut Problems,
) -> Option<UpstreamAuthorization> {
    let RawUpstream {
        username,
        password,
        authorization,
        ..
    } = raw;
    let passes = authorization.given() == Some(&RawAuthorization::Pass);
    if let Some(span) = authorization
        .span()
        .filter(|_| passes && !(username.is_absent() && password.is_absent()))
    {
        let message =
            "`upstream.authorization` cannot be \"pass\" beside `username` and `password`";
        let help = "leave them out, or write \"strip\": the upstream gets one or the other";
        problems.push(Problem::at(&file.source, span, message, help));
        return None;
    }
    if username.is_absent() && password.is_absent() {
        return Some(if passes {
            UpstreamAuthorization::Pass
        } else {
            UpstreamAuthorization::Strip
        });
    }
    if let Some(span) = username.span().filter(|_| password.is_absent()) {
        let help = "write password = { file = \"PATH\" } in [upstream]";
        problems.push(Problem::at(
            &file.source,
            span,
            "`upstream.username` has no `password`",
            help,
        ));
    }
    if let Some(span) = password.span().filter(|_| username.is_absent()) {
        let help = "write username = \"NAME\" in [upstream]";
        problems.push(Problem::at(
            &file.source,
            span,
            "`upstream.password` has no `username`",
            help,
        ));
    }
    Some(UpstreamAuthorization::Basic {
        username: username.given()?.clone(),
        password: file.password.clone()?,
    })
}
