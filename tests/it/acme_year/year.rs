//! The events of the year, and the invariants that hold throughout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::acme_sim::{AcmeSim, NAMES, PROFILES};
use super::chance::{Chance, beginning};
use super::moods::{Mood, Moods};
use super::process::Process;

/// Something that happens to the CA or the machine.
#[derive(Clone, Copy, Debug)]
enum SimEvent {
    Mood(Mood),
    /// The clock of the machine is set fast by so many hours.
    Clock(i64),
    DiskFull,
    DiskFree,
    Revoked,
    /// All revoked certificates have to be replaced by now.
    Replaced,
}

pub struct Year {
    sim: AcmeSim,
    moods: Arc<Moods>,
    process: Option<Process>,
    chance: Chance,
    begun: SystemTime,
    pending: Vec<(u64, SimEvent)>,
    suggests: bool,
    revoked: Option<SystemTime>,
    /// The names that have been served.
    held: BTreeSet<&'static str>,
    kills: u32,
    checks: u32,
    /// The shortest remaining time of a served certificate, by profile.
    least: BTreeMap<&'static str, Duration>,
}

impl Year {
    pub fn begin(place: &Path, suggests: bool) -> Self {
        let mut chance = Chance::new();
        let sim = AcmeSim::new(beginning(), place, &NAMES, "[\"http-01\"]");
        let moods = Arc::new(Moods::default());
        sim.ca.decides(moods.handler(chance.clone()));
        if suggests {
            sim.ca.suggests();
        }
        // Where 90-day and 45-day certificates are renewed, give or take.
        let outage = 59 * 24 + chance.below(48);
        let mut pending = vec![
            (outage, SimEvent::Mood(Mood::Down)),
            (outage + 72, SimEvent::Mood(Mood::Usual)),
            (120 * 24, SimEvent::Clock(24)),
            (123 * 24, SimEvent::Clock(0)),
            (150 * 24, SimEvent::DiskFull),
            (150 * 24 + 12, SimEvent::DiskFree),
            (200 * 24, SimEvent::Clock(-24)),
            (203 * 24, SimEvent::Clock(0)),
            (250 * 24, SimEvent::Revoked),
            (250 * 24 + 24, SimEvent::Replaced),
            (300 * 24, SimEvent::Mood(Mood::Blind)),
            (302 * 24, SimEvent::Mood(Mood::Usual)),
        ];
        pending.reverse();
        let process = Some(Process::start(&sim.directory, sim.wall()));
        let (begun, least, held) = (sim.now(), BTreeMap::new(), BTreeSet::new());
        Self {
            sim,
            moods,
            process,
            chance,
            begun,
            pending,
            suggests,
            revoked: None,
            held,
            kills: 0,
            checks: 0,
            least,
        }
    }

    pub fn live(mut self) {
        self.work();
        while self.hours() < 365 * 24 {
            self.happen();
            let pause = self.until_next();
            self.sim.pass(pause);
            self.check();
            self.running().pass(pause);
            self.work();
            assert!(
                self.checks < MAX_CHECKS,
                "hour {}\n{}",
                self.hours(),
                self.running().shown()
            );
        }
        self.report();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("one runs")
    }

    fn hours(&self) -> u64 {
        self.sim.now().duration_since(self.begun).unwrap().as_secs() / 3600
    }

    fn happen(&mut self) {
        let hours = self.hours();
        while let Some((_, event)) = self.pending.pop_if(|(hour, _)| *hour <= hours) {
            match event {
                SimEvent::Mood(mood) => self.moods.set(mood),
                SimEvent::Clock(hours) => self.sim.set_fast(hours * 3600),
                SimEvent::DiskFull => self.sim.fill_disk(),
                SimEvent::DiskFree => self.sim.free_disk(),
                SimEvent::Revoked if self.suggests => {
                    self.sim.ca.revokes_all();
                    self.revoked = Some(self.sim.now());
                }
                SimEvent::Revoked => {}
                SimEvent::Replaced => self.check_replaced(),
            }
        }
    }

