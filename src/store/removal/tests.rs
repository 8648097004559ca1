use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::config::vhost::MissingContent;
use crate::journal::Use;
use crate::registry::reference::Reference;
use crate::store::collect::{CollectionOptions, UploadAge};
use crate::store::inventory::RepositoryHandle;
use crate::store::testing::WrittenRepository;

const GRACE: Duration = Duration::from_hours(24);

/// A store, and a repository in it that was written as files.
struct RemovalFixture {
    directory: tempfile::TempDir,
    store: Arc<Store>,
    written: WrittenRepository,
}

impl RemovalFixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let written = WrittenRepository::new(directory.path(), "team/app");
        let store = Store::open(directory.path().to_owned()).unwrap();
        Self {
            directory,
            store,
            written,
        }
    }

    async fn remove(&self, request: RemovalRequest) -> RemovalOutcome {
        self.remove_with(request, RepositoryHistory::default())
            .await
    }

    async fn remove_with(
        &self,
        request: RemovalRequest,
        history: RepositoryHistory,
    ) -> RemovalOutcome {
        let name = &self.written.name;
        let history = move || Ok::<_, std::convert::Infallible>(history);
        let removed = remove(&self.store, name, request, history).await;
        removed.unwrap().unwrap()
    }

    async fn restore(&self, digest: &Digest, tags: &[&str]) -> Result<RestoredTags, StoreError> {
        let manifest = NewManifest {
            reference: Reference::Digest(digest.clone()),
            tags: tags.iter().map(|text| tag(text)).collect(),
            preconditions: Vec::new(),
            content_type: None,
            bytes: fs::read(self.written.file(digest)).unwrap().into(),
            missing: MissingContent::Refuse,
        };
        restore(&self.store, &self.written.name, manifest).await
    }

    fn index(&self) -> RepositoryIndex {
        let file = fs::File::open(self.written.index_file()).unwrap();
        RepositoryIndex::read(file).unwrap()
    }

    fn tags(&self) -> Vec<String> {
        self.index()
            .tags()
            .map(|(tag, _)| tag.to_string())
            .collect()
    }

    fn manifests(&self) -> BTreeSet<Digest> {
        let index = self.index();
        index
            .manifests()
            .map(|(digest, _)| digest.clone())
            .collect()
    }

    fn first_missing(&self) -> Option<Digest> {
        first_missing(&self.store, &self.written.name)
    }

    fn collect(&self, grace: Duration) {
        let options = CollectionOptions {
            grace,
            untagged: None,
            uploads: UploadAge::Expired,
            dry_run: false,
        };
        let collected = self.store.collect(options).unwrap();
        assert_eq!(collected.failed, []);
    }
}

/// The first thing that any tag of a repository lacks.
fn first_missing(store: &Store, name: &RepositoryName) -> Option<Digest> {
    let handle = RepositoryHandle::new(store, name);
    let contents = crate::store::inventory::RepositoryContents::read(store, name).unwrap();
    let contents = contents.unwrap();
    let mut missing = contents.tags().map(|(tag, _)| {
        let missing = MissingContent::Refuse;
        handle.missing_of(tag, missing).unwrap()
    });
    missing.find_map(|missing| missing)
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn request(tags: &[(&str, &Digest)], manifests: &[&Digest]) -> RemovalRequest {
    let tags = tags.iter().map(|(text, digest)| TagRemoval {
        tag: tag(text),
        digest: (*digest).clone(),
        pushed: None,
        pulled: None,
    });
    let manifests = manifests.iter().map(|digest| ManifestRemoval {
        digest: (*digest).clone(),
        pulled: None,
    });
    RemovalRequest {
        tags: tags.collect(),
        manifests: manifests.collect(),
    }
}

fn use_of(pushed: Option<i64>, pulled: Option<i64>) -> Use {
    let at = |ago: i64| Timestamp::from_second(Timestamp::now().as_second() - ago).unwrap();
    Use {
        pushed: pushed.map(at),
        pulled: pulled.map(at),
    }
}

#[tokio::test]
async fn what_was_planned_goes_and_comes_back() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let children = ["one", "two"].map(|seed| written.image(seed, None));
    let index = written.index("index", &children);
    let kept = written.image("kept", None);
    written.tag("old", &index);
    written.tag("new", &kept);
    written.publish();
    let before = fixture.index();
    let [one, two] = &children;
    let all = request(&[("old", &index)], &[&index, one, two]);
    let removed = fixture.remove(all.clone()).await;
    assert_eq!(removed, RemovalOutcome::all_gone(&all));
    assert_eq!(fixture.tags(), ["new"]);
    assert_eq!(fixture.manifests(), [kept].into());
    assert_eq!(fixture.remove(all.clone()).await, removed, "done already");

    for child in &children {
        fixture.restore(child, &[]).await.unwrap();
    }
    let restored = fixture.restore(&index, &["old"]).await.unwrap();
    assert_eq!(restored.set, [tag("old")]);
    assert_eq!(fixture.index(), before);
    assert_eq!(fixture.first_missing(), None);
}

