//! Builds the retention rules and quotas of a domain from `[[retention]]`, `[retention_settings]`
//! and `[[quota]]`.

mod warnings;

use std::path::Path;

use toml::Spanned;

use super::lists::{ListReader, plain};
use super::{DomainFile, rule_location};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::retention::{RawKept, RawQuota, RawRetention, RawRetentionSettings};
use crate::config::raw::{List, RawAuthorization, Setting};
use crate::config::retention::{
    Grouping, InUseSource, Keep, QuotaSettings, RetentionRule, RetentionRuns, RetentionSettings,
};
use crate::config::source::Span;
use crate::config::values::retention::RawInUse;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// When tags are taken away; `None` without rules, or after an error. `directory` is the
/// configuration directory.
pub(super) fn retention(
    file: &DomainFile,
    directory: &Path,
    problems: &mut Problems,
) -> Option<RetentionSettings> {
    let written = file.raw.holdings.retention.given();
    let written: Vec<_> = written.into_iter().flatten().collect();
    let Some(first) = written.first() else {
        report_settings_alone(file, problems);
        return None;
    };
    report_missing_login(file, &first.span(), problems);
    let rules: Vec<_> = written
        .iter()
        .map(|raw| rule(file, directory, raw, problems))
        .collect();
    let runs = runs(file, &file.raw.holdings.settings.or_empty());
    warnings::warn(file, &written, &rules, &runs, problems);
    Some(RetentionSettings {
        rules: rules.into_iter().collect::<Option<_>>()?,
        runs,
    })
}

fn report_settings_alone(file: &DomainFile, problems: &mut Problems) {
    let holdings = &file.raw.holdings;
    let is_without_rules = !matches!(holdings.retention, Setting::Invalid);
    if let Some(span) = holdings.settings.span().filter(|_| is_without_rules) {
        let message = "`[retention_settings]` has no effect without a [[retention]] rule";
        let help = "write a rule, such as\n[[retention]]\nrepositories = [\"cache/**\"]\nkeep = { pulled_within = \"30d\" }";
        problems.push(Problem::at(&file.source, span, message, help));
    }
}

/// Runs have no client whose credentials they could send.
fn report_missing_login(file: &DomainFile, rule: &Span, problems: &mut Problems) {
    let upstream = file.raw.upstream.given();
    if upstream.and_then(|upstream| upstream.authorization.given()) == Some(&RawAuthorization::Pass)
    {
        let message = "[[retention]] does not work with `upstream.authorization` \"pass\": moorgate has no login of its own there";
        let help = "write `username` and `password` of moorgate's own in [upstream]";
        problems.push(Problem::at(&file.source, rule, message, help));
    }
}

fn rule(
    file: &DomainFile,
    directory: &Path,
    raw: &Spanned<RawRetention>,
    problems: &mut Problems,
) -> Option<RetentionRule> {
    let RawRetention {
        repositories,
        tags,
        protect,
        keep,
        ttl,
        per,
        expiry_label,
    } = raw.get_ref();
    let place = raw.span();
    let mut lists = ListReader {
        source: &file.source,
        table: "retention",
        rule: &place,
        problems,
    };
    let repositories = lists.required("repositories", repositories, REPOSITORIES);
    for pattern in repositories.iter().flatten() {
        if pattern.get_ref().names_user() {
            let message = "`retention.repositories` has `${user}`, and a run is no user's";
            let help = "write a star in its place: \"*/**\" is every user's";
            lists.report(&pattern.span(), message, help);
        }
    }
    let tags = lists.optional("tags", tags, TAGS);
    let protect = protected(&mut lists, protect);
    let keep = kept(&mut lists, keep);
    let runs_by_label = !matches!(expiry_label, Setting::Given(None, _));
    Some(RetentionRule {
        repositories: plain(repositories?),
        tags: tags?.map_or_else(|| vec![Pattern::new("*")], plain),
        protect: protect?,
        keep: keep?,
        ttl: ttl.given().copied(),
        per: per.or(Grouping::default()),
        expiry_label: runs_by_label.then(|| {
            let label = expiry_label.given().cloned().flatten();
            label.unwrap_or_else(|| EXPIRY_LABEL.into())
        }),
        location: rule_location(&file.source, directory, &place),
    })
}

fn protected(lists: &mut ListReader<'_>, protect: &List<Pattern>) -> Option<Vec<Pattern>> {
    match protect {
        Setting::Absent => Some(Vec::new()),
        Setting::Invalid => None,
        Setting::Given(patterns, span) if patterns.is_empty() => {
            let help = "write tags, or leave the key out to protect none";
            lists.report(span, "`retention.protect` is empty", help);
            None
        }
        Setting::Given(patterns, _) => Some(plain(patterns.clone())),
    }
}

