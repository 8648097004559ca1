//! A year of certificates on a simulated clock: renewal and ledger against a model of Let's Encrypt
//! that enforces its published limits, through outages, jumping clocks, restarts and a mass
//! revocation.

mod model;

use std::time::{Duration, SystemTime};

use super::file::Clock;
use super::{Event, Failure, FailureKind, Ledger, OrderKind, OrderRequest};
use crate::certs::names::NameSet;
use crate::certs::renewal::{AriAnswer, AriWindow, Seed, Urgency, ask_ari_again, renewal, urgency};
use crate::certs::state::paths::CaId;
use model::{ModelCa, SimulatedCertificate};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// One domain as the manager of certificates keeps it.
struct SimulatedDomain {
    names: NameSet,
    held: Option<SimulatedCertificate>,
    window: Option<AriWindow>,
    /// By the clock of the machine.
    ask_ari_at: SystemTime,
    ari_failures: u32,
    /// By true time.
    wake: SystemTime,
}

#[derive(Default)]
struct Tally {
    issued: u32,
    validation_failures: u32,
    unavailable: u32,
    refused: u32,
    restarts: u32,
    least_left: Option<Duration>,
    loudest: Option<Urgency>,
}

struct Year {
    ca: ModelCa,
    id: CaId,
    ledger: Ledger,
    /// At the last use of the ledger.
    last_clock: Clock,
    begun: SystemTime,
    now: SystemTime,
    revoked: SystemTime,
    seed: Seed,
    tally: Tally,
    domains: Vec<SimulatedDomain>,
}

impl Year {
    fn new(lifetime: Duration, has_ari: bool, number: u64) -> Self {
        let begun = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let last_clock = Clock {
            now: begun,
            steady: Duration::ZERO,
        };
        let seed = Seed::new(number);
        // Around the first renewals, so that it hits them.
        let first = if lifetime < 10 * DAY { 0.44 } else { 0.6 };
        let down = begun + lifetime.mul_f64(first + 0.07 * seed.with(1).fraction());
        let domains = (0..8).map(|n| {
            let second = (n % 3 == 0).then(|| format!("alias{n}.example.org"));
            let names = NameSet::new([format!("ci{n}.example.com")].into_iter().chain(second))
                .expect("names");
            let (held, window, ari_failures) = (None, None, 0);
            SimulatedDomain {
                names,
                held,
                window,
                ask_ari_at: begun,
                ari_failures,
                wake: begun,
            }
        });
        Self {
            ca: ModelCa::new(lifetime, has_ari, begun, down..down + 72 * HOUR),
            id: CaId::new("https://acme-v02.api.letsencrypt.org/directory").expect("a URL"),
            ledger: Ledger::new(begun),
            last_clock,
            begun,
            now: begun,
            revoked: begun + 250 * DAY,
            seed,
            tally: Tally::default(),
            domains: domains.collect(),
        }
    }

    /// The clock of the machine is a day fast for three days, and later a day slow for three.
    fn clock(&self) -> Clock {
        let steady = self.now.duration_since(self.begun).expect("time passes");
        let now = match steady.as_secs() / DAY.as_secs() {
            120..123 => self.now + DAY,
            200..203 => self.now - DAY,
            _ => self.now,
        };
        Clock { now, steady }
    }

    fn happens(&mut self, percent: u16) -> bool {
        self.seed = self.seed.with(7);
        self.seed.below(100) < percent
    }

    fn live(&mut self) {
        while let Some((index, wake)) = self
            .domains
            .iter()
            .map(|domain| domain.wake)
            .enumerate()
            .min_by_key(|(_, wake)| *wake)
        {
            if wake > self.begun + 365 * DAY {
                break;
            }
            self.now = self.now.max(wake);
            if self.happens(1) && self.happens(20) {
                self.restart();
            }
            let sleep = self.process(index);
            // A clock may jump while nobody looks.
            self.domains[index].wake = self.now + sleep.clamp(Duration::from_secs(1), HOUR);
        }
        self.domains
            .iter()
            .for_each(|domain| assert!(domain.held.is_some()));
    }

