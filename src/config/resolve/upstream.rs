//! Builds the settings of a domain's registry from `[upstream]`.

mod login;
mod replicas;

use std::path::Path;
use std::time::Duration;

use super::DomainFile;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawAuthorization, RawNameRule, RawUpstream, Setting};
use crate::config::source::Span;
use crate::config::upstream::{
    LoginSettings, Redirects, Scheme, UpstreamAuthorization, UpstreamSettings,
};
use crate::config::values::GIB;
use crate::config::vhost::{RegistrySettings, StoreSettings};
use crate::registry::host::Authority;
use crate::registry::name_map::{NameMap, NameRule};
use login::NameAndPassword;

/// Exactly one of `url` and `directory`.
pub(super) fn registry(
    file: &DomainFile,
    state: &Path,
    problems: &mut Problems,
) -> Option<RegistrySettings> {
    let (raw, header) = file.raw.upstream.table()?;
    if raw.directory.is_absent() {
        let settings = upstream(file, (&raw, header), state, problems)?;
        return Some(RegistrySettings::Upstream(Box::new(settings)));
    }
    report_keys_of_upstreams(file, &raw, problems);
    let name = raw.directory.given()?.clone();
    Some(RegistrySettings::Store(StoreSettings {
        directory: state.join("store").join(&name),
        name,
        collect_every: raw.gc.or(Some(DEFAULT_GC_INTERVAL)),
        grace: raw.gc_grace.or(DEFAULT_GRACE),
        untagged: raw.untagged.or(None),
        missing: raw.missing.or_empty(),
    }))
}

/// Reports what a directory cannot have.
fn report_keys_of_upstreams(file: &DomainFile, raw: &RawUpstream, problems: &mut Problems) {
    if let Some(span) = raw.url.span() {
        let message =
            "`upstream.url` and `upstream.directory` exclude each other: a domain has one registry";
        let help = "leave `directory` out for the registry at `url`, or `url` for one that moorgate keeps itself";
        problems.push(Problem::at(&file.source, span, message, help));
    }
    let others = [
        ("check", raw.check.span()),
        ("roots", raw.roots.span()),
        ("username", raw.username.span()),
        ("password", raw.password.span()),
        ("authorization", raw.authorization.span()),
        ("product", raw.product.span()),
        ("create", raw.create.span()),
        ("untag", raw.untag.span()),
        ("api", raw.api.span()),
        ("hosts", raw.hosts.span()),
        ("spool", raw.spool.span()),
        ("login", raw.login.span()),
        ("admin", raw.admin.span()),
        ("map", raw.map.span()),
        ("redirects", raw.redirects.span()),
        ("follow_hosts", raw.follow_hosts.span()),
    ];
    for (key, span) in others {
        let Some(span) = span else { continue };
        let message =
            format!("`upstream.{key}` is for a registry at a `url`, and this one is a `directory`");
        problems.push(Problem::at(&file.source, span, message, "leave it out"));
    }
}

const DEFAULT_GC_INTERVAL: Duration = Duration::from_hours(24);
const DEFAULT_GRACE: Duration = Duration::from_hours(24);

fn upstream(
    file: &DomainFile,
    (upstream, header): (&RawUpstream, Option<&Span>),
    state: &Path,
    problems: &mut Problems,
) -> Option<UpstreamSettings> {
    report_wrong_keys(file, (upstream, header), problems);
    let others = replicas::others(file, upstream, problems);
    let check = replicas::check(file, upstream, problems);
    let authorization = authorization(file, upstream, problems);
    let admin = login::admin(file, upstream, problems);
    let names = names(file, upstream, problems);
    let hosts = upstream.hosts.given().into_iter().flatten();
    Some(UpstreamSettings {
        url: upstream.url.given()?.clone(),
        others: others?,
        check: check?,
        roots: upstream.roots.given().map(|path| file.source.beside(path)),
        authorization: authorization?,
        product: upstream.product.or(None),
        create: upstream.create.or(false),
        untag: upstream.untag.given().copied(),
        admin: admin?,
        api: upstream.api.given().cloned(),
        hosts: hosts.map(|host| host.get_ref().clone()).collect(),
        names: names?,
        spool: upstream.spool.or(DEFAULT_SPOOL),
        spool_directory: state.join("spool").join(file.raw.domain.given()?.as_str()),
        redirects: upstream.redirects.or(Redirects::Pass),
        follow_hosts: follow_hosts(file, upstream, problems),
    })
}

