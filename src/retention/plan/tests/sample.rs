//! A small repository with rules, whose times are said as ages.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::access::RuleLocation;
use crate::config::retention::{Grouping, RetentionRule, RetentionRuns, RetentionSettings};
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::registry::pattern::{Pattern, RepositoryPattern};
use crate::registry::reference::Tag;
use crate::retention::in_use::InUse;
use crate::retention::inventory::{ImageIndex, ImageRecord, Inventory, TagRecord, UnixSeconds};
use crate::retention::plan::plan_repository;
use crate::retention::plan::{PlannedTag, Reason, RepositoryPlan, TagOutcome};
use crate::retention::reason::UseKind;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// The time of all plans, unless a test has another one.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(2_000_000_000).unwrap()
}

/// A time so long ago.
pub(super) fn at(ago: Duration) -> UnixSeconds {
    UnixSeconds::from(now() - ago)
}

pub(super) fn digest(image: usize) -> Digest {
    Digest::parse(&format!("sha256:{:064x}", image + 1)).unwrap()
}

/// A rule for everything, which nothing keeps.
pub(super) fn rule() -> RetentionRule {
    RetentionRule {
        repositories: vec![RepositoryPattern::parse("**").unwrap()],
        tags: vec![Pattern::new("*")],
        protect: Vec::new(),
        keep: Some(crate::config::retention::Keep::default()),
        ttl: None,
        per: Grouping::Repository,
        expiry_label: None,
        location: RuleLocation {
            file: "conf.d/app.toml".into(),
            line: 1,
        },
    }
}

pub(super) struct Sample {
    pub(super) tags: Vec<TagRecord>,
    pub(super) images: Vec<ImageRecord>,
    pub(super) recorded_since: Option<Duration>,
    pub(super) expiry_label: Option<Box<str>>,
    pub(super) rules: Vec<RetentionRule>,
    pub(super) min_age: Duration,
    pub(super) max_tags: usize,
    pub(super) in_use: InUse,
    pub(super) now: Timestamp,
}

/// Nothing yet, and a rule that lets everything go.
pub(super) fn sample() -> Sample {
    Sample {
        tags: Vec::new(),
        images: Vec::new(),
        recorded_since: None,
        expiry_label: None,
        rules: vec![rule()],
        min_age: Duration::ZERO,
        max_tags: usize::MAX,
        in_use: InUse::new([HostName::parse("r.example.com").unwrap()]),
        now: now(),
    }
}

impl Sample {
    pub(super) fn image(&mut self, age: Duration) -> usize {
        let image = self.images.len();
        self.images.push(ImageRecord {
            digest: digest(image),
            children: Box::default(),
            subject: None,
            pushed: Some(at(age)),
            pulled: None,
            expires_after: None,
            created: None,
            content: Box::default(),
        });
        image
    }

    pub(super) fn index(&mut self, children: &[usize], age: Duration) -> usize {
        let index = self.image(age);
        let children = children
            .iter()
            .map(|at| ImageIndex(u32::try_from(*at).unwrap()));
        self.images[index].children = children.collect();
        index
    }

    pub(super) fn tag_of(&mut self, tag: &str, image: usize, age: Duration) {
        self.tags.push(TagRecord {
            tag: Tag::parse(tag).unwrap(),
            image: ImageIndex(u32::try_from(image).unwrap()),
            pushed: Some(at(age)),
            pulled: None,
        });
    }

    /// A tag with an image of its own.
    pub(super) fn tag(&mut self, tag: &str, age: Duration) {
        let image = self.image(age);
        self.tag_of(tag, image, age);
    }

    pub(super) fn use_elsewhere(&mut self, list: &str) {
        self.in_use.add("list", list).unwrap();
    }

    pub(super) fn inventory(&self) -> Inventory {
        let mut tags = self.tags.clone();
        tags.sort_by(|a, b| a.tag.cmp(&b.tag));
        Inventory {
            repository: RepositoryName::parse("app").unwrap(),
            tags,
            images: self.images.clone(),
            recorded_since: self.recorded_since.map(|ago| now() - ago),
            expiry_label: self.expiry_label.clone(),
        }
    }