#[tokio::test]
async fn what_changed_since_the_plan_stays() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let images = ["moved", "pushed", "pulled", "marked", "going"]
        .map(|seed| (seed, written.image(seed, None)));
    for (seed, digest) in &images {
        written.tag(seed, digest);
    }
    let [(_, moved), _, (_, pulled), (_, marked), (_, going)] = &images;
    let child_pulled = written.image("child", None);
    let index = written.index("index", std::slice::from_ref(&child_pulled));
    written.tag("index", &index);
    written.publish();
    let mut tags: Vec<_> = images.iter().map(|(seed, d)| (*seed, d)).collect();
    tags[0].1 = going;
    tags.push(("index", &index));
    let digests = images.iter().map(|(_, digest)| digest);
    let digests: Vec<_> = digests.chain([&index, &child_pulled]).collect();
    let mut history = RepositoryHistory::default();
    let recently = use_of(Some(10), None);
    history.tags.insert(tag("pushed"), recently);
    for digest in [pulled, &child_pulled] {
        let pulled = use_of(None, Some(7_200));
        history.manifests.insert(digest.clone(), pulled);
    }
    // By a client of another process, or one that is about to push an index of it.
    let file = fs::File::open(fixture.written.file(marked)).unwrap();
    file.set_modified(SystemTime::now()).unwrap();

    let request = request(&tags, &digests);
    let removed = fixture.remove_with(request, history).await;
    assert_eq!(removed.tags, [tag("going")]);
    assert_eq!(removed.manifests, std::slice::from_ref(going));
    let stays = ["index", "marked", "moved", "pulled", "pushed"];
    assert_eq!(fixture.tags(), stays);
    assert!(fixture.manifests().contains(moved));
    assert_eq!(fixture.first_missing(), None);
    for text in stays {
        let told = removed.changed.iter();
        let told = told.filter(|changed| changed.starts_with(&format!("tag {text}: ")));
        assert_eq!(told.count(), 1, "{text}: {:?}", removed.changed);
    }
}

#[tokio::test]
async fn uses_that_the_plan_knew_save_nothing() {
    let mut fixture = RemovalFixture::new();
    let image = fixture.written.image("image", None);
    fixture.written.tag("v1", &image);
    fixture.written.publish();
    let uses = use_of(Some(30), Some(20));
    let mut planned = request(&[("v1", &image)], &[&image]);
    (planned.tags[0].pushed, planned.tags[0].pulled) = (uses.pushed, uses.pulled);
    planned.manifests[0].pulled = uses.pulled;
    let mut history = RepositoryHistory::default();
    history.tags.insert(tag("v1"), uses);
    history.manifests.insert(image.clone(), uses);
    let file = fs::File::open(fixture.written.file(&image)).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
    let removed = fixture.remove_with(planned, history).await;
    assert_eq!((removed.tags.len(), removed.manifests.len()), (1, 1));
    assert_eq!(removed.changed, [""; 0]);
}

#[tokio::test]
async fn referrers_stay_with_what_stays() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let image = written.image("image", None);
    let signature = written.image("signature", Some(&image));
    let cosign = written.image("cosign", None);
    let cosign_tag = format!("{}.sig", image.as_str().replace(':', "-"));
    written.tag("v1", &image);
    written.tag("v2", &image);
    written.tag(&cosign_tag, &cosign);
    written.publish();
    // The tag v2 was set after the plan.
    let tags = [("v1", &image), (cosign_tag.as_str(), &cosign)];
    let planned = request(&tags, &[&image, &signature, &cosign]);
    let removed = fixture.remove(planned).await;
    assert_eq!(removed.tags, [tag("v1")]);
    assert_eq!(removed.manifests, []);
    assert_eq!(fixture.manifests(), [image, signature, cosign].into());
    assert_eq!(removed.changed.len(), 4, "{:?}", removed.changed);
}

