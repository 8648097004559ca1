//! A repository's `index.json`: its tags and its manifests (OCI image specification, "Image Index"
//! and "Image Layout"). Entries of other tools that moorgate does not understand are preserved.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::{fmt, io};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::registry::digest::Digest;
use crate::registry::reference::Tag;

/// The manifests of a repository, and the tags that point at them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RepositoryIndex {
    manifests: BTreeMap<Digest, ManifestEntry>,
    tags: BTreeMap<Tag, Digest>,
    /// Descriptors whose name is not a tag or whose digest is not valid, as another tool wrote them.
    others: Vec<Value>,
}

/// A manifest's entry in the index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ManifestEntry {
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) artifact_type: Option<String>,
    /// Further fields and annotations, as another tool wrote them.
    annotations: BTreeMap<String, String>,
    more: Map<String, Value>,
}

impl ManifestEntry {
    pub(super) fn new(media_type: String, size: u64, artifact_type: Option<String>) -> Self {
        Self {
            media_type,
            size,
            artifact_type,
            annotations: BTreeMap::new(),
            more: Map::new(),
        }
    }
}

/// The annotation that holds a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl RepositoryIndex {
    /// Reads an `index.json`.
    pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let document: IndexFile = serde_json::from_slice(bytes)?;
        let mut index = Self::default();
        for value in document.manifests {
            if !index.add(&value) {
                index.others.push(value);
            }
        }
        Ok(index)
    }

    /// Adds a descriptor. Returns whether all of it is represented.
    fn add(&mut self, value: &Value) -> bool {
        let Ok(mut descriptor) = IndexDescriptor::deserialize(value) else {
            return false;
        };
        let Ok(digest) = Digest::parse(&descriptor.digest) else {
            return false;
        };
        let name = descriptor.annotations.remove(REF_NAME);
        let entry = ManifestEntry {
            media_type: descriptor.media_type,
            size: descriptor.size,
            artifact_type: descriptor.artifact_type,
            annotations: descriptor.annotations,
            more: descriptor.more,
        };
        self.manifests.entry(digest.clone()).or_insert(entry);
        let Some(name) = name else { return true };
        let Ok(tag) = Tag::parse(&name) else {
            return false;
        };
        self.tags.insert(tag, digest);
        true
    }

    /// The text of the `index.json`: a line for each descriptor.
    pub(super) fn print(&self) -> String {
        let tagged = self.tags.iter().map(|(tag, digest)| (digest, Some(tag)));
        let is_tagged: std::collections::HashSet<&Digest> = self.tags.values().collect();
        let others_name = |digest: &Digest| {
            self.others
                .iter()
                .any(|other| other.get("digest").and_then(Value::as_str) == Some(digest.as_str()))
        };
        let untagged = self
            .manifests
            .keys()
            .filter(|digest| !is_tagged.contains(digest) && !others_name(digest));
        let descriptors = tagged.chain(untagged.map(|digest| (digest, None)));
        let lines = descriptors.filter_map(|(digest, tag)| self.descriptor(digest, tag));
        let lines: Vec<String> = lines
            .chain(self.others.iter().map(Value::to_string))
            .collect();
        let lines = lines.join(",\n");
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MEDIA_TYPE}\",\"manifests\":[\n{lines}\n]}}\n"
        )
    }

    fn descriptor(&self, digest: &Digest, tag: Option<&Tag>) -> Option<String> {
        let entry = self.manifests.get(digest)?;
        let mut annotations = entry.annotations.clone();
        annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.as_str().to_owned())));
        let descriptor = IndexDescriptor {
            media_type: entry.media_type.clone(),
            digest: digest.as_str().to_owned(),
            size: entry.size,
            artifact_type: entry.artifact_type.clone(),
            annotations,
            more: entry.more.clone(),
        };
        serde_json::to_string(&descriptor).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.others.is_empty()
    }

    /// Whether the index has descriptors that moorgate does not understand.
    pub(super) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The manifest that a tag points at.
    pub(super) fn tag(&self, tag: &Tag) -> Option<&Digest> {
        self.tags.get(tag)
    }

    /// The tags that sort after a text, in order.
    pub(super) fn tags_after<'a>(&'a self, last: &'a str) -> impl Iterator<Item = &'a Tag> {
        self.tags.keys().skip_while(move |tag| tag.as_str() <= last)
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Option<&ManifestEntry> {
        self.manifests.get(digest)
    }

    /// All manifests, in the order of their digests.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Digest, &ManifestEntry)> {
        self.manifests.iter()
    }

    /// The manifests that a tag or another tool's name points at.
    pub(super) fn named(&self) -> impl Iterator<Item = &Digest> {
        let others = self.others.iter().filter_map(|other| {
            let digest = Digest::parse(other.get("digest")?.as_str()?).ok()?;
            self.manifests
                .get_key_value(&digest)
                .map(|(digest, _)| digest)
        });
        self.tags.values().chain(others)
    }

    /// Adds a manifest. An existing entry stays as it is.
    pub(super) fn insert(&mut self, digest: &Digest, entry: ManifestEntry) {
        self.manifests.entry(digest.clone()).or_insert(entry);
    }

    /// Points a tag at a manifest of the index. Returns whether that changed anything.
    pub(super) fn point(&mut self, tag: Tag, digest: &Digest) -> bool {
        self.tags.insert(tag, digest.clone()).as_ref() != Some(digest)
    }

    /// Removes a tag. Returns whether it existed.
    pub(super) fn untag(&mut self, tag: &Tag) -> bool {
        self.tags.remove(tag).is_some()
    }

    /// Removes a manifest with its tags and other names. Returns whether it existed.
    pub(super) fn remove(&mut self, digest: &Digest) -> bool {
        self.tags.retain(|_, tagged| tagged != digest);
        self.others
            .retain(|other| other.get("digest").and_then(Value::as_str) != Some(digest.as_str()));
        self.manifests.remove(digest).is_some()
    }
}

