use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::vhost::MissingContent;
use crate::registry::reference::{Reference, Tag};
use crate::store::NewManifest;
use crate::store::hash::DigestAlgorithm;
use crate::store::index::ManifestEntry;
use crate::store::layout::StoreLayout;
use crate::store::manifest::Descriptor;

const GRACE: Duration = Duration::from_secs(24 * 3600);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn number(n: u8) -> Digest {
    Digest::parse(&format!("sha256:{n:064x}")).unwrap()
}

/// Manifests by number: the tags, who lists whom, who is about whom.
#[derive(Clone, Debug, Default)]
struct Graph {
    manifests: Vec<u8>,
    tagged: Vec<u8>,
    young: Vec<u8>,
    lists: Vec<(u8, u8)>,
    about: Vec<(u8, u8)>,
}

impl Graph {
    fn kept(&self) -> Vec<u8> {
        let mut index = RepositoryIndex::default();
        let mut documents: HashMap<Digest, ParsedManifest> = HashMap::new();
        for n in &self.manifests {
            index.insert(&number(*n), ManifestEntry::new(MANIFEST, 1, None));
            documents.insert(number(*n), ParsedManifest::default());
        }
        for n in self.tagged.iter().filter(|n| self.manifests.contains(n)) {
            index.point(Tag::parse(&format!("t{n}")).unwrap(), &number(*n));
        }
        for (n, child) in &self.lists {
            let Some(document) = documents.get_mut(&number(*n)) else {
                continue;
            };
            let media_type = MANIFEST.to_owned();
            document.manifests.push(Descriptor {
                media_type,
                digest: number(*child),
                size: Some(1),
                has_urls: false,
            });
        }
        for (n, subject) in &self.about {
            let Some(document) = documents.get_mut(&number(*n)) else {
                continue;
            };
            document.subject = Some(number(*subject));
        }
        let young: HashSet<Digest> = self.young.iter().map(|n| number(*n)).collect();
        let kept = kept(&index, &documents, |digest| young.contains(digest));
        (0..=u8::MAX)
            .filter(|n| kept.contains(&number(*n)))
            .collect()
    }
}

#[test]
fn what_a_tag_points_at_is_kept_with_what_it_lists_and_what_is_about_it() {
    let graph = Graph {
        manifests: (1..=9).collect(),
        tagged: vec![1],
        // 1 lists 2, which lists 3. 4 is about 3, and 5 about 4.
        lists: vec![(1, 2), (2, 3), (6, 7)],
        about: vec![(4, 3), (5, 4), (8, 6)],
        ..Graph::default()
    };
    assert_eq!(graph.kept(), [1, 2, 3, 4, 5]);
}

#[test]
fn what_is_about_nothing_that_is_here_goes_when_it_is_old() {
    let graph = Graph {
        manifests: vec![1, 2],
        about: vec![(1, 99), (2, 2)],
        ..Graph::default()
    };
    assert_eq!(graph.kept(), [0; 0]);
    assert_eq!(
        Graph {
            tagged: vec![1],
            ..graph.clone()
        }
        .kept(),
        [1]
    );
    assert_eq!(
        Graph {
            young: vec![2],
            ..graph
        }
        .kept(),
        [2]
    );
}

#[test]
fn what_is_young_is_kept_with_what_belongs_to_it() {
    let graph = Graph {
        manifests: (1..=4).collect(),
        young: vec![1],
        lists: vec![(1, 2)],
        about: vec![(3, 2)],
        ..Graph::default()
    };
    assert_eq!(graph.kept(), [1, 2, 3]);
}

proptest! {
    /// Against the rules in their plainest form, applied until nothing changes.
    #[test]
    fn the_rules_hold_for_any_manifests(
        manifests in prop::collection::vec(0_u8..10, 0..10),
        tagged in prop::collection::vec(0_u8..10, 0..3),
        young in prop::collection::vec(0_u8..10, 0..2),
        lists in prop::collection::vec((0_u8..10, 0_u8..12), 0..8),
        about in prop::collection::vec((0_u8..10, 0_u8..12), 0..8),
    ) {
        // A manifest is about one other at most: the last one counts, as in the graph.
        let about: HashMap<u8, u8> = about.into_iter().collect();
        let graph = Graph { manifests, tagged, young, lists, about: about.into_iter().collect() };
        let mut expected: HashSet<u8> = graph.tagged.iter().chain(&graph.young).copied().collect();
        loop {
            let before = expected.clone();
            expected.retain(|n| graph.manifests.contains(n));
            let here = expected.clone();
            expected.extend(graph.lists.iter().filter(|(n, _)| here.contains(n)).map(|(_, child)| *child));
            expected.extend(graph.about.iter().filter(|(_, subject)| here.contains(subject)).map(|(n, _)| *n));
            expected.retain(|n| graph.manifests.contains(n));
            if expected == before {
                break;
            }
        }
        let mut expected: Vec<u8> = expected.into_iter().collect();
        expected.sort_unstable();
        prop_assert_eq!(graph.kept(), expected);
    }
}

