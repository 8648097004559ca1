use std::time::Duration;

use super::*;
use crate::auth::basic;
use crate::crypto::TagKey;

/// A queue without threads for two untrusted checks. Checks differ by their domain.
struct TestQueue {
    queue: PasswordQueue,
    key: TagKey,
}

type Receiver = watch::Receiver<Option<Verdict>>;

impl TestQueue {
    fn new() -> Self {
        Self::with_bound(2)
    }

    fn with_bound(bound: usize) -> Self {
        let remembered = PasswordCache::new(Duration::from_secs(60), 10);
        let queue = PasswordQueue::new(remembered, Lockout::random(Instant::now()), bound);
        Self {
            queue,
            key: TagKey::random().expect("randomness"),
        }
    }

    fn check(&self, domain: &str, from: &str) -> Check {
        let credentials = basic::parse(b"Basic YTpi").expect("credentials");
        let hash = BcryptHash::decoy(Cost::DEFAULT);
        let (tag, key) = (
            CredentialTag::from_password(&self.key, domain, &credentials, &hash),
            BcryptKey::new(b"b"),
        );
        let from = from.parse().expect("an address");
        let attempt = self.queue.lockout.attempt(from, domain, "a", tag.short());
        let budgets = FailureBudgets {
            address: 4,
            ..FailureBudgets::default()
        };
        let rank = match self
            .queue
            .lockout
            .evaluate(&attempt, &budgets, Instant::now())
        {
            Admission::Admitted { failures } => failures,
            other => panic!("{other:?}"),
        };
        Check {
            tag,
            key,
            hash,
            highest: hash.cost(),
            requested_at: Instant::now(),
            attempt,
            budgets,
            rank,
        }
    }

    fn enter(&self, domain: &str) -> Result<Ticket, Full> {
        self.queue.enter(self.check(domain, "192.0.2.1"))
    }

    fn wait(&self, domain: &str) -> Receiver {
        self.wait_from("192.0.2.1", domain)
    }

