//! The faults, one after the other.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::process::{run, tool};
use super::super::replica_process::{INTERFACE, Replica};
use super::tally::{Fault, Window};
use crate::upgrade::fixture::{Service, has_ended, until};

pub(super) struct Faults<'a> {
    service: &'a Service,
    replicas: [Replica; 3],
    place: &'a Path,
    /// The process that serves.
    pub(super) serving: Pid,
    pub(super) windows: Vec<Window>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(service: &'a Service, replicas: [Replica; 3], place: &'a Path) -> Self {
        Self {
            service,
            replicas,
            place,
            serving: service.first(),
            windows: Vec::new(),
        }
    }

    /// Each kind once, upgrades now and then: a process is to be seen for some time.
    pub(super) fn round(&mut self, number: usize) {
        self.during(Fault::Upstream, Self::kill_replica);
        self.during(Fault::Own, |faults| faults.reload(number));
        self.during(Fault::Upstream, Self::stop_replica);
        self.during(Fault::FullDisk, Self::fill_disk);
        if number % ROUNDS_OF_A_PROCESS == 1 {
            self.during(Fault::Own, |faults| {
                faults.serving = faults.service.upgrade()
            });
        }
        self.during(Fault::Own, Self::delete_files);
        let share = if number.is_multiple_of(2) { "0.3" } else { "1" };
        self.during(Fault::Upstream, |faults| faults.drop_packets(share));
    }

    fn during(&mut self, fault: Fault, happens: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        happens(self);
        let ended = Instant::now();
        self.windows.push(Window {
            fault,
            began,
            ended,
        });
        std::thread::sleep(PAUSE);
    }

    fn kill_replica(&mut self) {
        let killed = &mut self.replicas[0];
        killed.signal(Signal::KILL);
        std::thread::sleep(FAULT);
        killed.ended();
        killed.run(self.place);
    }

    fn stop_replica(&mut self) {
        self.replicas[1].signal(Signal::STOP);
        std::thread::sleep(FAULT);
        self.replicas[1].signal(Signal::CONT);
    }

    fn reload(&mut self, number: usize) {
        let file = self.file("other.test.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (_, rest) = text.split_once("[tls]").unwrap();
        let aliases = format!("aliases = [\"alias-{number}.test\"]");
        let text = format!("domain = \"other.test\"\n{aliases}\n[tls]{rest}");
        fs::write(file, text).unwrap();
        let output = self.service.cli(&["reload"]);
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            self.service.said()
        );
    }

    /// All space that is left in the registry's file system.
    fn fill_disk(&mut self) {
        let path = self.service.path().join("state/store/filling");
        let mut file = fs::File::create(&path).unwrap();
        let zeros = vec![0; 64 << 10];
        while file.write_all(&zeros).is_ok() {}
        std::thread::sleep(FAULT);
        fs::remove_file(path).unwrap();
    }

    /// The passwords of one domain, and all of another.
    fn delete_files(&mut self) {
        let files = ["ci.test.htpasswd", "other.test.toml"].map(|name| self.file(name));
        let contents = files.each_ref().map(|file| fs::read(file).unwrap());
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        std::thread::sleep(FAULT);
        for (file, content) in files.iter().zip(contents) {
            fs::write(file, content).unwrap();
        }
        let output = self.service.cli(&["reload"]);
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            self.service.said()
        );
    }

    /// A share of the packets of the replica in the other namespace.
    fn drop_packets(&mut self, share: &str) {
        let iptables = |action| {
            let mut command = Command::new(tool("iptables", "iptables"));
            command.args([action, "INPUT", "--in-interface", INTERFACE]);
            command.args(["-m", "statistic", "--mode", "random"]);
            command.args(["--probability", share, "-j", "DROP"]);
            run(&mut command, "").succeeded();
        };
        iptables("--insert");
        std::thread::sleep(FAULT);
        iptables("--delete");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.service.path().join("conf.d").join(name)
    }

    /// Ends the process that serves. All its transfers have ended.
    pub(super) fn stop(&self) {
        kill_process(self.serving, Signal::TERM).unwrap();
        until("it ends", || has_ended(self.serving));
    }
}

const FAULT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(1);
const ROUNDS_OF_A_PROCESS: usize = 8;
