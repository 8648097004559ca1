//! What `moorgate check --live` says of each upstream, as text and as JSON.

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::app::live::report::{AbilityReport, CredentialLife, CredentialReport, UpstreamReport};
use crate::upstream::known_product::ProductSource;
use crate::upstream::product::ability::Possibility;
use crate::upstream::product::inspection::RequestLimit;

/// Writes a block for each upstream, with an empty line before it.
pub(super) fn write<'a>(
    reports: impl Iterator<Item = &'a UpstreamReport>,
    to: &mut dyn Write,
) -> io::Result<()> {
    for report in reports {
        writeln!(to, "\n{} -> {}", report.domain, report.url)?;
        for (key, text) in rows(report) {
            writeln!(to, "{}", format!("  {key:<12}{text}").trim_end())?;
        }
    }
    Ok(())
}

/// What is written, by what it is about.
fn rows(report: &UpstreamReport) -> Vec<(&'static str, String)> {
    let UpstreamReport {
        domain: _,
        url: _,
        product,
        known_by,
        credential,
        api_credential_expires,
        repository,
        abilities,
        limits,
    } = report;
    let source = match known_by {
        ProductSource::Configuration => "by the configuration",
        ProductSource::HostName => "by its host",
        ProductSource::Challenge => "by how it asks for a login",
        ProductSource::Default => "since nothing says otherwise",
    };
    let mut rows = vec![
        ("product", format!("{}, {source}", product.as_str())),
        ("credential", credential_text(credential)),
    ];
    if let Some(expires) = api_credential_expires {
        rows.push(("", format!("that for the product's API ends {expires}")));
    }
    if let Some(repository) = repository {
        rows.push(("repository", repository.to_string()));
    }
    rows.extend(abilities.iter().map(|ability| {
        let possibility = possibility_text(ability.possibility);
        let mut text = format!("{possibility:<10}{}", ability.why);
        if let Some(right) = &ability.missing_right {
            text += &format!("; missing: {right}");
        }
        (ability.ability.as_str(), text)
    }));
    rows.extend(limits.iter().map(|limit| ("limit", limit_text(limit))));
    rows
}

fn credential_text(credential: &CredentialReport) -> String {
    let CredentialReport { name, life } = credential;
    match life {
        CredentialLife::Unknown => name.clone(),
        CredentialLife::Endless => format!("{name}: does not end"),
        CredentialLife::Until(end) => format!("{name}: its token ends {}", timestamp(*end)),
    }
}

fn possibility_text(possibility: Possibility) -> &'static str {
    match possibility {
        Possibility::Yes => "yes",
        Possibility::No => "no",
        Possibility::Api => "by API",
        Possibility::Swap => "by swap",
        Possibility::Unknown => "unknown",
    }
}

fn limit_text(limit: &RequestLimit) -> String {
    let RequestLimit {
        name,
        remaining,
        limit,
        window,
    } = limit;
    let of = limit.map(|limit| format!(" of {limit}"));
    let window = window.map(|window| format!(" in {} h", window.div_ceil(3600)));
    let (of, window) = (of.unwrap_or_default(), window.unwrap_or_default());
    format!("{remaining}{of} {name} left{window}")
}

/// The fields that the documentation of the command lists.
pub(super) fn json(report: &UpstreamReport) -> Value {
    let UpstreamReport {
        domain,
        url,
        product,
        known_by,
        credential,
        api_credential_expires,
        repository,
        abilities,
        limits,
    } = report;
    let expires = match credential.life {
        CredentialLife::Until(end) => Some(timestamp(end)),
        CredentialLife::Unknown | CredentialLife::Endless => None,
    };
    let abilities = abilities.iter();
    let abilities: Map<_, _> = abilities
        .map(|ability| (ability.ability.as_str().to_owned(), ability_json(ability)))
        .collect();
    json!({
        "domain": domain.as_str(),
        "url": url.to_string(),
        "product": { "name": product.as_str(), "known_by": known_by.as_str() },
        "credential": {
            "name": credential.name,
            "ends": credential.life.ends(),
            "token_expires": expires,
            "api_expires": api_credential_expires,
        },
        "repository": repository.as_ref().map(ToString::to_string),
        "abilities": abilities,
        "limits": limits.iter().map(limit_json).collect::<Vec<_>>(),
    })
}

fn ability_json(report: &AbilityReport) -> Value {
    let AbilityReport {
        ability: _,
        possibility,
        is_probed,
        why,
        missing_right,
    } = report;
    json!({
        "answer": possibility.as_str(),
        "probed": is_probed,
        "why": why,
        "missing_right": missing_right,
    })
}

fn limit_json(limit: &RequestLimit) -> Value {
    let RequestLimit {
        name,
        remaining,
        limit,
        window,
    } = limit;
    json!({ "name": name, "remaining": remaining, "limit": limit, "window_s": window })
}

fn timestamp(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}
