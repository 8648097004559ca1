//! A domain, its CA and the issuer, in a place of its own; what is logged is kept.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use moorgate::certs::served::report::CertificateReport;

use crate::acme_year::acme_sim::{AcmeSim, Names};
use crate::acme_year::alone;
use crate::acme_year::process::Process;

pub const DOMAIN: &str = "classic1.example.com";
const ALONE: [Names; 1] = [("classic", &[DOMAIN])];
pub const DAY: Duration = Duration::from_secs(86_400);
pub const MINUTE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub world: AcmeSim,
    process: Option<Process>,
}

/// Runs a test in a place of its own: `[tls] acme` for one domain, which is proved by http-01.
pub fn alone(test: &str, inside: impl FnOnce(Stage)) {
    with(test, &ALONE, "[\"http-01\"]", inside);
}

/// The same for these domains and challenges.
pub fn with(test: &str, domains: &[Names], challenges: &str, inside: impl FnOnce(Stage)) {
    alone::run(&format!("acme_faults::{test}"), |place| {
        keep_log();
        let world = AcmeSim::new(SystemTime::now(), place, domains, challenges);
        inside(Stage {
            world,
            process: None,
        });
    });
}

impl Stage {
    /// Starts moorgate, and lets it do what it wants to do now.
    pub fn start(&mut self) {
        self.process = Some(Process::start(&self.world.directory, self.world.wall()));
        self.process().work();
    }

    /// Starts moorgate, and lets it come to where it waits for the CA.
    pub fn start_only(&mut self) {
        let process = Process::start(&self.world.directory, self.world.wall());
        assert!(process.work_until(&self.world.ca, 1, 200));
        self.process = Some(process);
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it is started")
    }

    /// Ends moorgate and starts another one.
    pub fn restart(&mut self) {
        self.process.take().expect("it is started").kill();
        self.start();
    }

    /// Lets time pass, and moorgate do what is due meanwhile.
    pub fn pass(&self, time: Duration) {
        self.pass_with(time, |process, _| process.work());
    }

    /// The same where the CA has moorgate wait.
    pub fn pass_patiently(&self, time: Duration) {
        self.pass_with(time, |process, asked| {
            process.work_through_delays(&self.world.ca, asked)
        });
    }

    fn pass_with(&self, time: Duration, work: impl Fn(&Process, usize)) {
        let end = self.world.now() + time;
        let mut rounds = 0;
        while let Ok(left) = end.duration_since(self.world.now())
            && !left.is_zero()
        {
            let wall = (self.world.wall())();
            let due = self
                .process()
                .next()
                .map_or(left, |at| at.duration_since(wall).unwrap_or_default());
            let pause = due.min(DAY / 4).max(Duration::from_secs(1)).min(left);
            let asked = self.world.ca.requests();
            self.world.pass(pause);
            self.process().pass(pause);
            work(self.process(), asked);
            rounds += 1;
            assert!(
                rounds < MOST_ROUNDS,
                "{left:?} of {time:?} are left: {}",
                self.process().shown()
            );
        }
    }

    /// Lets time pass until shortly before the next attempt.
    pub fn pass_until_renewal(&self) {
        let next = self.report().acme.unwrap().next_attempt.unwrap();
        let left = next.duration_since((self.world.wall())()).unwrap();
        self.pass(left - MINUTE);
    }

    pub fn renew(&self) {
        self.process().renew(DOMAIN);
        self.process().work();
    }

    pub fn report(&self) -> CertificateReport {
        self.process().report(DOMAIN)
    }

    /// The serial number of what is served, if anything is.
    pub fn served(&self) -> Option<String> {
        self.process().served(DOMAIN).map(|facts| facts.serial)
    }

    /// Why the last attempt failed.
    pub fn error(&self) -> String {
        self.report()
            .acme
            .and_then(|acme| acme.error)
            .unwrap_or_default()
    }

    pub fn orders(&self) -> usize {
        self.world.ca.asked("order").len()
    }

    /// A file below `state/acme`, which is there; `CA` stands for the directory of the CA.
    pub fn file(&self, name: &str) -> PathBuf {
        let name = name.replace("CA", "acme-v02.api.letsencrypt.org+directory");
        self.world.directory.join("state/acme").join(name)
    }
}

/// In a hundred days four looks a day, and what is due besides: more is one that is due again and
/// again.
const MOST_ROUNDS: u32 = 2000;

pub fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

static LOG: Mutex<String> = Mutex::new(String::new());

/// All events of this process, which is the test's alone.
fn keep_log() {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| Keeping)
        .with_ansi(false)
        .without_time();
    subscriber
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_target(false)
        .init();
}

/// What was logged so far.
pub fn log() -> String {
    LOG.lock().unwrap().clone()
}

struct Keeping;

impl std::io::Write for Keeping {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().push_str(&String::from_utf8_lossy(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
