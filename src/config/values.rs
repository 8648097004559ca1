//! Parsers for the values of single keys: durations, sizes, addresses, names.

pub(super) mod access;
mod acme;
mod host;
pub(super) mod retention;
mod secret;
mod url;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;
use toml::de::DeValue;

pub(super) use self::acme::{
    RawAcme, acme, argument, ca_defined_name, certified_name, directory, email, resolver,
};
pub(super) use self::host::{alias, domain_name, follow_host, host_name};
pub(super) use self::secret::secret;
pub(super) use self::url::upstream_url;
use super::network::Network;
use super::vhost::ListenAddress;
use crate::registry::name::RepositoryName;

/// What is wrong with the value of a key, as a predicate (`"is not a duration"`), and what to
/// write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct InvalidValue {
    message: String,
    pub(super) help: String,
}

impl InvalidValue {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    pub(super) fn wrong_type(expected: &str, value: &DeValue<'_>, help: &str) -> Self {
        let found = value.type_str();
        let article = if found.starts_with(['a', 'i']) {
            "an"
        } else {
            "a"
        };
        Self::new(format!("must be {expected}, not {article} {found}"), help)
    }
}

type Value<T> = Result<T, InvalidValue>;

/// A string.
pub(super) fn text<'v>(value: &'v DeValue<'_>, help: &str) -> Value<&'v str> {
    value
        .as_str()
        .ok_or_else(|| InvalidValue::wrong_type("a string in quotes", value, help))
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Value<bool> {
    value.as_bool().ok_or_else(|| {
        InvalidValue::wrong_type("a boolean", value, "write true or false, without quotes")
    })
}

/// The path of a file or a directory.
pub(super) fn path(value: &DeValue<'_>) -> Value<PathBuf> {
    let help = "write a path in quotes, absolute or relative to this file";
    let text = text(value, help)?;
    if text.is_empty() || text.contains('\0') {
        return Err(InvalidValue::new("is not a path", help));
    }
    Ok(PathBuf::from(text))
}

/// One of a closed set of strings.
pub(super) fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Value<T> {
    let words: Vec<_> = choices
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let help = format!("write {}", words.join(" or "));
    let text = text(value, &help)?;
    let found = choices.iter().find(|(word, _)| *word == text);
    found
        .map(|(_, choice)| *choice)
        .ok_or_else(|| InvalidValue::new("is not a known value", help))
}

/// A whole number within bounds.
pub(super) fn number<T: TryFrom<u64>>(value: &DeValue<'_>, least: u64, most: u64) -> Value<T> {
    let help = format!("write a whole number from {least} to {most}, without quotes");
    let Some(number) = integer(value) else {
        return Err(InvalidValue::wrong_type("a whole number", value, &help));
    };
    let number = number.filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| InvalidValue::new("is out of bounds", help))
}

/// A size in bytes within bounds: an integer, or a number with a unit.
pub(super) fn size(value: &DeValue<'_>, least: u64, most: u64) -> Value<u64> {
    let size = match integer(value) {
        Some(number) => number.ok_or_else(|| InvalidValue::new("is not a size", SIZE_HELP))?,
        None => parse_size(text(value, SIZE_HELP)?)
            .ok_or_else(|| InvalidValue::new("is not a size", SIZE_HELP))?,
    };
    if size < least {
        return Err(InvalidValue::new(
            "is too small",
            format!("write {} or more", in_units(least)),
        ));
    }
    if size > most {
        return Err(InvalidValue::new(
            "is too large",
            format!("write {} or less", in_units(most)),
        ));
    }
    Ok(size)
}

/// A size, or `"none"` for no limit.
pub(super) fn size_or_none(value: &DeValue<'_>) -> Value<Option<u64>> {
    if value.as_str() == Some("none") {
        return Ok(None);
    }
    match size(value, 0, u64::MAX)? {
        0 => Err(InvalidValue::new(
            "would refuse every body",
            "write \"none\" for no limit",
        )),
        size => Ok(Some(size)),
    }
}

/// A duration above zero.
pub(super) fn duration(value: &DeValue<'_>, most: Duration) -> Value<Duration> {
    let text = text(value, DURATION_HELP)?;
    let duration = parse_duration(text)
        .ok_or_else(|| InvalidValue::new("is not a duration", DURATION_HELP))?;
    if duration.is_zero() {
        return Err(InvalidValue::new(
            "is zero",
            "leave the key out for the default",
        ));
    }
    if duration > most {
        let hours = most.as_secs() / 3600;
        return Err(InvalidValue::new(
            "is too long",
            format!("write \"{hours}h\" or less"),
        ));
    }
    Ok(duration)
}

/// A duration of at least `least`, which is a number of hours.
pub(super) fn long_duration(
    value: &DeValue<'_>,
    least: Duration,
    most: Duration,
) -> Value<Duration> {
    let duration = duration(value, most)?;
    if duration < least {
        let hours = least.as_secs() / 3600;
        return Err(InvalidValue::new(
            "is too short",
            format!("write at least \"{hours}h\""),
        ));
    }
    Ok(duration)
}

/// A duration of at least `least`, which is a number of minutes, rounded down to seconds.
pub(super) fn bounded(value: &DeValue<'_>, least: Duration, most: Duration) -> Value<Duration> {
    let duration = duration(value, most)?;
    if duration < least {
        let minutes = least.as_secs() / 60;
        return Err(InvalidValue::new(
            "is too short",
            format!("write at least \"{minutes}min\""),
        ));
    }
    Ok(Duration::from_secs(duration.as_secs()))
}

