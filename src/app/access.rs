//! Holds the names that access rules and groups say against the users that there are.

use crate::auth::UsersFile;
use crate::config::access::Named;
use crate::config::problem::{Problem, Problems};
use crate::config::vhost::SharedVirtualHost;

/// Warns of names that no user of the htpasswd file has.
pub(super) fn note_unknown_users(
    host: &SharedVirtualHost,
    users: Option<&UsersFile>,
    problems: &mut Problems,
) {
    let Some(users) = users.map(UsersFile::current) else { return };
    for Named { name, file, span } in &host.access.named {
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