/// `Some(None)` if the table is absent.
fn kept(lists: &mut ListReader<'_>, keep: &Setting<RawKept>) -> Option<Option<Keep>> {
    let (raw, span) = match keep {
        Setting::Absent => return Some(None),
        Setting::Invalid => return None,
        Setting::Given(raw, span) => (raw, span),
    };
    let RawKept {
        newest,
        pulled_within,
        pushed_within,
    } = raw;
    if newest.is_absent() && pulled_within.is_absent() && pushed_within.is_absent() {
        let help = "write keep = { newest = 5 }, { pulled_within = \"30d\" } or { pushed_within = \"7d\" }, or \
                    several of them; without the key, tags stay until they expire";
        lists.report(
            span,
            "`retention.keep` names nothing that keeps a tag",
            help,
        );
        return None;
    }
    Some(Some(Keep {
        newest: newest.given().copied(),
        pulled_within: pulled_within.given().copied(),
        pushed_within: pushed_within.given().copied(),
    }))
}

fn runs(file: &DomainFile, raw: &RawRetentionSettings) -> RetentionRuns {
    let RawRetentionSettings {
        every,
        hours,
        max_tags,
        max_share,
        min_age,
        dry_run,
        in_use,
    } = raw;
    let default = RetentionRuns::default();
    let in_use = in_use.given().into_iter().flatten();
    RetentionRuns {
        every: every.or(default.every),
        hours: hours.given().copied(),
        max_tags: max_tags.or(default.max_tags),
        max_share: max_share.or(default.max_share),
        min_age: min_age.or(default.min_age),
        dry_run: dry_run.given().copied(),
        in_use: in_use
            .map(|source| match source.get_ref() {
                RawInUse::File(path) => InUseSource::File(file.source.beside(path)),
                RawInUse::Url(url) => InUseSource::Url(url.clone()),
            })
            .collect(),
    }
}

/// How much areas of the domain's store may hold.
pub(super) fn quotas(
    file: &DomainFile,
    directory: &Path,
    problems: &mut Problems,
) -> Vec<QuotaSettings> {
    let written: Vec<_> = file
        .raw
        .holdings
        .quota
        .given()
        .into_iter()
        .flatten()
        .collect();
    let upstream = file.raw.upstream.given();
    let has_store = upstream.is_none_or(|upstream| upstream.url.is_absent());
    if let Some(first) = written.first().filter(|_| !has_store) {
        let message = "[[quota]] is for a `directory`, and this registry is at a `url`";
        let help = "leave it out: only a store that moorgate keeps itself can be counted; set a quota in the registry's own \
                    settings, if it has any";
        problems.push(Problem::at(&file.source, &first.span(), message, help));
    }
    written
        .iter()
        .filter_map(|raw| quota(file, directory, raw, problems))
        .collect()
}

fn quota(
    file: &DomainFile,
    directory: &Path,
    raw: &Spanned<RawQuota>,
    problems: &mut Problems,
) -> Option<QuotaSettings> {
    let RawQuota { repositories, size } = raw.get_ref();
    let place = raw.span();
    let mut lists = ListReader {
        source: &file.source,
        table: "quota",
        rule: &place,
        problems,
    };
    let repositories = lists.required("repositories", repositories, QUOTA_REPOSITORIES);
    if size.is_absent() {
        let help = "write size = \"20 GiB\"";
        lists.report(&place, "`quota.size` is missing", help);
    }
    let repositories = repositories?;
    report_areas(&mut lists, &repositories);
    Some(QuotaSettings {
        repositories: plain(repositories),
        size: *size.given()?,
        location: rule_location(&file.source, directory, &place),
    })
}

/// Each repository must be of one area only: its name must tell which user's it is.
fn report_areas(lists: &mut ListReader<'_>, repositories: &[Spanned<RepositoryPattern>]) {
    let is_per_user = |entry: &Spanned<RepositoryPattern>| entry.get_ref().names_user();
    let is_any_per_user = repositories.iter().any(is_per_user);
    for entry in repositories {
        let message = if !is_per_user(entry) {
            if !is_any_per_user {
                continue;
            }
            "`quota.repositories` has `${user}` in some patterns only"
        } else if names_one_user(entry.get_ref()) {
            continue;
        } else {
            "`${user}` in `quota.repositories` leaves open which user's a repository is"
        };
        let help = "write \"${user}/**\" and the like, with `${user}` once and without stars before or beside it, \
                    and areas of all users in a [[quota]] of their own";
        lists.report(&entry.span(), message, help);
    }
}

/// Whether a matching name tells its user.
fn names_one_user(pattern: &RepositoryPattern) -> bool {
    let mut before = pattern.as_str().split("${user}");
    let (Some(before), Some(after), None) = (before.next(), before.next(), before.next()) else {
        return false;
    };
    let level = after.split('/').next().unwrap_or_default();
    !before.contains("**")
        && !before.rsplit('/').next().unwrap_or_default().contains('*')
        && !level.contains('*')
}

const EXPIRY_LABEL: &str = "quay.expires-after";
const REPOSITORIES: &str = "write repositories = [\"cache/**\"], or [\"**\"] for all";
const TAGS: &str = "write tags, or leave the key out for all tags";
const QUOTA_REPOSITORIES: &str =
    "write repositories = [\"${user}/**\"] for each user's own, or [\"**\"] for all together";

#[cfg(test)]
mod tests;
