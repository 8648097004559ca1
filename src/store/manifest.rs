//! What a manifest says: its type, what it needs, and what it refers to. The types that are known
//! are checked; content of any other type is kept as it is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::StoreError;
use crate::registry::digest::Digest;

/// What a manifest says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ParsedManifest {
    pub(super) media_type: String,
    /// Its configuration and layers, without those that may lie elsewhere.
    pub(super) blobs: Vec<Descriptor>,
    /// The manifests of an index.
    pub(super) manifests: Vec<Descriptor>,
    /// The manifest that it says something about; that need not be here.
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Something that a manifest needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CHECKED_TYPES: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<DescriptorJson>,
    layers: Option<Vec<DescriptorJson>>,
    blobs: Option<Vec<DescriptorJson>>,
    manifests: Option<Vec<DescriptorJson>>,
    subject: Option<DescriptorJson>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl ParsedManifest {
    /// Reads a manifest that was sent with this `Content-Type`.
    pub(super) fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, StoreError> {
        let declared = content_type.map(bare);
        // What clients say that know no better.
        let declared = declared
            .filter(|kind| !matches!(*kind, "" | "application/json" | "application/octet-stream"));
        if declared.is_some_and(|kind| SCHEMA_1.contains(&kind)) {
            return Err(schema_1());
        }
        let raw: ManifestJson = match serde_json::from_slice(bytes) {
            Ok(raw) => raw,
            Err(error) => return Self::opaque(declared, &error),
        };
        if raw.schema_version == Some(1) {
            return Err(schema_1());
        }
        let own = raw.media_type.as_deref().map(bare);
        if own.is_some_and(|kind| SCHEMA_1.contains(&kind)) {
            return Err(schema_1());
        }
        if let (Some(declared), Some(own)) = (declared, own)
            && declared != own
        {
            let message =
                format!("the Content-Type is {declared}, but the manifest says that it is {own}");
            return Err(StoreError::invalid(message));
        }
        let media_type = match declared.or(own) {
            Some(kind) => kind.to_owned(),
            None if raw.manifests.is_some() => OCI_INDEX.to_owned(),
            None if raw.config.is_some() => OCI_MANIFEST.to_owned(),
            None => {
                return Err(StoreError::invalid(
                    "neither a Content-Type nor the manifest says what it is",
                ));
            }
        };
        check(&media_type, &raw)?;
        Self::of(media_type, raw)
    }

    /// Content that is no JSON of ours: fine, unless it claims to be.
    fn opaque(declared: Option<&str>, error: &serde_json::Error) -> Result<Self, StoreError> {
        match declared {
            Some(kind) if !CHECKED_TYPES.contains(&kind) => Ok(Self {
                media_type: kind.to_owned(),
                ..Self::default()
            }),
            _ => Err(StoreError::invalid(format!(
                "the manifest cannot be read: {error}"
            ))),
        }
    }

    fn of(media_type: String, raw: ManifestJson) -> Result<Self, StoreError> {
        let config_type = raw.config.as_ref().map(|config| config.media_type.clone());
        let lists = [raw.layers, raw.blobs].into_iter().flatten().flatten();
        let blobs = raw
            .config
            .into_iter()
            .chain(lists.filter(|layer| !layer.lies_elsewhere()));
        let descriptors =
            |list: Vec<DescriptorJson>| list.into_iter().map(DescriptorJson::read).collect();
        Ok(Self {
            blobs: blobs.map(DescriptorJson::read).collect::<Result<_, _>>()?,
            manifests: raw.manifests.map_or(Ok(Vec::new()), descriptors)?,
            subject: raw
                .subject
                .map(DescriptorJson::read)
                .transpose()?
                .map(|subject| subject.digest),
            // Distribution specification 1.1, "Listing Referrers".
            artifact_type: raw
                .artifact_type
                .filter(|kind| !kind.is_empty())
                .or(config_type),
            annotations: raw.annotations.unwrap_or_default(),
            media_type,
        })
    }
}

/// Whether a manifest of this type lists others.
pub(super) fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].contains(&media_type)
}

/// A media type without parameters.
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn schema_1() -> StoreError {
    StoreError::invalid(
        "manifests of schema 1 are not kept here: push with Docker 1.10 or newer, or another client of this decade",
    )
}

/// The parts without which a manifest of a known type is none.
fn check(media_type: &str, raw: &ManifestJson) -> Result<(), StoreError> {
    let missing = match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => match raw {
            ManifestJson {
                schema_version: Some(2),
                config: Some(_),
                layers: Some(_),
                manifests: None,
                ..
            } => {
                return Ok(());
            }
            ManifestJson {
                manifests: Some(_), ..
            } => "an image manifest has no manifests",
            _ => "an image manifest has schemaVersion 2, a config and layers",
        },
        OCI_INDEX | DOCKER_LIST => match raw {
            ManifestJson {
                schema_version: Some(2),
                manifests: Some(_),
                config: None,
                layers: None,
                ..
            } => {
                return Ok(());
            }
            ManifestJson {
                manifests: Some(_), ..
            } => "an image index has schemaVersion 2 and neither config nor layers",
            _ => "an image index has manifests",
        },
        _ => return Ok(()),
    };
    Err(StoreError::invalid(missing))
}

impl DescriptorJson {
    /// Layers that were never meant to be pushed, as those of Windows are.
    fn lies_elsewhere(&self) -> bool {
        let foreign =
            self.media_type.contains("nondistributable") || self.media_type.contains(".foreign.");
        foreign && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }

