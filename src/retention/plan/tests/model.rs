//! A model of the rules that is written in the most naive way: sets that grow until nothing changes,
//! and no code of the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use super::sample::{HOUR, Sample, at, digest, now, rule, sample};
use crate::config::retention::{Grouping, Keep, RetentionRule};
use crate::registry::pattern::{Pattern, RepositoryPattern};
use crate::registry::reference::Tag;
use crate::retention::expiry::whole_seconds;
use crate::retention::inventory::{ImageIndex, TagRecord, UnixSeconds};

/// Times are hours ago; those in the future are negative.
#[derive(Clone, Debug)]
pub(super) struct ModelImage {
    pub(super) children: Vec<usize>,
    pub(super) subject: Option<usize>,
    pub(super) pushed: Option<i64>,
    pub(super) pulled: Option<i64>,
    pub(super) life: Option<i64>,
    pub(super) created: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelTag {
    pub(super) name: String,
    pub(super) image: usize,
    pub(super) pushed: Option<i64>,
    pub(super) pulled: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelRule {
    pub(super) matches_repository: bool,
    pub(super) tags: &'static str,
    pub(super) protect: Option<&'static str>,
    /// Newest, pulled and pushed within; all of them `None`: no `keep`.
    pub(super) kept: (Option<usize>, Option<i64>, Option<i64>),
    pub(super) ttl: Option<i64>,
    pub(super) per: usize,
    pub(super) reads_label: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) images: Vec<ModelImage>,
    pub(super) tags: Vec<ModelTag>,
    pub(super) rules: Vec<ModelRule>,
    pub(super) min_age: i64,
    pub(super) since: Option<i64>,
    pub(super) used_tag: Option<&'static str>,
    pub(super) used_image: Option<usize>,
    pub(super) max_tags: usize,
}

pub(super) const NAMES: [&str; 9] = [
    "a-1", "a-2", "a-3", "b-1", "1.0.0", "v1.0.1", "1.1.0", "latest", "x",
];

impl Model {
    pub(super) fn matches(pattern: &str, name: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        }
    }

    pub(super) fn rule(&self, tag: &ModelTag) -> Option<&ModelRule> {
        self.rules
            .iter()
            .find(|rule| rule.matches_repository && Self::matches(rule.tags, &tag.name))
    }

    /// Grows a set of images until nothing changes.
    pub(super) fn grown(
        &self,
        from: &[usize],
        next: impl Fn(usize) -> Vec<usize>,
    ) -> BTreeSet<usize> {
        let mut set: BTreeSet<usize> = from.iter().copied().collect();
        loop {
            let more: Vec<_> = set.iter().flat_map(|image| next(*image)).collect();
            let before = set.len();
            set.extend(more);
            if set.len() == before {
                return set;
            }
        }
    }

    pub(super) fn below(&self, image: usize) -> BTreeSet<usize> {
        self.grown(&[image], |image| self.images[image].children.clone())
    }

    pub(super) fn named_digest(name: &str) -> Option<String> {
        let hex = name.strip_prefix("sha256-")?;
        Some(format!("sha256:{}", hex.split('.').next().unwrap()))
    }

    pub(super) fn subject(&self, tag: &ModelTag) -> Option<usize> {
        let named = Self::named_digest(&tag.name)?;
        let mut images = 0..self.images.len();
        let subject = images.find(|image| digest(*image).as_str() == named)?;
        (subject != tag.image).then_some(subject)
    }

    pub(super) fn is_orphan(tag: &ModelTag, images: usize) -> bool {
        let named = Self::named_digest(&tag.name);
        named.is_some_and(|named| (0..images).all(|image| digest(image).as_str() != named))
    }

    pub(super) fn referrers(&self, image: usize) -> Vec<usize> {
        let by_field = (0..self.images.len()).filter(|i| self.images[*i].subject == Some(image));
        let by_tag = self
            .tags
            .iter()
            .filter(|tag| self.subject(tag) == Some(image));
        by_field.chain(by_tag.map(|tag| tag.image)).collect()
    }

    pub(super) fn needed(&self, from: &[usize]) -> BTreeSet<usize> {
        self.grown(from, |image| {
            let mut next = self.images[image].children.clone();
            next.extend(self.referrers(image));
            next
        })
    }

    /// Whether something so long ago is, or may be, within a time.
    pub(super) fn within(ago: i64, hours: i64) -> bool {
        ago.max(0) < hours
    }

    pub(super) fn unknown_within(&self, hours: i64) -> bool {
        hours > 0 && self.since.is_none_or(|since| Self::within(since, hours))
    }

    pub(super) fn label(&self, image: usize) -> Option<i64> {
        if let Some(own) = self.images[image].life {
            return Some(own);
        }
        let below: Vec<_> = self
            .below(image)
            .into_iter()
            .map(|i| &self.images[i])
            .collect();
        if below
            .iter()
            .any(|image| image.created.is_some() && image.life.is_none())
        {
            return None;
        }
        below.iter().filter_map(|image| image.life).max()
    }

