use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_000
}

fn lets_encrypt() -> CaId {
    CaId::new("https://acme-v02.api.letsencrypt.org/directory").expect("a URL")
}

fn names(names: &[&str]) -> NameSet {
    NameSet::new(names).expect("names")
}

fn request<'a>(ca: &'a CaId, names: &'a NameSet, kind: OrderKind) -> OrderRequest<'a> {
    OrderRequest {
        ca,
        account: "https://ca.example/account/1",
        names,
        kind,
        held: None,
    }
}

fn failure(kind: FailureKind, retry_after: Option<Duration>) -> Failure {
    Failure {
        kind,
        retry_after,
        message: "as the CA put it".into(),
        not_failed: Vec::new(),
    }
}

/// A certificate of so many days that expires at `end`.
fn held(days: u32, end: SystemTime) -> Option<Validity> {
    Some(Validity {
        not_before: end - DAY * days,
        not_after: end,
    })
}

#[test]
fn waits_grow_to_a_day_and_no_further() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::New);
    let (mut ledger, mut now) = (Ledger::new(start()), start());
    for expected in [1, 10, 100, 1440, 1440, 1440] {
        ledger.place(request, now).expect("free");
        ledger.record(
            Event::Failed(request, failure(FailureKind::Validation, None)),
            now,
        );
        let until = ledger.may_order(&request, now).expect_err("backing off");
        assert!(
            matches!(until.why, BlockReason::BackingOff { .. }),
            "{until}"
        );
        let wait = until.at.duration_since(now).expect("later");
        let usual = MINUTE * expected;
        assert!(
            wait >= usual * 9 / 10 && wait <= usual * 11 / 10,
            "{wait:?} instead of {usual:?}"
        );
        assert!(
            ledger
                .may_order(&request, until.at - Duration::from_secs(1))
                .is_err()
        );
        now = until.at;
    }
    ledger.place(request, now).expect("never given up");
    ledger.record(Event::Issued(request), now);
    assert_eq!(ledger.may_order(&request, now), Ok(()), "forgiven");
}

#[test]
fn names_that_fail_together_do_not_return_together() {
    let ca = lets_encrypt();
    let mut ledger = Ledger::new(start());
    let waits: BTreeSet<_> = (0..100)
        .map(|n| {
            let names = names(&[&format!("a{n}.example.com")]);
            let request = request(&ca, &names, OrderKind::Renewal);
            for _ in 0..4 {
                ledger.record(
                    Event::Failed(request, failure(FailureKind::Unavailable, None)),
                    start(),
                );
            }
            ledger.may_order(
                &OrderRequest {
                    held: held(90, start() + 30 * DAY),
                    ..request
                },
                start(),
            )
        })
        .map(|until| until.expect_err("backing off").at)
        .collect();
    assert!(waits.len() > 80);
    let spread = waits
        .last()
        .expect("many")
        .duration_since(*waits.first().expect("many"))
        .expect("sorted");
    assert!(spread > 3 * HOUR, "{spread:?}");
}

#[test]
fn what_is_about_to_end_is_tried_more_often_than_daily() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let mut ledger = Ledger::new(start());
    let wait = |ledger: &Ledger, held| {
        let request = OrderRequest {
            held,
            ..request(&ca, &names, OrderKind::Renewal)
        };
        let until = ledger
            .may_order(&request, start())
            .expect_err("backing off");
        until.at.duration_since(start()).expect("later")
    };
    for _ in 0..5 {
        let request = request(&ca, &names, OrderKind::Renewal);
        ledger.record(
            Event::Failed(request, failure(FailureKind::Refused, None)),
            start(),
        );
    }
    assert!(wait(&ledger, held(90, start() + 20 * DAY)) > 20 * HOUR);
    assert!(wait(&ledger, held(90, start() + 2 * DAY)) < 7 * HOUR);
    assert!(wait(&ledger, held(90, start() + HOUR)) < HOUR / 4);
    assert!(wait(&ledger, held(90, start() + MINUTE)) < MINUTE * 3 / 4);
    assert!(
        wait(&ledger, held(90, start() - HOUR)) > 20 * HOUR,
        "it is over, and the CA refuses"
    );
    assert!(
        wait(&ledger, held(1, start() - HOUR)) < 4 * HOUR,
        "it lived for a day"
    );
    assert!(wait(&ledger, None) > 20 * HOUR);
    let request = request(&ca, &names, OrderKind::Renewal);
    ledger.record(
        Event::Failed(request, failure(FailureKind::Unavailable, None)),
        start(),
    );
    assert!(
        wait(&ledger, None) < 2 * HOUR,
        "the CA is out of order, and there is nothing to serve"
    );
    assert!(wait(&ledger, held(90, start() - HOUR)) < 2 * HOUR);
}

