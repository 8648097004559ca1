//! moorgate's issuer as a process that can be killed at any time. The next one finds what is on
//! disk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use moorgate::internal::certs::CertificateFacts;
use moorgate::internal::certs::CertificateReport;
use moorgate::internal::certs::Certificates;
use moorgate::internal::certs::{Issuer, SystemClock};
use moorgate::internal::config::ListenAddress;
use moorgate::internal::registry::HostName;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::harness::Clock;
use crate::harness::acme_ca::AcmeCa;

/// A running issuer. It runs only while the test waits for it, so that it can be stopped anywhere.
pub struct Process {
    // Dropped first: it blocks the runtime from ending.
    clock: Clock,
    runtime: Runtime,
    certificates: Arc<Certificates>,
    issuer: Arc<Issuer>,
}

impl Process {
    /// Starts with the files of a directory and this clock.
    pub fn start(directory: &Path, wall: SystemClock) -> Self {
        let snapshot = moorgate::internal::config::load(directory).unwrap_or_else(|problems| {
            panic!(
                "{}",
                problems.render(moorgate::internal::config::Colour::Never)
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

    /// Advances the clock by `time`, then lets the issuer do what is due.
    pub fn pass(&self, time: Duration) {
        self.runtime.block_on(self.clock.jump(time));
    }

    /// Lets the issuer do everything that is due, which takes some milliseconds.
    pub fn work(&self) {
        self.runtime.block_on(self.done());
    }

    /// Like [`work`](Self::work) with a slow CA: after the first request, the clock advances by
    /// seconds. `asked` is the number of requests before.
    pub fn work_through_delays(&self, ca: &AcmeCa, asked: usize) {
        if !self.work_until(ca, asked + 1, 200) {
            return;
        }
        self.runtime.block_on(async {
            while !self.is_idle() {
                self.clock.jump(Duration::from_secs(1)).await;
                for _ in 0..20 {
                    // Lets the thread of the CA run: no response may be late by that clock.
                    tokio::task::spawn_blocking(std::thread::yield_now)
                        .await
                        .unwrap();
                }
            }
        });
    }

    /// Like [`work`](Self::work), but only until the CA has received so many requests and for
    /// `longer` more yields. Returns whether the CA received them.
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

    /// Requests another certificate, as the administrator does.
    pub fn renew(&self, domain: &str) {
        self.issuer.renew(HostName::parse(domain).unwrap());
        self.pass(Duration::ZERO);
    }

    /// Refreshes the certificates, as moorgate does each second.
    pub fn refresh(&self) {
        self.certificates.refresh();
    }

    /// The report on a domain.
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
                begun.elapsed() < WORK_TIMEOUT,
                "it has not done all that is due: {}",
                self.shown()
            );
        }
    }

    /// Ends the issuer between two of its steps. Running writes to the disk are completed.
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

    /// The time of the next attempt, by the clock of the issuer.
    pub fn next(&self) -> Option<SystemTime> {
        self.certificates
            .report()
            .iter()
            .filter_map(|report| report.acme.as_ref()?.next_attempt)
            .min()
    }

    /// The certificate that is served for a name.
    pub fn served(&self, name: &str) -> Option<CertificateFacts> {
        let listen = ListenAddress("127.0.0.1:443".parse().unwrap());
        let key = self.certificates.table().find(listen, Some(name))?;
        Some(CertificateFacts::read(&key.cert[0]).unwrap())
    }

    /// All reports, for failure messages.
    pub fn shown(&self) -> String {
        format!("{:#?}", self.certificates.report())
    }
}

fn is_busy(state: &str) -> bool {
    ["being checked", "not checked yet"].contains(&state)
}

/// By the real clock, on a loaded machine.
const WORK_TIMEOUT: Duration = Duration::from_secs(60);
