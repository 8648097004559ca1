//! What real clients ask for when they pull an image for several machines, and that each of these
//! ways counts for the tag, the index and the image of this machine.

use std::fs;

use moorgate::internal::journal::{Journal, RepositoryHistory, Use};
use moorgate::internal::registry::{Digest, RepositoryName, Tag};
use rustix::process::Signal;

use super::clients::{Containerd, Tool};
use super::engine::Engine;
use super::fixture::RegistriesFixture;
use super::products::write_index;

/// An image for two machines in a store of moorgate, with its digests: those of the index, and of
/// the images for amd64 and arm64.
struct PulledIndex {
    fixture: RegistriesFixture,
    digests: [Digest; 3],
}

impl PulledIndex {
    fn pushed() -> Self {
        let fixture = RegistriesFixture::of_stores();
        let authority = fixture.ci.by_name();
        fixture.logged_in(&fixture.ci, &authority);
        let layout = fixture.path().join("multi");
        let image = write_index(&layout);
        let read = |path: &str| -> serde_json::Value {
            serde_json::from_slice(&fs::read(layout.join(path)).unwrap()).unwrap()
        };
        let digest =
            |listed: &serde_json::Value| Digest::parse(listed["digest"].as_str().unwrap()).unwrap();
        let index = digest(&read("index.json")["manifests"][0]);
        let listed = read(&format!("blobs/sha256/{}", index.encoded()));
        let [amd64, arm64] = [0, 1].map(|n| digest(&listed["manifests"][n]));
        let this = Self {
            fixture,
            digests: [index, amd64, arm64],
        };
        let to = format!("docker://{}", this.name());
        let copy = ["copy", "--all", "--preserve-digests", &image, &to];
        this.fixture.skopeo(&copy).succeeded();
        this
    }

    /// As clients of the first domain write it.
    fn name(&self) -> String {
        format!("{}/base/app:v1", self.fixture.ci.by_name())
    }

    fn login(&self) -> String {
        let ci = &self.fixture.ci;
        format!("{}:{}", ci.user, ci.password)
    }

    /// Ends moorgate. Returns what the journal has of the tag, the index and both images.
    fn uses(mut self) -> [Use; 4] {
        self.fixture.moorgate.signal(Signal::TERM);
        assert!(self.fixture.moorgate.ended().success());
        let store = self.fixture.path().join("state/store/docker-ci.test");
        let journal = Journal::new(store.join("journal.redb"));
        let name = RepositoryName::parse("base/app").unwrap();
        let RepositoryHistory { tags, manifests } = journal.history(&name).unwrap();
        let [index, amd64, arm64] = self.digests.each_ref().map(|digest| manifests[digest]);
        [tags[&Tag::parse("v1").unwrap()], index, amd64, arm64]
    }

    /// Checks that everything was pushed, and that tag, index and the first image were pulled, but
    /// not the image for another machine.
    fn was_pulled(self) {
        let uses = self.uses();
        assert!(uses.iter().all(|used| used.pushed.is_some()), "{uses:?}");
        let pulled = uses.map(|used| used.pulled.is_some());
        assert_eq!(pulled, [true, true, true, false]);
    }
}

#[test]
fn a_push_of_skopeo_counts_as_a_push_alone() {
    let pushed = PulledIndex::pushed();
    let repository = format!("docker://{}", pushed.name());
    let repository = repository.strip_suffix(":v1").unwrap();
    let listed = pushed.fixture.skopeo(&["list-tags", repository]);
    assert!(listed.succeeded().contains("v1"));
    let uses = pushed.uses();
    assert!(uses.iter().all(|used| used.pushed.is_some()), "{uses:?}");
    assert!(uses.iter().all(|used| used.pulled.is_none()), "{uses:?}");
}

#[test]
fn an_inspection_of_skopeo_by_digest_counts_for_the_digest() {
    let pushed = PulledIndex::pushed();
    let name = pushed.name();
    let repository = name.strip_suffix(":v1").unwrap();
    let remote = format!("docker://{repository}@{}", pushed.digests[1]);
    pushed.fixture.skopeo(&["inspect", &remote]).succeeded();
    let pulled = pushed.uses().map(|used| used.pulled.is_some());
    assert_eq!(pulled, [false, false, true, false]);
}

#[test]
fn a_pull_of_skopeo_counts() {
    let pushed = PulledIndex::pushed();
    let from = format!("docker://{}", pushed.name());
    let to = format!("oci:{}:v1", pushed.fixture.path().join("one").display());
    let copy = ["--override-arch", "amd64", "copy", &from, &to];
    pushed.fixture.skopeo(&copy).succeeded();
    pushed.was_pulled();
}

#[test]
fn a_pull_of_podman_counts() {
    let pushed = PulledIndex::pushed();
    let podman = Tool::podman(&pushed.fixture);
    let (login, name) = (pushed.login(), pushed.name());
    let pull = ["pull", "--arch", "amd64", "--creds", &login, &name];
    podman.run(&pull).succeeded();
    drop(podman);
    pushed.was_pulled();
}

#[test]
fn a_pull_of_containerd_counts() {
    let pushed = PulledIndex::pushed();
    let machine = &pushed.fixture.machine;
    let containerd = Containerd::start(machine, &pushed.fixture.path().join("containerd"));
    let pulled = containerd.pull(Some(&pushed.login()), &pushed.name());
    pulled.succeeded();
    drop(containerd);
    pushed.was_pulled();
}

#[test]
fn a_pull_of_docker_counts() {
    let pushed = PulledIndex::pushed();
    let (ci, machine) = (&pushed.fixture.ci, &pushed.fixture.machine);
    let engine = Engine::start(machine, &pushed.fixture.path().join("engine"));
    engine
        .login(&ci.by_name(), ci.user, ci.password)
        .succeeded();
    let pull = ["pull", "--platform", "linux/amd64", &pushed.name()];
    engine.docker(&pull).succeeded();
    drop(engine);
    pushed.was_pulled();
}
