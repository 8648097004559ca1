//! What a played registry keeps, in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

/// All repositories, with blobs by their digests.
#[derive(Default)]
pub struct Contents {
    blobs: BTreeMap<String, Bytes>,
    repositories: BTreeMap<String, PlayedRepository>,
    projects: BTreeSet<String>,
    pub uploads: BTreeMap<String, PlayedUpload>,
    begun: usize,
}

/// A repository.
#[derive(Default)]
pub struct PlayedRepository {
    pub blobs: BTreeSet<String>,
    pub manifests: BTreeMap<String, PlayedManifest>,
    pub tags: BTreeMap<String, String>,
}

/// A manifest with what stands in it.
#[derive(Clone, Debug)]
pub struct PlayedManifest {
    /// In the order in which they came.
    pub id: usize,
    pub media_type: String,
    pub bytes: Bytes,
    pub document: Value,
}

/// An upload that goes on.
pub struct PlayedUpload {
    pub repository: String,
    pub bytes: Vec<u8>,
    pub chunks: usize,
}

impl Contents {
    pub fn names(&self) -> Vec<String> {
        let filled = self.repositories.iter();
        filled.map(|(name, _)| name.clone()).collect()
    }

    pub fn repository(&self, name: &str) -> Option<&PlayedRepository> {
        self.repositories.get(name)
    }

    /// The repository, made if there is none.
    pub fn make_repository(&mut self, name: &str) -> &mut PlayedRepository {
        let components: Vec<_> = name.split('/').collect();
        for levels in 1..=components.len() {
            self.projects.insert(components[..levels].join("/"));
        }
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub fn make_project(&mut self, name: &str) -> bool {
        self.projects.insert(name.to_owned())
    }

    pub fn has_project(&self, name: &str) -> bool {
        self.projects.contains(name)
    }

    pub fn projects(&self) -> impl Iterator<Item = &String> {
        self.projects.iter()
    }

    pub fn blob(&self, digest: &str) -> Option<&Bytes> {
        self.blobs.get(digest)
    }

    /// A blob, where the repository has it.
    pub fn blob_of(&self, name: &str, digest: &str) -> Option<&Bytes> {
        let repository = self.repository(name)?;
        repository
            .blobs
            .contains(digest)
            .then(|| &self.blobs[digest])
    }

    pub fn put_blob(&mut self, name: &str, bytes: Bytes) -> String {
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        self.make_repository(name).blobs.insert(digest.clone());
        digest
    }

    pub fn put_json(&mut self, name: &str, tag: Option<&str>, manifest: &Value) -> String {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let bytes = Bytes::from(manifest.to_string());
        self.put_manifest(name, tag, (media_type, &bytes))
    }

    /// Stores a manifest that was checked.
    pub fn put_manifest(
        &mut self,
        name: &str,
        tag: Option<&str>,
        (media_type, bytes): (&str, &Bytes),
    ) -> String {
        let digest = digest(bytes);
        self.begun += 1;
        let manifest = PlayedManifest {
            id: self.begun,
            media_type: media_type.to_owned(),
            bytes: bytes.clone(),
            document: serde_json::from_slice(bytes).unwrap(),
        };
        let repository = self.make_repository(name);
        repository
            .manifests
            .entry(digest.clone())
            .or_insert(manifest);
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    /// Begins an upload; its id.
    pub fn begin_upload(&mut self, name: &str) -> String {
        self.begun += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", self.begun);
        let upload = PlayedUpload {
            repository: name.to_owned(),
            bytes: Vec::new(),
            chunks: 0,
        };
        self.uploads.insert(id.clone(), upload);
        id
    }
}

impl PlayedRepository {
    /// The digest of a reference, where it leads to a manifest.
    pub fn resolve(&self, reference: &str) -> Option<String> {
        let digest = match self.tags.get(reference) {
            Some(digest) => digest,
            None => reference,
        };
        self.manifests
            .contains_key(digest)
            .then(|| digest.to_owned())
    }

    /// Whether a manifest is a part of an index.
    pub fn is_referenced(&self, digest: &str) -> bool {
        let documents = self.manifests.values().map(|manifest| &manifest.document);
        let mut parts = documents.flat_map(|document| descriptors(document, "manifests"));
        parts.any(|part| part["digest"] == digest)
    }

    pub fn tags_of(&self, digest: &str) -> Vec<String> {
        let tags = self.tags.iter().filter(|(_, of)| *of == digest);
        tags.map(|(tag, _)| tag.clone()).collect()
    }

    /// Removes a manifest with its tags.
    pub fn remove(&mut self, digest: &str) -> bool {
        self.tags.retain(|_, of| of != digest);
        self.manifests.remove(digest).is_some()
    }

    /// The descriptors of what refers to a manifest as its subject.
    pub fn referrers(&self, subject: &str) -> Vec<Value> {
        let referring = self
            .manifests
            .iter()
            .filter(|(_, manifest)| manifest.document["subject"]["digest"] == subject);
        referring
            .map(|(digest, manifest)| {
                let document = &manifest.document;
                let kind = match &document["artifactType"] {
                    Value::Null => &document["config"]["mediaType"],
                    kind => kind,
                };
                json!({
                    "mediaType": manifest.media_type,
                    "digest": digest,
                    "size": manifest.bytes.len(),
                    "artifactType": kind,
                    "annotations": document["annotations"],
                })
            })
            .collect()
    }
}

/// The descriptors in a list of a manifest.
pub fn descriptors<'a>(document: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    document[list].as_array().into_iter().flatten()
}

pub fn digest(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    format!("sha256:{}", HEXLOWER.encode(hash.as_ref()))
}
