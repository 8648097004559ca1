//! What happens in the year, and what has to hold at every moment of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::chance::{Chance, beginning};
use super::moods::{Mood, Moods};
use super::process::Process;
use super::world::{NAMES, PROFILES, World};

/// What happens, in hours from the beginning.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Mood(Mood),
    /// The clock of the machine is set: so many hours fast.
    Clock(i64),
    DiskFull,
    DiskFree,
    Revoked,
    /// By now all certificates that were revoked are replaced.
    Replaced,
}

pub struct Year {
    world: World,
    moods: Arc<Moods>,
    process: Option<Process>,
    chance: Chance,
    begun: SystemTime,
    to_come: Vec<(u64, Happening)>,
    suggests: bool,
    revoked: Option<SystemTime>,
    /// The names that were served once.
    held: BTreeSet<&'static str>,
    kills: u32,
    moments: u32,
    /// The least that was left of a certificate of each profile.
    least: BTreeMap<&'static str, Duration>,
}

impl Year {
    pub fn begin(place: &Path, suggests: bool) -> Self {
        let mut chance = Chance::new();
        let world = World::new(beginning(), place, &NAMES, "[\"http-01\"]");
        let moods = Arc::new(Moods::default());
        world.ca.decides(moods.whim(chance.clone()));
        if suggests {
            world.ca.suggests();
        }
        // Where 90-day and 45-day certificates are renewed, give or take.
        let outage = 59 * 24 + chance.below(48);
        let mut to_come = vec![
            (outage, Happening::Mood(Mood::Down)),
            (outage + 72, Happening::Mood(Mood::Usual)),
            (120 * 24, Happening::Clock(24)),
            (123 * 24, Happening::Clock(0)),
            (150 * 24, Happening::DiskFull),
            (150 * 24 + 12, Happening::DiskFree),
            (200 * 24, Happening::Clock(-24)),
            (203 * 24, Happening::Clock(0)),
            (250 * 24, Happening::Revoked),
            (250 * 24 + 24, Happening::Replaced),
            (300 * 24, Happening::Mood(Mood::Blind)),
            (302 * 24, Happening::Mood(Mood::Usual)),
        ];
        to_come.reverse();
        let process = Some(Process::start(&world.directory, world.wall()));
        let (begun, least, held) = (world.now(), BTreeMap::new(), BTreeSet::new());
        Self {
            world,
            moods,
            process,
            chance,
            begun,
            to_come,
            suggests,
            revoked: None,
            held,
            kills: 0,
            moments: 0,
            least,
        }
    }

    pub fn live(mut self) {
        self.work();
        while self.hours() < 365 * 24 {
            self.happen();
            let pause = self.until_next();
            self.world.pass(pause);
            self.check();
            self.running().pass(pause);
            self.work();
            assert!(
                self.moments < MOST_MOMENTS,
                "hour {}\n{}",
                self.hours(),
                self.running().shown()
            );
        }
        self.tell();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("one runs")
    }

    fn hours(&self) -> u64 {
        self.world
            .now()
            .duration_since(self.begun)
            .unwrap()
            .as_secs()
            / 3600
    }

    fn happen(&mut self) {
        let hours = self.hours();
        while let Some((_, happening)) = self.to_come.pop_if(|(hour, _)| *hour <= hours) {
            match happening {
                Happening::Mood(mood) => self.moods.set(mood),
                Happening::Clock(hours) => self.world.set_fast(hours * 3600),
                Happening::DiskFull => self.world.fill_disk(),
                Happening::DiskFree => self.world.free_disk(),
                Happening::Revoked if self.suggests => {
                    self.world.ca.revokes_all();
                    self.revoked = Some(self.world.now());
                }
                Happening::Revoked => {}
                Happening::Replaced => self.check_replaced(),
            }
        }
    }

    /// RetryAt something is due, or happens; never so long that the CA's advice would get old.
    fn until_next(&self) -> Duration {
        let wall = (self.world.wall())();
        let due = self
            .running()
            .next()
            .map_or(LONGEST, |at| at.duration_since(wall).unwrap_or_default());
        let happens = self
            .to_come
            .last()
            .map(|(hour, _)| self.begun + Duration::from_secs(hour * 3600));
        let happens = happens.map_or(LONGEST, |at| {
            at.duration_since(self.world.now()).unwrap_or_default()
        });
        due.min(happens).clamp(SHORTEST, LONGEST)
    }

    /// Whoever connects at this moment, or has since the last one, is served a valid certificate.
    fn check(&mut self) {
        self.moments += 1;
        let now = self.world.now();
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

    /// Lets moorgate do what it wants to do now; one time in three it may be killed while it does.
    fn work(&mut self) {
        while self.chance.in_thousand(300) {
            let (requests, longer) = (1 + self.chance.below(16), self.chance.below(60));
            let requests = self.world.ca.requests() + usize::try_from(requests).unwrap();
            if !self.running().work_until(&self.world.ca, requests, longer)
                && !self.chance.in_thousand(50)
            {
                return;
            }
            self.kills += 1;
            self.process.take().expect("one runs").kill();
            self.process = Some(Process::start(&self.world.directory, self.world.wall()));
        }
        self.running().work();
    }

    fn tell(&self) {
        let issued = self.world.ca.issued();
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
        let in_vain = self.moods.in_vain();
        let failed: u64 = PROFILES
            .iter()
            .map(|(profile, _)| self.moods.failed(profile))
            .sum();
        println!(
            "{} orders, {failed} failed validations, {in_vain} requests in the outage, {} kills, {} moments",
            self.world.ca.asked("order").len(),
            self.kills,
            self.moments,
        );
        assert_eq!(
            self.world.ca.refused_for_limits(),
            [""; 0],
            "the CA refused for a limit"
        );
        assert!(self.kills > 10 && failed > 0 && in_vain > 0 && self.to_come.is_empty());
    }
}

const LONGEST: Duration = Duration::from_secs(12 * 3600);
const SHORTEST: Duration = Duration::from_secs(1);
/// Some nine hundred are usual: many more are something that is due again and again.
const MOST_MOMENTS: u32 = 20_000;
