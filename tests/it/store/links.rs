//! Symbolic links in a store: whoever can make one there must not read, write or remove through
//! moorgate what lies outside.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::client::Client;
use super::fixture::{DAY, Killable, StoreFixture, age, binary};
use super::image::{Image, bytes, sha256};
use crate::harness::{Domain, Events, Setup};

/// All files below a directory, with what a use of them would change.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let data = std::fs::symlink_metadata(&path).unwrap();
        let content = if data.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            std::fs::read(&path).unwrap()
        };
        found.insert(path, (content, data.modified().unwrap()));
    }
    found
}

/// A store in which something may be moved out and linked.
struct LinkedStore {
    fixture: StoreFixture,
    image: Image,
    digest: String,
    session: String,
}

impl LinkedStore {
    async fn new() -> Self {
        let fixture = StoreFixture::new().await;
        let mut client = fixture.http1();
        let image = Image::small(1);
        let digest = client.push("a", "v1", &image).await;
        client.push_blob("a", b"garbage").await;
        let session = client.start("a").await;
        let begun = client.ask_with("PATCH", &session, &[], "begun").await;
        begun.is(202);
        Self {
            fixture,
            image,
            digest,
            session,
        }
    }

    fn outside(&self) -> PathBuf {
        self.fixture.gateway.path("outside")
    }

    /// Moves a part of the store out of it, and puts a link there.
    fn link(&self, part: &Path) {
        std::fs::create_dir(self.outside()).unwrap();
        let target = self.outside().join("target");
        std::fs::rename(part, &target).unwrap();
        symlink(&target, part).unwrap();
        // Sessions, where no maintenance that follows no link removes them.
        for path in files(&target).into_keys().filter(|path| path.is_file()) {
            age(&path, 2 * DAY);
        }
    }

    /// Undoes that, and what was put in the place of the link.
    fn restore(&self, part: &Path) {
        std::fs::remove_file(part).unwrap();
        std::fs::rename(self.outside().join("target"), part).unwrap();
        std::fs::remove_dir(self.outside()).unwrap();
    }

    /// The status of each call, in order.
    async fn calls(&self, client: &mut Client) -> Vec<(&'static str, u16)> {
        let config = sha256(&self.image.config);
        let mut statuses = Vec::new();
        for (call, method, target) in [
            ("manifest", "GET", "/v2/a/manifests/v1".to_owned()),
            ("blob", "GET", format!("/v2/a/blobs/{config}")),
            ("tags", "GET", "/v2/a/tags/list".to_owned()),
            (
                "referrers",
                "GET",
                format!("/v2/a/referrers/{}", self.digest),
            ),
            ("catalog", "GET", "/v2/_catalog".to_owned()),
            ("session", "GET", self.session.clone()),
        ] {
            statuses.push((call, client.ask(method, &target).await.status));
        }
        let chunk = client.ask_with("PATCH", &self.session, &[], "more").await;
        statuses.push(("chunk", chunk.status));
        let blob = bytes(9, 1000);
        let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&blob));
        let pushed = client.ask_with("POST", &target, &[], blob).await;
        statuses.push(("push", pushed.status));
        let empty = super::image::index(&[]);
        let pushed = client.push_manifest("a", "empty", &empty).await;
        statuses.push(("tag", pushed.status));
        let deleted = client.ask("DELETE", "/v2/a/manifests/empty").await;
        statuses.push(("untag", deleted.status));
        statuses
    }

    fn command(&self, arguments: &[&str]) -> (i32, Value) {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .args(["ci.test", "--json", "--config"]);
        command.arg(self.fixture.gateway.directory.path());
        let output = command.output().unwrap();
        let said = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), said)
    }
}

/// What is answered where nothing is wrong.
const RIGHT: [(&str, u16); 10] = [
    ("manifest", 200),
    ("blob", 200),
    ("tags", 200),
    ("referrers", 200),
    ("catalog", 200),
    ("session", 204),
    ("chunk", 202),
    ("push", 201),
    ("tag", 201),
    ("untag", 202),
];