/// A store whose files the test makes and ages.
struct Aged {
    directory: tempfile::TempDir,
    store: Arc<Store>,
}

impl Aged {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("ci")).unwrap();
        let aged = Self { directory, store };
        aged.former_pulls("a", "{}");
        aged
    }

    /// Makes it a store of an older version, which has recorded these pulls and all others.
    fn former_pulls(&self, repository: &str, pulls: &str) {
        let path = self.layout().former_pulls();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(repository), pulls).unwrap();
        for file in ["journal.redb", "journal.redb.previous", "journal.lock"] {
            let _ = fs::remove_file(self.layout().root().join(file));
        }
    }

    fn layout(&self) -> &StoreLayout {
        &self.store.layout
    }

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn blob(&self, repository: &str, content: &[u8]) -> Digest {
        let file = self.directory.path().join("upload");
        fs::write(&file, content).unwrap();
        let digest = DigestAlgorithm::Sha256.digest(content);
        let name = Self::name(repository);
        let lock = self.layout().lock_shared(&name, GRACE).unwrap();
        crate::store::publish::publish(self.layout(), &name, &digest, &file, &lock).unwrap();
        digest
    }

    fn manifest(&self, repository: &str, reference: &Reference, manifest: &Value) -> Digest {
        let name = Self::name(repository);
        let manifest = NewManifest {
            reference: reference.clone(),
            tags: Vec::new(),
            preconditions: Vec::new(),
            content_type: None,
            bytes: manifest.to_string().into(),
            missing: MissingContent::Refuse,
        };
        let lock = self.layout().lock_exclusive(&name, GRACE).unwrap();
        let repository = self.store.repository(&name);
        let outcome = repository.put(manifest.check().unwrap(), &lock);
        outcome.unwrap().digest
    }

    /// An image of one layer, with a tag or without. Returns the digests of manifest and layer.
    fn image(&self, repository: &str, seed: &str, tag: Option<&str>) -> [Digest; 2] {
        let config = format!("config {seed}");
        let layer = format!("layer {seed}");
        let digests = [&config, &layer].map(|content| self.blob(repository, content.as_bytes()));
        let descriptor = |n: usize, size: usize| json!({"mediaType": "a/b", "digest": digests[n].as_str(), "size": size});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(0, config.len()),
            "layers": [descriptor(1, layer.len())]});
        let digest = DigestAlgorithm::Sha256.digest(manifest.to_string().as_bytes());
        let reference = match tag {
            Some(tag) => Reference::Tag(Tag::parse(tag).unwrap()),
            None => Reference::Digest(digest),
        };
        let [_, layer] = digests;
        [self.manifest(repository, &reference, &manifest), layer]
    }

    fn path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.layout().blob(&Self::name(repository), digest).unwrap()
    }

    fn has(&self, repository: &str, digest: &Digest) -> bool {
        self.path(repository, digest).exists()
    }

    /// Makes all blobs of a repository older than the grace period.
    fn age(&self, repository: &str) {
        for found in blobs::list(&self.layout().repository(&Self::name(repository))).unwrap() {
            age(&found.path);
        }
    }

    /// As a domain that lets untagged manifests stay so long.
    fn collect_untagged(&self, untagged: Option<Duration>) -> CollectionSummary {
        let options = CollectionOptions {
            grace: GRACE,
            untagged,
            uploads: UploadAge::Expired,
            dry_run: false,
        };
        self.store.collect(options).unwrap()
    }

    /// Makes a manifest look as if it had last been pulled so long ago.
    fn pulled(&self, repository: &str, digest: &Digest, ago: Duration) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - ago;
        let pulls = json!({ digest.as_str(): at.as_secs() });
        self.former_pulls(repository, &pulls.to_string());
    }

    fn list(&self, repository: &str, child: &Digest, reference: Option<Reference>) -> Digest {
        let size = fs::metadata(self.path(repository, child)).unwrap().len();
        let list = json!({"schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{"mediaType": MANIFEST, "digest": child.as_str(), "size": size}]});
        let digest = DigestAlgorithm::Sha256.digest(list.to_string().as_bytes());
        let reference = reference.unwrap_or(Reference::Digest(digest));
        self.manifest(repository, &reference, &list)
    }

    fn collect(&self) -> CollectionSummary {
        let dry = self
            .store
            .collect(CollectionOptions {
                grace: GRACE,
                untagged: Some(GRACE),
                uploads: UploadAge::Expired,
                dry_run: true,
            })
            .unwrap();
        let collected = self
            .store
            .collect(CollectionOptions {
                grace: GRACE,
                untagged: Some(GRACE),
                uploads: UploadAge::Expired,
                dry_run: false,
            })
            .unwrap();
        assert_eq!(dry, collected, "what was said that would be removed");
        let again = self
            .store
            .collect(CollectionOptions {
                grace: GRACE,
                untagged: Some(GRACE),
                uploads: UploadAge::Expired,
                dry_run: false,
            })
            .unwrap();
        let nothing = CollectionSummary {
            failed: collected.failed.clone(),
            ..CollectionSummary::default()
        };
        assert_eq!(again, nothing, "it had all been removed");
        collected
    }
}

fn age(path: &std::path::Path) {
    let file = fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - GRACE - Duration::from_secs(1))
        .unwrap();
}

