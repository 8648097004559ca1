//! The replicas of a domain's registry, from `urls` and `[upstream.check]`.

use std::time::Duration;

use super::DomainFile;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawUpstream, Setting};
use crate::config::source::Span;
use crate::config::upstream::{ReplicaCheck, UpstreamUrl};

/// The addresses of `urls` after the first one.
pub(super) fn others(
    file: &DomainFile,
    raw: &RawUpstream,
    problems: &mut Problems,
) -> Option<Vec<UpstreamUrl>> {
    let Setting::Given(urls, span) = &raw.urls else {
        return raw.urls.is_absent().then(Vec::new);
    };
    let mut is_wrong = false;
    let mut report = |span: &Span, message: String, help: &str| {
        is_wrong = true;
        problems.push(Problem::at(&file.source, span, message, help));
    };
    let (first, others) = urls.split_first()?;
    if raw.url.span() != Some(&first.span()) {
        let message = "`upstream.url` and `upstream.urls` exclude each other".to_owned();
        report(
            span,
            message,
            "write all addresses in `urls`, and leave `url` out",
        );
    }
    for (index, other) in others.iter().enumerate() {
        let url = other.get_ref();
        let general = |url: &UpstreamUrl| (url.scheme, url.base_path.clone());
        if general(url) != general(first.get_ref()) {
            let message = format!(
                "{url} differs from {} in more than host and port",
                first.get_ref()
            );
            let help = "replicas are the same registry: give them one scheme and one path";
            report(&other.span(), message, help);
        }
        if urls[..=index].iter().any(|before| before.get_ref() == url) {
            report(
                &other.span(),
                format!("{url} is written twice"),
                "leave one out",
            );
        }
    }
    let others = others.iter().map(|other| other.get_ref().clone());
    (!is_wrong).then(|| others.collect())
}

/// The inner value is `None` where replicas are checked only if they fail.
pub(super) fn check(
    file: &DomainFile,
    raw: &RawUpstream,
    problems: &mut Problems,
) -> Option<Option<ReplicaCheck>> {
    let (written, span) = match &raw.check {
        Setting::Absent => return Some(None),
        Setting::Invalid => return None,
        Setting::Given(written, span) => (written, span),
    };
    if raw.urls.given().is_none_or(|urls| urls.len() < 2) {
        let message = "`[upstream.check]` is for several `urls`";
        let help = "leave it out: whether a single server works is shown by its answers";
        problems.push(Problem::at(&file.source, span, message, help));
        return None;
    }
    let interval = written.interval.or(DEFAULT_INTERVAL);
    if let Some(span) = written.interval.span().filter(|_| interval < MIN_INTERVAL) {
        let message = "`upstream.check.interval` is shorter than 1s";
        problems.push(Problem::at(&file.source, span, message, "write 1s or more"));
        return None;
    }
    let path = written.path.or(DEFAULT_PATH.to_owned());
    Some(Some(ReplicaCheck { interval, path }))
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_PATH: &str = "/v2/";
