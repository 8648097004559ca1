//! `kill -9` at any moment of parallel pushes: what was acknowledged is there, nothing wrong is,
//! and uploads go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::client::{Client, Endpoint};
use super::fixture::Killable;
use super::image::{Image, bytes, sha256};
use crate::harness::PATIENCE;

const KILLS: u64 = 200;
const CLIENTS: u64 = 4;

/// The manifest that is acknowledged to be a tag's, and the one that was asked for after that.
type Tag = (Option<String>, Option<String>);

/// What the store has said that it has.
#[derive(Default)]
struct Promised {
    blobs: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    manifests: Mutex<BTreeMap<(String, String), Image>>,
    /// The last tag of each client's repository that was acknowledged, and the one that was asked
    /// for after that and may have become true, too.
    tags: Mutex<BTreeMap<String, Tag>>,
    answers: AtomicUsize,
    answered: Notify,
}

impl Promised {
    fn an_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.answered.notify_one();
    }

    /// Waits for so many answers from now on.
    async fn come(&self, count: usize) {
        let until = self.answers.load(Ordering::Relaxed) + count;
        let answers = async {
            while self.answers.load(Ordering::Relaxed) < until {
                self.answered.notified().await;
            }
        };
        in_time("answers to pushes", answers).await;
    }
}

/// A store that has stopped answering is to be found out by what for.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("nothing comes of {what}"))
}

/// Pushes images until the connection breaks for good. Half of the layers are shared by all
/// clients.
async fn push_on(endpoint: Endpoint, client: u64, round: u64, promised: Arc<Promised>) {
    let mut connection = endpoint.client();
    for n in 0.. {
        let seed = round * 1000 + client * 100 + n;
        let repository = format!("team/app-{}", client % 3);
        let shared = bytes(round * 1000 + n, 3000);
        let image = Image::new(seed, vec![shared, bytes(seed, 20_000)]);
        let pushed = push(
            &mut connection,
            (&repository, &format!("c{client}")),
            &image,
            n,
            &promised,
        )
        .await;
        if pushed.is_none() {
            return;
        }
    }
}

async fn push(
    client: &mut Client,
    (repository, tag): (&str, &str),
    image: &Image,
    n: u64,
    promised: &Promised,
) -> Option<()> {
    for blob in image.blobs() {
        let digest = sha256(blob);
        if (n + blob.len() as u64).is_multiple_of(2) {
            let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            client
                .try_ask("POST", &target, &[], blob.to_vec())
                .await
                .ok()?
                .is(201);
        } else {
            let target = format!("/v2/{repository}/blobs/uploads/");
            let started = client.try_ask("POST", &target, &[], "");
            let session = started.await.ok()?.is(202).header("location").to_owned();
            promised.an_answer();
            let (first, rest) = blob.split_at(blob.len() / 2);
            client
                .try_ask("PATCH", &session, &[], first.to_vec())
                .await
                .ok()?
                .is(202);
            promised.an_answer();
            let target = format!("{session}?digest={digest}");
            client
                .try_ask("PUT", &target, &[], rest.to_vec())
                .await
                .ok()?
                .is(201);
        }
        promised
            .blobs
            .lock()
            .unwrap()
            .insert((repository.to_owned(), digest), blob.to_vec());
        promised.an_answer();
    }
    let place = format!("{repository}:{tag}");
    promised
        .tags
        .lock()
        .unwrap()
        .entry(place.clone())
        .or_default()
        .1 = Some(image.digest());
    let target = format!("/v2/{repository}/manifests/{tag}");
    let kind = [("content-type", super::image::MANIFEST)];
    client
        .try_ask("PUT", &target, &kind, image.manifest.clone())
        .await
        .ok()?
        .is(201);
    promised
        .tags
        .lock()
        .unwrap()
        .insert(place, (Some(image.digest()), None));
    promised
        .manifests
        .lock()
        .unwrap()
        .insert((repository.to_owned(), image.digest()), image.clone());
    promised.an_answer();
    Some(())
}