/// When an order for a certificate of ten minutes, half of which is over, is tried until its end,
/// if each attempt fails: seconds that are left of it.
fn tries_until_the_end(ca: &CaId, kind: FailureKind) -> Vec<u64> {
    let names = names(&["a.example.com"]);
    let end = start() + 5 * MINUTE;
    let request = OrderRequest {
        held: Some(Validity {
            not_before: end - 10 * MINUTE,
            not_after: end,
        }),
        ..request(ca, &names, OrderKind::Renewal)
    };
    let (mut ledger, mut now, mut tries) = (Ledger::new(start()), start(), Vec::new());
    while let Ok(left) = end.duration_since(now) {
        if let Err(until) = ledger.place(request, now) {
            now = until.at;
            continue;
        }
        tries.push(left.as_secs());
        if kind != FailureKind::Validation {
            ledger.record(Event::NotPlaced(request), now);
        }
        ledger.record(Event::Failed(request, failure(kind, None)), now);
    }
    tries
}

#[test]
fn a_certificate_of_ten_minutes_is_tried_until_its_end() {
    let private = CaId::new("https://ca.internal/acme/directory").expect("a URL");
    for kind in [
        FailureKind::Refused,
        FailureKind::Unavailable,
        FailureKind::Ours,
    ] {
        let tries = tries_until_the_end(&private, kind);
        assert!(tries.len() >= 7, "{kind:?}: {tries:?}");
        assert!(*tries.last().expect("some") <= 20, "{kind:?}: {tries:?}");
    }
    for ca in [private, lets_encrypt()] {
        let tries = tries_until_the_end(&ca, FailureKind::Validation);
        assert_eq!(tries.len(), 5, "the limit of the CA: {tries:?}");
        assert!(*tries.last().expect("some") <= 45, "{tries:?}");
    }
}

#[test]
fn an_order_that_takes_long_is_looked_at_each_hour() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = OrderRequest {
        held: held(90, start() + 60 * DAY),
        ..request(&ca, &names, OrderKind::Renewal)
    };
    let mut ledger = Ledger::new(start());
    ledger.place(request, start()).expect("free");
    ledger.record(Event::Finalizing(request), start());
    for _ in 0..6 {
        ledger.record(
            Event::Failed(request, failure(FailureKind::Slow, Some(DAY))),
            start(),
        );
        let until = ledger
            .may_order(&request, start())
            .expect_err("backing off");
        let wait = until.at.duration_since(start()).expect("later");
        assert!(wait >= HOUR && wait <= HOUR * 11 / 10, "{wait:?}");
    }
    let until = ledger.may_order(&request, start());
    ledger.record(
        Event::Confirmed {
            domain: "a.example.com",
            names: &names,
        },
        start(),
    );
    assert_eq!(
        ledger.may_order(&request, start()),
        until,
        "a wish does not make it faster"
    );
    assert_eq!(
        ledger.usage(&ca, start()).budget(&request)[2].left,
        4,
        "it may yet become a certificate"
    );
}

#[test]
fn what_the_ca_has_not_issued_is_no_certificate() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::Renewal);
    let mut ledger = Ledger::new(start());
    let finalized = |ledger: &mut Ledger, event: Event<'_>, fault| {
        ledger.place(request, start()).expect("free");
        ledger.record(Event::Finalizing(request), start());
        ledger.record(event, start());
        ledger.record(Event::Failed(request, failure(fault, None)), start());
        ledger.record(
            Event::Confirmed {
                domain: "a.example.com",
                names: &names,
            },
            start(),
        );
    };
    let left = |ledger: &Ledger| {
        let all = ledger.usage(&ca, start()).budget(&request).into_iter();
        all.map(|LimitBudget { limit, left, .. }| format!("{} {left}", limit.label()))
            .collect::<Vec<_>>()
    };
    for _ in 0..7 {
        finalized(&mut ledger, Event::NotIssued(request), FailureKind::Refused);
        finalized(
            &mut ledger,
            Event::NotIssued(request),
            FailureKind::Unavailable,
        );
    }
    assert_eq!(
        left(&ledger),
        [
            "orders 286",
            "failed_authorizations 5",
            "duplicate_certificates 5"
        ]
    );
    // What became of these is not known, and stays so when a later one is refused.
    for _ in 0..2 {
        ledger.place(request, start()).expect("free");
        ledger.record(Event::Finalizing(request), start());
        ledger.record(
            Event::Failed(request, failure(FailureKind::Refused, None)),
            start(),
        );
        ledger.record(
            Event::Confirmed {
                domain: "a.example.com",
                names: &names,
            },
            start(),
        );
    }
    ledger.place(request, start()).expect("free");
    ledger.record(Event::NotIssued(request), start());
    assert_eq!(
        left(&ledger),
        [
            "orders 283",
            "failed_authorizations 4",
            "duplicate_certificates 3"
        ]
    );
}

