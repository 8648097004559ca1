//! Checks the entries of htpasswd files, the names in access rules and groups against the existing
//! users, and the users' names against the repositories that are to be their own.

use crate::auth::htpasswd::Htpasswd;
use crate::auth::{UserName, UsersFile};
use crate::config::access::{PerUserRepository, Selector, UserReference, WrittenUsers};
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::SharedVirtualHost;

/// Warns of what the rules and the users of a domain say that has no effect.
pub(super) fn warn(host: &SharedVirtualHost, users: Option<&UsersFile>, problems: &mut Problems) {
    warn_of_skipped_lines(host, users, problems);
    warn_of_unknown_users(host, users, problems);
    warn_of_users_without_repositories(host, users, problems);
}

/// Warns of the lines of the htpasswd file whose users cannot log in.
fn warn_of_skipped_lines(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else {
        return;
    };
    let file = host.auth.htpasswd.display().to_string();
    let warn = |message: String, help: String| {
        Problem::at_key(&host.source, &["auth", "htpasswd"], message, help).warning()
    };
    let named = users.skipped().iter().take(MAX_NAMED_LINES);
    problems.extend(named.map(|skipped| {
        let message = format!("line {} of {file}: {}", skipped.line, skipped.cause());
        let help = skipped.remedy(&file);
        warn(
            message,
            help.unwrap_or_else(|| "correct or delete the line".to_owned()),
        )
    }));
    let more = users.skipped().len().saturating_sub(MAX_NAMED_LINES);
    if more > 0 {
        let message = format!("{more} more lines of {file} cannot be used");
        let help = "`moorgate run` logs each of them";
        problems.push(warn(message, help.to_owned()));
    }
}

/// Warns of names that no user of the domain has, in the rules of its own file.
fn warn_of_unknown_users(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else {
        return;
    };
    for reference in &host.access.written.references {
        if !is_known(reference, &users) {
            let UserReference { name, file, span } = reference;
            let message = format!("no user in the htpasswd file is called `{}`", name.as_str());
            let help = "correct the name, or add the user with `moorgate htpasswd FILE USER`";
            problems.push(Problem::at_place(file, span, message, help).warning());
        }
    }
}

fn is_known(reference: &UserReference, users: &Htpasswd) -> bool {
    let name = &reference.name;
    match name.literal() {
        Some(name) => users.has(name),
        None => users.names().any(|user| name.matches(user.as_str())),
    }
}

/// Warns of users for whom `${user}` gives no valid repository name: a rule that never applies.
fn warn_of_users_without_repositories(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else {
        return;
    };
    for own in &host.access.written.repositories {
        let without = without_repository(own, &users).into_iter();
        let without = without.map(|user| format!("`{user}`")).collect();
        problems.extend(problem_of_users_without(own, without));
    }
}

/// Warns of names in the rules of `moorgate.toml`, which hold for several domains, each with users
/// of its own: of those that no domain has, and of users for whom `${user}` gives no repository.
pub(super) fn warn_of_shared_users(snapshot: &Snapshot, problems: &mut Problems) {
    let hosts = snapshot.domains.iter().filter(|host| host.access.inherits);
    let opened =
        hosts.map(|host| Some((host, UsersFile::open(&host.auth.htpasswd).ok()?.current())));
    // Of a file that cannot be read, that is what has to be said.
    let Some(domains) = opened.collect::<Option<Vec<_>>>() else {
        return;
    };
    if domains.is_empty() {
        return;
    }
    let WrittenUsers {
        references,
        repositories,
    } = &snapshot.shared_users;
    for reference in references {
        if !domains.iter().any(|(_, users)| is_known(reference, users)) {
            let UserReference { name, file, span } = reference;
            let message = format!("no user of any domain is called `{}`", name.as_str());
            let help =
                "correct the name, or add the user to a domain with `moorgate htpasswd FILE USER`";
            problems.push(Problem::at_place(file, span, message, help).warning());
        }
    }
    for own in repositories {
        let without = domains.iter().flat_map(|(host, users)| {
            let names = without_repository(own, users).into_iter();
            names.map(|user| format!("`{user}` of {}", host.domain))
        });
        problems.extend(problem_of_users_without(own, without.collect()));
    }
}

/// The users of a rule for whom `${user}` gives no valid repository name.
fn without_repository(own: &PerUserRepository, users: &Htpasswd) -> Vec<String> {
    let PerUserRepository {
        repository,
        users: about,
        file: _,
        span: _,
    } = own;
    // A pattern that is valid for no user at all is reported elsewhere.
    if !repository.is_possible(None) {
        return Vec::new();
    }
    let names = users.names().map(UserName::as_str);
    let mut without: Vec<_> = names
        .filter(|user| about.iter().any(|selector| includes(selector, user)))
        .filter(|user| !repository.is_possible(Some(*user)))
        .map(str::to_owned)
        .collect();
    without.sort();
    without
}

/// The warning about these users, if there are any.
fn problem_of_users_without(own: &PerUserRepository, mut users: Vec<String>) -> Option<Problem> {
    let more = users.len().saturating_sub(MAX_NAMED_USERS);
    users.truncate(MAX_NAMED_USERS);
    if more > 0 {
        users.push(format!("{more} more"));
    }
    let (last, others) = users.split_last()?;
    let all = if others.is_empty() {
        last.clone()
    } else {
        format!("{} and {last}", others.join(", "))
    };
    let message = format!(
        "`{}` can be no repository of {all}",
        own.repository.as_str()
    );
    let help = "a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, \
                `_`, `__` or dashes between them";
    Some(Problem::at_place(&own.file, &own.span, message, help).warning())
}

/// Whether a selector includes a user.
fn includes(selector: &Selector, user: &str) -> bool {
    match selector {
        Selector::Name(pattern) => pattern.matches(user),
        Selector::Group { members, .. } => members.iter().any(|member| **member == *user),
        Selector::Authenticated | Selector::Anonymous => true,
    }
}

const MAX_NAMED_USERS: usize = 4;
const MAX_NAMED_LINES: usize = 10;