    fn read(self) -> Result<Descriptor, StoreError> {
        let digest = Digest::parse(&self.digest)
            .map_err(|_| StoreError::invalid("the manifest names a digest that is not valid"))?;
        Ok(Descriptor {
            media_type: self.media_type,
            digest,
            size: self.size,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn digest(n: u8) -> String {
        format!("sha256:{:064x}", n)
    }

    fn descriptor(n: u8) -> Value {
        json!({"mediaType": "application/x", "digest": digest(n), "size": n})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(1), "layers": [descriptor(2)]})
    }

    fn read(content_type: &str, value: &Value) -> Result<ParsedManifest, String> {
        let content_type = Some(content_type).filter(|kind| !kind.is_empty());
        ParsedManifest::read(content_type, value.to_string().as_bytes())
            .map_err(|error| error.to_string())
    }

    fn with(mut value: Value, key: &str, field: Value) -> Value {
        value[key] = field;
        value
    }

    #[test]
    fn an_image_needs_its_configuration_and_layers() {
        let document = read("", &image()).unwrap();
        assert_eq!(document.media_type, OCI_MANIFEST);
        assert_eq!(
            document
                .blobs
                .iter()
                .map(|blob| blob.size)
                .collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(document.artifact_type.as_deref(), Some("application/x"));
        assert!(document.manifests.is_empty() && document.subject.is_none());
    }

    #[test]
    fn an_index_needs_its_manifests() {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(3)], "subject": descriptor(4), "artifactType": "a/b"});
        let document = read(OCI_INDEX, &index).unwrap();
        assert_eq!(document.manifests.len(), 1);
        assert_eq!(document.subject.unwrap().as_str(), digest(4));
        assert_eq!(document.artifact_type.as_deref(), Some("a/b"));
        assert_eq!(read("", &index).unwrap().media_type, OCI_INDEX);
    }

    #[test]
    fn layers_that_lie_elsewhere_are_not_needed() {
        let foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": digest(9), "size": 9, "urls": ["https://example.com/layer"]});
        let document = read("", &with(image(), "layers", json!([foreign]))).unwrap();
        assert_eq!(document.blobs.len(), 1);
        let unnamed = with(foreign, "urls", json!([]));
        assert_eq!(
            read("", &with(image(), "layers", json!([unnamed])))
                .unwrap()
                .blobs
                .len(),
            2
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_words() {
        let cases = [
            (DOCKER_MANIFEST, image(), "the Content-Type is"),
            ("", with(image(), "schemaVersion", json!(1)), "schema 1"),
            (SCHEMA_1[1], json!({}), "schema 1"),
            (
                OCI_MANIFEST,
                json!({"schemaVersion": 2}),
                "a config and layers",
            ),
            (
                "",
                with(image(), "manifests", json!([])),
                "has no manifests",
            ),
            (
                "",
                with(image(), "config", json!({"digest": "sha256:0", "size": 1})),
                "a digest that is not valid",
            ),
            (
                "",
                with(image(), "layers", json!([{"digest": digest(1)}])),
                "cannot be read",
            ),
            ("", json!({"schemaVersion": 2}), "says what it is"),
            (OCI_INDEX, json!([]), "cannot be read"),
        ];
        for (content_type, value, words) in cases {
            let error = read(content_type, &value).unwrap_err();
            assert!(error.contains(words), "{value}: {error}");
        }
        // Programs disagree on which of the two counts.
        let twice = image()
            .to_string()
            .replacen('{', r#"{"config":{"digest":"x","size":1},"#, 1);
        assert!(ParsedManifest::read(None, twice.as_bytes()).is_err());
    }

    #[test]
    fn other_types_are_kept_as_they_are() {
        assert_eq!(
            ParsedManifest::read(Some("application/x-thing"), b"\0\x01")
                .unwrap()
                .media_type,
            "application/x-thing"
        );
        let expected = ParsedManifest {
            media_type: "application/vnd.example+json".to_owned(),
            ..ParsedManifest::default()
        };
        for content in [json!({"x": 1}), json!({"config": "a file"}), json!(7)] {
            let document = read("application/vnd.example+json; charset=utf-8", &content).unwrap();
            assert_eq!(document, expected, "{content}");
        }
    }

    /// Texts that are types, that are nearly types, and that are none.
    fn kinds() -> impl Strategy<Value = Option<String>> {
        prop::option::of(prop::sample::select(vec![
            OCI_MANIFEST,
            OCI_INDEX,
            DOCKER_LIST,
            SCHEMA_1[0],
            "",
            "application/json",
            "a/b",
            " a/b",
            "a/b;c=d",
            "a\nb",
        ]))
        .prop_map(|kind| kind.map(str::to_owned))
    }

    proptest! {
        /// What was accepted needs the same whenever it is read again: else it could lose that.
        #[test]
        fn an_accepted_manifest_is_read_again_as_the_same(
            content_type in kinds(),
            own in kinds(),
            parts in prop::collection::vec(
                prop::sample::select(vec!["config", "layers", "manifests", "subject", "blobs", "schemaVersion"]), 0..5),
        ) {
            let mut value = json!({});
            if let Some(own) = own {
                value["mediaType"] = json!(own);
            }
            for part in parts {
                value[part] = match part {
                    "config" | "subject" => descriptor(1),
                    "schemaVersion" => json!(2),
                    _ => json!([descriptor(2)]),
                };
            }
            let bytes = value.to_string().into_bytes();
            if let Ok(document) = ParsedManifest::read(content_type.as_deref(), &bytes) {
                let again = ParsedManifest::read(Some(&document.media_type), &bytes);
                prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(document));
            }
        }

        #[test]
        fn nothing_panics(kind in "\\PC{0,12}", text in "\\PC*") {
            let _ = ParsedManifest::read(Some(&kind), text.as_bytes());
        }
    }
}
