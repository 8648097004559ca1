//! Warnings about retention rules that are valid and hardly intended, and about registries that
//! delete by rules of their own.

use toml::Spanned;

use crate::config::problem::{Problem, Problems};
use crate::config::raw::Setting;
use crate::config::raw::retention::RawRetention;
use crate::config::resolve::DomainFile;
use crate::config::retention::{RetentionRule, RetentionRuns};
use crate::config::source::Span;
use crate::registry::pattern::Pattern;
use crate::registry::product::Product;

/// Adds all warnings. A rule that is `None` has an error.
pub(super) fn warn(
    file: &DomainFile,
    written: &[&Spanned<RawRetention>],
    rules: &[Option<RetentionRule>],
    runs: &RetentionRuns,
    problems: &mut Problems,
) {
    let mut warn = |span: &Span, message: String, help: &str| {
        problems.push(Problem::at(&file.source, span, message, help).warning());
    };
    for (index, (raw, rule)) in written.iter().zip(rules).enumerate() {
        for entry in raw.get_ref().repositories.given().into_iter().flatten() {
            if !entry.get_ref().is_possible(None) {
                let pattern = entry.get_ref().as_str();
                let message = format!("no repository name can match `{pattern}`");
                warn(&entry.span(), message, NAMES);
            }
        }
        if let Some(span) = idle_groups(raw.get_ref()) {
            let message = "`retention.per` has no effect without `keep = { newest = … }`";
            warn(
                span,
                message.to_owned(),
                "write `newest`, or leave `per` out",
            );
        }
        let Some(rule) = rule else { continue };
        if let Some(span) = raw
            .get_ref()
            .ttl
            .span()
            .filter(|_| rule.ttl < Some(runs.min_age))
        {
            let message =
                "`retention.ttl` is shorter than `min_age`: nothing is taken away before that";
            let help = "write a longer one, or a shorter min_age in [retention_settings] (default \"24h\")";
            warn(span, message.to_owned(), help);
        }
        if let Some(span) = raw.get_ref().protect.span()
            && covers(&rule.protect, &rule.tags)
        {
            let message = "`retention.protect` covers all tags of the rule: it takes none away";
            warn(span, message.to_owned(), "protect fewer tags");
        }
        let mut earlier = rules.iter().take(index).flatten();
        if let Some(earlier) = earlier.find(|earlier| matches_all_of(earlier, rule)) {
            let line = earlier.location.line;
            let message = format!(
                "this rule can never match: the one at line {line} matches all of it before"
            );
            let help = "write the rule for less above the rule for more: the first that matches a tag decides";
            warn(&raw.span(), message, help);
        }
    }
    if let (Some(first), None) = (written.first(), runs.dry_run) {
        warn_of_two_cleaners(file, &first.span(), problems);
    }
}

/// Where the product behind the domain deletes by itself.
fn warn_of_two_cleaners(file: &DomainFile, span: &Span, problems: &mut Problems) {
    if let Some((product, cleanup)) = cleanup_of(file) {
        let message = format!(
            "the product \"{}\" may delete by {cleanup}, and two cleaners must not fight: scheduled runs only report",
            product.as_str()
        );
        let help = "write dry_run = false in [retention_settings] if no policy of its own is set there, or dry_run = true";
        problems.push(Problem::at(&file.source, span, message, help).warning());
    }
}

/// `per` without anything that counts in groups.
fn idle_groups(raw: &RawRetention) -> Option<&Span> {
    let counts = match &raw.keep {
        Setting::Absent => false,
        Setting::Invalid => true,
        Setting::Given(keep, _) => !keep.newest.is_absent(),
    };
    raw.per.span().filter(|_| !counts)
}

/// Whether a rule matches everything that a later one matches, as far as their texts tell.
fn matches_all_of(rule: &RetentionRule, later: &RetentionRule) -> bool {
    let is_covered = |pattern| rule.repositories.iter().any(|own| own.covers(pattern));
    later.repositories.iter().all(is_covered) && covers(&rule.tags, &later.tags)
}

fn covers(tags: &[Pattern], others: &[Pattern]) -> bool {
    others
        .iter()
        .all(|other| tags.iter().any(|tag| tag.covers(other)))
}

/// The product behind the domain, as far as the settings tell, and how it deletes by itself.
fn cleanup_of(file: &DomainFile) -> Option<(Product, &'static str)> {
    let upstream = file.raw.upstream.given()?;
    let url = upstream.url.given()?;
    let product = upstream.product.or(None);
    let product = product.or_else(|| Product::of_host(&url.host))?;
    Some((product, product.cleanup()?))
}

const NAMES: &str = "the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them";