    fn restart(&mut self) {
        self.tally.restarts += 1;
        let text = serde_json::to_string(&self.ledger).expect("JSON");
        self.ledger = serde_json::from_str(&text).expect("whole");
        // Jumps while nobody was looking are not seen.
        self.last_clock = self.clock();
        for domain in &mut self.domains {
            // Only what is on disk is left: the certificate.
            (domain.window, domain.ari_failures, domain.ask_ari_at) = (None, 0, self.begun);
        }
    }

    /// Does what is due for a domain. Returns how long to sleep.
    fn process(&mut self, index: usize) -> Duration {
        self.check(index);
        self.ask_ari(index);
        let clock = self.clock();
        let domain = &self.domains[index];
        if let Some(held) = domain.held {
            let decided = renewal(held.life, domain.window, Seed::new(held.serial));
            if let Ok(sleep) = decided.at.duration_since(clock.now) {
                let ari = domain
                    .ask_ari_at
                    .duration_since(clock.now)
                    .unwrap_or_default();
                return sleep.min(ari);
            }
        }
        self.attempt(index, clock)
    }

    /// Whoever connects at this moment is served a valid certificate.
    fn check(&mut self, index: usize) {
        let Some(held) = self.domains[index].held else {
            return;
        };
        assert!(
            self.now < held.life.not_after,
            "expired at {:?}",
            self.now.duration_since(self.begun)
        );
        let left = held.life.left(self.now);
        self.tally.least_left = Some(self.tally.least_left.map_or(left, |least| least.min(left)));
        self.tally.loudest = self.tally.loudest.max(Some(urgency(held.life, self.now)));
    }

    fn ask_ari(&mut self, index: usize) {
        let (now, clock, down) = (self.now, self.clock(), self.ca.is_down(self.now));
        let domain = &mut self.domains[index];
        let Some(held) = domain.held.filter(|_| clock.now >= domain.ask_ari_at) else {
            return;
        };
        let answer = if down {
            domain.ari_failures += 1;
            AriAnswer::Failed {
                times: domain.ari_failures,
                retry_after: None,
            }
        } else {
            domain.ari_failures = 0;
            domain.window = self.ca.window(held, self.revoked, now);
            AriAnswer::Answered {
                retry_after: Some(6 * HOUR),
            }
        };
        domain.ask_ari_at = ask_ari_again(clock.now, answer);
    }

    fn attempt(&mut self, index: usize, clock: Clock) -> Duration {
        let (names, held) = (self.domains[index].names.clone(), self.domains[index].held);
        let replaces = held.filter(|_| self.ca.has_ari).map(|held| held.serial);
        let kind = match (held, replaces) {
            (None, _) => OrderKind::New,
            (Some(_), None) => OrderKind::Renewal,
            (Some(_), Some(_)) => OrderKind::Replacement,
        };
        let id = self.id.clone();
        let request = OrderRequest {
            ca: &id,
            account: "account",
            names: &names,
            kind,
            held: held.map(|held| held.life),
        };
        self.follow(clock);
        if let Err(until) = self.ledger.place(request, clock.now) {
            return until.at.duration_since(clock.now).expect("later");
        }
        if self.ca.is_down(self.now) {
            self.tally.unavailable += 1;
            if self.happens(50) {
                // The connection is refused.
                self.record(Event::NotPlaced(request));
            } else {
                // The CA has placed the order, and its response is lost.
                self.ca.new_order(&names, replaces, self.now);
                self.record(Event::OnlyPlaced(request));
            }
            return self.failed(request, FailureKind::Unavailable, Vec::new());
        }
        if self.happens(4) {
            self.tally.refused += 1;
            self.record(Event::NotPlaced(request));
            return self.failed(request, FailureKind::Refused, Vec::new());
        }
        self.ca.new_order(&names, replaces, self.now);
        self.now += Duration::from_secs(20);
        if self.happens(4) {
            return self.validation_failed(request);
        }
        if self.happens(5) {
            // Killed before the order was finalized, and the order is lost.
            self.restart();
            return Duration::ZERO;
        }
        self.record(Event::Finalizing(request));
        let issued = self.ca.issue(&names, replaces, self.now);
        if self.happens(5) {
            // Killed before the certificate was downloaded, and the order is lost.
            self.restart();
            return Duration::ZERO;
        }
        self.record(Event::Issued(request));
        self.tally.issued += 1;
        let domain = &mut self.domains[index];
        (domain.held, domain.window, domain.ask_ari_at) = (Some(issued), None, self.begun);
        Duration::ZERO
    }

