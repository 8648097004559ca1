//! Why a tag stays or goes.

use std::time::Duration;

use jiff::Timestamp;

use crate::registry::digest::Digest;

/// The decision about a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagOutcome {
    /// Whether it stays.
    pub(crate) stays: bool,
    /// All reasons for it to stay, or the one for it to go.
    pub(crate) reasons: Vec<Reason>,
    /// The rule that decides, as an index of the domain's rules; `None`: no rule matches.
    pub(crate) rule: Option<usize>,
    /// When it goes if nobody pushes or pulls it; `None`: not before other tags are pushed or go, or
    /// never.
    pub(crate) until: Option<Timestamp>,
    /// When it expires, whatever keeps it until then.
    pub(crate) expires: Option<Timestamp>,
}

/// Why a tag stays or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No rule matches.
    NoRule,
    /// A pattern of `protect`.
    Protected {
        pattern: Box<str>,
    },
    /// A list of images that are in use elsewhere names it.
    InUse {
        source: Box<str>,
    },
    /// Pushed less than `min_age` ago.
    Young {
        pushed: Timestamp,
        min_age: Duration,
    },
    /// One of the newest of its group. Those that were pushed at the same time have the same rank.
    Newest {
        rank: usize,
        of: usize,
    },
    PulledWithin {
        pulled: Timestamp,
        within: Duration,
    },
    PushedWithin {
        pushed: Timestamp,
        within: Duration,
    },
    /// A use since `within` is not known, and recording began later than that, or never.
    NotYetKnown {
        of: UseKind,
        recorded_since: Option<Timestamp>,
        within: Duration,
    },
    /// The rule keeps what has not expired. `None`: it never does, or its push is not known.
    NotExpired {
        until: Option<Timestamp>,
    },
    /// It is a signature or another referrer, by a tag, of an image that stays.
    OfKeptImage {
        digest: Digest,
    },
    /// It is a signature or another referrer, by a tag, of an image that goes.
    WithSubject {
        digest: Digest,
    },
    /// Nothing that the rule names keeps it.
    NoReasonToStay,
    /// A label, or `ttl`, said how long it may live.
    Expired {
        at: Timestamp,
        label: bool,
    },
    /// The run takes away as many as it may, and those that were pushed first.
    BeyondLimit,
}

/// What a time that counts is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseKind {
    Push,
    Pull,
}
