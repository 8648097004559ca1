//! Repositories that tests write as files, as if they had been pushed long ago.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::layout::{self, INDEX_FILE, StoreLayout};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A repository in the making. Nothing is visible before [`Self::publish`].
pub(crate) struct WrittenRepository {
    pub(crate) name: RepositoryName,
    path: PathBuf,
    manifests: BTreeMap<Digest, (&'static str, usize)>,
    tags: BTreeMap<Tag, Digest>,
    /// How long ago all of it was used last.
    age: Duration,
}

impl WrittenRepository {
    pub(crate) fn new(store: &Path, name: &str) -> Self {
        let name = RepositoryName::parse(name).unwrap();
        let path = StoreLayout::create(store).unwrap().repository(&name);
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::create_dir_all(path.join("blobs/sha512")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self {
            name,
            path,
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
            age: Duration::from_hours(48),
        }
    }

    pub(crate) fn blob(&self, content: &[u8]) -> Digest {
        let hex = crate::crypto::sha256_hex(content);
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        fs::write(self.file(&digest), content).unwrap();
        self.age(&digest);
        digest
    }

    /// Makes a blob or manifest look as if nobody had used it for long.
    pub(crate) fn age(&self, digest: &Digest) {
        let used = SystemTime::now() - self.age;
        let file = File::open(self.file(digest)).unwrap();
        file.set_modified(used).unwrap();
    }

    /// An image with a configuration and a layer of its own.
    pub(crate) fn image(&mut self, seed: &str, subject: Option<&Digest>) -> Digest {
        self.image_with(seed, &json!({}), subject)
    }

    /// As [`Self::image`], with these labels.
    pub(crate) fn image_with(
        &mut self,
        seed: &str,
        labels: &Value,
        subject: Option<&Digest>,
    ) -> Digest {
        let created = "2024-05-06T07:08:09Z";
        let config =
            json!({ "seed": seed, "created": created, "config": { "Labels": labels } }).to_string();
        let layer = format!("layer {seed}");
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": IMAGE,
            "config": descriptor(CONFIG, &self.blob(config.as_bytes()), config.len()),
            "layers": [descriptor("a/layer", &self.blob(layer.as_bytes()), layer.len())] });
        if let Some(subject) = subject {
            manifest["subject"] = descriptor(IMAGE, subject, 1);
        }
        self.manifest(IMAGE, &manifest)
    }

    pub(crate) fn index(&mut self, seed: &str, children: &[Digest]) -> Digest {
        let children = children.iter().map(|child| {
            let (media_type, size) = self.manifests[child];
            descriptor(media_type, child, size)
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "annotations": { "seed": seed },
            "manifests": children.collect::<Vec<_>>() });
        self.manifest(INDEX, &index)
    }

    fn manifest(&mut self, media_type: &'static str, manifest: &Value) -> Digest {
        let text = manifest.to_string();
        let digest = self.blob(text.as_bytes());
        let entry = (media_type, text.len());
        self.manifests.insert(digest.clone(), entry);
        digest
    }

    pub(crate) fn tag(&mut self, tag: &str, digest: &Digest) {
        self.tags.insert(Tag::parse(tag).unwrap(), digest.clone());
    }

    /// Writes the index.
    pub(crate) fn publish(&self) {
        let tagged: BTreeSet<&Digest> = self.tags.values().collect();
        let tags = self.tags.iter().map(|(tag, digest)| (digest, Some(tag)));
        let untagged = self.manifests.keys().filter(|d| !tagged.contains(d));
        let all = tags.chain(untagged.map(|digest| (digest, None)));
        let lines = all.map(|(digest, tag)| {
            let (media_type, size) = self.manifests[digest];
            let mut line = descriptor(media_type, digest, size);
            if let Some(tag) = tag {
                line["annotations"] = json!({ "org.opencontainers.image.ref.name": tag.as_str() });
            }
            line.to_string()
        });
        let lines = lines.collect::<Vec<_>>().join(",\n");
        let index = format!("{{\"schemaVersion\":2,\"manifests\":[\n{lines}\n]}}\n");
        fs::write(self.path.join(INDEX_FILE), index).unwrap();
    }

    /// The file of a blob or manifest.
    pub(crate) fn file(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.encoded())
    }

    pub(crate) fn index_file(&self) -> PathBuf {
        self.path.join(INDEX_FILE)
    }

    /// The record of what retention has removed.
    pub(crate) fn removed_file(&self) -> PathBuf {
        let store = self.path.ancestors().nth(2).unwrap();
        store.join("removed").join(layout::file_name(&self.name))
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": size })
}
