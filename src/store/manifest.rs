//! Parses manifests: the media type, the blobs and manifests that they reference, the subject.
//! Manifests of known media types are validated; content of any other type is stored as it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::error::StoreError;
use crate::registry::digest::Digest;

/// A parsed manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ParsedManifest {
    pub(crate) media_type: String,
    /// The config and the layers.
    pub(crate) blobs: Vec<Descriptor>,
    /// The entries of an index: manifests, or blobs, as in the cache indexes of BuildKit.
    pub(crate) manifests: Vec<Descriptor>,
    /// The manifest that this one refers to; it need not exist.
    pub(crate) subject: Option<Digest>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A blob or manifest that a manifest references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// `None`: the descriptor gives none. A negative one is wrong.
    pub(crate) size: Option<i64>,
    /// Whether clients can download it from elsewhere, so that it need not be pushed: base layers
    /// of Windows, for instance.
    pub(crate) has_urls: bool,
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
/// Never a blob, although this type has been withdrawn (OCI image specification 1.1.0-rc2).
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

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
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    media_type: Option<String>,
    digest: String,
    size: Option<i64>,
    urls: Option<Vec<IgnoredAny>>,
}

/// The fields of [`ManifestJson`], as they are written.
const FIELDS: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "blobs",
    "manifests",
    "subject",
    "annotations",
];

impl ParsedManifest {
    /// Parses a manifest that was pushed with this `Content-Type`.
    ///
    /// Errors: `ManifestInvalid`.
    pub(super) fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, StoreError> {
        let declared = content_type.map(essence);
        // The defaults of clients that do not know the media type.
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
        let own = raw.media_type.as_deref().map(essence);
        let own = own.filter(|kind| !kind.is_empty());
        if own.is_some_and(|kind| SCHEMA_1.contains(&kind)) {
            return Err(schema_1());
        }
        if let (Some(declared), Some(own)) = (declared, own)
            && declared != own
        {
            let message = format!(
                "the Content-Type is {declared}, but the mediaType of the manifest is {own}"
            );
            return Err(StoreError::invalid(message));
        }
        let media_type = match declared.or(own) {
            Some(kind) => kind.to_owned(),
            None if raw.manifests.is_some() => OCI_INDEX.to_owned(),
            None if raw.config.is_some() => OCI_MANIFEST.to_owned(),
            None => {
                return Err(StoreError::invalid(
                    "neither the Content-Type nor the manifest gives a media type",
                ));
            }
        };
        check_fields(&media_type, &raw)?;
        Self::from_json(media_type, raw)
    }

    /// All blobs and manifests that it references, but not its subject.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests)
    }

    /// Content that is not the JSON of a manifest: valid unless its media type says that it is.
    fn opaque(declared: Option<&str>, error: &serde_json::Error) -> Result<Self, StoreError> {
        match declared {
            Some(kind) if !CHECKED_TYPES.contains(&kind) => Ok(Self {
                media_type: kind.to_owned(),
                ..Self::default()
            }),
            _ => Err(StoreError::invalid(format!(
                "the manifest is not valid: {error}"
            ))),
        }
    }

    fn from_json(media_type: String, raw: ManifestJson) -> Result<Self, StoreError> {
        let config_type = raw.config.as_ref();
        let config_type = config_type.map(|config| config.media_type.clone().unwrap_or_default());
        let lists = [raw.layers, raw.blobs].into_iter().flatten().flatten();
        let blobs = raw.config.into_iter().chain(lists);
        let manifests = raw.manifests.into_iter().flatten();
        let annotations = raw.annotations.into_iter().flatten();
        Ok(Self {
            blobs: blobs.map(DescriptorJson::read).collect::<Result<_, _>>()?,
            manifests: manifests
                .map(DescriptorJson::read)
                .collect::<Result<_, _>>()?,
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
            annotations: annotations
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect(),
            media_type,
        })
    }
}

/// Whether a manifest of this media type has entries.
pub(super) fn is_index(media_type: &str) -> bool {
    [OCI_INDEX, DOCKER_LIST].contains(&media_type)
}

/// Whether a manifest of this media type may have entries: one of an image has none.
pub(super) fn may_have_entries(media_type: &str) -> bool {
    ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&essence(media_type))
}

/// Whether an entry of this media type is a manifest. One of any other type may be a blob.
pub(super) fn is_manifest(media_type: &str) -> bool {
    let kind = essence(media_type);
    CHECKED_TYPES.contains(&kind) || SCHEMA_1.contains(&kind) || kind == OCI_ARTIFACT
}

