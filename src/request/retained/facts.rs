//! What retention has to know of a manifest. It follows from its digest alone, so that each manifest
//! is read once, whichever domain and repository it is in.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::registry::digest::Digest;
use crate::retention::image_config::ImageConfig;
use crate::retention::inventory::ContentSize;

/// What a manifest references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::request) struct ManifestReferences {
    /// The manifests that an index lists.
    pub(in crate::request) children: Vec<ReferencedContent>,
    /// The configuration, the layers, and what else is no manifest.
    pub(in crate::request) blobs: Vec<ReferencedContent>,
    pub(in crate::request) subject: Option<Digest>,
}

/// Something that a manifest references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::request) struct ReferencedContent {
    pub(in crate::request) digest: Digest,
    pub(in crate::request) media_type: String,
    pub(in crate::request) size: u64,
    /// Whether clients may get it from elsewhere, so that the registry need not have it.
    pub(in crate::request) is_foreign: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReferencesJson {
    config: Option<ReferenceJson>,
    layers: Vec<ReferenceJson>,
    blobs: Vec<ReferenceJson>,
    manifests: Vec<ReferenceJson>,
    subject: Option<ReferenceJson>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReferenceJson {
    media_type: String,
    digest: String,
    size: u64,
    urls: Vec<serde::de::IgnoredAny>,
}

impl ReferenceJson {
    fn read(self) -> Option<ReferencedContent> {
        Some(ReferencedContent {
            digest: Digest::parse(&self.digest).ok()?,
            media_type: self.media_type,
            size: self.size,
            is_foreign: !self.urls.is_empty(),
        })
    }
}

impl ManifestReferences {
    /// `None`: it is not written as a manifest of a known kind, so that nobody knows what it needs.
    pub(in crate::request) fn parse(bytes: &[u8]) -> Option<Self> {
        // An array would be read as the fields in their order.
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        first.filter(|byte| **byte == b'{')?;
        let json: ReferencesJson = serde_json::from_slice(bytes).ok()?;
        let all = |list: Vec<ReferenceJson>| -> Option<Vec<ReferencedContent>> {
            list.into_iter().map(ReferenceJson::read).collect()
        };
        // Indexes of caches list blobs as well.
        let (children, listed) = all(json.manifests)?
            .into_iter()
            .partition(|entry| is_manifest(&entry.media_type));
        let mut blobs = all(json.config.into_iter().collect())?;
        blobs.extend(all(json.layers)?);
        blobs.extend(all(json.blobs)?);
        blobs.extend::<Vec<_>>(listed);
        Some(Self {
            children,
            blobs,
            subject: match json.subject {
                Some(subject) => Some(subject.read()?.digest),
                None => None,
            },
        })
    }

    /// The configuration, if it is that of an image and of the usual size.
    pub(in crate::request) fn config(&self) -> Option<&ReferencedContent> {
        let is_config = |blob: &&ReferencedContent| ImageConfig::is_type(&blob.media_type);
        let config = self.blobs.iter().find(is_config);
        config.filter(|config| config.size <= MAX_CONFIG_BYTES)
    }
}

fn is_manifest(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    const FAMILIES: [&str; 2] = [
        "application/vnd.oci.",
        "application/vnd.docker.distribution.",
    ];
    const FORMS: [&str; 4] = [".manifest.", ".index.", ".manifest.list.", ".manifest+"];
    FAMILIES.iter().any(|family| kind.starts_with(family))
        && FORMS.iter().any(|form| kind.contains(form))
}

/// What is known of a manifest.
#[derive(Debug)]
pub(in crate::request) struct ManifestFacts {
    pub(in crate::request) children: Box<[Digest]>,
    pub(in crate::request) subject: Option<Digest>,
    /// With the annotations of the manifest.
    pub(in crate::request) config: ImageConfig,
    pub(in crate::request) content: Box<[ContentSize]>,
}

impl ManifestFacts {
    pub(in crate::request) fn new(
        digest: &Digest,
        size: usize,
        references: &ManifestReferences,
        config: ImageConfig,
    ) -> Self {
        let own = content(digest, u64::try_from(size).unwrap_or(u64::MAX));
        let blobs = references.blobs.iter();
        let children = references.children.iter();
        Self {
            children: children.map(|child| child.digest.clone()).collect(),
            subject: references.subject.clone(),
            config,
            content: std::iter::once(own)
                .chain(blobs.map(|blob| content(&blob.digest, blob.size)))
                .collect(),
        }
    }

    /// The memory that it takes, about.
    fn weight(&self) -> usize {
        const DIGEST: usize = 100;
        let digests = self.children.len() + usize::from(self.subject.is_some()) + 1;
        256 + digests * DIGEST + mem::size_of_val(&*self.content)
    }
}

fn content(digest: &Digest, size: u64) -> ContentSize {
    let first = digest.encoded().get(..16);
    let key = first.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    ContentSize {
        // Of other algorithms, nothing is counted twice, and everything too often at most.
        key: key.unwrap_or_default(),
        size,
    }
}

/// The facts of manifests that were used last, of all registries: some 50,000 in 32 MiB. What is
/// not in memory is read again.
#[derive(Debug, Default)]
pub(crate) struct KnownManifests {
    generations: Mutex<Generations>,
}

/// What was used in this half of the memory, and before it.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Arc<ManifestFacts>>,
    young_bytes: usize,
    old: HashMap<Digest, Arc<ManifestFacts>>,
}