/// [`RIGHT`], with 500 for these calls.
fn all_but(failing: &[&str]) -> Vec<(&'static str, u16)> {
    RIGHT
        .into_iter()
        .map(|(call, status)| match failing.contains(&call) {
            true => (call, 500),
            false => (call, status),
        })
        .collect()
}

#[tokio::test]
async fn no_link_in_a_store_leads_out_of_it() {
    let store = LinkedStore::new().await;
    let mut client = store.fixture.http1();
    let disk = store.fixture.disk();
    let (root, a) = (disk.0.clone(), disk.repository("a"));
    assert_eq!(store.calls(&mut client).await, RIGHT);
    disk.age_content(2 * DAY);
    let blobs: &[&str] = &["manifest", "blob", "push", "tag"];
    let whole: &[&str] = &[
        "manifest",
        "blob",
        "tags",
        "referrers",
        "push",
        "tag",
        "untag",
    ];
    let config = sha256(&store.image.config);
    for (part, failing) in [
        (disk.blob("a", &config), &["blob"][..]),
        (disk.blob("a", &store.digest), &["manifest"]),
        (a.join("blobs/sha256"), blobs),
        (a.join("blobs"), blobs),
        (
            a.join("index.json"),
            &["manifest", "tags", "referrers", "tag", "untag"],
        ),
        // Nothing is read from it.
        (a.join("oci-layout"), &[]),
        (a.clone(), whole),
        (root.join("repositories"), &[whole, &["catalog"]].concat()),
        (disk.upload(&store.session), &["session", "chunk"]),
        (root.join("uploads/a"), &["session", "chunk", "push"]),
        (root.join("uploads"), &["session", "chunk", "push"]),
        (root.join("blobs/sha256"), &["push"]),
        (root.join("blobs"), &["push"]),
        (root.join("pulled"), &[]),
    ] {
        store.link(&part);
        let shown = part.strip_prefix(&root).unwrap().display().to_string();
        let before = files(&store.outside());
        let events = Events::kept();
        let statuses = store.calls(&mut client).await;
        let (verify_status, report) = store.command(&["store", "verify", "--repair"]);
        let (collect_status, collected) = store.command(&["gc", "--uploads", "--dry-run"]);
        let (real_status, _) = store.command(&["gc", "--uploads"]);
        // Before anything that could fail, so that all of them are told.
        let after = files(&store.outside());
        assert_eq!(before, after, "{shown}: it was written to or removed");
        let mut expected = all_but(failing);
        if expected.contains(&("tag", 500)) {
            // There is no such tag then.
            expected.retain(|(call, _)| *call != "untag");
        }
        let told = |statuses: Vec<(&'static str, u16)>| -> Vec<_> {
            let has = |call| expected.iter().any(|(other, _)| *other == call);
            statuses
                .into_iter()
                .filter(|(call, _)| has(*call))
                .collect()
        };
        assert_eq!(told(statuses), expected, "{shown}");
        // Damage of a blob is reported where it is found, on another thread.
        if failing.len() > 1 {
            let link = part.display().to_string();
            assert!(events.all().contains(&link), "{shown}: {}", events.all());
        }
        assert_eq!(verify_status, 1, "{shown} {report}");
        let damage = report["damage"].as_array().unwrap();
        let told = damage.iter().any(|damage| {
            damage["path"] == part.display().to_string()
                && damage["problem"] == "a symbolic link, which is not followed"
        });
        assert!(told, "{shown}: {report}");
        assert!([0, 1].contains(&collect_status), "{collected}");
        assert!([0, 1].contains(&real_status));
        store.restore(&part);
        // What was collected or changed meanwhile was not that.
        assert_eq!(
            client.get("/v2/a/manifests/v1").await.status,
            200,
            "{shown}"
        );
        if !disk.upload(&store.session).exists() {
            std::fs::create_dir_all(root.join("uploads/a")).unwrap();
            std::fs::write(disk.upload(&store.session), "begun").unwrap();
        }
        disk.age_content(2 * DAY);
    }
    client.check("a", "v1", &store.image).await;
    disk.is_sound();
}

