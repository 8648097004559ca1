use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Budgets of 4 tries for an address and 6 for a user in a minute, and a clock.
struct TestLockout {
    lockout: Lockout,
    budgets: FailureBudgets,
    now: Instant,
}

impl TestLockout {
    fn new() -> Self {
        let now = Instant::now();
        let budgets = FailureBudgets {
            address: 4,
            user: 6,
            window: Duration::from_secs(60),
        };
        Self {
            lockout: Lockout::random(now),
            budgets,
            now,
        }
    }

    fn attempt(&self, from: &str, user: &str, password: u64) -> LoginAttempt {
        self.lockout
            .attempt(from.parse().expect("an address"), "ci.test", user, password)
    }

    /// Tries a wrong password.
    fn guess(&self, from: &str, user: &str, password: u64) -> &'static str {
        let attempt = self.attempt(from, user, password);
        match self.lockout.admit(&attempt, &self.budgets, self.now) {
            Admission::Admitted { .. } => {
                self.lockout.failed(&attempt, &self.budgets, self.now);
                "hashed"
            }
            Admission::KnownWrong => "known",
            Admission::Refused(refused) => refused.limit.as_str(),
        }
    }

    /// Guesses until a try is not hashed. Returns the number of hashes.
    fn guess_on(&self, from: &str, user: &str, first: u64) -> u64 {
        (first..)
            .take_while(|&password| self.guess(from, user, password) == "hashed")
            .count() as u64
    }

    fn is_admitted(&self, from: &str, user: &str) -> bool {
        let attempt = self.attempt(from, user, u64::MAX);
        matches!(
            self.lockout.evaluate(&attempt, &self.budgets, self.now),
            Admission::Admitted { .. }
        )
    }

    fn log_in(&self, from: &str, user: &str) {
        self.lockout
            .succeeded(&self.attempt(from, user, u64::MAX), self.now);
    }

    fn retry_after(&self, from: &str, user: &str) -> Duration {
        let attempt = self.attempt(from, user, u64::MAX);
        match self.lockout.evaluate(&attempt, &self.budgets, self.now) {
            Admission::Refused(refused) => refused.retry_after,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn an_address_has_its_tries_and_no_more() {
    let fixture = TestLockout::new();
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 1), 4);
    assert_eq!(
        fixture.guess("192.0.2.1", "bob", 9),
        "address",
        "for every user"
    );
    assert!(fixture.is_admitted("192.0.2.2", "alice"));
}

#[test]
fn a_repeated_password_counts_once_also_between_others() {
    let fixture = TestLockout::new();
    let tries: Vec<_> = (0..5)
        .map(|_| fixture.guess("192.0.2.1", "alice", 1))
        .collect();
    assert_eq!(tries, ["hashed", "known", "known", "known", "known"]);
    // As from three jobs behind one address.
    let tries: Vec<_> = (0..4)
        .flat_map(|_| [1, 2, 3].map(|p| fixture.guess("192.0.2.1", "alice", p)))
        .collect();
    assert_eq!(
        tries.iter().filter(|what| **what == "hashed").count(),
        2,
        "{tries:?}"
    );
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 4), 1);
    assert_eq!(fixture.lockout.status(fixture.now).repeated, 4 + 10);
}

#[test]
fn a_password_repeated_from_many_addresses_counts_once_for_the_user() {
    let fixture = TestLockout::new();
    // As from the machines of a farm whose password was changed.
    for machine in 1..=50 {
        assert_eq!(
            fixture.guess(&format!("10.0.0.{machine}"), "ci", 1),
            "hashed"
        );
    }
    assert_eq!(
        fixture.guess("10.0.0.1", "ci", 2),
        "hashed",
        "its budget is not used up"
    );
}

#[test]
fn tries_are_restored_one_by_one() {
    let mut fixture = TestLockout::new();
    fixture.guess_on("192.0.2.1", "alice", 1);
    assert_eq!(
        fixture.retry_after("192.0.2.1", "alice"),
        Duration::from_secs(15)
    );
    fixture.wait(14);
    assert_eq!(fixture.guess("192.0.2.1", "alice", 10), "address");
    assert_eq!(
        fixture.retry_after("192.0.2.1", "alice"),
        Duration::from_secs(1)
    );
    fixture.wait(1);
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 11), 1);
    fixture.wait(60);
    assert_eq!(fixture.lockout.status(fixture.now).addresses, 0);
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 20), 4);
}