#[test]
fn retry_after_holds_for_whom_it_is_meant() {
    let ca = lets_encrypt();
    let (one, other) = (names(&["a.example.com"]), names(&["b.example.org"]));
    let waits = |fault, retry_after| {
        let mut ledger = Ledger::new(start());
        ledger.record(
            Event::Failed(
                request(&ca, &one, OrderKind::New),
                failure(fault, Some(retry_after)),
            ),
            start(),
        );
        // In half hours, rounded.
        let wait = |until: Result<(), RetryAt>| {
            let wait = until
                .err()
                .map(|until| until.at.duration_since(start()).expect("later"));
            (wait.unwrap_or_default().as_secs() + 900) / 1800
        };
        let order = |names, account| {
            let request = OrderRequest {
                account,
                ..request(&ca, names, OrderKind::New)
            };
            wait(ledger.may_order(&request, start()))
        };
        let account = "https://ca.example/account/1";
        let new_account = wait(ledger.may_create_account(&ca, start()));
        [
            order(&one, account),
            order(&other, account),
            order(&other, "another"),
            new_account,
        ]
    };
    assert_eq!(
        waits(FailureKind::RateLimited(RateLimitScope::Names), 34 * HOUR),
        [68, 0, 0, 0]
    );
    assert_eq!(
        waits(FailureKind::RateLimited(RateLimitScope::Account), 2 * HOUR),
        [4, 4, 0, 0]
    );
    assert_eq!(
        waits(FailureKind::RateLimited(RateLimitScope::Ca), 2 * HOUR),
        [4, 4, 4, 4]
    );
    assert_eq!(waits(FailureKind::Unavailable, 2 * HOUR), [4, 4, 4, 4]);
    assert_eq!(
        waits(FailureKind::RateLimited(RateLimitScope::Unknown), 34 * HOUR),
        [68, 0, 0, 0]
    );
    assert_eq!(waits(FailureKind::Validation, 2 * HOUR), [4, 0, 0, 0]);
    // About one order, which is to be looked at again while it is kept.
    assert_eq!(waits(FailureKind::Slow, HOUR / 2), [1, 0, 0, 0]);
    assert_eq!(waits(FailureKind::Slow, DAY), [2, 0, 0, 0]);
    // A mistake of the CA, or somebody in between.
    assert_eq!(
        waits(
            FailureKind::RateLimited(RateLimitScope::Names),
            Duration::MAX
        ),
        [8 * 48, 0, 0, 0]
    );
    assert_eq!(
        waits(FailureKind::RateLimited(RateLimitScope::Ca), Duration::MAX),
        [48, 48, 48, 48]
    );
}

#[test]
fn renewals_are_exempt_as_the_ca_exempts_them() {
    let ca = lets_encrypt();
    let mut ledger = Ledger::new(start());
    let sets: Vec<_> = (0..60)
        .map(|n| names(&[&format!("a{n}.example.com")]))
        .collect();
    let issue = |ledger: &mut Ledger, names, kind| {
        let request = request(&ca, names, kind);
        let placed = ledger.place(request, start());
        if placed.is_ok() {
            ledger.record(Event::Finalizing(request), start());
            ledger.record(Event::Issued(request), start());
        }
        placed
    };
    let new = sets
        .iter()
        .filter(|names| issue(&mut ledger, names, OrderKind::New).is_ok())
        .count();
    assert_eq!(new, 50);
    let refused =
        issue(&mut ledger, &sets[55], OrderKind::New).expect_err("the domain's week is used up");
    insta::assert_snapshot!(refused, @"not before 2024-10-11T00:21:00Z: the limit of 50 new certificates for a domain in 7 days is used up for example.com");
    assert_eq!(issue(&mut ledger, &sets[55], OrderKind::Renewal), Ok(()));
    let again = (0..9)
        .filter(|_| issue(&mut ledger, &sets[0], OrderKind::Renewal).is_ok())
        .count();
    assert_eq!(again, 4, "with the first, five for the same names");
    let again = (0..9)
        .filter(|_| issue(&mut ledger, &sets[0], OrderKind::Replacement).is_ok())
        .count();
    assert_eq!(again, 3, "our own bound for a day");
}

#[test]
fn orders_under_way_use_the_budget_until_they_end() {
    let ca = lets_encrypt();
    let mut ledger = Ledger::new(start());
    let sets: Vec<_> = (0..60)
        .map(|n| names(&[&format!("a{n}.example.com")]))
        .collect();
    let place = |ledger: &mut Ledger, now| {
        let placed = sets.iter().filter(|names| {
            ledger
                .place(request(&ca, names, OrderKind::New), now)
                .is_ok()
        });
        placed.count()
    };
    assert_eq!(place(&mut ledger, start()), 50);
    for names in &sets[..7] {
        ledger.record(
            Event::Abandoned(request(&ca, names, OrderKind::New)),
            start(),
        );
    }
    assert_eq!(
        place(&mut ledger, start()),
        7,
        "what has ended without a certificate uses nothing"
    );
    assert_eq!(
        place(&mut ledger, start() + 2 * HOUR),
        50,
        "nor does what was lost in a crash"
    );
}

