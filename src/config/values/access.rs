//! Parsers for the values of access rules: selectors, repositories, tags, actions, networks.

use ipnet::IpNet;
use toml::de::DeValue;

use super::{InvalidValue, Value, choice, text};
use crate::config::network::{Network, NetworkError};
use crate::registry::action::{Action, Actions};
use crate::registry::pattern::{InvalidPattern, Pattern, RepositoryPattern};

/// The users of a rule, as written: groups are not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum RawSelector {
    Name(Pattern),
    Group(String),
    Authenticated,
    Anonymous,
}

/// A user, a pattern of user names, a group, `@authenticated` or `@anonymous`.
pub(in crate::config) fn selector(value: &DeValue<'_>) -> Value<RawSelector> {
    let help = "write a user's name (`*` stands for any characters), \"@GROUP\", \"@authenticated\" or \"@anonymous\"";
    let text = text(value, help)?;
    match text.strip_prefix('@') {
        Some("authenticated") => Ok(RawSelector::Authenticated),
        Some("anonymous") => Ok(RawSelector::Anonymous),
        Some(group) => group_name(group).map(RawSelector::Group),
        None => user(value).map(RawSelector::Name),
    }
}

/// A user name, or a pattern of user names.
pub(in crate::config) fn user(value: &DeValue<'_>) -> Value<Pattern> {
    let help = "write the name of a user in the htpasswd file";
    let text = text(value, help)?;
    if is_user(text) {
        Ok(Pattern::new(text))
    } else {
        Err(InvalidValue::new("is not a user name", help))
    }
}

/// Whether an htpasswd file can contain this user name. A leading `@` would make it a group.
pub(in crate::config) fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text == text.trim()
        && !text.starts_with(['@', '#'])
        && !text.contains(|c: char| c == ':' || c.is_control())
}

/// The name of a group, without the `@`.
pub(in crate::config) fn group_name(text: &str) -> Value<String> {
    let is_name = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !is_name || matches!(text, "authenticated" | "anonymous") {
        let help = "call it anything but `authenticated` and `anonymous`, with letters, digits, `.`, `_` and `-`";
        return Err(InvalidValue::new("is not the name of a group", help));
    }
    Ok(text.to_owned())
}

/// A pattern of repository names.
pub(in crate::config) fn repository_pattern(value: &DeValue<'_>) -> Value<RepositoryPattern> {
    let help = "write a name like \"base/app\", in which `*` stands for one level or a part of it, `**` for any levels, \
                and `${user}` for the user's own name";
    let text = text(value, help)?;
    RepositoryPattern::parse(text).map_err(|error| {
        let help = match error {
            InvalidPattern::StarsInLevel => "`**` stands for whole levels: write \"base/**\"",
            InvalidPattern::Character => {
                "names are of lower-case letters, digits, `.`, `_` and `-`; no tag and no host is in them"
            }
            InvalidPattern::EmptyLevel | InvalidPattern::Variable | InvalidPattern::TooLong => help,
        };
        InvalidValue::new(error.to_string(), help)
    })
}

/// A pattern of tags.
pub(in crate::config) fn tag_pattern(value: &DeValue<'_>) -> Value<Pattern> {
    let help = "write a tag like \"release\" or \"v*\": letters, digits, `.`, `_` and `-`";
    let text = text(value, help)?;
    let is_tag = !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-*".contains(&b));
    if is_tag {
        Ok(Pattern::new(text))
    } else {
        Err(InvalidValue::new("is not a tag", help))
    }
}

/// One action, or `"all"`.
pub(in crate::config) fn actions(value: &DeValue<'_>) -> Value<Actions> {
    let mut choices: Vec<_> = Action::ALL
        .into_iter()
        .map(|action| (action.as_str(), Actions::from(action)))
        .collect();
    choices.push(("all", Actions::ALL));
    choice(value, &choices)
}

/// A network, or a single address.
pub(in crate::config) fn network(value: &DeValue<'_>) -> Value<IpNet> {
    let help = "write a network like \"10.0.0.0/8\" or \"2001:db8::/32\", or an address";
    let network = Network::parse(text(value, help)?).map_err(|error| match error {
        NetworkError::Malformed => InvalidValue::new(error.to_string(), help),
        NetworkError::HostBits { network } => {
            InvalidValue::new("is an address within a network", format!("write \"{network}\""))
        }
        NetworkError::Mixed => InvalidValue::new(
            error.to_string(),
            "clients with an address of IPv4 have just that: write \"0.0.0.0/0\" for all of them, \"::/0\" for the others",
        ),
    });
    network.map(IpNet::from)
}
