use std::time::Duration;

use super::*;
use crate::auth::basic;
use crate::auth::cache::TagKey;

/// A gate without threads, with room for two strangers. The domain makes one check another.
struct Bench {
    gate: Gate,
    key: TagKey,
}

type Receiver = watch::Receiver<Option<Verdict>>;

impl Bench {
    fn new() -> Self {
        let remembered = Remembered::new(Duration::from_secs(60), 10);
        Self { gate: Gate::new(remembered, 2), key: TagKey::random().expect("randomness") }
    }

    fn enter(&self, domain: &str) -> Result<Ticket, Full> {
        let credentials = basic::parse(b"Basic YTpi").expect("credentials");
        let hash = BcryptHash::decoy(Cost::DEFAULT);
        let (tag, key) = (self.key.tag(domain, &credentials, &hash), BcryptKey::new(b"b"));
        self.gate.enter(Check { tag, key, hash, highest: hash.cost(), asked: Instant::now() })
    }

    fn wait(&self, domain: &str) -> Receiver {
        match self.enter(domain) {
            Ok(Ticket::Waiting(receiver)) => receiver,
            other => panic!("expected to wait, got {other:?}"),
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
    assert!(all.iter().all(|receiver| verdict(receiver) == Some(Verdict::Right)));
    assert!(matches!(bench.enter("a"), Ok(Ticket::Remembered)));
    assert!(bench.gate.line().flights.is_empty());
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
    let _third = bench.wait("a");
    assert_eq!(bench.gate.waiting(), 1, "a wrong password is not remembered");
}

#[test]
fn a_check_for_clients_that_have_gone_is_dropped() {
    let bench = Bench::new();
    drop([bench.wait("a"), bench.wait("a")]);
    let (gone, stays) = (bench.wait("b"), bench.wait("b"));
    drop(gone);
    assert_eq!(bench.work(|_| Verdict::Right), 1);
    assert_eq!(verdict(&stays), Some(Verdict::Right));
    assert!(bench.gate.line().flights.is_empty());
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
    assert!(verdict(&broken).is_none() && broken.has_changed().is_err(), "the sender is gone");
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