    /// The time until something is due or happens, at most [`MAX_PAUSE`], so that the renewal
    /// information of the CA stays recent.
    fn until_next(&self) -> Duration {
        let wall = (self.sim.wall())();
        let due = self
            .running()
            .next()
            .map_or(MAX_PAUSE, |at| at.duration_since(wall).unwrap_or_default());
        let happens = self
            .pending
            .last()
            .map(|(hour, _)| self.begun + Duration::from_secs(hour * 3600));
        let happens = happens.map_or(MAX_PAUSE, |at| {
            at.duration_since(self.sim.now()).unwrap_or_default()
        });
        due.min(happens).clamp(MIN_PAUSE, MAX_PAUSE)
    }

    /// Checks that clients are served a valid certificate now and were since the last check.
    fn check(&mut self) {
        self.checks += 1;
        let now = self.sim.now();
        for (profile, names) in NAMES {
            for name in names {
                let Some(served) = self.running().served(name) else {
                    let first = self.hours() < 48 && !self.held.contains(name);
                    assert!(first, "{name}: nothing\n{}", self.running().shown());
                    continue;
                };
                self.held.insert(name);
                let left = served.not_after.duration_since(now);
                let left = left.unwrap_or_else(|_| {
                    panic!(
                        "{name} has expired in hour {}\n{}",
                        self.hours(),
                        self.running().shown()
                    )
                });
                assert!(served.not_before <= now, "{name} is not valid yet");
                let least = self.least.entry(profile).or_insert(left);
                *least = left.min(*least);
            }
        }
    }

    fn check_replaced(&self) {
        let Some(revoked) = self.revoked else {
            assert!(!self.suggests, "nothing was revoked");
            return;
        };
        for name in NAMES.iter().flat_map(|(_, names)| *names) {
            let served = self.running().served(name).expect("something");
            let issued = served.not_before + Duration::from_secs(3600);
            assert!(
                issued + Duration::from_secs(1) >= revoked,
                "{name}\n{}",
                self.running().shown()
            );
        }
    }

    /// Lets moorgate do what is due. One time in three it may be killed meanwhile.
    fn work(&mut self) {
        while self.chance.in_thousand(300) {
            let (requests, longer) = (1 + self.chance.below(16), self.chance.below(60));
            let requests = self.sim.ca.requests() + usize::try_from(requests).unwrap();
            if !self.running().work_until(&self.sim.ca, requests, longer)
                && !self.chance.in_thousand(50)
            {
                return;
            }
            self.kills += 1;
            self.process.take().expect("one runs").kill();
            self.process = Some(Process::start(&self.sim.directory, self.sim.wall()));
        }
        self.running().work();
    }

    fn report(&self) {
        let issued = self.sim.ca.issued();
        for (profile, life) in PROFILES {
            let names = NAMES.iter().filter(|(of, _)| *of == profile).count();
            let count = issued.iter().filter(|(_, of, _)| of == profile).count();
            let hours = |time: Duration| time.as_secs() / 3600;
            println!(
                "{:4} hours: {names} domains, {} renewals, {} failed validations, {} hours left at the least",
                hours(life),
                count - names,
                self.moods.failed(profile),
                hours(self.least[profile])
            );
            let each = count as f64 / names as f64;
            let least = 365.0 * 86_400.0 / life.as_secs_f64();
            assert!(
                each > least && each < 3.0 * least + 3.0,
                "{each} certificates of {profile} a domain"
            );
        }
        let outage_requests = self.moods.outage_requests();
        let failed: u64 = PROFILES
            .iter()
            .map(|(profile, _)| self.moods.failed(profile))
            .sum();
        println!(
            "{} orders, {failed} failed validations, {outage_requests} requests in the outage, {} kills, {} checks",
            self.sim.ca.asked("order").len(),
            self.kills,
            self.checks,
        );
        assert_eq!(
            self.sim.ca.refused_for_limits(),
            [""; 0],
            "the CA refused for a limit"
        );
        assert!(self.kills > 10 && failed > 0 && outage_requests > 0 && self.pending.is_empty());
    }
}

const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600);
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Some nine hundred are usual: many more mean that something is due again and again.
const MAX_CHECKS: u32 = 20_000;