/// Of each generation.
const MAX_GENERATION_BYTES: usize = 16 << 20;
/// Most have a few KiB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

impl KnownManifests {
    pub(in crate::request) fn get(&self, digest: &Digest) -> Option<Arc<ManifestFacts>> {
        let mut generations = self.lock();
        if let Some(facts) = generations.young.get(digest) {
            return Some(facts.clone());
        }
        let facts = generations.old.remove(digest)?;
        generations.insert(digest, &facts);
        Some(facts)
    }

    pub(in crate::request) fn insert(&self, digest: &Digest, facts: &Arc<ManifestFacts>) {
        self.lock().insert(digest, facts);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, digest: &Digest, facts: &Arc<ManifestFacts>) {
        if self.young.insert(digest.clone(), facts.clone()).is_some() {
            return;
        }
        self.young_bytes += facts.weight();
        if self.young_bytes > MAX_GENERATION_BYTES {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(of: usize) -> Digest {
        let hex = crate::crypto::sha256_hex(&of.to_be_bytes());
        Digest::parse(&format!("sha256:{hex}")).expect("a digest")
    }

    fn entry(kind: &str, of: usize) -> serde_json::Value {
        json!({ "mediaType": kind, "digest": digest(of).as_str(), "size": of })
    }

    #[test]
    fn references_are_told_apart() {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
        const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
        let document = json!({
            "schemaVersion": 2,
            "config": entry(CONFIG, 1),
            "layers": [entry(LAYER, 2), {"mediaType": LAYER, "digest": digest(3).as_str(), "urls": ["https://a.test/"]}],
            "manifests": [entry(MANIFEST, 4), entry("application/vnd.docker.distribution.manifest.list.v2+json", 5), entry(LAYER, 6)],
            "subject": entry(MANIFEST, 7),
        });
        let read = ManifestReferences::parse(document.to_string().as_bytes()).expect("valid");
        let digests = |list: &[ReferencedContent]| -> Vec<_> {
            list.iter().map(|entry| entry.digest.clone()).collect()
        };
        assert_eq!(digests(&read.children), [digest(4), digest(5)]);
        assert_eq!(digests(&read.blobs), [1, 2, 3, 6].map(digest));
        assert!(read.blobs[2].is_foreign && !read.blobs[1].is_foreign);
        assert_eq!(read.subject, Some(digest(7)));
        assert_eq!(read.config().map(|config| config.size), Some(1));
        for wrong in [
            "",
            "[]",
            "{\"manifests\":[{}]}",
            "{\"layers\":[{\"digest\":\"a\"}]}",
            "{\"subject\":{}}",
        ] {
            assert_eq!(ManifestReferences::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_used_stays_in_memory_and_the_rest_is_bounded() {
        let known = KnownManifests::default();
        let facts = Arc::new(ManifestFacts::new(
            &digest(0),
            1,
            &ManifestReferences::default(),
            ImageConfig::default(),
        ));
        known.insert(&digest(0), &facts);
        for at in 1..200_000 {
            known.insert(&digest(at), &facts);
            if at % 1_000 == 0 {
                assert!(known.get(&digest(0)).is_some(), "{at}");
            }
        }
        assert!(known.get(&digest(1)).is_none());
        let generations = known.lock();
        let count = generations.young.len() + generations.old.len();
        assert!((20_000..90_000).contains(&count), "{count}");
    }
}