#[test]
fn a_wrong_password_is_hashed_again_when_its_failure_no_longer_counts() {
    let mut fixture = TestLockout::new();
    assert_eq!(fixture.guess("192.0.2.1", "alice", 1), "hashed");
    fixture.wait(14);
    assert_eq!(fixture.guess("192.0.2.1", "alice", 1), "known");
    fixture.wait(1);
    assert_eq!(fixture.guess("192.0.2.1", "alice", 1), "hashed");
}

#[test]
fn a_network_of_ipv6_is_one_address() {
    let fixture = TestLockout::new();
    assert_eq!(fixture.guess_on("2001:db8:0:1::1", "alice", 1), 4);
    assert_eq!(
        fixture.guess("2001:db8:0:1:ffff:ffff:ffff:ffff", "alice", 9),
        "address"
    );
    assert!(fixture.is_admitted("2001:db8:0:2::1", "alice"));
    // An IPv4 address is the same over an IPv6 socket, and is alone.
    assert_eq!(fixture.guess_on("::ffff:192.0.2.1", "bob", 1), 4);
    assert_eq!(fixture.guess("192.0.2.1", "bob", 9), "address");
    assert!(fixture.is_admitted("192.0.2.2", "bob"));
}

#[test]
fn the_networks_of_one_customer_have_the_tries_of_sixteen() {
    let mut fixture = TestLockout::new();
    fixture.log_in("2001:db8:1:fff0::1", "alice");
    let guess = |fixture: &TestLockout, network: u64| {
        fixture.guess(&format!("2001:db8:1:{network:x}::1"), "alice", network + 1)
    };
    let answers: Vec<_> = (0..1000).map(|network| guess(&fixture, network)).collect();
    assert_eq!(
        answers.iter().filter(|answer| **answer == "hashed").count(),
        64,
        "sixteen times four"
    );
    assert!(
        answers[64..].iter().all(|answer| *answer == "network"),
        "{answers:?}"
    );
    assert!(
        !fixture.is_admitted("2001:db8:1:ffff::1", "bob"),
        "whatever name it is"
    );
    assert!(
        fixture.is_admitted("2001:db8:2::1", "alice") && fixture.is_admitted("192.0.2.1", "alice")
    );
    assert_eq!(
        fixture.guess_on("2001:db8:1:fff0::1", "alice", 2000),
        6,
        "where the user is at home"
    );
    // As an address has it, spread over sixteen times as many.
    fixture.wait(1);
    assert_eq!(
        (1000..1010)
            .filter(|network| guess(&fixture, *network) == "hashed")
            .count(),
        1
    );
    assert!(fixture.lockout.unlock_address(
        "2001:db8:1:ffff::1".parse().expect("an address"),
        fixture.now
    ));
    assert_eq!(guess(&fixture, 2000), "hashed");
}

#[test]
fn guessing_from_many_addresses_leaves_each_of_them_one_try_and_locks_out_nobody() {
    let mut fixture = TestLockout::new();
    fixture.log_in("10.0.0.1", "alice");
    for machine in 1..=6 {
        assert_eq!(
            fixture.guess(&format!("192.0.2.{machine}"), "alice", machine),
            "hashed"
        );
    }
    for machine in 1..=6 {
        assert_eq!(
            fixture.guess(&format!("192.0.2.{machine}"), "alice", 10 + machine),
            "user"
        );
    }
    // An address without failures is admitted, with one try.
    assert!(fixture.is_admitted("192.0.2.7", "alice"));
    assert_eq!(fixture.guess_on("192.0.2.7", "alice", 20), 1);
    // Other names, and the user where it is at home, are as before.
    assert_eq!(fixture.guess("192.0.2.1", "bob", 30), "hashed");
    assert_eq!(fixture.guess_on("10.0.0.1", "alice", 40), 6);
    fixture.wait(60);
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 50), 4);
}