    pub(super) fn settings(&self) -> RetentionSettings {
        RetentionSettings {
            rules: self.rules.clone(),
            runs: RetentionRuns {
                min_age: self.min_age,
                ..RetentionRuns::default()
            },
        }
    }

    pub(super) fn planned<T>(&self, read: impl FnOnce(&RepositoryPlan<'_>) -> T) -> T {
        let (inventory, settings) = (self.inventory(), self.settings());
        let plan = plan_repository(&inventory, &settings, &self.in_use, self.now, self.max_tags);
        read(&plan)
    }

    pub(super) fn decisions(&self) -> Vec<TagOutcome> {
        self.planned(|plan| plan.tags().map(|tag| tag.decision).collect())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.planned(|plan| plan.bytes)
    }

    pub(super) fn going_images(&self) -> Vec<usize> {
        let number = |digest: &Digest| usize::from_str_radix(digest.encoded(), 16).unwrap() - 1;
        self.planned(|plan| plan.manifests.iter().map(|m| number(&m.digest)).collect())
    }

    /// A line for each tag: what becomes of it, until when from now, and why.
    pub(super) fn shown(&self) -> Vec<String> {
        let line = |planned: PlannedTag| {
            let TagOutcome {
                stays,
                reasons,
                rule: _,
                until,
                expires: _,
            } = planned.decision;
            let until = until.map(|until| format!(" until {}", self.time_from_now(until)));
            let reasons: Vec<_> = reasons.iter().map(|reason| self.reason(reason)).collect();
            let becomes = if stays { "stays" } else { "goes" };
            let until = until.unwrap_or_default();
            format!("{} {becomes}{until}: {}", planned.tag, reasons.join(", "))
        };
        self.planned(|plan| plan.tags().map(line).collect())
    }

    fn time_from_now(&self, time: Timestamp) -> String {
        let hours = (time.as_second() - self.now.as_second()) / 3_600;
        if hours % 24 == 0 && hours != 0 {
            format!("{}d", hours / 24)
        } else {
            format!("{hours}h")
        }
    }

    fn ago(&self, time: Timestamp) -> String {
        let shown = self.time_from_now(time);
        shown.strip_prefix('-').unwrap_or(&shown).to_owned()
    }

    fn reason(&self, reason: &Reason) -> String {
        let span = |span: &Duration| self.time_from_now(self.now + *span);
        match reason {
            Reason::NoRule => "no rule".to_owned(),
            Reason::Protected { pattern } => format!("protected {pattern}"),
            Reason::InUse { source: _ } => "in use".to_owned(),
            Reason::Young { pushed, min_age: _ } => format!("young {}", self.ago(*pushed)),
            Reason::Newest { rank, of } => format!("newest {rank}/{of}"),
            Reason::PulledWithin { pulled, within } => {
                format!("pulled {}/{}", self.ago(*pulled), span(within))
            }
            Reason::PushedWithin { pushed, within } => {
                format!("pushed {}/{}", self.ago(*pushed), span(within))
            }
            Reason::NotYetKnown {
                of,
                within,
                recorded_since: _,
            } => match of {
                UseKind::Push => format!("unknown push {}", span(within)),
                UseKind::Pull => format!("unknown pull {}", span(within)),
            },
            Reason::NotExpired { until: None } => "not expired".to_owned(),
            Reason::NotExpired { until: Some(until) } => {
                format!("not expired {}", self.time_from_now(*until))
            }
            Reason::OfKeptImage { digest } => format!("of {}", digest.encoded()),
            Reason::WithSubject { digest } => format!("with {}", digest.encoded()),
            Reason::NoReasonToStay => "nothing".to_owned(),
            Reason::Expired { at, label: false } => format!("expired {}", self.time_from_now(*at)),
            Reason::Expired { at, label: true } => {
                format!("expired by label {}", self.time_from_now(*at))
            }
            Reason::BeyondLimit => "beyond the limit".to_owned(),
        }
    }
}