/// Checks that the fields of a new manifest are written as its specification has them. Clients in
/// Go ignore the case of their names, so that they would find layers that a collection does not.
///
/// Errors: `ManifestInvalid`.
pub(super) fn check_names(manifest: &ParsedManifest, bytes: &[u8]) -> Result<(), StoreError> {
    if !CHECKED_TYPES.contains(&manifest.media_type.as_str()) {
        return Ok(());
    }
    let mut names = serde_json::Deserializer::from_slice(bytes);
    let checked = serde::Deserializer::deserialize_map(&mut names, FieldNames);
    checked.map_err(|error| StoreError::invalid(format!("the manifest is not valid: {error}")))
}

/// Reads the names of the fields of an object.
struct FieldNames;

impl<'de> Visitor<'de> for FieldNames {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let field = FIELDS.iter().find(|field| fold(field) == fold(&name));
            if let Some(field) = field.filter(|field| **field != name) {
                let message = format!("the field {field:?} is written {name:?}");
                return Err(A::Error::custom(message));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// One text for all names that Go's `encoding/json` takes for the same: `ſ` and `s`, for instance.
fn fold(name: &str) -> String {
    name.to_lowercase().to_uppercase()
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn schema_1() -> StoreError {
    StoreError::invalid(
        "schema 1 manifests are not supported: push with Docker 1.10 or newer, or another current client",
    )
}

/// Checks that a manifest of a known media type has the fields that it needs. A list that is
/// missing is empty.
fn check_fields(media_type: &str, raw: &ManifestJson) -> Result<(), StoreError> {
    let is_version_2 = raw.schema_version == Some(2);
    let missing = match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST if raw.manifests.is_some() => {
            "an image manifest must not have manifests"
        }
        OCI_MANIFEST | DOCKER_MANIFEST if !is_version_2 || raw.config.is_none() => {
            "an image manifest must have schemaVersion 2 and a config"
        }
        OCI_INDEX | DOCKER_LIST
            if !is_version_2 || raw.config.is_some() || raw.layers.is_some() =>
        {
            "an image index must have schemaVersion 2 and neither config nor layers"
        }
        _ => return Ok(()),
    };
    Err(StoreError::invalid(missing))
}

impl DescriptorJson {
    fn read(self) -> Result<Descriptor, StoreError> {
        let digest = Digest::parse(&self.digest)
            .map_err(|_| StoreError::invalid("the manifest has an invalid digest"))?;
        Ok(Descriptor {
            media_type: self.media_type.unwrap_or_default(),
            digest,
            size: self.size,
            has_urls: self.urls.is_some_and(|urls| !urls.is_empty()),
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
    fn an_image_references_its_config_and_layers() {
        let document = read("", &image()).unwrap();
        assert_eq!(document.media_type, OCI_MANIFEST);
        assert_eq!(
            document
                .blobs
                .iter()
                .map(|blob| blob.size)
                .collect::<Vec<_>>(),
            [Some(1), Some(2)]
        );
        assert_eq!(document.artifact_type.as_deref(), Some("application/x"));
        assert!(document.manifests.is_empty() && document.subject.is_none());
    }

    #[test]
    fn an_index_references_its_manifests() {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(3)], "subject": descriptor(4), "artifactType": "a/b"});
        let document = read(OCI_INDEX, &index).unwrap();
        assert_eq!(document.manifests.len(), 1);
        assert_eq!(document.subject.unwrap().as_str(), digest(4));
        assert_eq!(document.artifact_type.as_deref(), Some("a/b"));
        assert_eq!(read("", &index).unwrap().media_type, OCI_INDEX);
    }

    #[test]
    fn layers_with_urls_are_referenced_but_need_not_be_pushed() {
        let foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": digest(9), "size": 9, "urls": ["https://example.com/layer"]});
        let has_urls = |layer: Value| {
            let document = read("", &with(image(), "layers", json!([layer]))).unwrap();
            assert_eq!(document.blobs.len(), 2);
            document.blobs[1].has_urls
        };
        assert!(has_urls(foreign.clone()));
        for urls in [json!([]), Value::Null] {
            assert!(!has_urls(with(foreign.clone(), "urls", urls)));
        }
    }

    #[test]
    fn null_is_an_empty_list_and_an_empty_text() {
        let list = json!({"schemaVersion": 2, "manifests": null});
        for document in [
            read("", &with(image(), "layers", Value::Null)).unwrap(),
            read(
                OCI_MANIFEST,
                &json!({"schemaVersion": 2, "config": descriptor(1)}),
            )
            .unwrap(),
        ] {
            assert_eq!((document.blobs.len(), document.manifests.len()), (1, 0));
        }
        for kind in [OCI_INDEX, DOCKER_LIST] {
            assert_eq!(read(kind, &list).unwrap().manifests, []);
            assert_eq!(
                read(kind, &json!({"schemaVersion": 2})).unwrap().manifests,
                []
            );
        }
        for field in [
            "subject",
            "annotations",
            "artifactType",
            "blobs",
            "manifests",
        ] {
            assert_eq!(
                read("", &with(image(), field, Value::Null)),
                read("", &image()),
                "{field}"
            );
        }
        for kind in [json!(""), Value::Null] {
            assert!(read(OCI_MANIFEST, &with(image(), "mediaType", kind)).is_ok());
        }
        let layer = json!({"mediaType": null, "digest": digest(2), "size": null, "urls": null});
        let document = read("", &with(image(), "layers", json!([layer]))).unwrap();
        assert_eq!(
            (document.blobs[1].size, document.blobs[1].has_urls),
            (None, false)
        );
        let annotated = read("", &with(image(), "annotations", json!({"a": null}))).unwrap();
        assert_eq!(annotated.annotations["a"], "");
    }

    #[test]
    fn field_names_that_only_some_clients_understand_are_refused() {
        let check = |kind: &str, text: &str| {
            let document = ParsedManifest::read(Some(kind), text.as_bytes()).unwrap();
            check_names(&document, text.as_bytes()).map_err(|error| error.to_string())
        };
        let text = image().to_string();
        assert_eq!(check(OCI_MANIFEST, &text), Ok(()));
        for name in ["Layers", "layer\\u017f", "LAYERS"] {
            let other = text.replace("\"layers\"", &format!("\"{name}\""));
            let error = check(OCI_MANIFEST, &other).unwrap_err();
            assert!(error.contains("the field \"layers\" is written"), "{error}");
            assert_eq!(check("a/b", &other.replace(OCI_MANIFEST, "a/b")), Ok(()));
        }
        let annotated = with(image(), "annotations", json!({"Layers": "x"}));
        assert_eq!(check(OCI_MANIFEST, &annotated.to_string()), Ok(()));
    }

    #[test]
    fn an_entry_is_a_manifest_by_its_media_type() {
        for kind in CHECKED_TYPES.iter().chain(&SCHEMA_1).chain([&OCI_ARTIFACT]) {
            assert!(is_manifest(kind) && is_manifest(&format!("{kind}; charset=utf-8")));
        }
        for kind in [
            "",
            "a/b",
            "application/vnd.buildkit.cacheconfig.v0",
            "application/json",
        ] {
            assert!(!is_manifest(kind), "{kind}");
        }
    }

    #[test]
    fn an_invalid_manifest_is_refused_with_a_reason() {
        let cases = [
            (DOCKER_MANIFEST, image(), "the Content-Type is"),
            ("", with(image(), "schemaVersion", json!(1)), "schema 1"),
            (SCHEMA_1[1], json!({}), "schema 1"),
            (
                OCI_MANIFEST,
                json!({"schemaVersion": 2}),
                "schemaVersion 2 and a config",
            ),
            (
                "",
                with(image(), "manifests", json!([])),
                "must not have manifests",
            ),
            (
                "",
                with(image(), "config", json!({"digest": "sha256:0", "size": 1})),
                "an invalid digest",
            ),
            (
                "",
                with(image(), "layers", json!([{"size": 1}])),
                "is not valid",
            ),
            ("", json!({"schemaVersion": 2}), "gives a media type"),
            (OCI_INDEX, json!([]), "is not valid"),
        ];
        for (content_type, value, expected) in cases {
            let error = read(content_type, &value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
        // Parsers disagree on which of two equal keys counts.
        let twice = image()
            .to_string()
            .replacen('{', r#"{"config":{"digest":"x","size":1},"#, 1);
        assert!(ParsedManifest::read(None, twice.as_bytes()).is_err());
    }

    #[test]
    fn content_of_other_types_is_stored_as_it_is() {
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

    /// Media types, near misses, and texts that are not media types.
    fn media_types() -> impl Strategy<Value = Option<String>> {
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
        /// An accepted manifest references the same blobs whenever it is parsed again: otherwise a
        /// collection could remove some of them.
        #[test]
        fn an_accepted_manifest_is_parsed_again_as_the_same(
            content_type in media_types(),
            own in media_types(),
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
