//! What is counted of the requests of a domain. Counting is a few atomic additions to places that
//! are there from the start: nothing that a client sends makes a new one. `admin/metrics` writes it
//! out.

mod histogram;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub use histogram::{Durations, Histogram};

use crate::registry::call::CallKind;

/// What is counted of the requests of one domain, or of those that found none.
#[derive(Debug)]
pub struct Traffic {
    requests: Box<[[AtomicU64; STATUSES.len() + 2]; ASKED]>,
    upstream_cut: AtomicU64,
    client_gone: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    open: AtomicI64,
    durations: Histogram,
    upstream: Histogram,
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was refused before that was known.
    Nothing,
    /// A page, outside `/v2/`.
    Page,
    /// A token.
    Token,
    /// The public keys of tokens.
    Keys,
    /// A call of the registry protocol.
    Call(CallKind),
}

/// How a request ended, with everything that is counted of it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What it asked for.
    pub asked: Asked,
    /// The status of the answer; none if the client left before it.
    pub status: Option<u16>,
    /// What broke it off.
    pub cut: Option<Cut>,
    /// Bytes of the request's body that came.
    pub received: u64,
    /// Bytes of the answer's body that went out.
    pub sent: u64,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// From forwarding to the head of the upstream's answer; none if it was not forwarded.
    pub upstream: Option<Duration>,
}

/// What broke off a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The upstream.
    Upstream,
    /// The client.
    Client,
}

impl Asked {
    /// As it stands in a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Page => "page",
            Self::Token => "token",
            Self::Keys => "jwks",
            Self::Call(kind) => kind.as_str(),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Nothing, Self::Page, Self::Token, Self::Keys]
            .into_iter()
            .chain(CallKind::ALL.into_iter().map(Self::Call))
    }

    fn index(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Page => 1,
            Self::Token => 2,
            Self::Keys => 3,
            Self::Call(kind) => OTHERS + kind as usize,
        }
    }
}

/// What is no call.
const OTHERS: usize = 4;
const ASKED: usize = OTHERS + CallKind::ALL.len();

impl Traffic {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            requests: Box::new(
                [const { [const { AtomicU64::new(0) }; STATUSES.len() + 2] }; ASKED],
            ),
            upstream_cut: AtomicU64::new(0),
            client_gone: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            open: AtomicI64::new(0),
            durations: Histogram::new(),
            upstream: Histogram::new(),
        }
    }

    /// A request has begun. [`ended`](Self::ended) is to be called once for it.
    pub fn began(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub fn ended(&self, ended: &Ended) {
        let Ended {
            asked,
            status,
            cut,
            received,
            sent,
            duration,
            upstream,
        } = *ended;
        self.open.fetch_sub(1, Ordering::Relaxed);
        let row = self.requests.get(asked.index());
        if let Some(count) = row.and_then(|row| row.get(place(status))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match cut {
            None => {}
            Some(Cut::Upstream) => drop(self.upstream_cut.fetch_add(1, Ordering::Relaxed)),
            Some(Cut::Client) => drop(self.client_gone.fetch_add(1, Ordering::Relaxed)),
        }
        for (sum, bytes) in [(&self.received, received), (&self.sent, sent)] {
            if bytes > 0 {
                sum.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        self.durations.add(duration);
        if let Some(upstream) = upstream {
            self.upstream.add(upstream);
        }
    }

    /// How many requests asked for this and got that status, for all pairs that occurred.
    pub fn requests(&self) -> impl Iterator<Item = (Asked, &'static str, u64)> {
        let rows = Asked::all().zip(self.requests.iter());
        let counts =
            rows.flat_map(|(asked, row)| row.iter().enumerate().map(move |cell| (asked, cell)));
        counts.filter_map(|(asked, (place, count))| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| (asked, label(place), count))
        })
    }

    /// Requests that go on.
    pub fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Answers that the upstream broke off.
    pub fn upstream_cut(&self) -> u64 {
        self.upstream_cut.load(Ordering::Relaxed)
    }

    /// Requests whose client left before their end.
    pub fn client_gone(&self) -> u64 {
        self.client_gone.load(Ordering::Relaxed)
    }

    /// Bytes of requests' bodies.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of answers' bodies.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// From the request's head to the end of the answer.
    pub fn durations(&self) -> Durations {
        self.durations.read()
    }

    /// From forwarding to the head of the upstream's answer.
    pub fn upstream(&self) -> Durations {
        self.upstream.read()
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

/// The statuses that are told apart, in order: all that moorgate gives, and what registries do.
const STATUSES: [(u16, &str); 34] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (303, "303"),
    (304, "304"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (409, "409"),
    (411, "411"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (416, "416"),
    (417, "417"),
    (421, "421"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (507, "507"),
];

/// Where a status is counted: what is not in the table comes after it, and then no status at all.
fn place(status: Option<u16>) -> usize {
    let Some(status) = status else {
        return STATUSES.len() + 1;
    };
    STATUSES
        .binary_search_by_key(&status, |(known, _)| *known)
        .unwrap_or(STATUSES.len())
}

fn label(place: usize) -> &'static str {
    match STATUSES.get(place) {
        Some((_, label)) => label,
        None if place == STATUSES.len() => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended {
            asked: Asked::Call(CallKind::BlobRead),
            status: Some(200),
            cut: None,
            received: 0,
            sent: 7,
            duration: Duration::from_millis(3),
            upstream: Some(Duration::from_millis(1)),
        }
    }

    #[test]
    fn each_request_is_counted_where_it_belongs() {
        let traffic = Traffic::new();
        let all = [
            ended(),
            ended(),
            Ended {
                status: Some(299),
                ..ended()
            },
            Ended {
                asked: Asked::Nothing,
                status: Some(404),
                upstream: None,
                ..ended()
            },
            Ended {
                asked: Asked::Page,
                status: None,
                cut: Some(Cut::Client),
                received: 5,
                ..ended()
            },
        ];
        for ended in &all {
            traffic.began();
            traffic.ended(ended);
        }
        traffic.began();
        let counted: Vec<_> = traffic
            .requests()
            .map(|(asked, status, count)| (asked.as_str(), status, count))
            .collect();
        let expected = [
            ("", "404", 1),
            ("page", "none", 1),
            ("blob.read", "200", 2),
            ("blob.read", "other", 1),
        ];
        assert_eq!(counted, expected);
        assert_eq!(
            (
                traffic.open(),
                traffic.client_gone(),
                traffic.upstream_cut()
            ),
            (1, 1, 0)
        );
        assert_eq!((traffic.received(), traffic.sent()), (5, 35));
        assert_eq!(
            (traffic.durations().count, traffic.upstream().count),
            (5, 4)
        );
    }

    #[test]
    fn everything_is_at_the_index_that_it_is() {
        assert!(Asked::all().map(Asked::index).eq(0..ASKED));
    }

    #[test]
    fn statuses_are_in_order_and_named_after_themselves() {
        assert!(STATUSES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(
            STATUSES
                .iter()
                .all(|(status, label)| status.to_string() == *label)
        );
    }
}
