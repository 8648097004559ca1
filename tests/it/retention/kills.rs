//! A process that is killed in the middle of a run.

use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fixture::{NEWEST, clock_reaches};
use crate::harness::Domain;
use crate::store::client::Client;
use crate::store::fixture::{Killable, binary};
use crate::store::image::{Image, index};

fn retention(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("retention").args(arguments);
    command.arg("--config").arg(config);
    command
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(bytes).unwrap()
}

/// Applies a plan in a process that has just been started: it takes commands after connections.
async fn apply(config: &Path, plan: &str) -> Output {
    loop {
        let applied = output(retention(config, &["apply", plan])).await;
        if !text(&applied).contains("no moorgate runs here") {
            return applied;
        }
    }
}

/// Every manifest that a tag leads to, with all below it.
async fn all(client: &mut Client, tags: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for number in 0..tags {
        let target = format!("/v2/cache/app/manifests/v{number}");
        let index = client.get(&target).await.is(200);
        for child in index.json()["manifests"].as_array().unwrap() {
            let target = format!(
                "/v2/cache/app/manifests/{}",
                child["digest"].as_str().unwrap()
            );
            found.push(client.get(&target).await.is(200).body.to_vec());
        }
        found.push(index.body.to_vec());
    }
    found
}

/// Pushes indexes that share a child, each with a tag: the last is the newest, and all are older
/// than `min_age` then.
async fn push_all(client: &mut Client, tags: usize) -> Vec<Vec<u8>> {
    let shared = Image::small(1000);
    for number in 0..tags {
        let own = Image::small(number as u64);
        for image in [&shared, &own] {
            client.push("cache/app", &image.digest(), image).await;
        }
        let bytes = index(&[shared.descriptor(), own.descriptor()]);
        if number + 1 == tags {
            // Of what is pushed in one second, nothing is the newest.
            clock_reaches(1).await;
        }
        let tag = format!("v{number}");
        client.push_manifest("cache/app", &tag, &bytes).await;
    }
    clock_reaches(2).await;
    all(client, tags).await
}

/// A run of a plan that has begun to save what it takes away.
struct BegunRun {
    command: JoinHandle<Output>,
    begin: Instant,
}

impl BegunRun {
    fn begin(config: &Path, plan: &str) -> Self {
        let undo = config.join("state/retention/ci.test/undo");
        // What an earlier run has saved, this one would not save again.
        if undo.exists() {
            std::fs::remove_dir_all(&undo).unwrap();
        }
        let mut apply = retention(config, &["apply", plan]);
        let command = std::thread::spawn(move || apply.output().unwrap());
        while !undo.join(plan).exists() && !command.is_finished() {
            std::thread::yield_now();
        }
        Self {
            command,
            begin: Instant::now(),
        }
    }

    fn wait_for(&self, time: Duration) {
        while self.begin.elapsed() < time {
            std::thread::yield_now();
        }
    }

    /// Whether it came to its end.
    fn ended(self) -> bool {
        self.command.join().unwrap().status.success()
    }
}

#[tokio::test]
async fn a_run_that_is_killed_at_fifty_points_is_continued_and_undone() {
    const TAGS: usize = 12;
    const POINTS: u32 = 50;
    let directory = tempfile::tempdir().unwrap();
    let domain = Domain::store("ci.test", "ci").tables(NEWEST);
    let mut process = Killable::with(directory.path(), domain);
    let before = push_all(&mut process.endpoint.client(), TAGS).await;
    let planned = output(retention(directory.path(), &["plan", "ci.test", "--json"])).await;
    let header = text(&planned);
    let header: serde_json::Value = serde_json::from_str(header.lines().next().unwrap()).unwrap();
    let id = header["id"].as_str().unwrap();
    let mut whole_run = None;
    let mut killed = 0;
    for attempt in 0.. {
        let run = BegunRun::begin(directory.path(), id);
        match whole_run {
            None => {
                let begin = run.begin;
                assert!(run.ended());
                whole_run = Some(begin.elapsed());
            }
            Some(time) => {
                run.wait_for(time * (attempt % POINTS) / POINTS);
                process.restart();
                // Where the machine was busy meanwhile, it had ended before.
                killed += u32::from(!run.ended());
            }
        }
        let applied = apply(directory.path(), id).await;
        assert!(applied.status.success(), "{attempt}: {}", text(&applied));
        let mut client = process.endpoint.client();
        let tags = client.get("/v2/cache/app/tags/list").await.is(200).json();
        let newest = format!("v{}", TAGS - 1);
        assert_eq!(tags["tags"], serde_json::json!([newest]), "{attempt}");
        let undone = output(retention(directory.path(), &["undo", id])).await;
        assert!(undone.status.success(), "{attempt}: {}", text(&undone));
        assert_eq!(all(&mut client, TAGS).await, before, "{attempt}");
        process.disk().is_sound();
        if killed == POINTS {
            break;
        }
    }
}
