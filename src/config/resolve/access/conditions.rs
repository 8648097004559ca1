//! The conditions of a rule: `from` and `immutable_after`.

use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use crate::config::access::{AccessRule, TagConditions};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::Setting;
use crate::config::raw::access::RawAccess;
use crate::config::resolve::DomainFile;
use crate::config::resolve::lists::{ListReader, plain};
use crate::config::source::{Source, Span};
use crate::registry::action::{Action, Actions};
use crate::registry::pattern::RepositoryPattern;
use crate::registry::pattern::corresponding::Correspondence;

/// The conditions of a rule with these actions; `None` after an error.
pub(super) fn conditions(
    lists: &mut ListReader<'_>,
    raw: &RawAccess,
    actions: Actions,
) -> Option<TagConditions> {
    let from = lists.optional("from", &raw.from, FROM);
    if let Some(span) = raw.from.span() {
        let sets = actions.has(Action::Push) || actions.has(Action::Overwrite);
        report_idle(
            lists,
            raw,
            ("from", span),
            sets.then_some(()).ok_or("`push` or `overwrite`"),
        );
    }
    let immutable_after = immutable_after(lists, raw, actions);
    Some(TagConditions {
        from: from?.map(plain),
        immutable_after,
    })
}

fn immutable_after(
    lists: &mut ListReader<'_>,
    raw: &RawAccess,
    actions: Actions,
) -> Option<Duration> {
    let (duration, span) = match &raw.immutable_after {
        Setting::Given(duration, span) => (*duration, span),
        Setting::Absent | Setting::Invalid => return None,
    };
    let changes = actions.has(Action::Overwrite) || actions.has(Action::DeleteTag);
    let needed = changes.then_some(()).ok_or("`overwrite` or `delete-tag`");
    report_idle(lists, raw, ("immutable_after", span), needed);
    if actions.has(Action::DeleteManifest) && !raw.deny.or(false) {
        let message = "a rule with `immutable_after` cannot allow `delete-manifest`: it deletes a manifest with all its tags, \
                       however old they are";
        let help = "name the other actions, and allow `delete-manifest` in a rule of its own to those who may delete \
                    everything";
        lists.report(raw.actions.span().unwrap_or(span), message, help);
    }
    Some(duration)
}

/// Reports a condition that binds none of the rule's actions. `needed`: the actions that it lacks.
fn report_idle(
    lists: &mut ListReader<'_>,
    raw: &RawAccess,
    (key, span): (&str, &Span),
    needed: Result<(), &str>,
) {
    if raw.deny.or(false) {
        let message = format!("`access.{key}` is for rules that allow, and this one denies");
        let help =
            "leave it out, or write a rule that allows: what no rule allows is denied anyway";
        lists.report(span, message, help);
    } else if let Err(needed) = needed
        && raw.actions.given().is_some()
    {
        let message = format!("`access.{key}` has no effect without {needed} in `actions`");
        lists.report(span, message, "add the action, or leave it out");
    }
}

/// Reports wildcards of `from` behind an upstream, where a manifest is looked for in one repository.
pub(super) fn report_unclear_sources(
    file: &DomainFile,
    rules: &[AccessRule],
    inherited: usize,
    problems: &mut Problems,
) {
    let upstream = file.raw.upstream.given();
    if upstream.is_none_or(|upstream| upstream.url.is_absent()) {
        return;
    }
    for rule in rules.iter().take(inherited) {
        if let Some(unclear) = first_unclear(rule) {
            let message = format!("{}, in the rule at {}", unclear.message(), rule.location);
            problems.push(Problem::in_file(file.source.path(), message, WILDCARDS));
        }
    }
    let written = file.raw.rules.access.given().into_iter().flatten();
    for (rule, raw) in rules.iter().skip(inherited).zip(written) {
        if let Some((unclear, span)) = first_unclear(rule).zip(from_span(raw)) {
            problems.push(at(&file.source, span, unclear));
        }
    }
}

fn from_span(raw: &Spanned<RawAccess>) -> Option<&Span> {
    raw.get_ref().from.span()
}

fn at(source: &Arc<Source>, span: &Span, unclear: UnclearSource<'_>) -> Problem {
    Problem::at(source, span, unclear.message(), WILDCARDS)
}

/// A pattern of `from` to which a pattern of `repositories` does not correspond.
struct UnclearSource<'a> {
    from: &'a RepositoryPattern,
    repositories: &'a RepositoryPattern,
}

impl UnclearSource<'_> {
    fn message(&self) -> String {
        format!(
            "`access.from` does not say which repository of `{}` belongs to one of `{}`",
            self.from.as_str(),
            self.repositories.as_str()
        )
    }
}

fn first_unclear(rule: &AccessRule) -> Option<UnclearSource<'_>> {
    rule.conditions.from.iter().flatten().find_map(|from| {
        let mut repositories = rule.repositories.iter();
        let repositories = repositories.find(|of| !Correspondence { of, to: from }.is_clear())?;
        Some(UnclearSource { from, repositories })
    })
}

const FROM: &str = "write from = \"ci/**\", or leave the key out for any manifest";
const WILDCARDS: &str = "behind a `url` a manifest is looked for in one repository: write the same wildcards in the same order \
     as in `repositories`, such as \"release/**\" and \"ci/**\", at most one `*` in each level and one `**`, or a name \
     without wildcards";
