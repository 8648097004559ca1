//! A repository's `index.json`: its tags and its manifests (OCI image specification, "Image Index"
//! and "Image Layout"). Entries of other tools that moorgate does not understand are preserved.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::Arc;
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
    /// One text for all entries of an index that was read.
    pub(super) media_type: Arc<str>,
    pub(super) size: u64,
    pub(super) artifact_type: Option<Arc<str>>,
    /// Boxed because few entries have any.
    more: Option<Box<FurtherFields>>,
}

/// Further fields and annotations of a descriptor, as another tool wrote them.
#[derive(Clone, Debug, Default, PartialEq)]
struct FurtherFields {
    annotations: BTreeMap<String, String>,
    fields: Map<String, Value>,
}

impl ManifestEntry {
    pub(super) fn new(media_type: &str, size: u64, artifact_type: Option<&str>) -> Self {
        Self {
            media_type: media_type.into(),
            size,
            artifact_type: artifact_type.map(Arc::from),
            more: None,
        }
    }
}

/// The annotation that holds a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    #[serde(rename = "schemaVersion")]
    _schema_version: u32,
    #[serde(default, rename = "mediaType")]
    _media_type: Option<String>,
    #[serde(default, deserialize_with = "read_descriptors")]
    manifests: RepositoryIndex,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDescriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    more: Option<&'a Map<String, Value>>,
}

/// Adds each descriptor to the index as it is read: one at a time is in memory.
fn read_descriptors<'de, D: Deserializer<'de>>(list: D) -> Result<RepositoryIndex, D::Error> {
    list.deserialize_seq(IndexBuilder::default())
}

/// Builds an index from the descriptors of its file.
#[derive(Default)]
struct IndexBuilder {
    index: RepositoryIndex,
    /// The media types and artifact types so far.
    types: HashSet<Arc<str>>,
}

impl<'de> Visitor<'de> for IndexBuilder {
    type Value = RepositoryIndex;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of descriptors")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<RepositoryIndex, A::Error> {
        while let Some(value) = list.next_element::<Value>()? {
            if !self.add(&value) {
                self.index.others.push(value);
            }
        }
        Ok(self.index)
    }
}

impl IndexBuilder {
    /// Adds a descriptor. Returns whether all of it is represented.
    fn add(&mut self, value: &Value) -> bool {
        let Some((digest, entry, name)) = self.entry(value) else {
            return false;
        };
        let known = self.index.manifests.get_key_value(&digest);
        // A manifest and its tags share one text.
        let digest = known.map_or(digest, |(digest, _)| digest.clone());
        let entries = &mut self.index.manifests;
        entries.entry(digest.clone()).or_insert(entry);
        let Some(name) = name else { return true };
        let Ok(tag) = Tag::parse(name) else {
            return false;
        };
        self.index.tags.insert(tag, digest);
        true
    }

    /// A manifest's digest, entry and name. `None`: the value is not a descriptor of a manifest.
    fn entry<'v>(&mut self, value: &'v Value) -> Option<(Digest, ManifestEntry, Option<&'v str>)> {
        let object = value.as_object()?;
        let digest = Digest::parse(object.get("digest")?.as_str()?).ok()?;
        let artifact_type = match object.get("artifactType") {
            None | Some(Value::Null) => None,
            Some(kind) => Some(self.shared(kind.as_str()?)),
        };
        let mut further = FurtherFields::default();
        let mut name = None;
        for (key, value) in object {
            match key.as_str() {
                "digest" | "mediaType" | "size" | "artifactType" => {}
                "annotations" => {
                    for (key, value) in value.as_object()? {
                        let value = value.as_str()?;
                        if key == REF_NAME {
                            name = Some(value);
                        } else {
                            further.annotations.insert(key.clone(), value.to_owned());
                        }
                    }
                }
                _ => {
                    further.fields.insert(key.clone(), value.clone());
                }
            }
        }
        let has_further = !further.annotations.is_empty() || !further.fields.is_empty();
        let entry = ManifestEntry {
            media_type: self.shared(object.get("mediaType")?.as_str()?),
            size: object.get("size")?.as_u64()?,
            artifact_type,
            more: has_further.then(|| Box::new(further)),
        };
        Some((digest, entry, name))
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.types.get(text) {
            return known.clone();
        }
        let text = Arc::from(text);
        self.types.insert(Arc::clone(&text));
        text
    }
}

impl RepositoryIndex {
    /// Reads an `index.json`.
    ///
    /// Errors: of its syntax; those of the reader.
    pub(super) fn read(file: impl io::Read) -> serde_json::Result<Self> {
        let document: IndexFile = serde_json::from_reader(file)?;
        Ok(document.manifests)
    }

