//! A mixed load with a fault every few seconds, in namespaces of its own: every transfer is counted,
//! and fails only with what it needs. Memory and descriptors of the process do not grow.
//!
//! `./ctl.sh soak [MINUTES]`. `MOORGATE_SOAK_MINUTES`: for how long; two by default.

mod faults;
mod load;
mod tally;
mod usage;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use faults::Faults;
use load::Load;
use tally::Tally;
use usage::{Sample, assert_flat};

use super::process::{run, tool};
use super::replica_process::Replica;
use crate::harness::{Domain, Setup, namespaces};
use crate::upgrade::fixture::Service;

#[test]
fn a_mixed_load_goes_on_through_faults() {
    let Some(place) = namespaces::place() else {
        let directory = tempfile::tempdir().unwrap();
        let test = "real_peers::soak::a_mixed_load_goes_on_through_faults";
        return namespaces::run_again(test, directory.path(), "true");
    };
    let minutes = std::env::var("MOORGATE_SOAK_MINUTES").ok();
    let minutes: u64 = minutes.map_or(2, |minutes| minutes.parse().expect("a number of minutes"));
    soak(&place, Duration::from_secs(minutes * 60));
}

fn soak(place: &Path, time: Duration) {
    let replicas = [
        Replica::start("registry-0", place),
        Replica::start("registry-1", place),
        Replica::start_elsewhere("registry-2", place),
    ];
    let service = start(place, &replicas);
    let tally = Arc::<Tally>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let load = runtime.block_on(Load::start(&service, &tally));
    let mut faults = Faults::new(&service, replicas, place);
    let mut samples = Vec::new();
    let begun = Instant::now();
    while (begun.elapsed() < time || samples.len() < LEAST_ROUNDS) && tally.is_well() {
        faults.round(samples.len());
        samples.push(Sample::of(faults.serving));
        println!(
            "{:>5.0?} {:?} {tally}",
            begun.elapsed(),
            samples.last().unwrap()
        );
    }
    tally.stop();
    runtime.block_on(load.end());
    println!(
        "{} faults in {:.0?}: {tally}",
        faults.windows.len(),
        begun.elapsed()
    );
    tally.judge(&faults.windows);
    assert_flat(&samples);
    // Nothing holds it up any more.
    faults.stop();
}

/// Its own registry is on a file system that can be filled, another one has three replicas.
fn start(place: &Path, replicas: &[Replica]) -> Service {
    let directory = tempfile::tempdir_in(place).unwrap();
    let store = directory.path().join("state/store");
    std::fs::create_dir_all(&store).unwrap();
    let mut mount = Command::new(tool("mount", "mount"));
    mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "none"]);
    run(mount.arg(store), "").succeeded();
    let url = |replica: &Replica| format!("http://{}", replica.address);
    let urls: Vec<_> = replicas
        .iter()
        .map(|replica| format!("\"{}\"", url(replica)))
        .collect();
    let keys = format!(
        "urls = [{}]\n[upstream.check]\ninterval = \"1s\"",
        urls.join(", ")
    );
    let setup = Setup::new()
        .domain(Domain::store("ci.test", "ci"))
        .domain(Domain::new("replicas.test", "").upstream(&keys))
        .domain(Domain::new("other.test", &url(&replicas[0])));
    Service::start_in(directory, setup)
}

/// So that the process that an upgrade has started in the second one is seen after others.
const LEAST_ROUNDS: usize = 4;
