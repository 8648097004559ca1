//! Manifests of every shape at docker-registry and at moorgate's own registry: what the one takes,
//! the other takes. And the largest manifest that clients pull.

use std::fs;

use serde_json::{Value, json};

use super::fixture::{Domain, RegistriesFixture, start_registry};
use super::image::sha256;
use super::process::run;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const LAYER: &[u8] = b"a layer";
const CONFIG: &[u8] = b"{}";

/// A registry with its user.
struct Peer<'a> {
    fixture: &'a RegistriesFixture,
    /// Scheme, host and port.
    origin: String,
    user: String,
}

impl Peer<'_> {
    /// The status of a PUT or POST.
    fn send(&self, method: &str, target: &str, kind: &str, body: &[u8]) -> (String, String) {
        let file = self.fixture.path().join("body");
        fs::write(&file, body).unwrap();
        let mut curl = self.fixture.curl();
        curl.args([
            "--http1.1",
            "--request",
            method,
            "--user",
            &self.user,
            "--output",
            "/dev/null",
        ])
        .args(["--header", &format!("Content-Type: {kind}")])
        .args(["--write-out", "%{http_code} %header{location}"])
        .args(["--data-binary", &format!("@{}", file.display())]);
        let url = if target.starts_with("http") {
            target.to_owned()
        } else {
            format!("{}{target}", self.origin)
        };
        let said = run(curl.arg(url), "").succeeded();
        let (status, location) = said.split_once(' ').unwrap();
        (status.to_owned(), location.to_owned())
    }

    fn push_blob(&self, blob: &[u8]) {
        let octets = "application/octet-stream";
        let (status, session) = self.send("POST", "/v2/a/blobs/uploads/", octets, b"");
        assert_eq!(status, "202");
        let between = if session.contains('?') { '&' } else { '?' };
        let target = format!("{session}{between}digest={}", sha256(blob));
        assert_eq!(self.send("PUT", &target, octets, blob).0, "201");
    }

    fn takes(&self, kind: &str, manifest: &[u8]) -> bool {
        let (status, _) = self.send("PUT", "/v2/a/manifests/v1", kind, manifest);
        status == "201"
    }

    /// Which of many it takes, asked by one curl.
    fn takes_of(&self, shapes: &[Shape]) -> Vec<bool> {
        let directory = self.fixture.path().join("shapes");
        fs::create_dir_all(&directory).unwrap();
        let requests: Vec<_> = shapes
            .iter()
            .enumerate()
            .map(|(n, shape)| {
                let file = directory.join(n.to_string());
                fs::write(&file, &shape.manifest).unwrap();
                format!(
                    "url = \"{}/v2/a/manifests/v1\"\nrequest = PUT\nuser = \"{}\"\nhttp1.1\nsilent\n\
                     header = \"Content-Type: {}\"\ndata-binary = \"@{}\"\noutput = /dev/null\n\
                     write-out = \"%{{http_code}}\\n\"\n",
                    self.origin,
                    self.user,
                    shape.kind,
                    file.display()
                )
            })
            .collect();
        let config = directory.join("config");
        fs::write(&config, requests.join("next\n")).unwrap();
        let said = run(self.fixture.curl().arg("--config").arg(config), "").succeeded();
        let taken: Vec<_> = said.lines().map(|status| status == "201").collect();
        assert_eq!(taken.len(), shapes.len());
        taken
    }
}

/// A manifest that differs from an ordinary one in one place.
struct Shape {
    name: String,
    kind: &'static str,
    manifest: Vec<u8>,
}

impl Shape {
    fn new(kind: &'static str, what: &str, manifest: &Value) -> Self {
        Self {
            name: format!("{kind} {what}"),
            kind,
            manifest: manifest.to_string().into_bytes(),
        }
    }
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": sha256(content), "size": content.len() })
}

fn image(kind: &str) -> Value {
    json!({ "schemaVersion": 2, "mediaType": kind, "config": descriptor("a/config", CONFIG),
        "layers": [descriptor("a/layer", LAYER)] })
}