/// A large removal comes in parts, of which one has the tags of the referrers of what was to go by
/// another.
#[tokio::test]
async fn tags_of_referrers_stay_with_what_an_earlier_part_left() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let (image, cosign) = (written.image("image", None), written.image("cosign", None));
    let name_of = |image: &Digest| image.as_str().replace(':', "-");
    let (cosign_tag, own_tag) = (format!("{}.sig", name_of(&image)), name_of(&image));
    written.tag("v1", &image);
    written.tag(&own_tag, &image);
    written.tag(&cosign_tag, &cosign);
    written.publish();
    let tags = [(cosign_tag.as_str(), &cosign), (own_tag.as_str(), &image)];
    let removed = fixture.remove(request(&tags, &[&cosign])).await;
    // A tag that names its own image is none of a referrer.
    assert_eq!(removed.tags, [tag(&own_tag)]);
    assert_eq!(removed.manifests, []);
    assert_eq!(removed.changed.len(), 2, "{:?}", removed.changed);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_ends_a_removal() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let child = written.image("child", None);
    let index = written.index("index", std::slice::from_ref(&child));
    written.tag("index", &index);
    written.tag("child", &child);
    written.publish();
    fs::write(written.file(&index), "damaged").unwrap();
    let before = fs::read(fixture.written.index_file()).unwrap();
    let name = &fixture.written.name;
    let history = || Ok::<_, ()>(RepositoryHistory::default());
    let planned = request(&[("child", &child)], &[&child]);
    let refused = remove(&fixture.store, name, planned, history).await;
    assert!(matches!(refused, Err(StoreError::Damaged(digest)) if digest == index));
    assert_eq!(fs::read(fixture.written.index_file()).unwrap(), before);
}