#[test]
fn budgets_say_what_is_left() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com", "b.example.org"]));
    let request = request(&ca, &names, OrderKind::New);
    let mut ledger = Ledger::new(start());
    let shown = |ledger: &Ledger| {
        let all = ledger.usage(&ca, start()).budget(&request).into_iter();
        all.map(|LimitBudget { limit, left, most }| format!("{} {left}/{most}", limit.label()))
            .collect::<Vec<_>>()
    };
    let fresh = [
        "orders 300/300",
        "failed_authorizations 5/5",
        "duplicate_certificates 5/5",
        "certificates_per_domain 50/50",
    ];
    assert_eq!(shown(&ledger), fresh);
    ledger.place(request, start()).expect("free");
    ledger.record(
        Event::Failed(request, failure(FailureKind::Validation, None)),
        start(),
    );
    assert_eq!(
        shown(&ledger),
        [
            "orders 299/300",
            "failed_authorizations 4/5",
            "duplicate_certificates 5/5",
            "certificates_per_domain 50/50"
        ]
    );
}

/// What is left, by asking each attempt about each limit, as a decision about one order does.
fn budget_by_attempts(
    ledger: &Ledger,
    request: &OrderRequest<'_>,
    now: SystemTime,
) -> Vec<LimitBudget> {
    let empty = CaRecord::default();
    let record = ledger.cas.get(request.ca).unwrap_or(&empty);
    let mut least: BTreeMap<Limit, LimitBudget> = BTreeMap::new();
    for on in limits_on(request) {
        let ends = on.ends(record, request, now).into_iter();
        let budget = LimitBudget {
            limit: on.limit,
            left: (on.rate.most).saturating_sub(ends.filter(|end| *end > now).count()),
            most: on.rate.most,
        };
        let known = least.entry(on.limit).or_insert(budget);
        known.left = known.left.min(budget.left);
    }
    least.into_values().collect()
}

proptest! {
    #[test]
    fn a_budget_is_what_the_limits_leave(
        events in proptest::collection::vec((0_usize..6, 0_usize..6, 0_u32..200), 0..60),
    ) {
        let ca = lets_encrypt();
        let sets = [
            names(&["a.example.com"]),
            names(&["a.example.com", "b.example.com"]),
            names(&["*.example.com", "c.example.org"]),
            names(&["2001:db8:1:2::3", "192.0.2.1"]),
            names(&["2001:db8:1:2::4"]),
            names(&["example.co.uk"]),
        ];
        let kinds = [OrderKind::New, OrderKind::Renewal, OrderKind::Replacement];
        let mut ledger = Ledger::new(start());
        let mut hours: Vec<_> = events.iter().map(|(_, _, hour)| *hour).collect();
        hours.sort_unstable();
        for ((set, step, _), hour) in events.into_iter().zip(hours) {
            let request = request(&ca, &sets[set], kinds[step % 3]);
            let now = start() + HOUR * hour;
            ledger.record(Event::Placed(request), now);
            match step {
                0 | 1 => ledger.record(Event::Issued(request), now),
                2 => ledger.record(Event::Failed(request, failure(FailureKind::Validation, None)), now),
                3 => ledger.record(Event::Finalizing(request), now),
                4 => ledger.record(Event::NotIssued(request), now),
                _ => {}
            }
            let usage = ledger.usage(&ca, now);
            for (set, kind) in sets.iter().zip(kinds.iter().cycle()) {
                let request = self::request(&ca, set, *kind);
                prop_assert_eq!(usage.budget(&request), budget_by_attempts(&ledger, &request, now));
            }
        }
    }
}

/// How many times as long `work` takes for four times as many domains, each with an order of its
/// own: about 4 where the work grows with the domains, about 16 where each domain reads the orders
/// of all. The shortest of several measurements of each, in turn, because a machine that is busy
/// only adds to one; more of them only while the result is above `limit`.
fn growth(limit: f64, work: impl Fn(&Ledger, &CaId, &[NameSet])) -> f64 {
    let ca = lets_encrypt();
    let prepared = [400, 1600].map(|domains: usize| {
        let sets: Vec<_> = (0..domains)
            .map(|n| names(&[&format!("a.example{n}.com")]))
            .collect();
        let mut ledger = Ledger::new(start());
        for set in &sets {
            let record = ledger.record_of(&ca);
            record.place(&request(&ca, set, OrderKind::New), start());
        }
        (ledger, sets)
    });
    let mut shortest = [f64::INFINITY; 2];
    for round in 0..100 {
        for ((ledger, sets), shortest) in prepared.iter().zip(&mut shortest) {
            let begun = std::time::Instant::now();
            work(ledger, &ca, sets);
            *shortest = shortest.min(begun.elapsed().as_secs_f64());
        }
        if round >= 4 && shortest[1] / shortest[0] < limit {
            break;
        }
    }
    shortest[1] / shortest[0]
}

