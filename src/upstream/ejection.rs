//! Whether one of several replicas is in service: which failures eject it, for how long, and what
//! brings it back. Decides by nothing but what it is told, and the time.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::health::FailureReason;

/// The service of one replica.
#[derive(Debug)]
pub(super) struct ReplicaService {
    /// Failed connections without an answer between them.
    connect_failures: u32,
    /// Failed answers of the last [`FAILURE_WINDOW`], as many as eject at most.
    failed_answers: VecDeque<Instant>,
    window: AnswerWindow,
    ejected: Option<Ejection>,
    /// How often it was ejected without [`MAX_EJECTION`] in service between.
    in_sequence: u32,
    returned: Option<Instant>,
    ejections: u64,
}

/// Answers since the window began.
#[derive(Debug)]
struct AnswerWindow {
    began: Instant,
    failed: u32,
}

/// Why a replica is out of service, and until when at least.
#[derive(Clone, Debug)]
pub(crate) struct Ejection {
    pub(crate) since: SystemTime,
    pub(crate) reason: FailureReason,
    /// The cause and the remedy.
    pub(crate) error: String,
    /// When it is tried again.
    pub(super) until: Instant,
}

/// A failure that may eject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplicaFailure {
    /// There was no connection.
    Connect,
    /// 502, 503, 504, or less than a whole answer.
    Answer,
}

impl ReplicaService {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connect_failures: 0,
            failed_answers: VecDeque::new(),
            window: AnswerWindow {
                began: now,
                failed: 0,
            },
            ejected: None,
            in_sequence: 0,
            returned: None,
            ejections: 0,
        }
    }

    /// It has answered.
    pub(super) fn answered(&mut self) {
        self.connect_failures = 0;
    }

    /// Whether the last connections failed.
    pub(super) fn is_suspect(&self) -> bool {
        self.connect_failures > 0
    }

    /// Whether this failure is one too many. `answers`: those since the window began.
    pub(super) fn failed(&mut self, failure: ReplicaFailure, answers: u32, now: Instant) -> bool {
        match failure {
            ReplicaFailure::Connect => {
                self.connect_failures = self.connect_failures.saturating_add(1);
                self.connect_failures >= MAX_CONNECT_FAILURES
            }
            ReplicaFailure::Answer => {
                self.window.failed = self.window.failed.saturating_add(1);
                while self.failed_answers.len() >= MAX_FAILED_ANSWERS {
                    self.failed_answers.pop_front();
                }
                self.failed_answers.push_back(now);
                let first = self.failed_answers.front();
                let are_many = self.failed_answers.len() == MAX_FAILED_ANSWERS
                    && first.is_some_and(|&first| now.duration_since(first) <= FAILURE_WINDOW);
                are_many || answers >= MIN_ANSWERS && self.window.failed > answers / 2
            }
        }
    }

    /// Whether the window is over, and a new one begins.
    pub(super) fn begins_window(&mut self, now: Instant) -> bool {
        let is_over = now.duration_since(self.window.began) > FAILURE_WINDOW;
        if is_over {
            self.window = AnswerWindow {
                began: now,
                failed: 0,
            };
        }
        is_over
    }

    /// Takes it out of service, for longer each time; also one that is out already.
    pub(super) fn eject(&mut self, reason: FailureReason, error: String, now: Instant) {
        let was_steady = |returned| now.duration_since(returned) > MAX_EJECTION;
        if self.ejected.is_none() && self.returned.is_some_and(was_steady) {
            self.in_sequence = 0;
        }
        let time = FIRST_EJECTION
            .saturating_mul(1 << self.in_sequence.min(8))
            .min(MAX_EJECTION);
        self.in_sequence = self.in_sequence.saturating_add(1);
        let since = match self.ejected.take() {
            Some(before) => before.since,
            None => {
                self.ejections += 1;
                SystemTime::now()
            }
        };
        self.ejected = Some(Ejection {
            since,
            reason,
            error,
            until: now + time,
        });
    }

    /// Brings it back, if it was out.
    pub(super) fn restore(&mut self, now: Instant) -> Option<Ejection> {
        let ejected = self.ejected.take()?;
        self.connect_failures = 0;
        self.failed_answers.clear();
        self.window = AnswerWindow {
            began: now,
            failed: 0,
        };
        self.returned = Some(now);
        Some(ejected)
    }

    pub(super) fn ejected(&self) -> Option<&Ejection> {
        self.ejected.as_ref()
    }

    /// Since the start of the process.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections
    }
}