#[tokio::test]
async fn names_of_other_tools_stay() {
    let mut fixture = RemovalFixture::new();
    let image = fixture.written.image("image", None);
    fixture.written.tag("v1", &image);
    fixture.written.tag("v2", &image);
    fixture.written.publish();
    let text = fs::read_to_string(fixture.written.index_file()).unwrap();
    let text = text.replace("\"v2\"", "\"docker.io/library/x:2\"");
    fs::write(fixture.written.index_file(), text).unwrap();
    let removed = fixture.remove(request(&[("v1", &image)], &[&image])).await;
    assert_eq!((removed.tags.len(), removed.manifests.len()), (1, 0));
    assert!(fixture.index().has_others());
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_let_what_was_removed_be_put_back() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let image = written.image("image", None);
    let index = written.index("index", std::slice::from_ref(&image));
    let kept = written.image("kept", None);
    written.tag("old", &index);
    written.tag("kept", &kept);
    written.publish();
    fixture
        .remove(request(&[("old", &index)], &[&index, &image]))
        .await;
    // All of it is older than the grace period.
    fixture.collect(GRACE);
    fixture.restore(&image, &[]).await.unwrap();
    fixture.restore(&index, &["old"]).await.unwrap();
    assert_eq!(fixture.first_missing(), None);

    // What was put back counts as used.
    let planned = request(&[("old", &index)], &[&index, &image]);
    assert_eq!(fixture.remove(planned).await.tags, []);
    for digest in [&image, &index] {
        fixture.written.age(digest);
    }
    fixture
        .remove(request(&[("old", &index)], &[&index, &image]))
        .await;
    let removed = fs::read_to_string(fixture.written.removed_file()).unwrap();
    let long_ago = SystemTime::now() - GRACE;
    let long_ago = long_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut removed: serde_json::Value = serde_json::from_str(&removed).unwrap();
    for removed in removed.as_object_mut().unwrap().values_mut() {
        removed["at"] = long_ago.as_secs().into();
    }
    fs::write(fixture.written.removed_file(), removed.to_string()).unwrap();
    let bytes = fs::read(fixture.written.file(&image)).unwrap();
    fixture.collect(GRACE);
    assert!(!fixture.written.file(&image).exists() && !fixture.written.file(&index).exists());
    assert!(!fixture.written.removed_file().exists());
    fs::write(fixture.written.file(&image), bytes).unwrap();
    let gone = fixture.restore(&image, &[]).await;
    assert!(matches!(gone, Err(StoreError::Missing(_))), "{gone:?}");
    assert_eq!(fixture.tags(), ["kept"]);
    assert_eq!(fixture.first_missing(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_collected_beside_a_damaged_record() {
    let mut fixture = RemovalFixture::new();
    let image = fixture.written.image("image", None);
    fixture.written.tag("old", &image);
    fixture.written.publish();
    fixture.remove(request(&[("old", &image)], &[&image])).await;
    fs::write(fixture.written.removed_file(), "{").unwrap();
    let options = CollectionOptions {
        grace: GRACE,
        untagged: None,
        uploads: UploadAge::Expired,
        dry_run: false,
    };
    let failed = fixture.store.collect(options).unwrap().failed;
    assert_eq!(failed.len(), 1);
    assert!(
        failed[0].error.contains("removed/team+app is damaged"),
        "{failed:?}"
    );
    assert!(fixture.written.file(&image).exists());
}

#[tokio::test]
async fn tags_that_were_set_meanwhile_are_not_taken_back() {
    let mut fixture = RemovalFixture::new();
    let written = &mut fixture.written;
    let [old, new] = ["old", "new"].map(|seed| written.image(seed, None));
    written.tag("latest", &old);
    written.tag("v1", &old);
    written.tag("v2", &new);
    written.publish();
    let planned = request(&[("latest", &old), ("v1", &old)], &[&old]);
    fixture.remove(planned).await;
    fixture.restore(&new, &["latest"]).await.unwrap();
    let restored = fixture.restore(&old, &["latest", "v1"]).await.unwrap();
    assert_eq!(restored.set, [tag("v1")]);
    assert_eq!(restored.taken, [tag("latest")]);
    assert_eq!(fixture.index().tag(&tag("latest")), Some(&new));
}

/// A repository of random images: who lists whom, who refers to whom, and the tags.
#[derive(Clone, Debug)]
struct RandomRepository {
    /// For each manifest: those before it that it lists, or the one that it refers to.
    manifests: Vec<(Vec<prop::sample::Index>, Option<prop::sample::Index>)>,
    /// The manifests with a tag, and whether it goes.
    tags: Vec<(prop::sample::Index, bool)>,
    /// Images with a tag of cosign for an image, and whether it goes.
    signatures: Vec<(prop::sample::Index, prop::sample::Index, bool)>,
}

fn random_repository() -> impl Strategy<Value = RandomRepository> {
    let at = any::<prop::sample::Index>;
    let manifest = (
        prop::collection::vec(at(), 0..4),
        prop::option::weighted(0.3, at()),
    );
    let manifests = prop::collection::vec(manifest, 1..14);
    let tags = prop::collection::vec((at(), any::<bool>()), 0..8);
    let signatures = prop::collection::vec((at(), at(), any::<bool>()), 0..3);
    (manifests, tags, signatures).prop_map(|(manifests, tags, signatures)| RandomRepository {
        manifests,
        tags,
        signatures,
    })
}

/// What a test knows of a manifest.
struct KnownManifest {
    digest: Digest,
    children: Vec<usize>,
    subject: Option<usize>,
}

impl RandomRepository {
    /// Writes the files. Returns the manifests, and the tags with their manifests and whether they
    /// go.
    fn write(
        &self,
        to: &mut WrittenRepository,
    ) -> (Vec<KnownManifest>, Vec<(String, usize, bool)>) {
        let mut known: Vec<KnownManifest> = Vec::new();
        for (n, (children, subject)) in self.manifests.iter().enumerate() {
            let seed = n.to_string();
            let before = |at: &prop::sample::Index| (n > 0).then(|| at.index(n));
            let mut children: Vec<usize> = children.iter().filter_map(before).collect();
            let mut subject = subject.as_ref().and_then(before);
            let digest = if children.is_empty() || subject.is_some() {
                children.clear();
                to.image(&seed, subject.map(|at| &known[at].digest))
            } else {
                subject = None;
                let listed: Vec<_> = children
                    .iter()
                    .map(|at| known[*at].digest.clone())
                    .collect();
                to.index(&seed, &listed)
            };
            known.push(KnownManifest {
                digest,
                children,
                subject,
            });
        }
        let mut tags = BTreeMap::new();
        for (n, (at, goes)) in self.tags.iter().enumerate() {
            tags.insert(format!("t{n}"), (at.index(known.len()), *goes));
        }
        for (image, signature, goes) in &self.signatures {
            let image = known[image.index(known.len())].digest.as_str();
            let signature = signature.index(known.len());
            tags.insert(
                format!("{}.sig", image.replace(':', "-")),
                (signature, *goes),
            );
        }
        for (text, (at, _)) in &tags {
            to.tag(text, &known[*at].digest);
        }
        to.publish();
        let tags = tags.into_iter().map(|(text, (at, goes))| (text, at, goes));
        (known, tags.collect())
    }
}

/// What must stay if all manifests are to go: by the rules in their plainest form, applied until
/// nothing changes.
fn must_stay(
    known: &[KnownManifest],
    tags: &[(String, usize, bool)],
) -> (BTreeSet<usize>, BTreeSet<String>) {
    let (mut manifests, mut names) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let before = (manifests.len(), names.len());
        for (text, at, goes) in tags {
            let subject = tag(text).subject();
            let subject = known
                .iter()
                .position(|m| Some(&m.digest) == subject.as_ref());
            if !goes || subject.is_some_and(|subject| manifests.contains(&subject)) {
                names.insert(text.clone());
                manifests.insert(*at);
            }
        }
        for (at, manifest) in known.iter().enumerate() {
            if manifests.contains(&at) {
                manifests.extend(&manifest.children);
            }
            if manifest
                .subject
                .is_some_and(|subject| manifests.contains(&subject))
            {
                manifests.insert(at);
            }
        }
        if (manifests.len(), names.len()) == before {
            return (manifests, names);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Although all manifests are to go, with some of the tags.
    #[test]
    fn what_stays_is_whole_and_what_goes_is_all_else(random in random_repository()) {
        let mut fixture = RemovalFixture::new();
        let (known, tags) = random.write(&mut fixture.written);
        let (stay, names) = must_stay(&known, &tags);
        let doomed = tags.iter().filter(|(_, _, goes)| *goes);
        let doomed: Vec<_> = doomed.map(|(text, at, _)| (text.as_str(), &known[*at].digest)).collect();
        let digests: Vec<_> = known.iter().map(|manifest| &manifest.digest).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let planned = request(&doomed, &digests);
        let removed = runtime.block_on(fixture.remove(planned.clone()));
        let left: BTreeSet<_> = stay.iter().map(|at| known[*at].digest.clone()).collect();
        prop_assert_eq!(fixture.manifests(), left.clone());
        prop_assert_eq!(fixture.tags(), names.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(fixture.first_missing(), None);
        let gone: BTreeSet<_> = removed.manifests.iter().cloned().collect();
        let expected = digests.into_iter().filter(|digest| !left.contains(*digest)).cloned();
        prop_assert_eq!(gone, expected.collect::<BTreeSet<_>>());
        // Nothing that was needed is needed no more.
        let again = runtime.block_on(fixture.remove(planned));
        prop_assert_eq!(again.manifests, removed.manifests);
        prop_assert_eq!(again.tags, removed.tags);
    }
}

const KILLS: u32 = 50;
const KILLED_IMAGES: usize = 300;
const CHILD: &str = "MOORGATE_TEST_REMOVAL";

/// The repository of the processes that are killed: the first third of the tags stays.
fn killed_request(images: &[Digest]) -> RemovalRequest {
    let going = images.iter().enumerate().skip(KILLED_IMAGES / 3);
    let tags: Vec<_> = going.map(|(n, digest)| (format!("v{n}"), digest)).collect();
    let tags: Vec<_> = tags
        .iter()
        .map(|(tag, digest)| (tag.as_str(), *digest))
        .collect();
    let manifests: Vec<_> = tags.iter().map(|(_, digest)| *digest).collect();
    request(&tags, &manifests)
}

/// Not a test of its own: the process that the test below kills. It removes when it is told to.
#[tokio::test]
async fn a_process_that_removes() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let images = fs::read_to_string(Path::new(&directory).join("images")).unwrap();
    let images: Vec<_> = images
        .lines()
        .map(|line| Digest::parse(line).unwrap())
        .collect();
    let store = Store::open(Path::new(&directory).join("ci")).unwrap();
    let name = RepositoryName::parse("team/app").unwrap();
    println!("\nready");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .unwrap();
    let history = || Ok::<_, ()>(RepositoryHistory::default());
    let removed = remove(&store, &name, killed_request(&images), history).await;
    println!("\nremoved {}", removed.unwrap().unwrap().tags.len());
}

/// Runs that process, and kills it after a time. Returns how long it ran until it said that it was
/// done; `None`: it was killed before.
fn run_and_kill(directory: &Path, after: Option<Duration>) -> Option<Duration> {
    let name = "store::removal::tests::a_process_that_removes";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    let started = Instant::now();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    if let Some(after) = after {
        // The time at which it is killed.
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    let done = lines.map_while(Result::ok);
    let done = done.filter(|line| line.starts_with("removed ")).count() > 0;
    let ran = started.elapsed();
    child.wait().unwrap();
    done.then_some(ran)
}

#[tokio::test]
async fn a_removal_that_is_killed_is_done_or_not_begun() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = WrittenRepository::new(&directory.path().join("ci"), "team/app");
    let images: Vec<_> = (0..KILLED_IMAGES)
        .map(|n| {
            let image = written.image(&n.to_string(), None);
            written.tag(&format!("v{n}"), &image);
            image
        })
        .collect();
    written.publish();
    let list: Vec<_> = images.iter().map(Digest::as_str).collect();
    fs::write(directory.path().join("images"), list.join("\n")).unwrap();
    let manifests: Vec<_> = images
        .iter()
        .map(|d| fs::read(written.file(d)).unwrap())
        .collect();
    let before = fs::read(written.index_file()).unwrap();
    let whole = run_and_kill(directory.path(), None).unwrap();
    let after = fs::read(written.index_file()).unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let fixture = RemovalFixture {
        directory,
        store,
        written,
    };
    let (mut not_begun, mut done) = (0, 0);
    for kill in 0..KILLS {
        fs::write(fixture.written.index_file(), &before).unwrap();
        let _ = fs::remove_file(fixture.written.removed_file());
        // From the beginning to some time after the end.
        let at = whole * kill * 5 / (KILLS * 4);
        run_and_kill(fixture.directory.path(), Some(at));
        let found = fs::read(fixture.written.index_file()).unwrap();
        assert!(found == before || found == after, "kill {kill}");
        *(if found == before {
            &mut not_begun
        } else {
            &mut done
        }) += 1;
        fixture.remove(killed_request(&images)).await;
        assert!(
            fs::read(fixture.written.index_file()).unwrap() == after,
            "kill {kill}"
        );
        // Whoever removed it, the blobs stay for the grace period.
        fixture.collect(GRACE);
        if kill % 10 == 9 {
            for (n, digest) in images.iter().enumerate().skip(KILLED_IMAGES / 3) {
                fixture.restore(digest, &[&format!("v{n}")]).await.unwrap();
            }
            let restored = fixture.index();
            assert_eq!(restored, RepositoryIndex::read(&before[..]).unwrap());
            assert_eq!(fixture.first_missing(), None);
            images.iter().for_each(|digest| fixture.written.age(digest));
        }
    }
    let now = images
        .iter()
        .map(|d| fs::read(fixture.written.file(d)).unwrap());
    assert!(now.eq(manifests), "the bytes of all manifests are the same");
    assert!(
        not_begun > 0 && done > 0,
        "{not_begun} before, {done} after"
    );
}

const RACING_IMAGES: usize = 120;

/// Tags of which half are to go by one remover, and half by both.
fn racing_request(images: &[Digest], remover: usize) -> RemovalRequest {
    let going = images
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 4 == remover || n % 4 == 2);
    let tags: Vec<_> = going.map(|(n, digest)| (format!("v{n}"), digest)).collect();
    let tags: Vec<_> = tags
        .iter()
        .map(|(tag, digest)| (tag.as_str(), *digest))
        .collect();
    let manifests: Vec<_> = tags.iter().map(|(_, digest)| *digest).collect();
    request(&tags, &manifests)
}

/// Pulls tags in an order of its own, as clients do. Returns those that it got.
async fn pull_all(store: Arc<Store>, name: RepositoryName, step: usize) -> Vec<usize> {
    let mut pulled = Vec::new();
    for n in 0..RACING_IMAGES {
        let n = n * step % RACING_IMAGES;
        if n % 4 == 3 || n.is_multiple_of(3) {
            continue;
        }
        let reference = Reference::Tag(tag(&format!("v{n}")));
        match store.manifest(&name, &reference, true).await {
            Ok(_) => pulled.push(n),
            Err(StoreError::ManifestUnknown) => {}
            Err(error) => panic!("v{n}: {error}"),
        }
    }
    pulled
}

/// Pushes indexes of images that a remover may take away. Returns those that were taken.
async fn push_all(store: Arc<Store>, name: RepositoryName, images: Vec<Digest>) -> Vec<usize> {
    let mut pushed = Vec::new();
    for (n, image) in images.iter().enumerate().step_by(6) {
        let reference = Reference::Digest(image.clone());
        let Ok(found) = store.manifest(&name, &reference, false).await else {
            continue;
        };
        let child = serde_json::json!({ "mediaType": found.media_type, "digest": image.as_str(),
            "size": found.bytes.len() });
        let index = serde_json::json!({ "schemaVersion": 2,
            "mediaType": crate::store::testing::INDEX, "manifests": [child] });
        let index = NewManifest {
            reference: Reference::Tag(tag(&format!("pushed{n}"))),
            tags: Vec::new(),
            preconditions: Vec::new(),
            content_type: None,
            bytes: index.to_string().into(),
            missing: MissingContent::Refuse,
        };
        // The client was told that the image is there: it must stay until the index is pushed.
        store.put_manifest(&name, index).await.unwrap();
        pushed.push(n);
    }
    pushed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn removers_clients_and_collections_at_once_lose_nothing() {
    for round in 0..10 {
        let mut fixture = RemovalFixture::new();
        let written = &mut fixture.written;
        let images: Vec<_> = (0..RACING_IMAGES)
            .map(|n| {
                let image = written.image(&n.to_string(), None);
                written.tag(&format!("v{n}"), &image);
                image
            })
            .collect();
        written.publish();
        let name = written.name.clone();
        // As another process has it.
        let other = Store::open(fixture.directory.path().to_owned()).unwrap();
        let remover = |store: &Arc<Store>, number: usize| {
            let (store, name) = (store.clone(), name.clone());
            let planned = racing_request(&images, number);
            let history = || Ok::<_, ()>(RepositoryHistory::default());
            tokio::spawn(async move { remove(&store, &name, planned, history).await })
        };
        let pull = tokio::spawn(pull_all(other.clone(), name.clone(), 7 + 4 * round));
        let push = tokio::spawn(push_all(
            fixture.store.clone(),
            name.clone(),
            images.clone(),
        ));
        let removals = [remover(&fixture.store, 0), remover(&other, 1)];
        let collecting = other.clone();
        let collect = tokio::task::spawn_blocking(move || {
            let options = CollectionOptions {
                grace: GRACE,
                untagged: Some(GRACE),
                uploads: UploadAge::Expired,
                dry_run: false,
            };
            collecting.collect(options).map(drop)
        });
        for removal in removals {
            removal.await.unwrap().unwrap().unwrap();
        }
        collect.await.unwrap().unwrap();
        let (pulled, pushed) = (pull.await.unwrap(), push.await.unwrap());
        let left = fixture.tags();
        let has = |text: String| assert!(left.contains(&text), "round {round}: {text}");
        pulled.iter().for_each(|n| has(format!("v{n}")));
        pushed.iter().for_each(|n| has(format!("pushed{n}")));
        (0..RACING_IMAGES)
            .filter(|n| n % 4 == 3)
            .for_each(|n| has(format!("v{n}")));
        assert_eq!(fixture.first_missing(), None, "round {round}");
    }
}
