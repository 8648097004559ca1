//! Checks the entries of htpasswd files, the names in access rules and groups against the existing
//! users, and the users' names against the repositories that are to be their own.

use crate::auth::{UserName, UsersFile};
use crate::config::access::{PerUserRepository, Selector, UserReference};
use crate::config::problem::{Problem, Problems};
use crate::config::vhost::SharedVirtualHost;

/// Warns of the lines of the htpasswd file whose users cannot log in.
pub(super) fn warn_of_skipped_lines(
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

/// Warns of names that no user of the htpasswd file has.
pub(super) fn warn_of_unknown_users(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else {
        return;
    };
    for UserReference { name, file, span } in &host.access.user_references {
        let is_known = match name.literal() {
            Some(name) => users.has(name),
            None => users.names().any(|user| name.matches(user.as_str())),
        };
        if !is_known {
            let message = format!("no user in the htpasswd file is called `{}`", name.as_str());
            let help = "correct the name, or add the user with `moorgate htpasswd FILE USER`";
            problems.push(Problem::at_place(file, span, message, help).warning());
        }
    }
}

/// Warns of users for whom `${user}` gives no valid repository name: a rule that never applies.
pub(super) fn warn_of_users_without_repositories(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else {
        return;
    };
    // A pattern that is valid for no user at all is reported elsewhere.
    for PerUserRepository {
        repository,
        users: about,
        file,
        span,
    } in host
        .access
        .per_user_repositories
        .iter()
        .filter(|own| own.repository.is_possible(None))
    {
        let names = users.names().map(UserName::as_str);
        let mut without: Vec<_> = names
            .filter(|user| about.iter().any(|selector| includes(selector, user)))
            .filter(|user| !repository.is_possible(Some(*user)))
            .map(|user| format!("`{user}`"))
            .collect();
        without.sort();
        let more = without.len().saturating_sub(MAX_NAMED_USERS);
        without.truncate(MAX_NAMED_USERS);
        if more > 0 {
            without.push(format!("{more} more"));
        }
        if let Some((last, others)) = without.split_last() {
            let all = if others.is_empty() {
                last.clone()
            } else {
                format!("{} and {last}", others.join(", "))
            };
            let message = format!("`{}` can be no repository of {all}", repository.as_str());
            let help = "a name in it has to be one level of a repository's: lower-case letters and digits, with `.`, \
                        `_`, `__` or dashes between them";
            problems.push(Problem::at_place(file, span, message, help).warning());
        }
    }
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
