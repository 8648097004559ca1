//! moorgate's issuer as a process: it can be killed at any moment, and another one finds what is on
//! disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use moorgate::certs::inspect::CertificateFacts;
use moorgate::certs::orders::{Issuer, SystemClock};
use moorgate::certs::served::manager::Certificates;
use moorgate::certs::served::report::CertificateReport;
use moorgate::config::vhost::ListenAddress;
use moorgate::registry::host::HostName;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::harness::Clock;
use crate::harness::acme_ca::AcmeCa;

/// A running one. It runs only while somebody waits for it, so that it can be stopped anywhere.
pub struct Process {
    // Dropped first: what holds up the clock ends then, and the runtime can end.
    clock: Clock,
    runtime: Runtime,
    certificates: Arc<Certificates>,
    issuer: Arc<Issuer>,
}

impl Process {
    /// Over the files of a directory, by this clock.
    pub fn start(directory: &Path, wall: SystemClock) -> Self {
        let snapshot = moorgate::config::load(directory).unwrap_or_else(|problems| {
            panic!(
                "{}",
                problems.render(moorgate::config::problem::Colour::Never)
            )
        });
        let snapshot = snapshot.snapshot;
        let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
        certificates.apply(&snapshot);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (clock, issuer) = runtime.block_on(async {
            let clock = Clock::stopped();
            let issuer = Arc::new(Issuer::new(certificates.clone(), &snapshot, wall));
            tokio::spawn(issuer.clone().run(CancellationToken::new()));
            (clock, issuer)
        });
        Self {
            clock,
            runtime,
            certificates,
            issuer,
        }
    }

    /// Lets so much time pass, in which nothing happens, and then what is due.
    pub fn pass(&self, time: Duration) {
        self.runtime.block_on(self.clock.jump(time));
    }

    /// Lets it do all that it wants to do now. What that is takes some milliseconds.
    pub fn work(&self) {
        self.runtime.block_on(self.done());
    }

    /// The same where it waits for a CA that takes its time: once that was asked, the clock moves
    /// on by seconds. `asked`: how often it had been before there was anything to do.
    pub fn work_patiently(&self, ca: &AcmeCa, asked: usize) {
        if !self.work_until(ca, asked + 1, 200) {
            return;
        }
        self.runtime.block_on(async {
            while !self.is_idle() {
                self.clock.jump(Duration::from_secs(1)).await;
                for _ in 0..20 {
                    // Lets the CA's thread run, so that no answer comes too late by that clock.
                    tokio::task::spawn_blocking(std::thread::yield_now)
                        .await
                        .unwrap();
                }
            }
        });
    }

    /// The same, but only until the CA has been asked so often, and a little longer. Whether it
    /// came so far.
    pub fn work_until(&self, ca: &AcmeCa, requests: usize, longer: u64) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = ca.until_requests(requests) => {}
                () = self.done() => return false,
            }
            for _ in 0..longer {
                tokio::task::yield_now().await;
            }
            true
        })
    }

    /// Asks for another certificate, as the administrator does.
    pub fn renew(&self, domain: &str) {
        self.issuer.renew(HostName::parse(domain).unwrap());
        self.pass(Duration::ZERO);
    }

    /// Looks at the files again, as moorgate does each second.
    pub fn look(&self) {
        self.certificates.refresh();
    }

    /// What it shows of a domain.
    pub fn report(&self, domain: &str) -> CertificateReport {
        self.certificates
            .report()
            .into_iter()
            .find(|report| report.domain.as_str() == domain)
            .unwrap()
    }

    async fn done(&self) {
        let begun = Instant::now();
        while !self.is_idle() {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it has not done all that is due: {}",
                self.shown()
            );
        }
    }

    /// Ends it between two of its steps, wherever it is. What it has told the disk to do is done.
    pub fn kill(self) {
        let Self {
            clock,
            runtime,
            certificates: _,
            issuer: _,
        } = self;
        drop(clock);
        drop(runtime);
    }

    fn is_idle(&self) -> bool {
        self.certificates.report().iter().all(|report| {
            report
                .acme
                .as_ref()
                .is_some_and(|acme| acme.next_attempt.is_some() && !is_busy(&acme.state))
        })
    }

    /// When it will try something next, by its clock.
    pub fn next(&self) -> Option<SystemTime> {
        self.certificates
            .report()
            .iter()
            .filter_map(|report| report.acme.as_ref()?.next_attempt)
            .min()
    }

    /// What it serves under a name at this moment.
    pub fn served(&self, name: &str) -> Option<CertificateFacts> {
        let listen = ListenAddress("127.0.0.1:443".parse().unwrap());
        let key = self.certificates.table().find(listen, Some(name))?;
        Some(CertificateFacts::read(&key.cert[0]).unwrap())
    }

    /// What it shows, for whoever has to find out why.
    pub fn shown(&self) -> String {
        format!("{:#?}", self.certificates.report())
    }
}

fn is_busy(state: &str) -> bool {
    ["being checked", "not checked yet"].contains(&state)
}

/// By the real clock, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(60);
