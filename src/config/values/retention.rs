//! Parsers for the values of `[[retention]]` and `[retention_settings]`.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{InvalidValue, Value, path, text, upstream_url};
use crate::config::retention::{Grouping, HoursOfDay};
use crate::config::upstream::UpstreamUrl;

/// A list of images in use, as written.
#[derive(Clone, Debug)]
pub(in crate::config) enum RawInUse {
    File(PathBuf),
    Url(UpstreamUrl),
}

/// The groups of tags: one of the known kinds, or `{ regex = "…" }`.
pub(in crate::config) fn grouping(value: &DeValue<'_>) -> Value<Grouping> {
    match value {
        DeValue::Table(table) => expression(table),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => match text(value, GROUPING_HELP)? {
            "repository" => Ok(Grouping::Repository),
            "prefix-before-last-dash" => Ok(Grouping::PrefixBeforeLastDash),
            "semver-line" => Ok(Grouping::SemverLine),
            _ => Err(InvalidValue::new("is not a known value", GROUPING_HELP)),
        },
    }
}

fn expression(table: &DeTable<'_>) -> Value<Grouping> {
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(InvalidValue::new(
            "is not a table of `regex` alone",
            GROUPING_HELP,
        ));
    };
    if key.get_ref() != "regex" {
        let message = format!("has the unknown key `{}`", key.get_ref());
        return Err(InvalidValue::new(message, GROUPING_HELP));
    }
    let text = text(value.get_ref(), EXPRESSION_HELP)?;
    if text.len() > MAX_EXPRESSION {
        let help = format!("write at most {MAX_EXPRESSION} bytes");
        return Err(InvalidValue::new("is too long", help));
    }
    let expression = regex_lite::Regex::new(text).map_err(|error| {
        InvalidValue::new(
            format!("is not a regular expression: {error}"),
            EXPRESSION_HELP,
        )
    })?;
    // The first is the whole match.
    if expression.captures_len() < 2 {
        let message = "has no group: nothing says which tags belong together";
        return Err(InvalidValue::new(message, EXPRESSION_HELP));
    }
    Ok(Grouping::Expression(expression))
}

/// The name of a label, or `"none"`.
pub(in crate::config) fn expiry_label(value: &DeValue<'_>) -> Value<Option<Box<str>>> {
    let help = "write the name of a label, or \"none\" if labels say nothing";
    let text = text(value, help)?;
    if text.is_empty() || text.len() > 255 || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(InvalidValue::new("is not the name of a label", help));
    }
    Ok((text != "none").then(|| text.into()))
}

/// `"01:00-05:00"`, hours of the day in UTC.
pub(in crate::config) fn hours(value: &DeValue<'_>) -> Value<HoursOfDay> {
    let text = text(value, HOURS_HELP)?;
    let parsed = text.split_once('-').and_then(|(from, to)| {
        let (from, to) = (time_of_day(from)?, time_of_day(to)?);
        (from < DAY_MINUTES).then_some((from, to % DAY_MINUTES))
    });
    let Some((from, to)) = parsed else {
        return Err(InvalidValue::new("are not hours of the day", HOURS_HELP));
    };
    if from == to {
        return Err(InvalidValue::new(
            "begin and end at the same time",
            "leave the key out for the whole day",
        ));
    }
    Ok(HoursOfDay { from, to })
}

/// Minutes since midnight; `24:00` is the end of the day.
fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        // `u16::from_str` would accept a sign.
        let is_plain =
            digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours, 1..=2)?, number(minutes, 2..=2)?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= DAY_MINUTES).then_some(time)
}

/// `"50%"`: from 1 to 100.
pub(in crate::config) fn share(value: &DeValue<'_>) -> Value<u8> {
    const HELP: &str = "write a whole number of percent from \"1%\" to \"100%\"";
    let text = text(value, HELP)?;
    let digits = text.strip_suffix('%').map(str::trim_end);
    let is_number = |digits: &&str| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let Some(digits) = digits.filter(is_number) else {
        return Err(InvalidValue::new("is not a share in percent", HELP));
    };
    let share = digits.parse::<u8>().ok();
    share
        .filter(|share| (1..=100).contains(share))
        .ok_or_else(|| InvalidValue::new("is out of bounds", HELP))
}

/// A file, or an http or https URL.
pub(in crate::config) fn in_use(value: &DeValue<'_>) -> Value<RawInUse> {
    let text = text(
        value,
        "write the path of a file, or a URL that begins with http:// or https://",
    )?;
    if !text.contains("://") {
        return path(value).map(RawInUse::File);
    }
    upstream_url(value).map(RawInUse::Url).map_err(|mut error| {
        if text.contains('@') {
            error.help =
                "lists of images are fetched without a login: write the URL without one, or a file that \
                 somebody else fetches"
                    .to_owned();
        }
        error
    })
}

const DAY_MINUTES: u16 = 24 * 60;
/// Far longer than any that people read, and cheap for each tag.
const MAX_EXPRESSION: usize = 255;

const GROUPING_HELP: &str = "write \"repository\", \"prefix-before-last-dash\", \"semver-line\" or { regex = \"^(.*)-[0-9]+$\" }";
const EXPRESSION_HELP: &str =
    "write one with a group for what tags have in common, such as { regex = \"^(.*)-[0-9]+$\" }";
const HOURS_HELP: &str = "write hours of UTC like \"01:00-05:00\", also across midnight";
