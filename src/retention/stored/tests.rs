use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::access::RuleLocation;
use crate::config::retention::{Grouping, Keep, RetentionRule, RetentionRuns};
use crate::registry::pattern::{Pattern, RepositoryPattern};
use crate::retention::in_use::InUse;
use crate::retention::plan::plan_repository;
use crate::retention::registry::{DoomedManifest, DoomedTag};
use crate::store::testing::WrittenRepository;

const LABEL: &str = "quay.expires-after";

/// Of each repository, the newest tag stays, and those that were pushed lately.
fn settings() -> Arc<RetentionSettings> {
    let rule = RetentionRule {
        repositories: vec![RepositoryPattern::parse("**").unwrap()],
        tags: vec![Pattern::new("*")],
        protect: vec![Pattern::new("kept*")],
        keep: Some(Keep {
            newest: None,
            pulled_within: None,
            pushed_within: Some(Duration::from_secs(1)),
        }),
        ttl: None,
        per: Grouping::Repository,
        expiry_label: Some(LABEL.into()),
        location: RuleLocation {
            file: "a.toml".into(),
            line: 1,
        },
    };
    let runs = RetentionRuns {
        min_age: Duration::ZERO,
        ..RetentionRuns::default()
    };
    Arc::new(RetentionSettings {
        rules: vec![rule],
        runs,
    })
}

fn registry(directory: &Path) -> StoredRegistry {
    let store = Store::open(directory.to_owned()).unwrap();
    let journal = store.journal().clone();
    StoredRegistry::new(store, journal, settings(), MissingContent::Refuse)
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

/// What a plan takes away.
fn removal(inventory: &Inventory, now: Timestamp) -> Removal {
    let (settings, in_use) = (settings(), InUse::default());
    let plan = plan_repository(inventory, &settings, &in_use, now, usize::MAX);
    let going = plan.tags().filter(|tag| !tag.decision.stays);
    let tags = going.map(|tag| DoomedTag {
        tag: tag.tag,
        digest: tag.digest,
        pushed: tag.pushed,
        pulled: tag.pulled,
    });
    let manifests = plan.manifests.iter().map(|manifest| DoomedManifest {
        digest: manifest.digest.clone(),
        pulled: manifest.pulled,
    });
    Removal {
        tags: tags.collect(),
        manifests: manifests.collect(),
    }
}

fn later() -> Timestamp {
    Timestamp::now() + Duration::from_secs(3_600)
}

#[tokio::test]
async fn an_inventory_says_what_the_files_say() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = WrittenRepository::new(directory.path(), "team/app");
    let child = written.image_with("child", &json!({ LABEL: "2w" }), None);
    let index = written.index("index", std::slice::from_ref(&child));
    let signature = written.image("signature", Some(&index));
    written.tag("v1", &index);
    written.publish();
    let registry = registry(directory.path());
    assert_eq!(
        registry.repositories().await.unwrap(),
        [written.name.clone()]
    );
    registry
        .journal
        .pulled(&written.name, Some(&tag("v1")), Some(&index));
    registry
        .journal
        .pushed(&written.name, [&tag("v1")], Some(&index));

    let inventory = registry.inventory(&written.name).await.unwrap();
    let [record] = &inventory.tags[..] else {
        panic!("{inventory:?}")
    };
    assert_eq!(record.tag, tag("v1"));
    assert!(record.pulled.is_some() && record.pushed.is_some());
    let at = |digest| position(&inventory.images, digest).unwrap();
    let image = |digest| &inventory.images[at(digest).at()];
    assert_eq!(record.image, at(&index));
    assert_eq!(*image(&index).children, [at(&child)]);
    assert!(image(&index).pulled.is_some() && image(&child).pulled.is_none());
    assert_eq!(image(&signature).subject, Some(at(&index)));
    assert_eq!(image(&child).expires_after, NonZeroU32::new(14 * 86_400));
    assert_eq!(image(&signature).expires_after, None);
    let built: Timestamp = "2024-05-06T07:08:09Z".parse().unwrap();
    assert_eq!(image(&child).created, Some(UnixSeconds::from(built)));
    assert_eq!(image(&index).created, None);
    let size = |digest| fs::metadata(written.file(digest)).unwrap().len();
    let [own, config, layer] = *image(&child).content else {
        panic!("{inventory:?}")
    };
    assert_eq!(
        (own.size, layer.size),
        (size(&child), "layer child".len() as u64)
    );
    assert!(own.key != config.key && config.key != layer.key);
    assert_eq!(
        image(&index).content.len(),
        1,
        "its child counts for itself"
    );

    let none = RepositoryName::parse("team/other").unwrap();
    let empty = registry.inventory(&none).await.unwrap();
    assert!(empty.tags.is_empty() && empty.images.is_empty());
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_not_planned_around() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = WrittenRepository::new(directory.path(), "team/app");
    let child = written.image("child", None);
    let index = written.index("index", std::slice::from_ref(&child));
    written.tag("v1", &index);
    written.publish();
    fs::write(written.file(&index), "damaged").unwrap();
    let refused = registry(directory.path()).inventory(&written.name).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains(index.as_str()) && error.contains("damaged"),
        "{error}"
    );
}