/// Whether an `index.json` lists nothing. Reads no further than to the first manifest.
pub(super) fn is_empty_file(file: impl io::Read) -> serde_json::Result<bool> {
    let has_manifest = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_reader(file);
    match reader.deserialize_map(FirstManifest(&has_manifest)) {
        // The visitor ends the reading by an error.
        _ if has_manifest.get() => Ok(false),
        read => read.map(|()| true),
    }
}

/// Visits an index up to its first manifest.
struct FirstManifest<'a>(&'a Cell<bool>);

impl<'de> Visitor<'de> for FirstManifest<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            if field == "manifests" {
                map.next_value_seed(FirstManifest(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut manifests: A) -> Result<(), A::Error> {
        if manifests.next_element::<IgnoredAny>()?.is_some() {
            self.0.set(true);
            return Err(A::Error::custom("not empty"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for FirstManifest<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::parse(&format!("sha256:{:064x}", n)).unwrap()
    }

    fn tag(text: &str) -> Tag {
        Tag::parse(text).unwrap()
    }

    fn entry() -> ManifestEntry {
        ManifestEntry::new(
            "application/vnd.oci.image.manifest.v1+json".to_owned(),
            7,
            None,
        )
    }

    #[test]
    fn entries_of_other_tools_are_preserved() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"a/b","digest":"{0}","size":7,"platform":{{"os":"linux"}},
              "annotations":{{"{REF_NAME}":"v1","k":"v"}}}},
            {{"mediaType":"a/b","digest":"{1}","size":8,"annotations":{{"{REF_NAME}":"docker.io/library/x:1"}}}},
            {{"mediaType":"a/b","digest":"crc:1","size":9}}]}}"#,
            digest(1),
            digest(2)
        );
        let index = RepositoryIndex::parse(text.as_bytes()).unwrap();
        assert_eq!(index.tag(&tag("v1")), Some(&digest(1)));
        assert_eq!(index.manifests().count(), 2);
        assert!(index.named().any(|named| *named == digest(2)));
        let printed = index.print();
        for kept in [
            "\"platform\":{\"os\":\"linux\"}",
            "\"k\":\"v\"",
            "docker.io/library/x:1",
            "crc:1",
        ] {
            assert!(printed.contains(kept), "{kept} in {printed}");
        }
        assert_eq!(RepositoryIndex::parse(printed.as_bytes()).unwrap(), index);
    }

    #[test]
    fn removing_a_manifest_removes_its_tags() {
        let mut index = RepositoryIndex::default();
        index.insert(&digest(1), entry());
        assert!(index.point(tag("a"), &digest(1)));
        assert!(!index.point(tag("a"), &digest(1)));
        index.point(tag("b"), &digest(1));
        assert!(index.untag(&tag("a")) && !index.untag(&tag("a")));
        assert!(index.remove(&digest(1)) && !index.remove(&digest(1)));
        assert!(index.is_empty() && index.tags_after("").next().is_none());
    }

    #[test]
    fn pages_start_after_any_text() {
        let mut index = RepositoryIndex::default();
        index.insert(&digest(1), entry());
        for name in ["A", "_x", "a", "a.b", "b"] {
            index.point(tag(name), &digest(1));
        }
        let after = |last| index.tags_after(last).map(Tag::as_str).collect::<Vec<_>>();
        assert_eq!(after("a"), ["a.b", "b"]);
        assert_eq!(after("a "), ["a.b", "b"]);
        assert_eq!(after(""), ["A", "_x", "a", "a.b", "b"]);
        assert_eq!(after("b"), [""; 0]);
    }

    proptest! {
        #[test]
        fn an_index_is_read_as_it_was_written(
            tags in prop::collection::btree_map("[a-z][a-z0-9.]{0,5}", 0_u8..6, 0..8),
            untagged in prop::collection::vec(6_u8..12, 0..4),
        ) {
            let mut index = RepositoryIndex::default();
            for (name, n) in &tags {
                index.insert(&digest(*n), entry());
                index.point(tag(name), &digest(*n));
            }
            for n in untagged {
                index.insert(&digest(n), entry());
            }
            prop_assert_eq!(RepositoryIndex::parse(index.print().as_bytes()).unwrap(), index);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = RepositoryIndex::parse(text.as_bytes());
        }
    }

    #[test]
    fn whether_an_index_is_empty_is_read_from_its_beginning() {
        for (text, expected) in [
            (r#"{"schemaVersion":2,"manifests":[]}"#, Some(true)),
            (r#"{"schemaVersion":2}"#, Some(true)),
            (r#"{"manifests":[{}, damaged from here on"#, Some(false)),
            (r#"{"manifests":[{"digest"#, None),
            (r#"{"manifests":[]"#, None),
            (r#"{"manifests":null}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(is_empty_file(text.as_bytes()).ok(), expected, "{text}");
        }
    }
}