#[test]
fn the_budgets_of_all_domains_cost_as_much_as_there_are_domains() {
    let growth = growth(8.0, |ledger, ca, sets| {
        let usage = ledger.usage(ca, start());
        for set in sets {
            let budget = usage.budget(&request(ca, set, OrderKind::New));
            assert_eq!(budget.len(), 4);
        }
    });
    assert!(growth < 8.0, "{growth}");
}

#[test]
fn what_the_ca_has_not_counted_uses_up_nothing() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com", "b.example.org"]));
    let request = request(&ca, &names, OrderKind::New);
    let mut ledger = Ledger::new(start());
    let left = |ledger: &Ledger| {
        let all = ledger.usage(&ca, start()).budget(&request).into_iter();
        all.map(|budget| budget.left).collect::<Vec<_>>()
    };
    let unused = left(&ledger);
    for _ in 0..400 {
        ledger.place(request, start()).expect("free");
        ledger.record(Event::NotPlaced(request), start());
        ledger.may_create_account(&ca, start()).expect("free");
        ledger.record(Event::NewAccount { ca: &ca }, start());
        ledger.record(Event::NoAccount { ca: &ca }, start());
    }
    assert_eq!(left(&ledger), unused);
    for _ in 0..7 {
        ledger.place(request, start()).expect("free");
        ledger.record(Event::OnlyPlaced(request), start());
    }
    assert_eq!(left(&ledger), [293, 5, 5, 50]);
    for event in [Event::NotPlaced(request), Event::OnlyPlaced(request)] {
        ledger.record(event, start());
        assert_eq!(left(&ledger), [293, 5, 5, 50], "no order is open");
    }
    for _ in 0..10 {
        ledger.may_create_account(&ca, start()).expect("free");
        ledger.record(Event::NewAccount { ca: &ca }, start());
    }
    ledger
        .may_create_account(&ca, start())
        .expect_err("ten were created");
}

#[test]
fn an_order_that_was_not_finalized_is_no_certificate() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::Renewal);
    let mut ledger = Ledger::new(start());
    let left = |ledger: &Ledger, now| {
        let all = ledger.usage(&ca, now).budget(&request).into_iter();
        all.map(|budget| budget.left).collect::<Vec<_>>()
    };
    ledger.place(request, start()).expect("free");
    for _ in 0..9 {
        ledger.record(Event::Finalizing(request), start());
        ledger.record(Event::NotFinalized(request), start());
    }
    assert_eq!(
        left(&ledger, start()),
        [299, 5, 4],
        "it may yet become a certificate"
    );
    assert_eq!(left(&ledger, start() + 2 * HOUR), [299, 5, 5]);
    ledger.record(Event::Finalizing(request), start());
    ledger.record(Event::Issued(request), start());
    assert_eq!(left(&ledger, start() + 2 * HOUR), [299, 5, 4]);
}

#[test]
fn a_failed_validation_counts_for_its_name() {
    let ca = lets_encrypt();
    let both = names(&["a.example.com", "b.example.org"]);
    let (one, other) = (names(&["a.example.com"]), names(&["b.example.org"]));
    let mut ledger = Ledger::new(start());
    let failures = |ledger: &Ledger, names| {
        let usage = ledger.usage(&ca, start());
        let budget = usage.budget(&request(&ca, names, OrderKind::New));
        budget[1].left
    };
    let order = request(&ca, &both, OrderKind::New);
    let end = |ledger: &mut Ledger, kind, not_failed: &[&str]| {
        ledger.record(Event::Placed(order), start());
        let not_failed = not_failed.iter().map(|name| (*name).to_owned()).collect();
        let failure = Failure {
            not_failed,
            ..failure(kind, None)
        };
        ledger.record(Event::Failed(order, failure), start());
    };
    end(&mut ledger, FailureKind::Validation, &["b.example.org"]);
    assert_eq!((failures(&ledger, &one), failures(&ledger, &other)), (4, 5));
    // The CA was asked to validate one name, and has not said what came of it.
    end(&mut ledger, FailureKind::Refused, &["a.example.com"]);
    assert_eq!((failures(&ledger, &one), failures(&ledger, &other)), (4, 4));
    // It was asked to validate none.
    let all = ["a.example.com", "b.example.org"];
    end(&mut ledger, FailureKind::Ours, &all);
    assert_eq!((failures(&ledger, &one), failures(&ledger, &other)), (4, 4));
    // It says that a validation has failed, and names nobody.
    end(&mut ledger, FailureKind::Validation, &all);
    assert_eq!((failures(&ledger, &one), failures(&ledger, &other)), (3, 3));
}

#[test]
fn a_crash_loop_burns_nothing() {
    // Each start places an order and dies before it is recorded how it ended.
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::New);
    let mut text = serde_json::to_string(&Ledger::new(start())).expect("JSON");
    let mut placed = 0;
    for second in 0..3600 {
        let mut ledger: Ledger = serde_json::from_str(&text).expect("whole");
        placed += u32::from(
            ledger
                .place(request, start() + Duration::from_secs(second))
                .is_ok(),
        );
        text = serde_json::to_string(&ledger).expect("JSON");
    }
    assert_eq!(placed, 5);
}