/// Whether one more of so many replicas may be ejected: at most half of them.
pub(super) fn may_eject(replicas: usize, ejected: usize) -> bool {
    (ejected + 1) * 2 <= replicas
}

const MAX_CONNECT_FAILURES: u32 = 3;
const MAX_FAILED_ANSWERS: usize = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(30);
/// The fewest answers of which a share says something.
const MIN_ANSWERS: u32 = 20;
const FIRST_EJECTION: Duration = Duration::from_secs(5);
const MAX_EJECTION: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn eject(service: &mut ReplicaService, now: Instant) -> u64 {
        service.eject(FailureReason::Refused, String::new(), now);
        let until = service.ejected().unwrap().until;
        until.duration_since(now).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn three_failed_connections_in_a_row_eject() {
        let now = Instant::now();
        let mut service = ReplicaService::new(now);
        let refused =
            |service: &mut ReplicaService| service.failed(ReplicaFailure::Connect, 1_000_000, now);
        for _ in 0..3 {
            assert!(!refused(&mut service) && !refused(&mut service));
            service.answered();
        }
        assert!(!refused(&mut service) && !refused(&mut service));
        assert!(refused(&mut service));
    }

    #[tokio::test(start_paused = true)]
    async fn five_failed_answers_within_30_s_eject() {
        let start = Instant::now();
        let mut service = ReplicaService::new(start);
        let mut at = |second| {
            let now = start + seconds(second);
            service.failed(ReplicaFailure::Answer, 1000, now)
        };
        let found = [0, 8, 16, 24, 32, 33, 34, 35, 46].map(&mut at);
        assert_eq!(found[..5], [false; 5], "{found:?}");
        assert!(found[5], "8 to 33: {found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_of_twenty_answers_eject() {
        let start = Instant::now();
        let mut service = ReplicaService::new(start);
        service.window.failed = 10;
        assert!(
            !service.failed(ReplicaFailure::Answer, 19, start),
            "too few"
        );
        assert!(
            !service.failed(ReplicaFailure::Answer, 24, start),
            "12 of 24"
        );
        assert!(
            service.failed(ReplicaFailure::Answer, 25, start),
            "13 of 25"
        );
        assert!(!service.begins_window(start + seconds(30)));
        assert!(service.begins_window(start + seconds(31)));
        assert_eq!(service.window.failed, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejection_lasts_5_s_and_twice_as_long_each_time_up_to_60() {
        let mut now = Instant::now();
        let mut service = ReplicaService::new(now);
        let times = [0; 6].map(|_| eject(&mut service, now));
        assert_eq!(times, [5, 10, 20, 40, 60, 60]);
        assert_eq!(service.ejections(), 1, "it has not been back");
        assert!(service.restore(now).is_some());
        assert!(service.restore(now).is_none());
        now += seconds(60);
        assert_eq!(eject(&mut service, now), 60, "soon after it was back");
        service.restore(now);
        now += seconds(61);
        assert_eq!(eject(&mut service, now), 5);
        assert_eq!(service.ejections(), 3);
    }

    #[test]
    fn at_most_half_are_ejected_and_one_stays() {
        let most = |replicas| {
            (0..)
                .find(|&ejected| !may_eject(replicas, ejected))
                .unwrap()
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(most), [0, 1, 1, 2, 2, 3]);
    }
}
