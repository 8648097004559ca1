//! A domain, its CA and the issuer in a sandbox, with the captured log.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use moorgate::internal::certs::CertificateReport;

use crate::acme_year::acme_sim::{AcmeSim, Names};
use crate::acme_year::alone;
use crate::acme_year::process::Process;

pub const DOMAIN: &str = "classic1.example.com";
const DOMAIN_NAMES: [Names; 1] = [("classic", &[DOMAIN])];
pub const DAY: Duration = Duration::from_secs(86_400);
pub const MINUTE: Duration = Duration::from_secs(60);

/// The issuer and what surrounds it.
pub struct IssuerFixture {
    pub sim: AcmeSim,
    process: Option<Process>,
}

/// Runs a test in a sandbox: `[tls] acme` for one domain, with http-01.
pub fn sandboxed(test: &str, inside: impl FnOnce(IssuerFixture)) {
    sandboxed_with(test, &DOMAIN_NAMES, "[\"http-01\"]", inside);
}

/// Runs a test in a sandbox with these domains and challenges.
pub fn sandboxed_with(
    test: &str,
    domains: &[Names],
    challenges: &str,
    inside: impl FnOnce(IssuerFixture),
) {
    alone::run(&format!("acme_faults::{test}"), |place| {
        capture_log();
        let sim = AcmeSim::new(SystemTime::now(), place, domains, challenges);
        inside(IssuerFixture { sim, process: None });
    });
}

impl IssuerFixture {
    /// Starts the issuer and runs it until it is idle.
    pub fn start(&mut self) {
        self.process = Some(Process::start(&self.sim.directory, self.sim.wall()));
        self.process().work();
    }

    /// Starts the issuer and runs it until it waits for the CA.
    pub fn start_only(&mut self) {
        let process = Process::start(&self.sim.directory, self.sim.wall());
        assert!(process.work_until(&self.sim.ca, 1, 200));
        self.process = Some(process);
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it is started")
    }

    /// Kills the issuer and starts another one.
    pub fn restart(&mut self) {
        self.process.take().expect("it is started").kill();
        self.start();
    }

    /// Advances the clocks, and runs the issuer whenever something is due.
    pub fn advance(&self, time: Duration) {
        self.advance_with(time, |process, _| process.work());
    }

    /// Advances the clocks, also while the issuer polls an order.
    pub fn advance_polling(&self, time: Duration) {
        self.advance_with(time, |process, asked| {
            process.work_through_delays(&self.sim.ca, asked)
        });
    }

    fn advance_with(&self, time: Duration, work: impl Fn(&Process, usize)) {
        let end = self.sim.now() + time;
        let mut rounds = 0;
        while let Ok(left) = end.duration_since(self.sim.now())
            && !left.is_zero()
        {
            let wall = (self.sim.wall())();
            let due = self
                .process()
                .next()
                .map_or(left, |at| at.duration_since(wall).unwrap_or_default());
            let pause = due.min(DAY / 4).max(Duration::from_secs(1)).min(left);
            let asked = self.sim.ca.requests();
            self.sim.pass(pause);
            self.process().pass(pause);
            work(self.process(), asked);
            rounds += 1;
            assert!(
                rounds < MAX_ROUNDS,
                "{left:?} of {time:?} are left: {}",
                self.process().shown()
            );
        }
    }

    /// Advances the clocks to a minute before the next attempt.
    pub fn advance_to_renewal(&self) {
        let next = self.report().acme.unwrap().next_attempt.unwrap();
        let left = next.duration_since((self.sim.wall())()).unwrap();
        self.advance(left - MINUTE);
    }

    pub fn renew(&self) {
        self.process().renew(DOMAIN);
        self.process().work();
    }

    pub fn report(&self) -> CertificateReport {
        self.process().report(DOMAIN)
    }

    /// The serial number of the certificate that is served, if any.
    pub fn served(&self) -> Option<String> {
        self.process().served(DOMAIN).map(|facts| facts.serial)
    }

    /// The error of the last attempt.
    pub fn error(&self) -> String {
        self.report()
            .acme
            .and_then(|acme| acme.error)
            .unwrap_or_default()
    }

    pub fn orders(&self) -> usize {
        self.sim.ca.asked("order").len()
    }

    /// A file below `state/acme`; `CA` stands for the directory of the CA.
    pub fn file(&self, name: &str) -> PathBuf {
        let name = name.replace("CA", "acme-v02.api.letsencrypt.org+directory");
        self.sim.directory.join("state/acme").join(name)
    }
}

/// Four steps a day for a hundred days, and what is due besides. More means a step that is due again
/// and again.
const MAX_ROUNDS: u32 = 2000;

pub fn content(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

static LOG: Mutex<String> = Mutex::new(String::new());

/// Captures all events of this process, which runs only the one test.
fn capture_log() {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| LogWriter)
        .with_ansi(false)
        .without_time();
    subscriber
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_target(false)
        .init();
}

/// The log so far.
pub fn log() -> String {
    LOG.lock().unwrap().clone()
}

struct LogWriter;

impl std::io::Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().push_str(&String::from_utf8_lossy(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