#[test]
fn years_of_failures_never_pause_the_name() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::New);
    let (mut ledger, mut now) = (Ledger::new(start()), start());
    // The model: 1152 in a row, and one is forgiven each day.
    let (mut level, mut filled, mut attempts) = (0.0_f64, now, 0);
    while now < start() + 365 * 6 * DAY {
        if let Err(until) = ledger.place(request, now) {
            now = until.at;
            continue;
        }
        let days = now.duration_since(filled).expect("later").as_secs_f64() / 86_400.0;
        (level, filled) = ((level - days).max(0.0) + 1.0, now);
        assert!(level < 1152.0, "the CA pauses the name");
        ledger.record(
            Event::Failed(request, failure(FailureKind::Validation, None)),
            now,
        );
        // An impatient administrator.
        if attempts % 2 == 0 {
            ledger.record(
                Event::Confirmed {
                    domain: "a.example.com",
                    names: &names,
                },
                now,
            );
        }
        attempts += 1;
    }
    assert!(attempts > 365 * 6, "{attempts}: still at least daily");
}

#[test]
fn the_administrator_ends_our_waiting_but_not_the_cas() {
    let (ca, names) = (lets_encrypt(), names(&["a.example.com"]));
    let request = request(&ca, &names, OrderKind::New);
    let mut ledger = Ledger::new(start());
    assert!(!ledger.is_confirmed("a.example.com") && !ledger.knows(&names));
    let confirm = Event::Confirmed {
        domain: "a.example.com",
        names: &names,
    };
    ledger.record(
        Event::Failed(request, failure(FailureKind::Ours, None)),
        start(),
    );
    assert_eq!(ledger.last_failure(&ca, &names), Some("as the CA put it"));
    ledger.record(confirm.clone(), start());
    assert_eq!(ledger.may_order(&request, start()), Ok(()));
    ledger.record(
        Event::Failed(
            request,
            failure(FailureKind::RateLimited(RateLimitScope::Names), Some(HOUR)),
        ),
        start(),
    );
    ledger.record(confirm, start());
    let until = ledger
        .may_order(&request, start())
        .expect_err("the CA said so");
    assert!(matches!(until.why, BlockReason::RetryAfter { .. }));
    assert!(ledger.is_confirmed("a.example.com") && ledger.knows(&names));
}

#[test]
fn what_no_longer_counts_is_forgotten() {
    let ca = lets_encrypt();
    let mut ledger = Ledger::new(start());
    for n in 0..500_u32 {
        let names = names(&[&format!("a.example{n}.com")]);
        let request = request(&ca, &names, OrderKind::New);
        let now = start() + MINUTE * n;
        ledger.record(Event::NewAccount { ca: &ca }, now);
        ledger.place(request, now).expect("free");
        let failed = Event::Failed(request, failure(FailureKind::Validation, Some(HOUR)));
        ledger.record(
            if n % 2 == 0 {
                Event::Issued(request)
            } else {
                failed
            },
            now,
        );
    }
    let size = |ledger: &Ledger| serde_json::to_string(ledger).expect("JSON").len();
    assert!(
        size(&ledger) > 50_000 && size(&ledger) < 250_000,
        "{}",
        size(&ledger)
    );
    ledger.settle(start() + 60 * DAY);
    assert_eq!(ledger, Ledger::new(start()));
}

/// One thing that happens to a ledger.
#[derive(Clone, Copy, Debug)]
enum LedgerAction {
    /// An order for one of the sets, and how it ends.
    Order {
        set: usize,
        kind: OrderKind,
        end: OrderEnd,
    },
    Wait(Duration),
    /// The process is started again.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum OrderEnd {
    Issued,
    Failed(FailureKind, Option<Duration>),
    /// Nothing is recorded any more: the process died.
    Lost,
    /// After it was finalized: the CA issued, but nobody knows.
    LostIssued,
    /// Refused, or never sent.
    NotPlaced,
    /// The response was lost.
    OnlyPlaced,
    /// The first name was not validated, the others were.
    FirstFailed,
}

