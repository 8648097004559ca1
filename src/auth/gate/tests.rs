use std::time::Duration;

use super::*;
use crate::auth::basic;
use crate::crypto::TagKey;

/// A gate without threads, with room for two strangers. The domain makes one check another.
struct Bench {
    gate: PasswordQueue,
    key: TagKey,
}

type Receiver = watch::Receiver<Option<Verdict>>;

impl Bench {
    fn new() -> Self {
        Self::with_room(2)
    }

    fn with_room(bound: usize) -> Self {
        let remembered = PasswordCache::new(Duration::from_secs(60), 10);
        let gate = PasswordQueue::new(remembered, Lockout::new(Instant::now()), bound);
        Self {
            gate,
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
        let attempt = self.gate.lockout.attempt(from, domain, "a", tag.short());
        let budgets = FailureBudgets {
            address: 4,
            ..FailureBudgets::default()
        };
        let rank = match self.gate.lockout.judge(&attempt, &budgets, Instant::now()) {
            Admission::Admitted { failures } => failures,
            other => panic!("{other:?}"),
        };
        Check {
            tag,
            key,
            hash,
            highest: hash.cost(),
            asked: Instant::now(),
            attempt,
            budgets,
            rank,
        }
    }

    fn enter(&self, domain: &str) -> Result<Ticket, Full> {
        self.gate.enter(self.check(domain, "192.0.2.1"))
    }

    fn wait(&self, domain: &str) -> Receiver {
        self.wait_from("192.0.2.1", domain)
    }

    fn wait_from(&self, from: &str, domain: &str) -> Receiver {
        match self.gate.enter(self.check(domain, from)) {
            Ok(Ticket::Waiting(receiver) | Ticket::Joined(receiver)) => receiver,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    /// Fails so many times from an address.
    fn fail(&self, from: &str, times: usize) {
        for time in 0..times {
            let wrong = self.wait_from(from, &format!("{from} {time}"));
            self.work(|_| Verdict::Wrong);
            assert_eq!(verdict(&wrong), Some(Verdict::Wrong));
        }
    }

    fn take(&self) -> Option<Check> {
        self.gate.line().take()
    }

    /// Does everything that waits, and says how many hashes that were.
    fn work(&self, verify: impl Fn(&Check) -> Verdict) -> u64 {
        let before = self.gate.hashed();
        while let Some(check) = self.take() {
            self.gate.run(&check, &verify);
        }
        self.gate.hashed() - before
    }
}

fn verdict(receiver: &Receiver) -> Option<Verdict> {
    *receiver.borrow()
}

#[test]
fn one_password_is_one_check_for_all_who_ask() {
    let bench = Bench::new();
    let all: Vec<_> = (0..100).map(|_| bench.wait("a")).collect();
    assert_eq!(bench.gate.waiting(), 1);
    assert_eq!(bench.work(|_| Verdict::Right), 1);
    assert!(
        all.iter()
            .all(|receiver| verdict(receiver) == Some(Verdict::Right))
    );
    assert!(matches!(bench.enter("a"), Ok(Ticket::Verified)));
    assert!(bench.gate.line().in_flight() == 0);
}

#[test]
fn whoever_comes_while_it_runs_gets_its_verdict() {
    let bench = Bench::new();
    let first = bench.wait("a");
    let check = bench.take().expect("waiting");
    let second = bench.wait("a");
    assert!(bench.take().is_none());
    bench.gate.run(&check, |_| Verdict::Wrong);
    assert_eq!([&first, &second].map(verdict), [Some(Verdict::Wrong); 2]);
    let _third = bench.wait_from("192.0.2.2", "a");
    assert_eq!(
        bench.gate.waiting(),
        1,
        "a wrong password is not remembered for others"
    );
}

#[test]
fn a_check_for_clients_that_have_gone_is_dropped() {
    let bench = Bench::new();
    drop([bench.wait("a"), bench.wait("a")]);
    let (gone, stays) = (bench.wait("b"), bench.wait("b"));
    drop(gone);
    assert_eq!(bench.work(|_| Verdict::Right), 1);
    assert_eq!(verdict(&stays), Some(Verdict::Right));
    assert!(bench.gate.line().in_flight() == 0);
}

#[test]
fn a_full_line_turns_away_strangers_but_nobody_who_joins() {
    let bench = Bench::new();
    let (a, _b) = (bench.wait("a"), bench.wait("b"));
    assert!(matches!(bench.enter("c"), Err(Full)));
    let joined = bench.wait("b");
    drop(a);
    let c = bench.wait("c");
    assert_eq!(bench.work(|_| Verdict::Wrong), 2);
    assert_eq!([&joined, &c].map(verdict), [Some(Verdict::Wrong); 2]);
}

#[test]
fn who_has_less_behind_him_goes_first() {
    let bench = Bench::with_room(10);
    bench.fail("192.0.2.1", 2);
    bench.fail("192.0.2.2", 1);
    let from = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let _waiting = from.map(|from| bench.wait_from(from, from));
    let order: Vec<_> = (0..4)
        .map(|_| bench.take().expect("waiting").attempt.address())
        .collect();
    assert_eq!(
        order,
        [from[2], from[3], from[1], from[0]].map(|from| bench.check("", from).attempt.address())
    );
}

#[test]
fn addresses_take_turns_however_many_connections_they_have() {
    let bench = Bench::with_room(10);
    let _many: Vec<_> = (0..3)
        .map(|n| bench.wait_from("192.0.2.1", &format!("many {n}")))
        .collect();
    let _one = bench.wait_from("192.0.2.2", "one");
    let order: Vec<_> = (0..4)
        .map(|_| bench.take().expect("waiting").attempt.address())
        .collect();
    let [many, one] =
        ["192.0.2.1", "192.0.2.2"].map(|from| bench.check("", from).attempt.address());
    assert_eq!(order, [many, one, many, many]);
}

#[test]
fn in_a_full_line_whoever_has_more_behind_him_gives_way() {
    let bench = Bench::with_room(3);
    bench.fail("192.0.2.1", 1);
    let flood = [0, 1, 2].map(|n| bench.wait_from("192.0.2.1", &format!("flood {n}")));
    let fresh = bench.wait_from("192.0.2.2", "fresh");
    assert!(
        flood[2].has_changed().is_err(),
        "the last of the flood is told to come back"
    );
    assert!(flood[0].has_changed().is_ok() && flood[1].has_changed().is_ok());
    let check = bench.take().expect("waiting");
    bench.gate.run(&check, |_| Verdict::Right);
    assert_eq!(verdict(&fresh), Some(Verdict::Right));
    // An address does not evict one with as many connections, nor one with fewer.
    let equals = ["192.0.2.3", "192.0.2.4", "192.0.2.5"].map(|from| bench.wait_from(from, from));
    assert!(flood.iter().all(|receiver| receiver.has_changed().is_err()));
    for from in ["192.0.2.6", "192.0.2.3"] {
        assert!(
            matches!(bench.gate.enter(bench.check("another", from)), Err(Full)),
            "{from}"
        );
    }
    assert!(equals.iter().all(|receiver| receiver.has_changed().is_ok()));
}

#[test]
fn a_check_that_somebody_with_less_behind_him_joins_is_his() {
    let bench = Bench::with_room(10);
    bench.fail("192.0.2.1", 2);
    let shared = bench.wait_from("192.0.2.1", "shared");
    let _other = bench.wait_from("192.0.2.2", "other");
    let _more = bench.wait_from("192.0.2.2", "more");
    let joined = bench.wait_from("192.0.2.3", "shared");
    let first = bench.take().expect("waiting");
    bench.gate.run(&first, |_| Verdict::Right);
    assert_eq!([&shared, &joined].map(verdict), [Some(Verdict::Right); 2]);
}

#[test]
fn what_an_address_has_in_line_costs_no_hash_when_its_tries_are_used_up() {
    let bench = Bench::with_room(10);
    let flood: Vec<_> = (0..10)
        .map(|n| bench.wait_from("192.0.2.1", &format!("flood {n}")))
        .collect();
    assert_eq!(
        bench.work(|_| Verdict::Wrong),
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
fn who_leaves_before_the_verdict_is_charged_all_the_same() {
    let bench = Bench::with_room(10);
    for n in 0..4 {
        let gone = bench.wait_from("192.0.2.1", &format!("gone {n}"));
        let check = bench.take().expect("waiting");
        drop(gone);
        bench.gate.run(&check, |_| Verdict::Wrong);
    }
    let attempt = bench
        .gate
        .lockout
        .attempt("192.0.2.1".parse().expect("valid"), "d", "a", 1);
    let budgets = FailureBudgets {
        address: 4,
        ..FailureBudgets::default()
    };
    assert!(matches!(
        bench.gate.lockout.judge(&attempt, &budgets, Instant::now()),
        Admission::Refused(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn who_was_right_an_hour_ago_does_not_stand_behind_strangers() {
    let bench = Bench::new();
    let _first = bench.wait("known");
    bench.work(|_| Verdict::Right);
    tokio::time::advance(Duration::from_secs(60)).await;
    let _strangers = [bench.wait("a"), bench.wait("b")];
    let known = bench.wait("known");
    let check = bench.take().expect("waiting");
    bench.gate.run(&check, |_| Verdict::Right);
    assert_eq!(verdict(&known), Some(Verdict::Right));
    assert_eq!(bench.gate.waiting(), 2);
}

#[test]
fn a_panic_ends_one_check_and_not_the_gate() {
    let bench = Bench::new();
    let broken = bench.wait("a");
    assert_eq!(bench.work(|_| panic!("as if bcrypt had a bug")), 1);
    assert!(
        verdict(&broken).is_none() && broken.has_changed().is_err(),
        "the sender is gone"
    );
    let next = bench.wait("a");
    assert_eq!(bench.work(|_| Verdict::Right), 1);
    assert_eq!(verdict(&next), Some(Verdict::Right));
}

#[test]
fn closing_ends_the_threads_and_turns_away_who_waits() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| bench.gate.work(|_| Verdict::Wrong));
        bench.gate.close();
        thread.join().expect("no panic");
    });
    let waiting = bench.wait("a");
    bench.gate.close();
    assert!(waiting.has_changed().is_err());
    bench.gate.work(|_| Verdict::Wrong);
    assert_eq!(bench.gate.hashed(), 0);
}