#[test]
fn what_is_old_and_not_needed_goes_and_nothing_else() {
    let aged = Aged::new();
    let tagged = aged.image("a", "tagged", Some("v1"));
    let untagged = aged.image("a", "untagged", None);
    let lone = aged.blob("a", b"lone");
    aged.age("a");
    let young = aged.image("a", "young", None);
    let young_blob = aged.blob("a", b"young");
    let collected = aged.collect();
    for digest in [&tagged[..], &young, &[young_blob]].concat() {
        assert!(aged.has("a", &digest), "{digest}");
    }
    for digest in [&untagged[..], std::slice::from_ref(&lone)].concat() {
        assert!(!aged.has("a", &digest), "{digest}");
    }
    assert!(!aged.layout().shared_blob(&lone).unwrap().exists());
    // A manifest, and four blobs with it: its own, two that it needed, and the lone one.
    let CollectionSummary {
        manifests,
        blobs,
        uploads,
        repositories,
        bytes,
        failed: _,
    } = collected;
    assert_eq!((manifests, blobs, uploads, repositories), (1, 4, 0, 0));
    let manifest = aged.store.repository(&Aged::name("a")).index().unwrap();
    assert_eq!(manifest.manifests().count(), 2);
    let least = "config untagged".len() + "layer untagged".len() + "lone".len();
    assert!(bytes >= least as u64, "{bytes}");
}

#[test]
fn a_blob_that_another_repository_needs_stays_there() {
    let aged = Aged::new();
    let lone = aged.blob("a", b"layer x");
    let [_, layer] = aged.image("b", "x", Some("v1"));
    assert_eq!(lone, layer);
    aged.age("a");
    aged.age("b");
    let collected = aged.collect();
    assert_eq!(
        (collected.blobs, collected.bytes, collected.repositories),
        (1, 0, 1)
    );
    assert!(!aged.has("a", &lone) && aged.has("b", &lone));
    assert!(aged.layout().shared_blob(&lone).unwrap().exists());
    assert!(!aged.layout().repository(&Aged::name("a")).exists());
}

#[test]
fn children_of_an_index_stay_until_it_goes() {
    let aged = Aged::new();
    let [child, layer] = aged.image("a", "child", None);
    let size = fs::metadata(aged.path("a", &child)).unwrap().len();
    let list = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": child.as_str(), "size": size}]});
    let tag = Reference::Tag(Tag::parse("all").unwrap());
    aged.manifest("a", &tag, &list);
    aged.age("a");
    assert_eq!(aged.collect(), CollectionSummary::default());
    let name = Aged::name("a");
    let lock = aged.layout().lock_exclusive(&name, GRACE).unwrap();
    aged.store.repository(&name).delete(&tag, &lock).unwrap();
    drop(lock);
    assert_eq!(aged.collect().manifests, 2);
    assert!(!aged.has("a", &child) && !aged.has("a", &layer));
}