fn actions() -> impl Strategy<Value = Vec<LedgerAction>> {
    let kind = prop_oneof![
        Just(OrderKind::New),
        Just(OrderKind::Renewal),
        Just(OrderKind::Replacement)
    ];
    let fault = prop_oneof![
        3 => Just(FailureKind::Validation),
        3 => Just(FailureKind::Unavailable),
        3 => Just(FailureKind::Refused),
        1 => Just(FailureKind::RateLimited(RateLimitScope::Unknown)),
        1 => Just(FailureKind::RateLimited(RateLimitScope::Ca)),
    ];
    let retry_after = prop_oneof![
        4 => Just(None),
        1 => (0..86_400_u64).prop_map(|seconds| Some(Duration::from_secs(seconds))),
        1 => Just(Some(Duration::MAX)),
    ];
    let end = prop_oneof![
        4 => Just(OrderEnd::Issued),
        3 => (fault, retry_after).prop_map(|(fault, after)| OrderEnd::Failed(fault, after)),
        1 => Just(OrderEnd::Lost),
        1 => Just(OrderEnd::LostIssued),
        2 => Just(OrderEnd::NotPlaced),
        2 => Just(OrderEnd::OnlyPlaced),
        2 => Just(OrderEnd::FirstFailed),
    ];
    let order = (0..SETS.len(), kind, end).prop_map(|(set, kind, end)| LedgerAction::Order {
        set,
        kind,
        end,
    });
    let wait = prop_oneof![
        (0..120_u64).prop_map(Duration::from_secs),
        (0..7200_u64).prop_map(Duration::from_secs),
        (0..86_400 * 3_u64).prop_map(Duration::from_secs),
    ];
    proptest::collection::vec(
        prop_oneof![6 => order, 3 => wait.prop_map(LedgerAction::Wait), 1 => Just(LedgerAction::Restart)],
        1..250,
    )
}

const SETS: [&[&str]; 4] = [
    &["a.example.com"],
    &["a.example.com", "b.example.com"],
    &["c.example.org"],
    &["b.example.com", "c.example.org"],
];

/// What the CA saw, as its documentation counts it.
#[derive(Default)]
struct Seen {
    orders: Vec<SystemTime>,
    failures: BTreeMap<String, Vec<SystemTime>>,
    issued: BTreeMap<NameSet, Vec<SystemTime>>,
}

/// Whether more than `most` ever lie within one window.
fn exceeds(times: &[SystemTime], most: usize, per: Duration) -> bool {
    times.windows(most + 1).any(|run| {
        run[most]
            .duration_since(run[0])
            .is_ok_and(|span| span < per)
    })
}