/// Reports keys that are missing, or that have no effect behind a `url`.
fn report_wrong_keys(
    file: &DomainFile,
    (upstream, header): (&RawUpstream, Option<&Span>),
    problems: &mut Problems,
) {
    if upstream.url.is_absent() && !matches!(upstream.urls, Setting::Invalid) {
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

/// The room for uploads in chunks; layers of images are seldom larger than a few GiB.
const DEFAULT_SPOOL: u64 = 10 * GIB;

/// The names of repositories at the upstream.
fn names(file: &DomainFile, raw: &RawUpstream, problems: &mut Problems) -> Option<NameMap> {
    let written: Vec<_> = raw.map.given().into_iter().flatten().collect();
    let mut report = |span: &Span, message: String| {
        let help =
            "no two names may become one, or access rules would not hold: see docs/upstreams.md";
        problems.push(Problem::at(&file.source, span, message, help));
    };
    let mut rules = Vec::new();
    for rule in &written {
        let RawNameRule {
            prefix,
            to,
            flatten,
        } = rule.get_ref();
        for (key, setting) in [("prefix", prefix), ("to", to)] {
            if setting.is_absent() {
                report(&rule.span(), format!("`upstream.map.{key}` is missing"));
            }
        }
        let (Some(prefix), Some(to)) = (prefix.given(), to.given()) else {
            continue;
        };
        match NameRule::new(prefix, to, flatten.given().map(String::as_str)) {
            Ok(rule) => rules.push(rule),
            Err(error) => report(&rule.span(), error.to_string()),
        }
    }
    if rules.len() != written.len() || matches!(raw.map, Setting::Invalid) {
        return None;
    }
    NameMap::new(rules)
        .map_err(|(index, error)| report(&written[index].span(), error.to_string()))
        .ok()
}

/// moorgate's own credentials in `[upstream.login]`, those in `[upstream]`, or the client's.
fn authorization(
    file: &DomainFile,
    raw: &RawUpstream,
    problems: &mut Problems,
) -> Option<UpstreamAuthorization> {
    let RawUpstream {
        username,
        password,
        authorization,
        login,
        ..
    } = raw;
    let is_plain = username.is_absent() && password.is_absent();
    let passes = authorization.given() == Some(&RawAuthorization::Pass);
    if let Some(span) = authorization
        .span()
        .filter(|_| passes && !(is_plain && login.is_absent()))
    {
        let message =
            "`upstream.authorization` cannot be \"pass\" beside credentials of moorgate's own";
        let help = "leave them out, or write \"strip\": the upstream gets one or the other";
        problems.push(Problem::at(&file.source, span, message, help));
        return None;
    }
    if let Some(span) = login.span().filter(|_| !is_plain) {
        let message =
            "`[upstream.login]` and `username` with `password` in [upstream] exclude each other";
        let help = "leave one of the two out: they are the same credentials";
        problems.push(Problem::at(&file.source, span, message, help));
        return None;
    }
    match login {
        Setting::Invalid => None,
        Setting::Given(written, header) => {
            login::login(file, (written, header), raw.product.or(None), problems)
                .map(UpstreamAuthorization::Login)
        }
        Setting::Absent if is_plain && passes => Some(UpstreamAuthorization::Pass),
        Setting::Absent if is_plain => Some(UpstreamAuthorization::Strip),
        Setting::Absent => {
            let pair = NameAndPassword {
                table: "upstream",
                username,
                password,
            };
            Some(UpstreamAuthorization::Login(LoginSettings {
                kind: login::password(file, &pair, problems)?,
                endpoint: None,
                region: None,
            }))
        }
    }
}

#[cfg(test)]
mod tests;
