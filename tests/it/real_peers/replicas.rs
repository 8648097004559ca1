//! Three docker-registry processes on one directory, one of which is killed, stopped or cut off every
//! few seconds while clients read and push.

mod cut_off;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::{JoinSet, spawn_blocking};

use super::replica_process::Replica;
use crate::harness::registry_client::with_digest;
use crate::harness::{Domain, Gateway, RegistryClient, Setup, played};
use cut_off::CutOff;

/// How long one fault lasts, and how long the pause after it.
const FAULT: Duration = Duration::from_secs(5);
const READERS: usize = 4;

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    /// Of reads, when each began and how long it took.
    reads: Vec<(Instant, Duration)>,
    pushed: usize,
    /// Pushes that were refused: their time, and what was said.
    refused: Vec<(Instant, Instant, String)>,
}

type Shared = Arc<Mutex<Seen>>;

async fn read(client: Arc<RegistryClient>, target: String, content: Vec<u8>, seen: Shared) {
    loop {
        let began = Instant::now();
        let answer = client.get(&target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, content);
        seen.lock().unwrap().reads.push((began, began.elapsed()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn push(client: Arc<RegistryClient>, seen: Shared) {
    for number in 0_u64.. {
        let blob = number.to_be_bytes().repeat(20_000);
        let began = Instant::now();
        let pushed = push_blob(&client, &blob).await;
        {
            let mut seen = seen.lock().unwrap();
            match pushed {
                Ok(()) => seen.pushed += 1,
                Err(said) => seen.refused.push((began, Instant::now(), said)),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Errors: what was said in place of the upload.
async fn push_blob(client: &RegistryClient, blob: &[u8]) -> Result<(), String> {
    let kind = "content-type: application/octet-stream";
    let begun = client
        .send("POST", "/v2/app/blobs/uploads/", &[], b"")
        .await;
    let said = |step: &str, answer: &crate::harness::registry_client::ClientAnswer| {
        format!("{step}: {} {:?}", answer.status, answer.body)
    };
    if begun.status != 202 {
        return Err(said("POST", &begun));
    }
    let sent = client.send("PATCH", &begun.location(), &[kind], blob).await;
    if sent.status != 202 {
        return Err(said("PATCH", &sent));
    }
    let target = with_digest(&sent.location(), &played::digest(blob));
    let done = client.send("PUT", &target, &[], b"").await;
    match done.status {
        201 => Ok(()),
        _ => Err(said("PUT", &done)),
    }
}

/// The times of faults.
type Faults = Vec<(Instant, Instant)>;

/// One fault after the other; when they began and ended.
async fn faults(
    mut replicas: Vec<Replica>,
    cut_off: CutOff,
    directory: &Path,
    rounds: u64,
) -> Faults {
    let mut times = Vec::new();
    for round in 0..rounds {
        let began = Instant::now();
        let index = usize::try_from(round % 3).unwrap();
        match index {
            0 => {
                replicas[0].signal(Signal::KILL);
                tokio::time::sleep(FAULT).await;
                let mut killed = replicas.remove(0);
                let path = directory.to_owned();
                let run = spawn_blocking(move || {
                    killed.ended();
                    killed.run(&path);
                    killed
                });
                replicas.insert(0, run.await.unwrap());
            }
            1 => {
                replicas[1].signal(Signal::STOP);
                tokio::time::sleep(FAULT).await;
                replicas[1].signal(Signal::CONT);
            }
            _ => {
                cut_off.begin().await;
                tokio::time::sleep(FAULT).await;
                cut_off.end();
            }
        }
        times.push((began, Instant::now()));
        tokio::time::sleep(FAULT).await;
    }
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = sorted.len() * percent / 100;
    sorted[index.min(sorted.len() - 1)]
}

/// When the first replica was ejected.
async fn first_ejection(gateway: &Gateway) -> Instant {
    loop {
        let status = gateway.status().await;
        let replicas = status["domains"][0]["upstream_replicas"]
            .as_array()
            .unwrap();
        if replicas.iter().any(|replica| replica["ejections"] != 0) {
            return Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `MOORGATE_TEST_REPLICAS_SECONDS`: for how long, 300 for the figures of a release.
#[tokio::test]
async fn reads_go_on_and_pushes_fail_only_with_their_replica() {
    let seconds = std::env::var("MOORGATE_TEST_REPLICAS_SECONDS").ok();
    let time = seconds.map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let rounds = time.map_or(3, |time| time.as_secs() / (2 * FAULT.as_secs()));
    let directory = tempfile::tempdir().unwrap();
    let names = ["registry-0", "registry-1", "registry-2"];
    let replicas = names.map(|name| Replica::start(name, directory.path()));
    let cut_off = CutOff::before(replicas[2].address).await;
    let urls = [replicas[0].address, replicas[1].address, cut_off.address];
    let urls = urls
        .map(|address| format!("\"http://{address}\""))
        .join(", ");
    let keys = format!("urls = [{urls}]\n[upstream.check]\ninterval = \"1s\"");
    let domain = Domain::new("ci.test", "").upstream(&keys);
    let gateway = Setup::new().domain(domain).start().await;
    let client = Arc::new(RegistryClient::through(&gateway));
    let content = b"layer".repeat(200);
    let digest = client.push_blob("app", &content).await;

    let seen = Shared::default();
    let mut clients = JoinSet::new();
    for _ in 0..READERS {
        let target = format!("/v2/app/blobs/{digest}");
        clients.spawn(read(client.clone(), target, content.clone(), seen.clone()));
    }
    clients.spawn(push(client.clone(), seen.clone()));
    let running = async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
        unreachable!("clients go on until a wrong answer")
    };
    let both = async {
        tokio::join!(
            faults(replicas.into(), cut_off, directory.path(), rounds),
            first_ejection(&gateway)
        )
    };
    let (faults, ejected) = tokio::select! {
        done = both => done,
        () = running => unreachable!(),
    };
    judge(&seen.lock().unwrap(), &faults, ejected, time.is_some());
}

fn judge(seen: &Seen, faults: &Faults, ejected: Instant, is_measured: bool) {
    let after = seen.reads.iter().filter(|(began, _)| *began > ejected);
    let mut times: Vec<_> = after.map(|(_, time)| *time).collect();
    times.sort_unstable();
    let [p50, p99, last] = [50, 99, 100].map(|percent| percentile(&times, percent));
    println!(
        "{} faults, {} reads, after the first ejection {} with p50 {p50:?} p99 {p99:?} max {last:?}; \
         {} pushes, {} refused",
        faults.len(),
        seen.reads.len(),
        times.len(),
        seen.pushed,
        seen.refused.len()
    );
    assert!(times.len() > 100 && seen.pushed > 0);
    // Half a minute is a quarter of `upstream_head`, which a stopped replica would take otherwise.
    assert!(last < Duration::from_secs(30), "{last:?}");
    assert!(!is_measured || p99 < Duration::from_secs(1), "{p99:?}");
    // The one in progress, and one that was begun there before the ejection.
    assert!(seen.refused.len() <= 2 * faults.len(), "{:?}", seen.refused);
    for (began, ended, said) in &seen.refused {
        assert!(
            [": 502 ", ": 503 ", ": 504 "]
                .iter()
                .any(|status| said.contains(status))
                && said.contains("UNAVAILABLE"),
            "{said}"
        );
        // A replica is back in service some seconds after its fault.
        let back = Duration::from_secs(60);
        let is_near = |(from, to): &(Instant, Instant)| *ended >= *from && *began <= *to + back;
        assert!(faults.iter().any(is_near), "{said}");
    }
}