#[test]
fn a_user_has_tries_of_its_own_where_it_has_logged_in() {
    let fixture = TestLockout::new();
    fixture.log_in("192.0.2.1", "alice");
    assert_eq!(fixture.guess_on("192.0.2.1", "bob", 1), 4);
    assert_eq!(fixture.guess("192.0.2.1", "carol", 9), "address");
    assert!(
        fixture.is_admitted("192.0.2.1", "alice"),
        "who shares the address does not lock out the user"
    );
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 10), 6);
    assert_eq!(fixture.guess("192.0.2.1", "alice", 20), "user at address");
    assert!(
        fixture.is_admitted("192.0.2.9", "alice"),
        "these say nothing of the name elsewhere"
    );
}

#[test]
fn a_right_password_resets_no_budget() {
    let fixture = TestLockout::new();
    let mut hashed = 0;
    for round in 0..10 {
        hashed += u32::from(fixture.guess("192.0.2.1", "alice", round + 1) == "hashed");
        fixture.log_in("192.0.2.1", "mallory");
    }
    assert_eq!(hashed, 4);
}

#[test]
fn an_admission_says_how_many_failures_count() {
    let fixture = TestLockout::new();
    let failures = |from| match fixture.lockout.evaluate(
        &fixture.attempt(from, "alice", 99),
        &fixture.budgets,
        fixture.now,
    ) {
        Admission::Admitted { failures } => failures,
        other => panic!("{other:?}"),
    };
    for count in 0..4 {
        assert_eq!(failures("192.0.2.1"), count);
        fixture.guess("192.0.2.1", "alice", u64::from(count) + 1);
    }
}

#[test]
fn an_unlocked_address_or_user_has_all_tries() {
    let fixture = TestLockout::new();
    let address = |text: &str| text.parse().expect("an address");
    let (lockout, now) = (&fixture.lockout, fixture.now);
    fixture.log_in("192.0.2.1", "alice");
    fixture.guess_on("192.0.2.1", "alice", 1);
    fixture.guess_on("192.0.2.1", "bob", 10);
    assert!(
        !lockout.unlock_user("other.test", "alice", now)
            && !lockout.unlock_address(address("::1"), now)
    );
    assert!(lockout.unlock_user("ci.test", "alice", now));
    assert!(!lockout.unlock_user("ci.test", "alice", now), "it is done");
    assert_eq!(fixture.guess("192.0.2.1", "bob", 19), "address");
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 20), 6);
    assert!(lockout.unlock_address(address("192.0.2.1"), now));
    assert_eq!(fixture.guess_on("192.0.2.1", "carol", 30), 4);
    assert_eq!(fixture.guess_on("192.0.2.1", "alice", 40), 6);
    lockout.unlock_all(now);
    assert!(fixture.is_admitted("192.0.2.1", "alice") && fixture.is_admitted("192.0.2.1", "bob"));
    assert_eq!(
        (lockout.status(now).addresses, lockout.status(now).users),
        (0, 0)
    );
}

#[test]
fn the_memory_for_many_addresses_and_names_is_bounded() {
    let fixture = TestLockout::new();
    assert_eq!(
        fixture.lockout.status(fixture.now).bytes,
        0,
        "no memory before the first failure"
    );
    for round in 0..4_u32 {
        for number in 0..100_000_u32 {
            let from = match round % 2 {
                0 => IpAddr::from((number + (10 << 24)).to_be_bytes()),
                // Each in a network of its own.
                _ => IpAddr::from(((0x2001 << 112) | (u128::from(number) << 80)).to_be_bytes()),
            };
            let user = format!("user{}", number % 10_000);
            let tag = u64::from(round * 100_000 + number + 1);
            let attempt = fixture.lockout.attempt(from, "ci.test", &user, tag);
            fixture
                .lockout
                .admit(&attempt, &fixture.budgets, fixture.now);
            fixture
                .lockout
                .failed(&attempt, &fixture.budgets, fixture.now);
        }
    }
    let status = fixture.lockout.status(fixture.now);
    assert!(status.bytes < 6 << 20, "{status:?}");
    assert!(
        status.addresses > ADDRESSES * 9 / 10 && status.users > 9_500,
        "{status:?}"
    );
    assert!(
        fixture.is_admitted("192.0.2.1", "alice"),
        "and who has done nothing is heard"
    );
}