    pub(super) fn is_expired(&self, tag: &ModelTag) -> bool {
        let Some(rule) = self.rule(tag) else {
            return false;
        };
        let label = self.label(tag.image).filter(|_| rule.reads_label);
        let Some(life) = [rule.ttl, label].into_iter().flatten().min() else {
            return false;
        };
        let pushed = tag.pushed.or(self.since);
        pushed.is_some_and(|pushed| !Self::within(pushed, life))
    }

    pub(super) fn is_protected(&self, tag: &ModelTag) -> bool {
        let pattern = self.rule(tag).and_then(|rule| rule.protect);
        pattern.is_some_and(|pattern| Self::matches(pattern, &tag.name))
    }

    pub(super) fn is_in_use(&self, tag: &ModelTag) -> bool {
        let below = self.below(tag.image);
        self.used_tag == Some(&tag.name) || self.used_image.is_some_and(|i| below.contains(&i))
    }

    pub(super) fn is_young(&self, tag: &ModelTag) -> bool {
        let image = self.images[tag.image].pushed;
        let known = [tag.pushed, image].into_iter().flatten();
        known
            .min()
            .is_some_and(|ago| Self::within(ago, self.min_age))
            || tag.pushed.is_none() && self.unknown_within(self.min_age)
    }

    pub(super) fn group(&self, tag: &ModelTag, per: usize) -> String {
        let name = &tag.name;
        if Self::is_orphan(tag, self.images.len()) {
            return "orphans".to_owned();
        }
        let version: Vec<_> = name.trim_start_matches('v').split('.').collect();
        match per {
            1 if name.contains('-') => format!("+{}", &name[..name.rfind('-').unwrap()]),
            2 if version.len() == 3 => format!("+{}.{}", version[0], version[1]),
            3 if name.ends_with("-1") => format!("+{}", name.trim_end_matches("-1")),
            _ => "rest".to_owned(),
        }
    }