#[tokio::test]
async fn a_pull_after_the_plan_saves_a_tag() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = WrittenRepository::new(directory.path(), "team/app");
    let children = ["a", "b"].map(|seed| written.image(seed, None));
    let index = written.index("index", &children);
    let other = written.image("other", None);
    written.tag("v1", &index);
    written.tag("v2", &other);
    written.publish();
    let registry = registry(directory.path());
    registry.journal.flush().unwrap();
    let inventory = registry.inventory(&written.name).await.unwrap();
    let planned = removal(&inventory, later());
    assert_eq!((planned.tags.len(), planned.manifests.len()), (2, 4));
    // By its digest, as a client does that has read the index.
    let [child, _] = &children;
    registry.journal.pulled(&written.name, None, Some(child));
    let removed = registry.remove(&written.name, &planned).await.unwrap();
    assert_eq!(removed.tags, [tag("v2")]);
    assert_eq!(removed.manifests, std::slice::from_ref(&other));
    assert!(!removed.changed.is_empty());
    assert_eq!(
        registry
            .missing_of(&written.name, &tag("v1"))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        registry.manifest(&written.name, &other).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn what_an_image_lacks_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = WrittenRepository::new(directory.path(), "team/app");
    let child = written.image("child", None);
    let index = written.index("index", std::slice::from_ref(&child));
    written.tag("v1", &index);
    written.publish();
    let layer = written.blob(b"layer child");
    let registry = registry(directory.path());
    let missing = async || {
        registry
            .missing_of(&written.name, &tag("v1"))
            .await
            .unwrap()
    };
    assert_eq!(missing().await, None);
    fs::write(written.file(&layer), "layer").unwrap();
    assert_eq!(missing().await, Some(layer.clone()), "of the wrong size");
    fs::remove_file(written.file(&layer)).unwrap();
    assert_eq!(missing().await, Some(layer.clone()));
    written.blob(b"layer child");
    fs::remove_file(written.file(&child)).unwrap();
    assert_eq!(missing().await, Some(child));
    let gone = registry.missing_of(&written.name, &tag("v2")).await;
    assert_eq!(gone.unwrap(), None);
}

/// Random images: for each, those before it that it lists, or the one that it refers to; and the
/// images with a tag, which stays or goes.
type RandomImages = Vec<(Vec<prop::sample::Index>, Option<prop::sample::Index>)>;

fn write_random(
    written: &mut WrittenRepository,
    images: &RandomImages,
    tags: &[(prop::sample::Index, bool)],
) {
    let mut digests: Vec<Digest> = Vec::new();
    for (n, (children, subject)) in images.iter().enumerate() {
        let before = |at: &prop::sample::Index| (n > 0).then(|| digests[at.index(n)].clone());
        let children: Vec<_> = children.iter().filter_map(before).collect();
        let subject = subject.as_ref().and_then(before);
        let digest = if children.is_empty() || subject.is_some() {
            written.image(&n.to_string(), subject.as_ref())
        } else {
            written.index(&n.to_string(), &children)
        };
        digests.push(digest);
    }
    for (n, (at, stays)) in tags.iter().enumerate() {
        let name = if *stays {
            format!("kept{n}")
        } else {
            format!("t{n}")
        };
        written.tag(&name, &digests[at.index(digests.len())]);
    }
    written.publish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_goes_is_what_was_planned_and_comes_back(
        images in prop::collection::vec((
            prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            prop::option::weighted(0.3, any::<prop::sample::Index>()),
        ), 1..12),
        tags in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..8),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut written = WrittenRepository::new(directory.path(), "team/app");
        write_random(&mut written, &images, &tags);
        let registry = registry(directory.path());
        registry.journal.flush().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let name = &written.name;
            let before = registry.inventory(name).await.unwrap();
            let planned = removal(&before, later());
            let mut saved = Vec::new();
            for doomed in &planned.manifests {
                saved.push(registry.manifest(name, &doomed.digest).await.unwrap().unwrap());
            }
            let removed = registry.remove(name, &planned).await.unwrap();
            assert_eq!(removed.changed, [""; 0]);
            assert!(removed.tags.iter().eq(planned.tags.iter().map(|doomed| &doomed.tag)));
            assert!(removed.manifests.iter().eq(planned.manifests.iter().map(|doomed| &doomed.digest)));
            let after = registry.inventory(name).await.unwrap();
            for record in &after.tags {
                assert_eq!(registry.missing_of(name, &record.tag).await.unwrap(), None);
            }
            let digests = |inventory: &Inventory| -> BTreeSet<Digest> {
                inventory.images.iter().map(|image| image.digest.clone()).collect()
            };
            let gone: BTreeSet<_> = digests(&before).difference(&digests(&after)).cloned().collect();
            assert_eq!(gone, removed.manifests.iter().cloned().collect());
            // In the order in which they went, the other way round.
            for manifest in saved.iter().rev() {
                let own = planned.tags.iter().filter(|doomed| doomed.digest == manifest.digest);
                let own: Vec<_> = own.map(|doomed| doomed.tag.clone()).collect();
                registry.restore(name, manifest, &own).await.unwrap();
                let again = registry.manifest(name, &manifest.digest).await.unwrap();
                assert_eq!(again.as_ref(), Some(manifest));
            }
            for doomed in planned.tags.iter().filter(|doomed| saved.iter().all(|m| m.digest != doomed.digest)) {
                let manifest = registry.manifest(name, &doomed.digest).await.unwrap().unwrap();
                registry.restore(name, &manifest, std::slice::from_ref(&doomed.tag)).await.unwrap();
            }
            let restored = registry.inventory(name).await.unwrap();
            let names = |inventory: &Inventory| -> Vec<Tag> {
                inventory.tags.iter().map(|record| record.tag.clone()).collect()
            };
            assert_eq!(names(&restored), names(&before));
            assert_eq!(digests(&restored), digests(&before));
        });
    }
}