fn index(kind: &str) -> Value {
    let of = if kind == OCI_INDEX {
        OCI_MANIFEST
    } else {
        DOCKER_MANIFEST
    };
    let mut child = descriptor(of, image(of).to_string().as_bytes());
    child["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [child] })
}

/// A manifest with another value at a path, or, without a value, with nothing there.
fn with(mut manifest: Value, path: &str, value: Option<&Value>) -> Value {
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = manifest
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap();
    match value {
        Some(value) => parent.insert(field.to_owned(), value.clone()),
        None => parent.remove(field),
    };
    manifest
}

/// Every field with null, with nothing, and with an empty value of each type.
fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let values = [
        Some(Value::Null),
        None,
        Some(json!([])),
        Some(json!({})),
        Some(json!("")),
    ];
    let fields = [
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "annotations",
    ];
    let of_oci = ["subject", "artifactType"];
    let of_descriptor = [
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "platform",
        "data",
    ];
    for kind in [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST] {
        let is_index = [OCI_INDEX, DOCKER_LIST].contains(&kind);
        let base = if is_index { index(kind) } else { image(kind) };
        let places: &[&str] = if is_index {
            &["/manifests/0"]
        } else {
            &["/layers/0", "/config"]
        };
        let nested = places
            .iter()
            .flat_map(|place| of_descriptor.map(|field| format!("{place}/{field}")));
        let paths = fields
            .iter()
            .chain(&of_oci)
            .map(|field| format!("/{field}"));
        for path in paths.chain(nested) {
            for value in &values {
                let written = value
                    .as_ref()
                    .map_or("nothing".to_owned(), Value::to_string);
                let manifest = with(base.clone(), &path, value.as_ref());
                shapes.push(Shape::new(kind, &format!("{path} {written}"), &manifest));
            }
        }
        let list = if is_index { "/manifests" } else { "/layers" };
        let of_blobs = json!([descriptor("a/layer", LAYER)]);
        for (path, value) in [
            (list, json!([null])),
            (list, of_blobs),
            ("/annotations", json!({ "a": null })),
        ] {
            let manifest = with(base.clone(), path, Some(&value));
            shapes.push(Shape::new(kind, &format!("{path} {value}"), &manifest));
        }
    }
    shapes
}

/// What docker-registry 2.8 takes because it does not read it: fields of OCI's later versions, and
/// in Docker's own types what they do not have.
fn is_unread_there(shape: &str) -> bool {
    let has = |fields: &[&str]| {
        fields
            .iter()
            .any(|field| shape.contains(&format!("json /{field} ")))
    };
    has(&["subject", "artifactType"])
        || !shape.starts_with(OCI_MANIFEST) && has(&["annotations"])
        || shape.starts_with(DOCKER_MANIFEST) && has(&["manifests"])
        || shape.starts_with(DOCKER_LIST) && has(&["config", "layers"])
}

#[test]
fn a_manifest_that_docker_registry_takes_is_taken() {
    let fixture = RegistriesFixture::of_stores();
    let _registry = start_registry("registry-ci", &fixture.ci, fixture.path(), "");
    let Domain { user, password, .. } = &fixture.ci;
    let [theirs, ours] = [
        format!("http://{}", fixture.ci.registry()),
        format!("https://{}", fixture.ci.by_name()),
    ]
    .map(|origin| Peer {
        fixture: &fixture,
        origin,
        user: format!("{user}:{password}"),
    });
    for peer in [&theirs, &ours] {
        peer.push_blob(LAYER);
        peer.push_blob(CONFIG);
        for kind in [OCI_MANIFEST, DOCKER_MANIFEST] {
            assert!(peer.takes(kind, image(kind).to_string().as_bytes()));
        }
    }
    let shapes = shapes();
    let [theirs, ours] = [theirs.takes_of(&shapes), ours.takes_of(&shapes)];
    let mut stricter = Vec::new();
    for (Shape { name, .. }, (theirs, ours)) in shapes.iter().zip(theirs.iter().zip(&ours)) {
        let is_null = ["null", "nothing"].iter().any(|end| name.ends_with(end));
        if *theirs && !ours && (is_null || !is_unread_there(name)) {
            stricter.push(name.as_str());
        }
    }
    assert!(stricter.is_empty(), "\n{}", stricter.join("\n"));
    let taken = theirs.iter().filter(|taken| **taken).count();
    assert!(taken > 100, "docker-registry took only {taken}");
}

#[test]
fn skopeo_pulls_the_largest_manifest_that_is_taken() {
    let fixture = RegistriesFixture::of_stores();
    let authority = fixture.ci.by_name();
    fixture.logged_in(&fixture.ci, &authority);
    let Domain { user, password, .. } = &fixture.ci;
    let peer = Peer {
        fixture: &fixture,
        origin: format!("https://{authority}"),
        user: format!("{user}:{password}"),
    };
    peer.push_blob(LAYER);
    peer.push_blob(CONFIG);
    let of_length = |length: usize| {
        let empty = with(
            image(OCI_MANIFEST),
            "/annotations",
            Some(&json!({ "a": "" })),
        );
        let text = "x".repeat(length - empty.to_string().len());
        with(empty, "/annotations", Some(&json!({ "a": text }))).to_string()
    };
    let largest = of_length(4 << 20);
    assert!(!peer.takes(OCI_MANIFEST, of_length((4 << 20) + 1).as_bytes()));
    assert!(peer.takes(OCI_MANIFEST, largest.as_bytes()));
    let remote = format!("docker://{authority}/a:v1");
    let pulled = fixture.skopeo(&["inspect", "--raw", &remote]).succeeded();
    assert!(pulled == largest);
}