#[test]
fn children_that_another_tool_did_not_list_are_there_and_stay() {
    let aged = Aged::new();
    let [child, layer] = aged.image("a", "child", None);
    let size = fs::metadata(aged.path("a", &child)).unwrap().len();
    let descriptor = json!({"mediaType": MANIFEST, "digest": child.as_str(), "size": size});
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
    aged.manifest("a", &Reference::Tag(Tag::parse("all").unwrap()), &list);
    let list = DigestAlgorithm::Sha256.digest(list.to_string().as_bytes());
    let size = fs::metadata(aged.path("a", &list)).unwrap().len();
    let listed = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": list.as_str(), "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "all"}}]});
    let path = aged
        .layout()
        .repository(&Aged::name("a"))
        .join("index.json");
    fs::write(path, listed.to_string()).unwrap();
    aged.age("a");
    assert_eq!(aged.collect(), CollectionSummary::default());
    assert!(aged.has("a", &child) && aged.has("a", &layer));
    let index = aged.store.repository(&Aged::name("a")).index().unwrap();
    assert_eq!(
        index.manifest(&child).unwrap().media_type.as_ref(),
        MANIFEST
    );
}

#[test]
fn a_blob_that_a_client_was_told_of_stays() {
    let aged = Aged::new();
    let lone = aged.blob("a", b"lone");
    aged.age("a");
    blobs::open_for_push(aged.layout(), &Aged::name("a"), &lone).unwrap();
    assert_eq!(aged.collect(), CollectionSummary::default());
    aged.age("a");
    assert_eq!(aged.collect().blobs, 1);
    let gone = blobs::open_for_push(aged.layout(), &Aged::name("a"), &lone);
    assert!(matches!(gone, Err(StoreError::BlobUnknown)), "{gone:?}");
}

#[tokio::test]
async fn a_manifest_that_a_client_was_told_of_stays() {
    let aged = Aged::new();
    let [manifest, layer] = aged.image("a", "x", None);
    aged.age("a");
    // As before an index that lists it is pushed.
    let reference = Reference::Digest(manifest.clone());
    aged.store
        .manifest(&Aged::name("a"), &reference, false)
        .await
        .unwrap();
    let collect = move || {
        (
            aged.store
                .collect(CollectionOptions {
                    grace: GRACE,
                    untagged: Some(GRACE),
                    uploads: UploadAge::Expired,
                    dry_run: false,
                })
                .unwrap(),
            aged,
        )
    };
    let (collected, aged) = tokio::task::spawn_blocking(collect).await.unwrap();
    assert_eq!(collected, CollectionSummary::default());
    assert!(aged.has("a", &manifest) && aged.has("a", &layer));
}

#[test]
fn a_blob_that_a_killed_collection_had_in_hand_comes_back() {
    let aged = Aged::new();
    let [_, layer] = aged.image("a", "x", Some("v1"));
    let lone = aged.blob("a", b"lone");
    for digest in [&layer, &lone] {
        let path = aged.path("a", digest);
        fs::rename(&path, path.with_extension("removed")).unwrap();
    }
    let unfinished = aged
        .layout()
        .repository(&Aged::name("a"))
        .join(".moorgate-x");
    fs::write(&unfinished, "half").unwrap();
    aged.store
        .collect(CollectionOptions {
            grace: GRACE,
            untagged: Some(GRACE),
            uploads: UploadAge::Expired,
            dry_run: false,
        })
        .unwrap();
    assert!(aged.has("a", &layer) && aged.has("a", &lone) && !unfinished.exists());
    assert_eq!(
        blobs::list(&aged.layout().repository(&Aged::name("a")))
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn a_repository_that_another_tool_made_is_collected_like_others() {
    let aged = Aged::new();
    let path = aged.layout().repository(&Aged::name("other/tool"));
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(
        path.join("index.json"),
        r#"{"schemaVersion":2,"manifests":[]}"#,
    )
    .unwrap();
    let lone = DigestAlgorithm::Sha256.digest(b"lone");
    fs::write(aged.path("other/tool", &lone), "lone").unwrap();
    aged.age("other/tool");
    let collected = aged.collect();
    assert_eq!(
        (collected.blobs, collected.bytes, collected.repositories),
        (1, 4, 1)
    );
    assert!(!path.exists());
}

#[test]
fn nothing_goes_where_a_manifest_cannot_be_read() {
    let aged = Aged::new();
    let [manifest, layer] = aged.image("a", "x", Some("v1"));
    let [other, _] = aged.image("b", "y", None);
    aged.age("a");
    aged.age("b");
    // As another tool may list it: by a type that it is not.
    let index = aged
        .layout()
        .repository(&Aged::name("a"))
        .join("index.json");
    let text = fs::read_to_string(&index).unwrap().replace(MANIFEST, INDEX);
    fs::write(&index, text).unwrap();
    aged.collect();
    assert!(aged.has("a", &manifest) && aged.has("a", &layer));
    assert!(
        !aged.has("b", &other),
        "another repository is collected all the same"
    );
}

#[test]
fn a_damaged_repository_does_not_keep_others_from_being_collected() {
    let aged = Aged::new();
    for name in ["a", "b", "c"] {
        aged.image(name, name, Some("v1"));
        aged.blob(name, b"lone");
        aged.age(name);
    }
    fs::write(
        aged.layout()
            .repository(&Aged::name("b"))
            .join("index.json"),
        "{",
    )
    .unwrap();
    let failed = aged.collect().failed;
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].repository, "b");
    assert_eq!(failed[0].error, "the index of the repository b is damaged");
    let lone = DigestAlgorithm::Sha256.digest(b"lone");
    assert_eq!(
        ["a", "b", "c"].map(|name| aged.has(name, &lone)),
        [false, true, false]
    );
}