#[tokio::test]
async fn a_link_in_the_place_of_content_is_replaced_by_the_next_push() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    let digest = client.push("a", "v1", &image).await;
    let layer = sha256(&image.layers[0]);
    let outside = fixture.gateway.path("outside");
    for (name, content) in [(&digest, &image.manifest), (&layer, &image.layers[0])] {
        // The same content, of which the store knows nothing.
        std::fs::write(&outside, content).unwrap();
        for path in [fixture.disk().blob("a", name), fixture.disk().shared(name)] {
            // A manifest has no shared name.
            if path.exists() {
                std::fs::remove_file(&path).unwrap();
                symlink(&outside, &path).unwrap();
            }
        }
        let before = files(&outside);
        let kind = if *name == digest {
            "manifests"
        } else {
            "blobs"
        };
        let target = format!("/v2/a/{kind}/{name}");
        let message = client.get(&target).await.refused(500, "UNKNOWN");
        assert_eq!(
            message,
            format!("the stored content of {name} is damaged: push it again")
        );
        client.ask("HEAD", &target).await.is(404);
        let mount = format!("/v2/b/blobs/uploads/?mount={name}&from=a");
        client.ask("POST", &mount).await.is(202);
        client.push("a", "v1", &image).await;
        client.check("a", "v1", &image).await;
        assert_eq!(files(&outside), before);
        for path in [fixture.disk().blob("a", name), fixture.disk().shared(name)] {
            assert!(!path.is_symlink(), "{}", path.display());
        }
    }
    fixture.disk().is_sound();
}

#[tokio::test]
async fn the_directory_of_a_store_may_itself_be_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let [state, disk] = ["state/store", "disk/ci"].map(|path| directory.path().join(path));
    std::fs::create_dir_all(&state).unwrap();
    std::fs::create_dir_all(&disk).unwrap();
    symlink(&disk, state.join("ci")).unwrap();
    let mut process = Killable::start(directory.path());
    let image = Image::small(1);
    process.endpoint.client().push("a", "v1", &image).await;
    process.restart();
    process.endpoint.client().check("a", "v1", &image).await;
    assert!(disk.join("repositories/a/index.json").exists());
    process.disk().is_sound();
}

/// A repository on a disk of its own, for which people used links, has a mount instead.
#[tokio::test]
async fn a_repository_may_lie_on_another_file_system() {
    let directory = tempfile::tempdir().unwrap();
    Setup::new()
        .domain(Domain::store("ci.test", "ci"))
        .write(directory.path());
    let repository = directory.path().join("state/store/ci/repositories/b");
    std::fs::create_dir_all(&repository).unwrap();
    let script = r#"mount -t tmpfs none "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-c", script])
        .arg(&repository);
    command
        .arg(binary())
        .args(["run", "--config"])
        .arg(directory.path());
    let process = Killable::spawn(directory.path(), command);
    let mut client = process.endpoint.client();
    let image = Image::small(1);
    for name in ["a", "b"] {
        client.push(name, "v1", &image).await;
        client.push(name, "v2", &image).await;
        client.check(name, "v1", &image).await;
    }
    // A name of one file system cannot lead to the other: the client is to push.
    let layer = sha256(&image.layers[0]);
    let mount = format!("/v2/b/blobs/uploads/?mount={layer}&from=a");
    client.ask("POST", &mount).await.is(201);
    let other = client.push_blob("a", b"other").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={other}&from=a");
    client.ask("POST", &mount).await.is(202);
    client.push_blob("b", b"other").await;
    let blob = client.get(&format!("/v2/b/blobs/{other}")).await;
    assert_eq!(blob.is(200).body, "other");
}