    fn wait_from(&self, from: &str, domain: &str) -> Receiver {
        match self.queue.enter(self.check(domain, from)) {
            Ok(Ticket::Waiting(receiver) | Ticket::Joined(receiver)) => receiver,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    /// Fails `times` times from an address.
    fn fail(&self, from: &str, times: usize) {
        for time in 0..times {
            let wrong = self.wait_from(from, &format!("{from} {time}"));
            self.work(|_| Verdict::Wrong);
            assert_eq!(verdict(&wrong), Some(Verdict::Wrong));
        }
    }

    fn take(&self) -> Option<Check> {
        self.queue.queue().take()
    }

    /// Runs all checks that wait. Returns the number of hashes.
    fn work(&self, verify: impl Fn(&Check) -> Verdict) -> u64 {
        let before = self.queue.hashed();
        while let Some(check) = self.take() {
            self.queue.run(&check, &verify);
        }
        self.queue.hashed() - before
    }
}

fn verdict(receiver: &Receiver) -> Option<Verdict> {
    *receiver.borrow()
}

#[test]
fn equal_passwords_share_one_check() {
    let fixture = TestQueue::new();
    let all: Vec<_> = (0..100).map(|_| fixture.wait("a")).collect();
    assert_eq!(fixture.queue.waiting(), 1);
    assert_eq!(fixture.work(|_| Verdict::Right), 1);
    assert!(
        all.iter()
            .all(|receiver| verdict(receiver) == Some(Verdict::Right))
    );
    assert!(matches!(fixture.enter("a"), Ok(Ticket::Verified)));
    assert!(fixture.queue.queue().in_flight() == 0);
}

#[test]
fn a_request_that_joins_a_running_check_gets_its_verdict() {
    let fixture = TestQueue::new();
    let first = fixture.wait("a");
    let check = fixture.take().expect("waiting");
    let second = fixture.wait("a");
    assert!(fixture.take().is_none());
    fixture.queue.run(&check, |_| Verdict::Wrong);
    assert_eq!([&first, &second].map(verdict), [Some(Verdict::Wrong); 2]);
    let _third = fixture.wait_from("192.0.2.2", "a");
    assert_eq!(fixture.queue.waiting(), 1, "a wrong password is not cached");
}

#[test]
fn a_check_whose_clients_have_gone_is_dropped() {
    let fixture = TestQueue::new();
    drop([fixture.wait("a"), fixture.wait("a")]);
    let (gone, stays) = (fixture.wait("b"), fixture.wait("b"));
    drop(gone);
    assert_eq!(fixture.work(|_| Verdict::Right), 1);
    assert_eq!(verdict(&stays), Some(Verdict::Right));
    assert!(fixture.queue.queue().in_flight() == 0);
}

#[test]
fn a_full_queue_refuses_new_checks_and_none_that_join() {
    let fixture = TestQueue::new();
    let (a, _b) = (fixture.wait("a"), fixture.wait("b"));
    assert!(matches!(fixture.enter("c"), Err(Full)));
    let joined = fixture.wait("b");
    drop(a);
    let c = fixture.wait("c");
    assert_eq!(fixture.work(|_| Verdict::Wrong), 2);
    assert_eq!([&joined, &c].map(verdict), [Some(Verdict::Wrong); 2]);
}

#[test]
fn checks_of_addresses_with_fewer_failures_run_first() {
    let fixture = TestQueue::with_bound(10);
    fixture.fail("192.0.2.1", 2);
    fixture.fail("192.0.2.2", 1);
    let from = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let _waiting = from.map(|from| fixture.wait_from(from, from));
    let order: Vec<_> = (0..4)
        .map(|_| fixture.take().expect("waiting").attempt.address())
        .collect();
    assert_eq!(
        order,
        [from[2], from[3], from[1], from[0]].map(|from| fixture.check("", from).attempt.address())
    );
}

#[test]
fn addresses_alternate_however_many_connections_they_have() {
    let fixture = TestQueue::with_bound(10);
    let _many: Vec<_> = (0..3)
        .map(|n| fixture.wait_from("192.0.2.1", &format!("many {n}")))
        .collect();
    let _one = fixture.wait_from("192.0.2.2", "one");
    let order: Vec<_> = (0..4)
        .map(|_| fixture.take().expect("waiting").attempt.address())
        .collect();
    let [many, one] =
        ["192.0.2.1", "192.0.2.2"].map(|from| fixture.check("", from).attempt.address());
    assert_eq!(order, [many, one, many, many]);
}

#[test]
fn a_full_queue_drops_the_check_with_the_worst_rank() {
    let fixture = TestQueue::with_bound(3);
    fixture.fail("192.0.2.1", 1);
    let flood = [0, 1, 2].map(|n| fixture.wait_from("192.0.2.1", &format!("flood {n}")));
    let fresh = fixture.wait_from("192.0.2.2", "fresh");
    assert!(
        flood[2].has_changed().is_err(),
        "the last check of the flood is dropped"
    );
    assert!(flood[0].has_changed().is_ok() && flood[1].has_changed().is_ok());
    let check = fixture.take().expect("waiting");
    fixture.queue.run(&check, |_| Verdict::Right);
    assert_eq!(verdict(&fresh), Some(Verdict::Right));
    // An address does not evict one with as many connections, nor one with fewer.
    let equals = ["192.0.2.3", "192.0.2.4", "192.0.2.5"].map(|from| fixture.wait_from(from, from));
    assert!(flood.iter().all(|receiver| receiver.has_changed().is_err()));
    for from in ["192.0.2.6", "192.0.2.3"] {
        assert!(
            matches!(
                fixture.queue.enter(fixture.check("another", from)),
                Err(Full)
            ),
            "{from}"
        );
    }
    assert!(equals.iter().all(|receiver| receiver.has_changed().is_ok()));
}

#[test]
fn a_shared_check_has_the_better_rank_of_its_clients() {
    let fixture = TestQueue::with_bound(10);
    fixture.fail("192.0.2.1", 2);
    let shared = fixture.wait_from("192.0.2.1", "shared");
    let _other = fixture.wait_from("192.0.2.2", "other");
    let _more = fixture.wait_from("192.0.2.2", "more");
    let joined = fixture.wait_from("192.0.2.3", "shared");
    let first = fixture.take().expect("waiting");
    fixture.queue.run(&first, |_| Verdict::Right);
    assert_eq!([&shared, &joined].map(verdict), [Some(Verdict::Right); 2]);
}

#[test]
fn waiting_checks_cost_no_hash_when_the_budget_is_used_up() {
    let fixture = TestQueue::with_bound(10);
    let flood: Vec<_> = (0..10)
        .map(|n| fixture.wait_from("192.0.2.1", &format!("flood {n}")))
        .collect();
    assert_eq!(
        fixture.work(|_| Verdict::Wrong),
        4,
        "the budget of an address"
    );
    let refused = flood
        .iter()
        .filter(|receiver| verdict(receiver) == Some(Verdict::Refused))
        .count();
    assert_eq!(refused, 6);
}

#[test]
fn a_failure_counts_when_the_client_leaves_before_the_verdict() {
    let fixture = TestQueue::with_bound(10);
    for n in 0..4 {
        let gone = fixture.wait_from("192.0.2.1", &format!("gone {n}"));
        let check = fixture.take().expect("waiting");
        drop(gone);
        fixture.queue.run(&check, |_| Verdict::Wrong);
    }
    let attempt = fixture
        .queue
        .lockout
        .attempt("192.0.2.1".parse().expect("valid"), "d", "a", 1);
    let budgets = FailureBudgets {
        address: 4,
        ..FailureBudgets::default()
    };
    assert!(matches!(
        fixture
            .queue
            .lockout
            .evaluate(&attempt, &budgets, Instant::now()),
        Admission::Refused(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_stale_pair_runs_before_untrusted_checks() {
    let fixture = TestQueue::new();
    let _first = fixture.wait("known");
    fixture.work(|_| Verdict::Right);
    tokio::time::advance(Duration::from_secs(60)).await;
    let _untrusted = [fixture.wait("a"), fixture.wait("b")];
    let known = fixture.wait("known");
    let check = fixture.take().expect("waiting");
    fixture.queue.run(&check, |_| Verdict::Right);
    assert_eq!(verdict(&known), Some(Verdict::Right));
    assert_eq!(fixture.queue.waiting(), 2);
}

#[test]
fn a_panic_ends_one_check_and_not_the_queue() {
    let fixture = TestQueue::new();
    let broken = fixture.wait("a");
    assert_eq!(fixture.work(|_| panic!("as if bcrypt had a bug")), 1);
    assert!(
        verdict(&broken).is_none() && broken.has_changed().is_err(),
        "the sender is gone"
    );
    let next = fixture.wait("a");
    assert_eq!(fixture.work(|_| Verdict::Right), 1);
    assert_eq!(verdict(&next), Some(Verdict::Right));
}

#[test]
fn closing_ends_the_threads_and_the_waits() {
    let fixture = TestQueue::new();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| fixture.queue.work(|_| Verdict::Wrong));
        fixture.queue.close();
        thread.join().expect("no panic");
    });
    let waiting = fixture.wait("a");
    fixture.queue.close();
    assert!(waiting.has_changed().is_err());
    fixture.queue.work(|_| Verdict::Wrong);
    assert_eq!(fixture.queue.hashed(), 0);
}