    /// Some of the names are not validated.
    fn validation_failed(&mut self, request: OrderRequest<'_>) -> Duration {
        self.tally.validation_failures += 1;
        let validated = if self.happens(50) {
            0
        } else {
            request.names.len() - 1
        };
        let not_failed: Vec<String> = (request.names.iter().take(validated))
            .map(str::to_owned)
            .collect();
        let failed = request.names.iter().skip(validated);
        self.ca
            .validation_failed(&NameSet::new(failed).expect("one"), self.now);
        self.failed(request, FailureKind::Validation, not_failed)
    }

    fn failed(
        &mut self,
        request: OrderRequest<'_>,
        kind: FailureKind,
        not_failed: Vec<String>,
    ) -> Duration {
        let failure = Failure {
            kind,
            retry_after: None,
            message: "as the CA put it".into(),
            not_failed,
        };
        self.record(Event::Failed(request, failure));
        let clock = self.clock();
        let until = self
            .ledger
            .may_order(&request, clock.now)
            .expect_err("backing off");
        until.at.duration_since(clock.now).expect("later")
    }

    fn record(&mut self, event: Event<'_>) {
        let clock = self.clock();
        self.follow(clock);
        self.ledger.record(event, clock.now);
    }

    fn follow(&mut self, clock: Clock) {
        let jump = std::mem::replace(&mut self.last_clock, clock).jump(clock);
        self.ledger.follow(clock.now, jump);
    }
}

/// Lives a few years and says what happened.
fn years(name: &str, lifetime: Duration, has_ari: bool, numbers: std::ops::Range<u64>) {
    let most = (365.0 / (lifetime.div_duration_f64(DAY) * 0.45)).ceil();
    for number in numbers {
        let mut year = Year::new(lifetime, has_ari, number);
        year.live();
        let Tally {
            issued,
            validation_failures,
            unavailable,
            refused,
            restarts,
            least_left,
            loudest,
        } = &year.tally;
        println!(
            "{name}{}, year {number}: {} names, {issued} certificates, {validation_failures} failed validations, \
             {unavailable} attempts in the outage, {refused} refused orders, {restarts} restarts, {} hours left at the least ({:?})",
            if has_ari { " with ARI" } else { "" },
            year.domains.len(),
            least_left.expect("looked").as_secs() / 3600,
            loudest.expect("looked"),
        );
        assert_eq!(year.ca.refused, [""; 0], "the CA refused for a limit");
        let each = f64::from(*issued) / 8.0;
        assert!(
            each > 365.0 / lifetime.div_duration_f64(DAY) && each < most,
            "{each} certificates a name"
        );
    }
}

#[test]
fn ninety_days() {
    years("90 days", 90 * DAY, true, 0..4);
    years("90 days", 90 * DAY, false, 4..8);
}

#[test]
fn forty_five_days() {
    years("45 days", 45 * DAY, true, 0..4);
    years("45 days", 45 * DAY, false, 4..8);
}

#[test]
fn a_hundred_and_sixty_hours() {
    years("160 hours", 160 * HOUR, true, 0..4);
    years("160 hours", 160 * HOUR, false, 4..8);
}
