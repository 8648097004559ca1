//! The request metrics of a domain: atomic counters, all allocated at the start, so that no request
//! can add one. `admin/metrics` exposes them.

mod histogram;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use histogram::{Durations, Histogram};

use crate::registry::call::CallKind;

/// The request metrics of one domain, or of the requests that reached no domain.
#[derive(Debug)]
pub(crate) struct Traffic {
    requests: Box<[[AtomicU64; COUNTERS]; LABELS]>,
    upstream_cut: AtomicU64,
    client_gone: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    open: AtomicI64,
    durations: Histogram,
    upstream: Histogram,
}

/// The `call` label of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestLabel {
    /// Refused before the call was known.
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

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestOutcome {
    pub label: RequestLabel,
    /// The response status; `None` if the client left before.
    pub status: Option<u16>,
    /// Which side interrupted it.
    pub cut: Option<Interruption>,
    /// Received bytes of the request body.
    pub received: u64,
    /// Sent bytes of the response body.
    pub sent: u64,
    /// From the request head to the end of the response.
    pub duration: Duration,
    /// From forwarding to the upstream's response head; `None` if the request was not forwarded.
    pub upstream: Option<Duration>,
}

/// The side that interrupted a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The upstream.
    Upstream,
    /// The client.
    Client,
}

impl RequestLabel {
    /// The value of the label.
    pub(crate) fn as_str(self) -> &'static str {
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
            Self::Call(kind) => NON_CALLS + kind as usize,
        }
    }
}

/// Labels that are no calls.
const NON_CALLS: usize = 4;
const LABELS: usize = NON_CALLS + CallKind::ALL.len();

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            requests: Box::new([const { [const { AtomicU64::new(0) }; COUNTERS] }; LABELS]),
            upstream_cut: AtomicU64::new(0),
            client_gone: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            open: AtomicI64::new(0),
            durations: Histogram::new(),
            upstream: Histogram::new(),
        }
    }

    /// Counts the start of a request. [`finished`](Self::finished) must be called once for it.
    pub(crate) fn started(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a request.
    pub(crate) fn finished(&self, outcome: &RequestOutcome) {
        let RequestOutcome {
            label,
            status,
            cut,
            received,
            sent,
            duration,
            upstream,
        } = *outcome;
        self.open.fetch_sub(1, Ordering::Relaxed);
        let row = self.requests.get(label.index());
        if let Some(count) = row.and_then(|row| row.get(status_index(status))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match cut {
            None => {}
            Some(Interruption::Upstream) => _ = self.upstream_cut.fetch_add(1, Ordering::Relaxed),
            Some(Interruption::Client) => _ = self.client_gone.fetch_add(1, Ordering::Relaxed),
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

    /// The number of requests for each label and status that occurred.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (RequestLabel, &'static str, u64)> {
        let rows = RequestLabel::all().zip(self.requests.iter());
        let counts =
            rows.flat_map(|(label, row)| row.iter().enumerate().map(move |cell| (label, cell)));
        counts.filter_map(|(label, (index, count))| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| (label, status_label(index), count))
        })
    }

    /// Running requests.
    pub(crate) fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Responses that the upstream interrupted.
    pub(crate) fn upstream_cut(&self) -> u64 {
        self.upstream_cut.load(Ordering::Relaxed)
    }

    /// Requests whose client left before the end.
    pub(crate) fn client_gone(&self) -> u64 {
        self.client_gone.load(Ordering::Relaxed)
    }

    /// Bytes of request bodies.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of response bodies.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// From the request head to the end of the response.
    pub(crate) fn durations(&self) -> Durations {
        self.durations.read()
    }

    /// From forwarding to the upstream's response head.
    pub(crate) fn upstream(&self) -> Durations {
        self.upstream.read()
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

/// The statuses that have a label of their own, in order: those of moorgate and of registries.
const STATUSES: [&str; 34] = [
    "200", "201", "202", "204", "206", "301", "302", "303", "304", "307", "308", "400", "401",
    "403", "404", "405", "406", "409", "411", "412", "413", "414", "415", "416", "417", "421",
    "429", "431", "500", "501", "502", "503", "504", "507",
];

/// Counters of a label: one for each of [`STATUSES`], one for other statuses, one for none.
const COUNTERS: usize = STATUSES.len() + 2;

/// The counter of each status from 0 to 599.
static STATUS_INDEX: LazyLock<[usize; 600]> = LazyLock::new(|| {
    std::array::from_fn(|status| {
        let label = status.to_string();
        let index = STATUSES.iter().position(|known| *known == label);
        index.unwrap_or(OTHER_STATUS)
    })
});

const OTHER_STATUS: usize = STATUSES.len();
const NO_STATUS: usize = STATUSES.len() + 1;

fn status_index(status: Option<u16>) -> usize {
    let Some(status) = status else {
        return NO_STATUS;
    };
    let index = STATUS_INDEX.get(usize::from(status));
    index.copied().unwrap_or(OTHER_STATUS)
}

fn status_label(index: usize) -> &'static str {
    match STATUSES.get(index) {
        Some(label) => label,
        None if index == OTHER_STATUS => "other",
        None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> RequestOutcome {
        RequestOutcome {
            label: RequestLabel::Call(CallKind::BlobRead),
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
            outcome(),
            outcome(),
            RequestOutcome {
                status: Some(299),
                ..outcome()
            },
            RequestOutcome {
                label: RequestLabel::Nothing,
                status: Some(404),
                upstream: None,
                ..outcome()
            },
            RequestOutcome {
                label: RequestLabel::Page,
                status: None,
                cut: Some(Interruption::Client),
                received: 5,
                ..outcome()
            },
        ];
        for outcome in &all {
            traffic.started();
            traffic.finished(outcome);
        }
        traffic.started();
        let counted: Vec<_> = traffic
            .requests()
            .map(|(label, status, count)| (label.as_str(), status, count))
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
    fn each_label_is_at_its_index() {
        assert!(RequestLabel::all().map(RequestLabel::index).eq(0..LABELS));
    }

    #[test]
    fn each_status_is_counted_under_its_own_label() {
        for status in 0..=999_u16 {
            let text = status.to_string();
            let expected = STATUSES.iter().find(|label| **label == text);
            let label = status_label(status_index(Some(status)));
            assert_eq!(label, *expected.unwrap_or(&"other"));
        }
        assert_eq!(status_label(status_index(None)), "none");
    }
}