#[test]
fn an_address_is_logged_once_a_minute() {
    let mut fixture = TestLockout::new();
    let logged = |fixture: &TestLockout, from: &str| match fixture.lockout.admit(
        &fixture.attempt(from, "alice", 99),
        &fixture.budgets,
        fixture.now,
    ) {
        Admission::Refused(refused) => refused.logged != Logged::No,
        other => panic!("{other:?}"),
    };
    fixture.guess_on("192.0.2.1", "bob", 1);
    // The one that ended the guessing was logged.
    assert!((0..10).all(|_| !logged(&fixture, "192.0.2.1")));
    // It goes on for minutes, with each try that comes back.
    let mut lines = Vec::new();
    for step in 0..12 {
        fixture.wait(15);
        assert_eq!(fixture.guess("192.0.2.1", "bob", 20 + step), "hashed");
        lines.push(logged(&fixture, "192.0.2.1"));
    }
    let minutes: Vec<_> = lines
        .chunks(4)
        .map(|minute| minute.iter().filter(|l| **l).count())
        .collect();
    assert_eq!(minutes, [1, 1, 1], "{lines:?}");
}

#[test]
fn the_log_lines_of_a_minute_are_bounded() {
    let (quota, minute) = (LogQuota::default(), Duration::from_secs(60));
    let at = |minutes: u32| Millis::after(minute * minutes);
    let lines = |minutes| {
        (0..1000)
            .filter(|_| quota.admit(at(minutes)) != Logged::No)
            .count()
    };
    assert_eq!(lines(1), 100);
    assert_eq!(quota.admit(at(2)), Logged::Yes { left_out: 900 });
    assert_eq!(quota.admit(at(2)), Logged::Yes { left_out: 0 });
}

proptest! {
    /// In a table that is far too small, each key is charged for at least all of its failures.
    #[test]
    fn an_eviction_erases_no_failure(
        guesses in prop::collection::vec((0_u64..2000, 0_u64..200), 1..4000)
    ) {
        let table = Table::new(512);
        let each = Duration::from_secs(600);
        let mut truth: HashMap<u64, Millis> = HashMap::new();
        let mut passed = Duration::ZERO;
        for (number, (who, later)) in (1..).zip(guesses) {
            passed += Duration::from_millis(later);
            let now = Millis::after(passed);
            // Well spread, like a keyed hash.
            let key = LockoutKey(who.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            table.charge(key, number, each, now);
            let until = truth.entry(who).or_default();
            *until = Millis::after((*until).max(now).since(Millis::after(Duration::ZERO)) + each);
            let held = table.get(key, now).expect("just charged").until;
            prop_assert!(held >= *until);
        }
        prop_assert!(table.bytes() <= 512 * 56);
    }

    /// Whatever others do, an address that has failed at nothing is heard.
    #[test]
    fn a_clean_address_is_always_heard(
        guesses in prop::collection::vec((0_u8..4, 0_u8..4, 1_u64..20, 0_u64..30), 0..300)
    ) {
        let mut fixture = TestLockout::new();
        for (from, user, password, later) in guesses {
            fixture.wait(later);
            fixture.guess(&format!("10.0.0.{from}"), &format!("user{user}"), password);
        }
        for user in ["user0", "user1", "user2", "user3", "alice"] {
            prop_assert!(fixture.is_admitted("192.0.2.1", user));
        }
    }

    /// In any time, an address has no more tries than its budget and what comes back.
    #[test]
    fn no_address_gets_more_than_its_budget(
        guesses in prop::collection::vec((0_u8..4, 0_u64..5), 0..300)
    ) {
        let mut fixture = TestLockout::new();
        let mut hashed = 0_u64;
        let mut passed = 0;
        for (number, (user, later)) in guesses.into_iter().enumerate() {
            fixture.wait(later);
            passed += later;
            hashed += u64::from(fixture.guess("10.0.0.1", &format!("user{user}"), number as u64 + 1) == "hashed");
            prop_assert!(hashed <= 4 + passed / 15);
        }
    }
}
