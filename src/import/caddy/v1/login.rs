//! `basicauth` of version 1: one user a directive, for the paths that begin with a prefix. Several
//! directives for one path are alternatives; a path without any is open to everybody.

use std::path::{Path, PathBuf};

use crate::auth::htpasswd::Line;
use crate::import::caddy::context::SiteContext;
use crate::import::caddy::files;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::scope::{RegistryScope, of_prefix};
use crate::import::caddy::site::{ImportedPassword, ImportedRule, RuleLimits};
use crate::import::caddy::users;

/// Where a user's password opens something.
#[derive(Debug, Default)]
struct LoginReach {
    is_whole: bool,
    repositories: Vec<String>,
    catalog: bool,
    /// Whether `/` is among the paths.
    has_pages: bool,
    /// Paths that are not of the registry, in lower case.
    outside: Vec<String>,
}

impl LoginReach {
    fn extend(&mut self, other: Self) {
        self.is_whole |= other.is_whole;
        self.repositories.extend(other.repositories);
        self.catalog |= other.catalog;
        self.has_pages |= other.has_pages;
        self.outside.extend(other.outside);
    }
}

/// Collects the users of a site, and the rules that hold them to the paths that they had.
pub(super) fn users(directives: &[Statement], context: &mut SiteContext<'_>) {
    let root = directives
        .iter()
        .find(|statement| statement.name() == "root");
    let root = root
        .and_then(|statement| statement.argument(1))
        .unwrap_or("");
    let mut found = Vec::new();
    let mut reaches: Vec<(String, LoginReach)> = Vec::new();
    let (mut has_scope_of_registry, mut has_paths) = (false, false);
    let logins = directives.iter().filter(|one| one.name() == "basicauth");
    for statement in logins {
        let Some((name, password, paths)) = parts(statement, context) else {
            continue;
        };
        if paths.is_empty() {
            context.decision(
                statement,
                "this protects nothing in Caddy 1, because it names no path: now it protects the whole domain",
            );
        }
        has_paths |= !paths.is_empty();
        let reach = reach(statement, &paths, context);
        let is_outside = !reach.is_whole && reach.repositories.is_empty() && !reach.catalog;
        has_scope_of_registry |= !is_outside;
        let password = self::password(statement, name, password, Path::new(root), context);
        found.push(users::user(name, password, &statement.at));
        match reaches.iter_mut().find(|(other, _)| other == name) {
            Some((_, known)) => {
                known.extend(reach);
            }
            None => reaches.push((name.to_owned(), reach)),
        }
        context.translated(statement, format!("user `{name}` in the htpasswd file"));
    }
    if has_scope_of_registry {
        rules(&reaches, context);
    } else if has_paths && let Some(first) = directives.iter().find(|one| one.name() == "basicauth")
    {
        context.decision(
            first,
            "only pages outside of /v2/ asked for a password, and the registry was open to everybody: now these users \
             may use it, and nobody else",
        );
    }
    pages(directives, &reaches, context);
    context.site.access.users = users::merged(found, context.report);
}

/// moorgate shows pages to all users that may pull everything: where Caddy had some of them for other
/// users alone, there are none.
fn pages(
    directives: &[Statement],
    reaches: &[(String, LoginReach)],
    context: &mut SiteContext<'_>,
) {
    if context.site.browser.is_none() {
        return;
    }
    let paths = reaches.iter().flat_map(|(_, reach)| &reach.outside);
    let closed = paths.clone().find(|path| {
        let mut whole = reaches.iter().filter(|(_, reach)| reach.is_whole);
        // Whoever has the whole registry by `/` has all pages as well.
        whole.any(|(_, reach)| {
            !reach.has_pages && !reach.outside.iter().any(|own| path.starts_with(own))
        })
    });
    let proxy = directives.iter().find(|one| one.name() == "basicauth");
    if let (Some(path), Some(statement)) = (closed, proxy) {
        let reason = format!("not all users of the registry had the pages at {path}");
        let text = "moorgate shows all pages to every user that may pull everything, and Caddy did not: [browser] is in a \
                    comment";
        context.decision(statement, text);
        context.site.left_out.push(reason);
    }
}

/// User, password and paths of a directive.
fn parts<'s>(
    statement: &'s Statement,
    context: &mut SiteContext<'_>,
) -> Option<(&'s str, &'s str, Vec<&'s str>)> {
    let arguments = statement.arguments();
    let mut paths = Vec::new();
    for line in statement.children() {
        if line.name() != "realm" {
            paths.push(line.name());
            continue;
        }
        let realm = line.argument(1).unwrap_or_default().to_owned();
        context.translated(line, "[auth] realm");
        context.site.realm = Some(realm);
    }
    match arguments.as_slice() {
        [path, name, password] => Some((name, password, vec![path])),
        [name, password] => Some((name, password, paths)),
        _ => {
            context.error(
                statement,
                "`basicauth` has a user and a password, and a path before or after them",
            );
            None
        }
    }
}