/// A duration of at least `least`, which is a number of minutes, or `"never"`.
pub(super) fn duration_or_never(
    value: &DeValue<'_>,
    least: Duration,
    most: Duration,
) -> Value<Option<Duration>> {
    if value.as_str() == Some("never") {
        return Ok(None);
    }
    let duration = duration(value, most)?;
    if duration < least {
        let least = match least.as_secs() / 60 {
            minutes if minutes % 60 == 0 => format!("{}h", minutes / 60),
            minutes => format!("{minutes}min"),
        };
        return Err(InvalidValue::new(
            "is too short",
            format!("write at least \"{least}\", or \"never\""),
        ));
    }
    Ok(Some(duration))
}

/// The name of a directory below the state directory.
pub(super) fn store_name(value: &DeValue<'_>) -> Value<String> {
    const HELP: &str =
        "write a name like \"ci\": lower-case letters, digits, and `-`, `_` or `.` between them";
    let text = text(value, HELP)?;
    match RepositoryName::parse(text) {
        Ok(_) if !text.contains('/') => Ok(text.to_owned()),
        _ => Err(InvalidValue::new("is not the name of a store", HELP)),
    }
}

/// An address to listen on: `":443"`, `"127.0.0.1:8443"`, `"[::1]:8443"`.
pub(super) fn listen_address(value: &DeValue<'_>) -> Value<ListenAddress> {
    let text = text(value, LISTEN_HELP)?;
    let invalid = || InvalidValue::new("is not an address to listen on", LISTEN_HELP);
    let address = match text.strip_prefix(':') {
        // `u16::from_str` would accept a sign.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => SocketAddr::new(
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port.parse().map_err(|_| invalid())?,
        ),
        Some(_) => return Err(invalid()),
        None => text.parse::<SocketAddr>().map_err(|_| invalid())?,
    };
    Ok(ListenAddress(match address {
        // Preserves the scope of a link-local address.
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => SocketAddr::V6(v6),
        other => SocketAddr::new(other.ip().to_canonical(), other.port()),
    }))
}

/// A network or one address: `"10.0.0.0/8"`, `"fd00::/8"`, `"192.0.2.7"`.
pub(super) fn network(value: &DeValue<'_>) -> Value<Network> {
    let help = "write a network such as \"10.0.0.0/8\", or one address";
    Network::parse(text(value, help)?).map_err(|error| InvalidValue::new(error.to_string(), help))
}

/// The realm of a challenge: a quoted string without characters to escape (RFC 9110 §5.6.4).
pub(super) fn realm(value: &DeValue<'_>) -> Value<String> {
    let help = "write a short text that says whose password is asked for";
    let text = text(value, help)?;
    if text.is_empty()
        || text.contains(['"', '\\'])
        || !text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    {
        return Err(InvalidValue::new(
            "is not a realm",
            "write ASCII letters, digits, spaces and punctuation, without quotes and backslashes",
        ));
    }
    Ok(text.to_owned())
}

/// The user name of Basic credentials (RFC 7617 §2).
pub(super) fn username(value: &DeValue<'_>) -> Value<String> {
    let help = "write the user name that the upstream knows";
    let text = text(value, help)?;
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return Err(InvalidValue::new(
            "is not a user name",
            "write one without colons and control characters",
        ));
    }
    Ok(text.to_owned())
}

/// A name that another service gave: of a profile, a role, a tenant or an application.
pub(super) fn given_name(value: &DeValue<'_>) -> Value<String> {
    let help = "write it in quotes, as the service shows it";
    let text = text(value, help)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(InvalidValue::new("is not a name", help));
    }
    Ok(text.to_owned())
}

/// A region of AWS, a part of host names.
pub(super) fn region(value: &DeValue<'_>) -> Value<String> {
    let help = "write a region such as \"eu-central-1\"";
    let text = text(value, help)?;
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(is_part) {
        return Err(InvalidValue::new("is not a region", help));
    }
    Ok(text.to_owned())
}

/// The inner value is `None` for a negative integer and for one above 64 bits.
fn integer(value: &DeValue<'_>) -> Option<Option<u64>> {
    let integer = value.as_integer()?;
    Some(u64::from_str_radix(integer.as_str(), integer.radix()).ok())
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, rest) = leading_number(text.trim())?;
    let unit = rest.trim_start();
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// `1h 30min`: numbers with units, the larger unit first, each at most once. A day has 24 hours.
fn parse_duration(text: &str) -> Option<Duration> {
    // The parser takes more: signs, fractions, commas, `01:30:00`, and units that read differently
    // elsewhere, such as `m` and `mo`.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace();
    let mut words = text.split(|c: char| !c.is_ascii_alphabetic());
    let is_known = |word: &str| word.is_empty() || DURATION_UNITS.contains(&word);
    if !text.chars().all(is_plain) || !words.all(is_known) {
        return None;
    }
    let span = SpanParser::new().parse_span(text.trim()).ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Formats a size in the largest binary unit that divides it.
fn in_units(size: u64) -> String {
    for (name, factor) in [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)] {
        if size >= factor && size.is_multiple_of(factor) {
            return format!("\"{} {name}\"", size / factor);
        }
    }
    size.to_string()
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const DAY: Duration = Duration::from_secs(86_400);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", KIB),
    ("MiB", MIB),
    ("GiB", GIB),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
const DURATION_UNITS: &[&str] = &["d", "h", "min", "s", "ms"];

const SIZE_HELP: &str =
    "write bytes, or a number with a unit such as \"8 MiB\" (B, KiB, MiB, GiB, KB, MB, GB)";
const DURATION_HELP: &str =
    "write a number with a unit such as \"30s\" or \"1h 30min\" (d, h, min, s, ms)";
const LISTEN_HELP: &str =
    "write \":443\" for every address, or \"127.0.0.1:443\", or \"[::1]:443\"";

#[cfg(test)]
mod tests;