/// Asserts that everything that was promised is there, and settles what was asked for without an
/// answer.
async fn verify(client: &mut Client, promised: &Promised) {
    let blobs = std::mem::take(&mut *promised.blobs.lock().unwrap());
    for ((repository, digest), blob) in blobs {
        let answer = client
            .get(&format!("/v2/{repository}/blobs/{digest}"))
            .await
            .is(200);
        assert!(answer.body == blob, "{repository} {digest}");
    }
    let manifests = std::mem::take(&mut *promised.manifests.lock().unwrap());
    for ((repository, digest), image) in manifests {
        client.check(&repository, &digest, &image).await;
    }
    let tags = promised.tags.lock().unwrap().clone();
    for (place, (acknowledged, asked)) in tags {
        let (repository, tag) = place.split_once(':').unwrap();
        let answer = client
            .get(&format!("/v2/{repository}/manifests/{tag}"))
            .await;
        let found = (answer.status == 200).then(|| sha256(&answer.body));
        assert!(
            found == acknowledged || found == asked && asked.is_some(),
            "{place}: {answer:?}"
        );
        promised.tags.lock().unwrap().insert(place, (found, None));
    }
}

/// A session that lives through all kills: every process finds what the ones before acknowledged.
struct Long {
    session: String,
    content: Vec<u8>,
    here: usize,
}

impl Long {
    async fn begin(client: &mut Client) -> Self {
        let session = client.start("team/long").await;
        Self {
            session,
            content: bytes(7, 400_000),
            here: 0,
        }
    }

    /// Sends a piece, whose answer a kill may take, from where the store says that it stands.
    async fn go_on(&mut self, endpoint: &Endpoint) {
        let mut client = endpoint.client();
        let Ok(status) = client.try_ask("GET", &self.session, &[], "").await else {
            return;
        };
        let range = status
            .is(204)
            .header("range")
            .strip_prefix("0-")
            .unwrap()
            .parse::<usize>()
            .unwrap();
        let here = if range == 0 { 0 } else { range + 1 };
        assert!(
            here >= self.here,
            "{} bytes were acknowledged, {here} are here",
            self.here
        );
        let end = (here + 1999).min(self.content.len());
        let place = [("content-range", format!("{here}-{}", end - 1))];
        let place = [(place[0].0, place[0].1.as_str())];
        let sent = client
            .try_ask(
                "PATCH",
                &self.session,
                &place,
                self.content[here..end].to_vec(),
            )
            .await;
        self.here = if sent.is_ok_and(|answer| answer.is(202).status == 202) {
            end
        } else {
            here
        };
    }

    async fn end(self, client: &mut Client) {
        let status = client.get(&self.session).await.is(204);
        let here = status
            .header("range")
            .strip_prefix("0-")
            .unwrap()
            .parse::<usize>()
            .unwrap()
            + 1;
        let digest = sha256(&self.content);
        let target = format!("{}?digest={digest}", self.session);
        client
            .ask_with("PUT", &target, &[], self.content[here..].to_vec())
            .await
            .is(201);
        assert!(
            client
                .get(&format!("/v2/team/long/blobs/{digest}"))
                .await
                .is(200)
                .body
                == self.content
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Killable::start(directory.path());
    let promised = Arc::new(Promised::default());
    let mut long = Long::begin(&mut process.endpoint.client()).await;
    for round in 0..KILLS {
        let pushes: Vec<_> = (0..CLIENTS)
            .map(|client| {
                tokio::spawn(push_on(
                    process.endpoint.clone(),
                    client,
                    round,
                    promised.clone(),
                ))
            })
            .collect();
        in_time("the long upload", long.go_on(&process.endpoint)).await;
        // From none to about two images of each client.
        let answers = bytes(round, 8)[0] as usize % 40;
        promised.come(answers).await;
        process.restart();
        for push in pushes {
            // Nobody answers any more, and what was answered is noted before the client waits for
            // anything else.
            push.abort();
            if let Err(error) = push.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        in_time(
            "what was promised",
            Box::pin(verify(&mut process.endpoint.client(), &promised)),
        )
        .await;
        // All of it takes long: every tenth time will do, and the last.
        if round % 10 == 9 {
            process.disk().is_sound();
        }
    }
    process.disk().is_sound();
    long.end(&mut process.endpoint.client()).await;
    // What was left half-done is in nobody's way, and goes.
    let image = Image::small(1);
    process
        .endpoint
        .client()
        .push("team/app-0", "after", &image)
        .await;
    super::fixture::gc(directory.path(), &[]);
    process
        .endpoint
        .client()
        .check("team/app-0", "after", &image)
        .await;
    process.disk().is_sound();
}