fn reach(statement: &Statement, paths: &[&str], context: &mut SiteContext<'_>) -> LoginReach {
    let mut reach = LoginReach::default();
    for path in paths {
        match of_prefix(path) {
            RegistryScope::Whole => {
                reach.is_whole = true;
                reach.has_pages |= "/".starts_with(path);
            }
            RegistryScope::Repositories(patterns) => reach.repositories.extend(patterns),
            RegistryScope::Catalog => reach.catalog = true,
            RegistryScope::Outside => reach.outside.push(path.to_lowercase()),
            RegistryScope::Unknown => {
                reach.catalog = true;
                context.decision(
                    statement,
                    "no access rule can name exactly these requests: the user may do nothing there",
                );
            }
        }
    }
    reach
}

/// No rules if all users had the whole registry, else one for each kind.
fn rules(reaches: &[(String, LoginReach)], context: &mut SiteContext<'_>) {
    if reaches.iter().all(|(_, reach)| reach.is_whole) {
        return;
    }
    let whole = reaches.iter().filter(|(_, reach)| reach.is_whole);
    let whole: Vec<String> = whole.map(|(name, _)| name.clone()).collect();
    let rules = &mut context.site.access.rules;
    if !whole.is_empty() {
        rules.push(rule(whole.clone(), RuleLimits::default()));
    }
    for (name, reach) in reaches.iter().filter(|(_, reach)| !reach.is_whole) {
        if !reach.repositories.is_empty() {
            let repositories = reach.repositories.clone();
            let limits = RuleLimits {
                repositories,
                ..RuleLimits::default()
            };
            rules.push(rule(vec![name.clone()], limits));
        }
        if reach.catalog {
            let actions = vec!["catalog"];
            let limits = RuleLimits {
                actions,
                ..RuleLimits::default()
            };
            rules.push(rule(vec![name.clone()], limits));
        }
    }
    if whole.is_empty() {
        let at = context.site.at.clone();
        context.report.add_at(
            &at,
            "basicauth",
            crate::import::caddy::report::DirectiveOutcome::Decision,
            "what these paths do not cover was open to everybody: now it is closed to everybody, until a rule in \
             [[access]] opens it",
        );
    }
}

fn rule(users: Vec<String>, limits: RuleLimits) -> ImportedRule {
    ImportedRule {
        users,
        limits,
        is_deny: false,
    }
}

fn password(
    statement: &Statement,
    name: &str,
    written: &str,
    root: &Path,
    context: &mut SiteContext<'_>,
) -> ImportedPassword {
    let Some(file) = written.strip_prefix("htpasswd=") else {
        return users::plain(written);
    };
    let candidates = candidates(statement, file, root, context);
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        let tried: Vec<_> = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let text = format!(
            "no htpasswd file is at {}: name its directory by --volume HOST:CONTAINER",
            tried.join(" or ")
        );
        context.decision(statement, text);
        return ImportedPassword::Unusable("a password in a file that was not found".to_owned());
    };
    let bytes = match files::read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            context.error(
                statement,
                format!("{} cannot be read: {error}", path.display()),
            );
            return ImportedPassword::Unusable(
                "a password in a file that is unreadable".to_owned(),
            );
        }
    };
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let hash = lines.find_map(|line| match Line::parse(line) {
        Line::Entry { user, hash } if user == name.as_bytes() => std::str::from_utf8(hash).ok(),
        _ => None,
    });
    match hash {
        Some(hash) => users::of_file_entry(hash.trim()),
        None => ImportedPassword::Unusable("no line in its htpasswd file".to_owned()),
    }
}

/// Caddy joins the name to the root of the site, which is relative to its working directory.
fn candidates(
    statement: &Statement,
    file: &str,
    root: &Path,
    context: &mut SiteContext<'_>,
) -> Vec<PathBuf> {
    let joined = root.join(file.trim_start_matches('/'));
    let mut candidates = Vec::new();
    for directory in ["/srv", "/"] {
        let in_container = files::normal(&Path::new(directory).join(&joined));
        candidates.push(context.volumes.on_host(&in_container));
    }
    candidates.push(context.host_path(&joined.to_string_lossy(), &statement.at));
    candidates.push(context.host_path(file, &statement.at));
    candidates.dedup();
    candidates
}