#[test]
fn uploads_that_nobody_continues_are_counted_before_they_go() {
    let aged = Aged::new();
    let name = Aged::name("a");
    let [left, used] = [(); 2].map(|()| aged.store.uploads.start_of(&name, None).unwrap());
    age(&aged.layout().uploads_of(&name).join(left.as_str()));
    assert_eq!(aged.collect().uploads, 1);
    assert!(matches!(
        aged.store.uploads.length(&name, &left),
        Err(StoreError::UploadUnknown)
    ));
    assert_eq!(aged.store.uploads.length(&name, &used).unwrap(), 0);
}

#[test]
fn untagged_manifests_stay_unless_the_domain_says_how_long() {
    let aged = Aged::new();
    let [old, layer] = aged.image("a", "old", Some("v1"));
    aged.image("a", "new", Some("v1"));
    let deleted = aged.image("a", "deleted", None);
    let lone = aged.blob("a", b"lone");
    let name = Aged::name("a");
    let lock = aged.layout().lock_exclusive(&name, GRACE).unwrap();
    let reference = Reference::Digest(deleted[0].clone());
    aged.store
        .repository(&name)
        .delete(&reference, &lock)
        .unwrap();
    drop(lock);
    aged.age("a");
    let collected = aged.collect_untagged(None);
    // The lone one, and three of the deleted manifest.
    assert_eq!((collected.manifests, collected.blobs), (0, 4));
    assert!(aged.has("a", &old) && aged.has("a", &layer) && !aged.has("a", &lone));
    assert!(deleted.iter().all(|digest| !aged.has("a", digest)));
    assert_eq!(aged.collect_untagged(Some(2 * GRACE)).manifests, 0);
    assert_eq!(aged.collect_untagged(Some(GRACE)).manifests, 1);
    assert!(!aged.has("a", &old) && !aged.has("a", &layer));
}

#[test]
fn the_grace_period_holds_for_untagged_manifests_too() {
    let aged = Aged::new();
    let [old, _] = aged.image("a", "old", None);
    aged.age("a");
    let options = CollectionOptions {
        grace: 2 * GRACE,
        untagged: Some(GRACE),
        uploads: UploadAge::Expired,
        dry_run: false,
    };
    assert_eq!(aged.store.collect(options).unwrap().manifests, 0);
    assert!(aged.has("a", &old));
}

#[test]
fn a_pull_by_digest_keeps_a_manifest() {
    let aged = Aged::new();
    let [old, layer] = aged.image("a", "old", None);
    aged.age("a");
    aged.pulled("a", &old, GRACE / 2);
    assert_eq!(aged.collect(), CollectionSummary::default());
    assert!(aged.has("a", &old) && aged.has("a", &layer));
    let never = json!({ old.as_str(): u64::MAX }).to_string();
    aged.former_pulls("a", &never);
    assert_eq!(aged.collect(), CollectionSummary::default());
    aged.pulled("a", &old, 2 * GRACE);
    assert_eq!(aged.collect().manifests, 1);
}