    pub(super) fn is_newer(&self, tag: &ModelTag, than: &ModelTag) -> bool {
        let built = |tag: &ModelTag| {
            let below = self.below(tag.image);
            below
                .into_iter()
                .filter_map(|i| self.images[i].created)
                .map(|ago| ago.max(0))
                .min()
        };
        match (tag.pushed, than.pushed) {
            (Some(a), Some(b)) => a.max(0) < b.max(0),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => match (built(tag), built(than)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
        }
    }

    pub(super) fn is_newest(&self, tag: &ModelTag, count: usize) -> bool {
        let same_rule = |other: &ModelTag| {
            std::ptr::eq(
                self.rule(tag).unwrap(),
                match self.rule(other) {
                    Some(rule) => rule,
                    None => return false,
                },
            )
        };
        let per = self.rule(tag).unwrap().per;
        let newer = self.tags.iter().filter(|other| {
            same_rule(other)
                && self.subject(other).is_none()
                && !self.is_protected(other)
                && !self.is_expired(other)
                && self.group(other, per) == self.group(tag, per)
                && self.is_newer(other, tag)
        });
        newer.count() < count
    }

    pub(super) fn pulled(&self, image: usize) -> Option<i64> {
        self.below(image)
            .into_iter()
            .filter_map(|i| self.images[i].pulled)
            .min()
    }

    pub(super) fn stays_by_itself(&self, tag: &ModelTag) -> bool {
        let strong = self.is_protected(tag) || self.is_in_use(tag) || self.is_young(tag);
        if strong || self.subject(tag).is_some() {
            return strong;
        }
        let Some(rule) = self.rule(tag) else {
            return true;
        };
        if self.is_expired(tag) {
            return false;
        }
        let (newest, pulled_within, pushed_within) = rule.kept;
        if rule.kept == (None, None, None) {
            return true;
        }
        let pulled = [tag.pulled, self.pulled(tag.image)]
            .into_iter()
            .flatten()
            .min();
        newest.is_some_and(|count| self.is_newest(tag, count))
            || pulled_within.is_some_and(|hours| {
                pulled.is_some_and(|ago| Self::within(ago, hours)) || self.unknown_within(hours)
            })
            || pushed_within.is_some_and(|hours| match tag.pushed {
                Some(ago) => Self::within(ago, hours),
                None => self.unknown_within(hours),
            })
    }

    /// The longest time within which a pull keeps what a tag needs.
    pub(super) fn window(&self, image: usize) -> i64 {
        let leading = self
            .tags
            .iter()
            .filter(|tag| self.needed(&[tag.image]).contains(&image));
        let windows = leading.filter_map(|tag| self.rule(tag)?.kept.1);
        windows.max().unwrap_or(0)
    }

    pub(super) fn image_stays_by_itself(&self, image: usize) -> bool {
        let tagged: Vec<_> = self.tags.iter().map(|tag| tag.image).collect();
        let used = self
            .used_image
            .is_some_and(|used| self.below(image).contains(&used));
        let young = match self.images[image].pushed {
            Some(ago) => Self::within(ago, self.min_age),
            None => self.unknown_within(self.min_age),
        };
        let window = self.window(image);
        let pulled = self
            .pulled(image)
            .is_some_and(|ago| Self::within(ago, window));
        !self.needed(&tagged).contains(&image)
            || used
            || young
            || window > 0 && (pulled || self.unknown_within(window))
    }

    /// The tags and images that stay, without a limit.
    pub(super) fn staying(&self) -> (BTreeSet<String>, BTreeSet<usize>) {
        let by_themselves = |image: &usize| self.image_stays_by_itself(*image);
        let mut roots: Vec<_> = (0..self.images.len()).filter(by_themselves).collect();
        let mut tags: BTreeSet<String> = BTreeSet::new();
        for tag in self.tags.iter().filter(|tag| self.stays_by_itself(tag)) {
            tags.insert(tag.name.clone());
            roots.push(tag.image);
        }
        let images = self.needed(&roots);
        for tag in &self.tags {
            if self
                .subject(tag)
                .is_some_and(|subject| images.contains(&subject))
            {
                tags.insert(tag.name.clone());
            }
        }
        (tags, images)
    }

    pub(super) fn sample(&self) -> Sample {
        let time = |ago: Option<i64>| {
            ago.map(|ago| match u64::try_from(ago) {
                Ok(ago) => at(hours(ago)),
                Err(_) => UnixSeconds::from(now() + hours(ago.unsigned_abs())),
            })
        };
        let index = |at: &usize| ImageIndex(u32::try_from(*at).unwrap());
        let mut sample = sample();
        for model in &self.images {
            let image = sample.image(HOUR);
            let image = &mut sample.images[image];
            image.children = model.children.iter().map(index).collect();
            image.subject = model.subject.as_ref().map(index);
            image.pushed = time(model.pushed);
            image.pulled = time(model.pulled);
            image.created = time(model.created);
            image.expires_after = model.life.and_then(|life| whole_seconds(span(life)));
        }
        sample.tags = (self.tags.iter())
            .map(|tag| TagRecord {
                tag: Tag::parse(&tag.name).unwrap(),
                image: index(&tag.image),
                pushed: time(tag.pushed),
                pulled: time(tag.pulled),
            })
            .collect();
        sample.rules = self.rules.iter().map(ModelRule::rule).collect();
        sample.min_age = span(self.min_age);
        sample.recorded_since = self.since.map(span);
        sample.expiry_label = Some("quay.expires-after".into());
        if let Some(tag) = self.used_tag {
            sample.use_elsewhere(&format!("r.example.com/app:{tag}"));
        }
        if let Some(image) = self.used_image {
            sample.use_elsewhere(&format!("r.example.com/app@{}", digest(image)));
        }
        sample
    }

    pub(super) fn without(&self, tags: &BTreeSet<String>, images: &BTreeSet<usize>) -> Sample {
        let mut sample = self.sample();
        sample.tags.retain(|tag| !tags.contains(tag.tag.as_str()));
        let stays: Vec<_> = (0..self.images.len())
            .filter(|i| !images.contains(i))
            .collect();
        let place = |old: &ImageIndex| {
            let place = stays.iter().position(|image| *image == old.at())?;
            Some(ImageIndex(u32::try_from(place).unwrap()))
        };
        let all = std::mem::take(&mut sample.images);
        for (_, mut image) in (0..).zip(all).filter(|(at, _)| stays.contains(at)) {
            // What stays resolves whole.
            image.children = image
                .children
                .iter()
                .map(|old| place(old).unwrap())
                .collect();
            image.subject = image.subject.as_ref().and_then(place);
            sample.images.push(image);
        }
        for tag in &mut sample.tags {
            tag.image = place(&tag.image).unwrap();
        }
        sample
    }
}

impl ModelRule {
    pub(super) fn rule(&self) -> RetentionRule {
        let (newest, pulled, pushed) = self.kept;
        let repository = if self.matches_repository {
            "app"
        } else {
            "other"
        };
        RetentionRule {
            repositories: vec![RepositoryPattern::parse(repository).unwrap()],
            tags: vec![Pattern::new(self.tags)],
            protect: self.protect.map(Pattern::new).into_iter().collect(),
            keep: (self.kept != (None, None, None)).then(|| Keep {
                newest,
                pulled_within: pulled.map(span),
                pushed_within: pushed.map(span),
            }),
            ttl: self.ttl.map(span),
            per: match self.per {
                1 => Grouping::PrefixBeforeLastDash,
                2 => Grouping::SemverLine,
                3 => Grouping::Expression(regex_lite::Regex::new("^(.*)-1$").unwrap()),
                _ => Grouping::Repository,
            },
            expiry_label: self.reads_label.then(|| "quay.expires-after".into()),
            ..rule()
        }
    }
}

pub(super) fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}

pub(super) fn span(count: i64) -> Duration {
    hours(u64::try_from(count).unwrap())
}
