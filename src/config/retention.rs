//! The validated retention rules and quotas of a domain. [`crate::retention`] applies the rules,
//! [`crate::store`] the quotas.

use std::path::PathBuf;
use std::time::Duration;

use super::access::RuleLocation;
use super::upstream::UpstreamUrl;
use crate::registry::pattern::{Pattern, RepositoryPattern};
use crate::registry::product::Product;

/// When tags are taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// In the order of the file; the first that matches a tag decides. At least one.
    pub rules: Vec<RetentionRule>,
    pub runs: RetentionRuns,
}

/// One `[[retention]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The repositories, at least one. No pattern has `${user}`.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags, at least one. Default all.
    pub tags: Vec<Pattern>,
    /// Tags that are never taken away.
    pub protect: Vec<Pattern>,
    /// What keeps a tag; `None`: it stays until it expires.
    pub keep: Option<Keep>,
    /// How long a tag may live after its push at most.
    pub ttl: Option<Duration>,
    /// The tags among which the newest are counted.
    pub per: Grouping,
    /// The label of an image's configuration by which its pusher says how long it may live. Default
    /// `quay.expires-after`. `None`: labels say nothing.
    pub expiry_label: Option<Box<str>>,
    pub location: RuleLocation,
}

/// What keeps a tag: any of these. At least one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the tags of a group, those that were pushed last. At least 1.
    pub newest: Option<usize>,
    pub pulled_within: Option<Duration>,
    pub pushed_within: Option<Duration>,
}

/// The groups of tags of a repository.
#[derive(Clone, Debug, Default)]
pub enum Grouping {
    /// All tags of the repository.
    #[default]
    Repository,
    /// By what stands before the last dash; tags without a dash are a group together.
    PrefixBeforeLastDash,
    /// `1.4.0`, `v1.4.1` and `1.4.2-rc.1` are of the line 1.4; others are a group together.
    SemverLine,
    /// By the text of the first group of a regular expression; those that do not match are a group
    /// together.
    Expression(regex_lite::Regex),
}

/// Expressions are equal if they are written alike.
impl PartialEq for Grouping {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Expression(one), Self::Expression(other)) => one.as_str() == other.as_str(),
            (Self::Repository, Self::Repository)
            | (Self::PrefixBeforeLastDash, Self::PrefixBeforeLastDash)
            | (Self::SemverLine, Self::SemverLine) => true,
            (
                Self::Repository
                | Self::PrefixBeforeLastDash
                | Self::SemverLine
                | Self::Expression(_),
                _,
            ) => false,
        }
    }
}

impl Eq for Grouping {}

/// `[retention_settings]`: when a run is, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRuns {
    /// From the end of a run to the next one; `None`: only by command. Default 24 h.
    pub every: Option<Duration>,
    /// The hours of the day (UTC) in which runs begin; `None`: any.
    pub hours: Option<HoursOfDay>,
    /// The most tags that a run takes away, the oldest first. Default 1,000.
    pub max_tags: usize,
    /// A run that would take away more than this share of the domain's tags takes away none, in
    /// percent. Default 50.
    pub max_share: u8,
    /// Whatever is younger stays. Default 24 h.
    pub min_age: Duration,
    /// Whether scheduled runs only report; `None`: where the product behind the domain has a policy
    /// of its own.
    pub dry_run: Option<bool>,
    /// Lists of references to images that are in use elsewhere.
    pub in_use: Vec<InUseSource>,
}

impl RetentionRuns {
    /// Whether scheduled runs only report, with this product behind the domain; `None`: moorgate's
    /// own store.
    pub fn is_dry_run(&self, product: Option<Product>) -> bool {
        let cleans_up = product.and_then(Product::cleanup).is_some();
        self.dry_run.unwrap_or(cleans_up)
    }
}

impl Default for RetentionRuns {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            every: Some(DAY),
            hours: None,
            max_tags: 1_000,
            max_share: 50,
            min_age: DAY,
            dry_run: None,
            in_use: Vec::new(),
        }
    }
}

/// From one minute of the day to another one, which may be on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoursOfDay {
    /// Minutes since midnight UTC.
    pub from: u16,
    /// Exclusive. Not equal to `from`.
    pub to: u16,
}

/// A list of references to images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InUseSource {
    File(PathBuf),
    Url(UpstreamUrl),
}

/// One `[[quota]]` table: how much the repositories of an area may hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaSettings {
    /// The area. With `${user}`, each value of it is an area of its own.
    pub repositories: Vec<RepositoryPattern>,
    /// In bytes.
    pub size: u64,
    pub location: RuleLocation,
}
