//! A thousand domains at a real CA that stands at the place of Let's Encrypt, whose limits moorgate
//! then keeps. Pebble has none: what was ordered is held against them afterwards, by moorgate's own
//! ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use moorgate::internal::certs::AcmeStatus;
use moorgate::internal::certs::Certificates;
use moorgate::internal::certs::Issuer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::pebble_ca::{Acme, Mood};
use crate::acme_year::alone::{self, CA};
use crate::harness::acme_ca::Limits;
use crate::harness::plain::answer_challenges;

#[test]
fn a_thousand_domains_are_issued_within_the_limits_of_let_s_encrypt() {
    let test = "real_peers::pebble_limits::a_thousand_domains_are_issued_within_the_limits_of_let_s_encrypt";
    alone::run(test, |_| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut run = Run::begin();
            while run.held() < DOMAINS {
                run.settle().await;
                run.read_ledger();
                run.wait().await;
            }
            run.check();
        });
    });
}

/// moorgate's issuer, whose clock the test moves, and what it has ordered.
struct Run {
    acme: Acme,
    certificates: Arc<Certificates>,
    /// How far its clock is ahead, in seconds.
    ahead: Arc<AtomicU64>,
    /// When it placed an order, by which account, for which names, and what became of it.
    orders: BTreeMap<(SystemTime, String, Vec<String>), String>,
}

impl Run {
    fn begin() -> Self {
        let acme = Acme::new(Mood {
            host: Some(CA),
            ..Mood::default()
        });
        // Twice as many below each registered domain as may have a certificate in a week.
        let names: Vec<String> = (0..DOMAINS)
            .map(|n| format!("d{n}.many{}.test", n / 100))
            .collect();
        let domains: Vec<(&str, &str)> = names
            .iter()
            .map(|name| (name.as_str(), "acme = true"))
            .collect();
        acme.configure("[acme]\nchallenges = [\"http-01\"]", "", &domains);
        let config = acme.path().join("config");
        let snapshot = moorgate::internal::config::load(&config)
            .unwrap_or_else(|_| panic!("it is wrong"))
            .snapshot;
        let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
        certificates.apply(&snapshot);
        // What moorgate's plain listener does, whose clock the test cannot move.
        let challenges = certificates.table().challenges().clone();
        tokio::spawn(answer_challenges(
            ([127, 0, 0, 1], acme.urls().1).into(),
            challenges,
        ));
        let ahead = Arc::new(AtomicU64::new(0));
        let wall = {
            let ahead = ahead.clone();
            Arc::new(move || now(&ahead))
        };
        tokio::spawn(
            Arc::new(Issuer::new(certificates.clone(), &snapshot, wall))
                .run(CancellationToken::new()),
        );
        Self {
            acme,
            certificates,
            ahead,
            orders: BTreeMap::new(),
        }
    }

    fn held(&self) -> usize {
        self.certificates
            .report()
            .iter()
            .filter(|report| report.serial.is_some())
            .count()
    }

    fn statuses(&self) -> Vec<AcmeStatus> {
        self.certificates
            .report()
            .into_iter()
            .map(|report| report.acme.unwrap_or_default())
            .collect()
    }

    /// Waits until it has done what the limits allow: nothing tells that, but that it waits.
    async fn settle(&self) {
        let (mut held, mut since) = (self.held(), Instant::now());
        while self
            .statuses()
            .iter()
            .any(|acme| acme.next_attempt.is_none() || acme.state.starts_with("being"))
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.held() > held {
                (held, since) = (self.held(), Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "no more than {held} are there");
        }
    }

    fn read_ledger(&mut self) {
        let text = std::fs::read(self.acme.path().join("state/acme/ledger.json")).unwrap();
        let ledger: Value = serde_json::from_slice(&text).unwrap();
        let cas = ledger["cas"].as_object().unwrap();
        assert!(
            cas.len() == 1 && cas.keys().all(|ca| ca.contains(CA)),
            "{:?}",
            cas.keys()
        );
        for attempt in cas
            .values()
            .flat_map(|ca| ca["attempts"].as_array().unwrap())
        {
            let [placed, account, stage] =
                ["placed", "account", "stage"].map(|key| attempt[key].as_str().unwrap());
            let placed: SystemTime = placed.parse::<jiff::Timestamp>().unwrap().into();
            let names: Vec<String> = serde_json::from_value(attempt["names"].clone()).unwrap();
            self.orders
                .insert((placed, account.to_owned(), names), stage.to_owned());
        }
    }

    /// Lets the time pass until the next attempt, and so much longer that it need not be the only
    /// one.
    async fn wait(&self) {
        let now = now(&self.ahead);
        let next = self
            .statuses()
            .iter()
            .filter_map(|acme| acme.next_attempt)
            .min()
            .unwrap();
        let pause = next.duration_since(now).unwrap_or_default() + MARGIN;
        println!(
            "{} of {DOMAINS}, {} orders; {} hours pass",
            self.held(),
            self.orders.len(),
            pause.as_secs() / 3600
        );
        self.ahead.fetch_add(pause.as_secs(), Ordering::SeqCst);
        crate::harness::jump(pause).await;
    }

    fn check(&self) {
        let failed = self.statuses().into_iter().map(|acme| acme.attempts.failed);
        let failed: Vec<u64> = failed.filter(|times| *times > 0).collect();
        // On a machine with much to do, the CA may find an answer too late or leave an order
        // without one.
        assert!(
            failed.len() < 10 && failed.iter().all(|times| *times == 1),
            "failures of a name: {failed:?}"
        );
        // None that the ledger does not know.
        assert!(
            self.orders.len() >= self.acme.asked("POST /order-plz"),
            "{} orders",
            self.orders.len()
        );
        assert!(
            (DOMAINS..=DOMAINS + failed.len()).contains(&self.orders.len()),
            "{} orders",
            self.orders.len()
        );
        let placed: Vec<SystemTime> = self.orders.keys().map(|(placed, _, _)| *placed).collect();
        for times in placed.windows(ORDERS + 1) {
            let passed = times[ORDERS].duration_since(times[0]).unwrap();
            assert!(passed >= WINDOW, "{} orders within {passed:?}", ORDERS + 1);
        }
        let mut limits = Limits::new();
        for ((placed, account, names), stage) in &self.orders {
            let _ = limits.order(account, names, false, *placed);
            if stage == "issued" {
                limits.issued(account, names, false, *placed);
            }
        }
        assert_eq!(limits.refused, [""; 0], "Let's Encrypt would have refused");
    }
}

fn now(ahead: &AtomicU64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst))
}

const DOMAINS: usize = 1000;

// https://letsencrypt.org/docs/rate-limits/
const ORDERS: usize = 300;
const WINDOW: Duration = Duration::from_secs(3 * 3600);

/// Without a further certificate, by the real clock.
const PATIENCE: Duration = Duration::from_secs(120);
const MARGIN: Duration = Duration::from_secs(600);