#[test]
fn a_pull_counts_for_each_index_above() {
    let aged = Aged::new();
    let [pulled, layer] = aged.image("a", "pulled", None);
    let [other, _] = aged.image("a", "other", None);
    let [above, unused] = [&pulled, &other].map(|child| aged.list("a", child, None));
    let top = aged.list("a", &above, None);
    aged.age("a");
    aged.pulled("a", &pulled, GRACE / 2);
    assert_eq!(aged.collect().manifests, 2, "an index and its child");
    assert!(![&other, &unused].iter().any(|digest| aged.has("a", digest)));
    let kept = [&pulled, &layer, &above, &top];
    assert!(kept.iter().all(|digest| aged.has("a", digest)));
}

#[test]
fn an_index_that_is_pulled_keeps_its_children() {
    let aged = Aged::new();
    let [child, layer] = aged.image("a", "child", None);
    let list = aged.list("a", &child, None);
    aged.age("a");
    aged.pulled("a", &list, GRACE / 2);
    assert_eq!(aged.collect(), CollectionSummary::default());
    assert!(aged.has("a", &child) && aged.has("a", &layer));
}

#[test]
fn untagged_manifests_stay_while_it_is_unknown_when_they_were_pulled() {
    let aged = Aged::new();
    let [old, layer] = aged.image("a", "old", None);
    let lone = aged.blob("a", b"lone");
    aged.age("a");
    aged.former_pulls("a", "{");
    assert_eq!(aged.collect().blobs, 1);
    assert!(aged.has("a", &old) && aged.has("a", &layer) && !aged.has("a", &lone));
    assert_eq!(aged.collect(), CollectionSummary::default());
    let journal = aged.layout().root().join("journal.redb");
    // Nor when there is none, or one that cannot be read.
    fs::remove_file(&journal).unwrap();
    assert_eq!(aged.collect(), CollectionSummary::default());
    aged.store.journal().flush().unwrap();
    assert_eq!(aged.collect(), CollectionSummary::default());
    fs::remove_file(&journal).unwrap();
    fs::create_dir(&journal).unwrap();
    assert_eq!(aged.collect(), CollectionSummary::default());
    fs::remove_dir(&journal).unwrap();
    aged.former_pulls("a", "{}");
    assert_eq!(aged.collect().manifests, 1);
}

#[test]
fn a_collection_forgets_in_the_journal_what_it_has_removed() {
    let aged = Aged::new();
    let [old, _] = aged.image("a", "old", None);
    let [tagged, _] = aged.image("a", "tagged", Some("v1"));
    aged.age("a");
    let long_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - 2 * GRACE;
    let times = json!({ old.as_str(): long_ago.as_secs(), tagged.as_str(): long_ago.as_secs() });
    // One of them has gone.
    for repository in ["a", "b"] {
        aged.former_pulls(repository, &times.to_string());
    }
    assert_eq!(aged.collect().manifests, 1);
    let journal = aged.store.journal();
    assert_eq!(journal.repositories().unwrap(), [Aged::name("a")]);
    let history = journal.history(&Aged::name("a")).unwrap();
    assert_eq!(history.manifests.into_keys().collect::<Vec<_>>(), [tagged]);
}

#[test]
fn a_child_that_comes_after_its_index_stays_with_it() {
    let aged = Aged::new();
    let other = Aged::new();
    let [child, layer] = other.image("a", "child", None);
    let size = fs::metadata(other.path("a", &child)).unwrap().len();
    let list = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": child.as_str(), "size": size},
            {"mediaType": "a/b", "digest": layer.as_str(), "size": 1}]});
    let list = NewManifest {
        reference: Reference::Tag(Tag::parse("all").unwrap()),
        tags: Vec::new(),
        preconditions: Vec::new(),
        content_type: None,
        bytes: list.to_string().into(),
        missing: MissingContent::Allow,
    };
    let name = Aged::name("a");
    let lock = aged.layout().lock_exclusive(&name, GRACE).unwrap();
    let repository = aged.store.repository(&name);
    repository.put(list.check().unwrap(), &lock).unwrap();
    drop(lock);
    aged.age("a");
    assert_eq!(aged.collect(), CollectionSummary::default());
    assert_eq!(
        aged.image("a", "child", None),
        [child.clone(), layer.clone()]
    );
    aged.age("a");
    assert_eq!(aged.collect(), CollectionSummary::default());
    assert!(aged.has("a", &child) && aged.has("a", &layer));
}