const CHILD: &str = "MOORGATE_TEST_INVENTORY";
/// How many tags the large repository has: 100,000 for the figures of the documentation.
const TAGS: &str = "MOORGATE_TEST_TAGS";
const DEFAULT_TAGS: usize = 10_000;
/// The memory of a plan for each tag. 64 MiB for 100,000 would be 671.
const MAX_BYTES_PER_TAG: usize = 900;

/// The current memory of this process, or its peak, in bytes.
fn memory(of: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

/// Not a test of its own: the process whose memory the test below measures.
#[tokio::test]
async fn a_process_that_plans() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let registry = registry(Path::new(&directory));
    // Loads the code, which is not what is measured.
    let small = RepositoryName::parse("team/small").unwrap();
    let inventory = registry.inventory(&small).await.unwrap();
    assert_eq!(removal(&inventory, later()).tags.len(), 1);
    let before = memory("VmRSS:");
    let started = Instant::now();
    let name = RepositoryName::parse("team/app").unwrap();
    let inventory = registry.inventory(&name).await.unwrap();
    let read = started.elapsed();
    let (settings, in_use) = (settings(), InUse::default());
    let plan = plan_repository(&inventory, &settings, &in_use, later(), usize::MAX);
    let goes = plan.tags().filter(|tag| !tag.decision.stays).count();
    let elapsed = started.elapsed();
    assert_eq!(goes, inventory.tags.len());
    let peak = memory("VmHWM:") - before;
    println!(
        "\nplan {} {peak} {} {}",
        inventory.tags.len(),
        read.as_millis(),
        elapsed.as_millis()
    );
}

#[test]
fn a_plan_for_a_large_repository_takes_little_memory() {
    let tags = std::env::var(TAGS).map_or(DEFAULT_TAGS, |tags| tags.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut small = WrittenRepository::new(directory.path(), "team/small");
    let image = small.image("image", None);
    small.tag("v1", &image);
    small.publish();
    let mut written = WrittenRepository::new(directory.path(), "team/app");
    for n in 0..tags {
        let image = written.image(&n.to_string(), None);
        written.tag(&format!("release-1.2.{n}"), &image);
    }
    written.publish();
    let store = Store::open(directory.path().to_owned()).unwrap();
    let inventory = RepositoryContents::read(&store, &written.name)
        .unwrap()
        .unwrap();
    for (tag, digest) in inventory.tags() {
        store.journal().pushed(&written.name, [tag], Some(digest));
        store
            .journal()
            .pulled(&written.name, Some(tag), Some(digest));
    }
    store.journal().flush().unwrap();
    let name = "retention::stored::tests::a_process_that_plans";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let figures = output.lines().find_map(|line| line.strip_prefix("plan "));
    let figures: Vec<usize> = figures
        .unwrap_or_else(|| panic!("{output}"))
        .split(' ')
        .map(|figure| figure.parse().unwrap())
        .collect();
    let [planned, peak, read, elapsed] = figures[..] else {
        panic!("{output}")
    };
    println!(
        "{planned} tags: {} KiB, {read} ms to read, {elapsed} ms",
        peak >> 10
    );
    assert_eq!(planned, tags);
    // Beside what any repository takes.
    let most = (4 << 20) + tags * MAX_BYTES_PER_TAG;
    assert!(peak < most, "{peak} bytes for {tags} tags");
}