/// Lives through the actions and tells what the CA saw of them.
fn live(ca: &CaId, actions: Vec<LedgerAction>) -> (Ledger, Seen, SystemTime) {
    let (mut ledger, mut now, mut seen) = (Ledger::new(start()), start(), Seen::default());
    for action in actions {
        match action {
            LedgerAction::Wait(wait) => now += wait,
            LedgerAction::Restart => {
                let text = serde_json::to_string(&ledger).expect("JSON");
                ledger = serde_json::from_str(&text).expect("whole");
            }
            LedgerAction::Order { set, kind, end } => {
                let names = names(SETS[set]);
                let request = request(ca, &names, kind);
                if ledger.place(request, now).is_err() {
                    continue;
                }
                if !matches!(end, OrderEnd::NotPlaced) {
                    seen.orders.push(now);
                }
                let issued = matches!(end, OrderEnd::Issued | OrderEnd::LostIssued);
                if issued {
                    ledger.record(Event::Finalizing(request), now);
                }
                if issued && kind != OrderKind::Replacement {
                    seen.issued.entry(names.clone()).or_default().push(now);
                }
                if matches!(
                    end,
                    OrderEnd::Failed(FailureKind::Validation | FailureKind::Unavailable, _)
                        | OrderEnd::Lost
                ) {
                    names
                        .iter()
                        .for_each(|name| seen.failures.entry(name.into()).or_default().push(now));
                }
                let first = names.iter().next().expect("a name");
                if matches!(end, OrderEnd::FirstFailed) {
                    seen.failures.entry(first.into()).or_default().push(now);
                }
                match end {
                    OrderEnd::Issued => ledger.record(Event::Issued(request), now),
                    OrderEnd::Failed(fault, after) => {
                        let mut failure = failure(fault, after);
                        if fault != FailureKind::Validation {
                            // The order ends before the CA was asked to validate a name, or stays.
                            failure.not_failed = names.iter().map(str::to_owned).collect();
                        }
                        ledger.record(Event::Failed(request, failure), now)
                    }
                    OrderEnd::NotPlaced => ledger.record(Event::NotPlaced(request), now),
                    OrderEnd::OnlyPlaced => ledger.record(Event::OnlyPlaced(request), now),
                    OrderEnd::FirstFailed => {
                        let failure = Failure {
                            not_failed: names.iter().skip(1).map(str::to_owned).collect(),
                            ..failure(FailureKind::Validation, None)
                        };
                        ledger.record(Event::Failed(request, failure), now);
                    }
                    OrderEnd::Lost | OrderEnd::LostIssued => {}
                }
            }
        }
    }
    (ledger, seen, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_limit_is_exceeded_in_any_window(actions in actions()) {
        let ca = lets_encrypt();
        let (_, seen, _) = live(&ca, actions);
        prop_assert!(!exceeds(&seen.orders, 300, 3 * HOUR));
        for (name, times) in &seen.failures {
            prop_assert!(!exceeds(times, 5, HOUR), "{name}: {times:?}");
        }
        for (names, times) in &seen.issued {
            prop_assert!(!exceeds(times, 5, 170 * HOUR), "{names}: {times:?}");
        }
    }

    #[test]
    fn only_what_the_ca_has_seen_is_counted(actions in actions()) {
        let ca = lets_encrypt();
        let (ledger, seen, now) = live(&ca, actions);
        let count = |times: Option<&Vec<SystemTime>>, per: Duration| {
            let recent = |at: &&SystemTime| **at + per + SLACK > now;
            times.map_or(0, |times| times.iter().filter(recent).count())
        };
        for set in SETS {
            let names = names(set);
            let budget = ledger.usage(&ca, now).budget(&request(&ca, &names, OrderKind::New));
            prop_assert_eq!(budget[0].left, 300 - count(Some(&seen.orders), 3 * HOUR));
            let failures = set.iter().map(|name| count(seen.failures.get(*name), HOUR));
            prop_assert_eq!(budget[1].left, 5 - failures.max().unwrap_or_default());
        }
    }

    #[test]
    fn no_more_accounts_are_created_than_the_ca_allows(
        steps in proptest::collection::vec((0_u8..5, 0_u64..1200), 1..200),
    ) {
        let ca = lets_encrypt();
        let (mut ledger, mut now, mut created) = (Ledger::new(start()), start(), Vec::new());
        for (step, pause) in steps {
            now += Duration::from_secs(pause);
            if ledger.may_create_account(&ca, now).is_err() {
                let recent = |at: &&SystemTime| **at + 3 * HOUR + SLACK > now;
                prop_assert_eq!(created.iter().filter(recent).count(), 10);
                continue;
            }
            ledger.record(Event::NewAccount { ca: &ca }, now);
            // Created, in one case without a response; refused; or not requested.
            match step {
                0 | 1 => created.push(now),
                _ => ledger.record(Event::NoAccount { ca: &ca }, now),
            }
        }
        prop_assert!(!exceeds(&created, 10, 3 * HOUR));
    }

    #[test]
    fn a_wait_never_outlasts_the_served_certificate(
        kind in prop_oneof![
            Just(FailureKind::Validation),
            Just(FailureKind::Unavailable),
            Just(FailureKind::Refused),
            Just(FailureKind::Slow),
            Just(FailureKind::Ours),
        ],
        times in 1..5,
        left in prop_oneof![20..600_u64, 600..86_400_u64, 86_400..90 * 86_400_u64],
        is_private in any::<bool>(),
    ) {
        let ca = if is_private {
            CaId::new("https://ca.internal/acme/directory").expect("a URL")
        } else {
            lets_encrypt()
        };
        let names = names(&["a.example.com"]);
        let request = OrderRequest {
            held: held(90, start() + Duration::from_secs(left)),
            ..request(&ca, &names, OrderKind::Renewal)
        };
        let mut ledger = Ledger::new(start());
        // Some CAs send a day for what takes minutes.
        let retry_after = (kind == FailureKind::Slow).then_some(DAY);
        for _ in 0..times {
            ledger.record(Event::Failed(request, failure(kind, retry_after)), start());
        }
        let until = ledger.may_order(&request, start()).expect_err("backing off");
        let wait = until.at.duration_since(start()).expect("later");
        prop_assert!(wait < Duration::from_secs(left), "{wait:?}");
        prop_assert!(wait >= Duration::from_secs(9), "{wait:?}");
    }

    #[test]
    fn it_always_admits_again(actions in actions(), set in 0..SETS.len(), back in 0..400_u64) {
        let ca = lets_encrypt();
        let (ledger, _, now) = live(&ca, actions);
        // The clock was set back while nobody was looking, by up to 400 days.
        let mut now = now - DAY * u32::try_from(back).expect("few");
        let begun = now;
        let names = names(SETS[set]);
        let request = request(&ca, &names, OrderKind::New);
        let mut opened: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).expect("JSON")).expect("whole");
        opened.settle(now);
        for _ in 0..20 {
            let Err(until) = opened.may_order(&request, now) else { break };
            prop_assert!(until.at > now);
            now = until.at;
        }
        prop_assert_eq!(opened.may_order(&request, now), Ok(()));
        prop_assert!(now <= begun + 9 * DAY, "it takes {:?}", now.duration_since(begun));
    }

    #[test]
    fn what_is_written_is_read_again(actions in actions()) {
        let (ledger, _, _) = live(&lets_encrypt(), actions);
        let text = serde_json::to_string(&ledger).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Ledger>(&text).expect("whole"), ledger);
    }

    #[test]
    fn a_wish_waits_as_long_as_it_is_told(actions in actions(), set in 0..SETS.len()) {
        let ca = lets_encrypt();
        let (ledger, _, now) = live(&ca, actions);
        let names = names(SETS[set]);
        let request = request(&ca, &names, OrderKind::Renewal);
        if let Err(until) = ledger.may_order(&request, now) {
            prop_assert!(ledger.may_order(&request, until.at - Duration::from_millis(1)).is_err());
        }
    }
}