    /// Writes the `index.json`: a line for each descriptor.
    pub(super) fn write(&self, mut file: impl Write) -> io::Result<()> {
        writeln!(
            file,
            "{{\"schemaVersion\":2,\"mediaType\":\"{MEDIA_TYPE}\",\"manifests\":["
        )?;
        let tagged = self.tags.iter().map(|(tag, digest)| (digest, Some(tag)));
        let others = self.others.iter().filter_map(digest_text);
        let listed: HashSet<&str> = self
            .tags
            .values()
            .map(Digest::as_str)
            .chain(others)
            .collect();
        let untagged = self.manifests.keys();
        let untagged = untagged.filter(|digest| !listed.contains(digest.as_str()));
        let mut separator = "";
        for (digest, tag) in tagged.chain(untagged.map(|digest| (digest, None))) {
            let Some(entry) = self.manifests.get(digest) else {
                continue;
            };
            file.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut file, &descriptor(digest, entry, tag))?;
            separator = ",\n";
        }
        for other in &self.others {
            write!(file, "{separator}{other}")?;
            separator = ",\n";
        }
        file.write_all(b"\n]}\n")
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

    /// All tags, in order, with the manifests that they point at.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&Tag, &Digest)> {
        self.tags.iter()
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
        self.named_without(|_| false)
    }

    /// As [`Self::named`], as if some tags did not exist.
    pub(super) fn named_without(
        &self,
        is_removed: impl Fn(&Tag) -> bool,
    ) -> impl Iterator<Item = &Digest> {
        let others = self.others.iter().filter_map(|other| {
            let digest = Digest::parse(digest_text(other)?).ok()?;
            self.manifests
                .get_key_value(&digest)
                .map(|(digest, _)| digest)
        });
        let tags = self.tags.iter().filter(move |(tag, _)| !is_removed(tag));
        tags.map(|(_, digest)| digest).chain(others)
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

    /// Removes manifests with their tags and other names.
    pub(super) fn remove(&mut self, is_removed: impl Fn(&Digest) -> bool) {
        self.tags.retain(|_, tagged| !is_removed(tagged));
        self.others.retain(|other| {
            let digest = digest_text(other).and_then(|text| Digest::parse(text).ok());
            !digest.is_some_and(|digest| is_removed(&digest))
        });
        self.manifests.retain(|digest, _| !is_removed(digest));
    }
}

fn descriptor<'a>(
    digest: &'a Digest,
    entry: &'a ManifestEntry,
    tag: Option<&'a Tag>,
) -> IndexDescriptor<'a> {
    let further = entry.more.as_deref();
    let annotations = further.into_iter().flat_map(|more| &more.annotations);
    let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str()));
    IndexDescriptor {
        media_type: &entry.media_type,
        digest: digest.as_str(),
        size: entry.size,
        artifact_type: entry.artifact_type.as_deref(),
        annotations: annotations
            .chain(tag.map(|tag| (REF_NAME, tag.as_str())))
            .collect(),
        more: further.map(|more| &more.fields),
    }
}

fn digest_text(descriptor: &Value) -> Option<&str> {
    descriptor.get("digest")?.as_str()
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
        ManifestEntry::new("application/vnd.oci.image.manifest.v1+json", 7, None)
    }

    fn print(index: &RepositoryIndex) -> String {
        let mut text = Vec::new();
        index.write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
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
        let index = RepositoryIndex::read(text.as_bytes()).unwrap();
        assert_eq!(index.tag(&tag("v1")), Some(&digest(1)));
        assert_eq!(index.manifests().count(), 2);
        assert!(index.named().any(|named| *named == digest(2)));
        let printed = print(&index);
        for kept in [
            "\"platform\":{\"os\":\"linux\"}",
            "\"k\":\"v\"",
            "docker.io/library/x:1",
            "crc:1",
        ] {
            assert!(printed.contains(kept), "{kept} in {printed}");
        }
        assert_eq!(RepositoryIndex::read(printed.as_bytes()).unwrap(), index);
    }

    #[test]
    fn removing_a_manifest_removes_its_tags() {
        let mut index = RepositoryIndex::default();
        index.insert(&digest(1), entry());
        assert!(index.point(tag("a"), &digest(1)));
        assert!(!index.point(tag("a"), &digest(1)));
        index.point(tag("b"), &digest(1));
        assert!(index.untag(&tag("a")) && !index.untag(&tag("a")));
        index.insert(&digest(2), entry());
        index.point(tag("c"), &digest(2));
        index.remove(|removed| *removed == digest(1));
        assert_eq!(index.tags_after("").collect::<Vec<_>>(), [&tag("c")]);
        index.remove(|removed| *removed == digest(2));
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
            prop_assert_eq!(RepositoryIndex::read(print(&index).as_bytes()).unwrap(), index);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = RepositoryIndex::read(text.as_bytes());
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
