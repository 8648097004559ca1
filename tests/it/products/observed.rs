//! One table of calls that any registry answers, and what a client sees of the answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::RegistryClient;
use crate::harness::played::digest;
use crate::harness::registry_client::{ClientAnswer, with_digest};

/// What a client sees of an answer: status, error code, and the headers that matter, free of what
/// is another one each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub step: &'static str,
    pub facts: BTreeMap<&'static str, String>,
}

impl Observed {
    fn new(step: &'static str, answer: &ClientAnswer) -> Self {
        let mut facts = BTreeMap::from([("status", answer.status.to_string())]);
        for name in HEADERS {
            let Some(value) = answer.header(name) else {
                continue;
            };
            let value = match *name {
                "location" => location(&answer.location()),
                "docker-upload-uuid" => "an id".to_owned(),
                "content-type" => value.split(';').next().unwrap().to_owned(),
                _ => value.to_owned(),
            };
            facts.insert(name, value);
        }
        if let Some(code) = answer.code() {
            facts.insert("code", code);
        }
        if answer.status < 300 {
            facts.insert("body", body(answer));
        }
        Self { step, facts }
    }
}

const HEADERS: &[&str] = &[
    "accept-ranges",
    "allow",
    "content-range",
    "content-type",
    "docker-content-digest",
    "docker-distribution-api-version",
    "docker-upload-uuid",
    "etag",
    "link",
    "location",
    "oci-subject",
    "range",
    "www-authenticate",
];

/// Lists in order, whatever theirs is.
fn body(answer: &ClientAnswer) -> String {
    let Ok(mut document) = serde_json::from_slice::<Value>(&answer.body) else {
        return String::from_utf8_lossy(&answer.body).into_owned();
    };
    for list in ["tags", "repositories", "manifests"] {
        if let Some(list) = document.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(Value::to_string);
        }
    }
    document.to_string()
}

/// Without the id and the state of an upload.
fn location(target: &str) -> String {
    let Some((before, id)) = target.split_once("/blobs/uploads/") else {
        return target.to_owned();
    };
    let state = if id.contains("?_state=") {
        "?_state"
    } else {
        ""
    };
    format!("{before}/blobs/uploads/ID{state}")
}

/// The calls, and what came of them.
pub struct Observation<'a> {
    client: &'a RegistryClient,
    pub seen: Vec<Observed>,
}

impl<'a> Observation<'a> {
    /// Makes all calls. The repositories `base/app` and `other/app` take pushes.
    pub async fn all(client: &'a RegistryClient) -> Vec<Observed> {
        let mut calls = Self {
            client,
            seen: Vec::new(),
        };
        calls.nothing_there().await;
        calls.chunks().await;
        calls.uploads().await;
        calls.blobs().await;
        let manifest = calls.manifests().await;
        calls.lists(&manifest).await;
        calls.deletion(&manifest).await;
        calls.mistakes().await;
        calls.seen
    }

    async fn call(
        &mut self,
        step: &'static str,
        (method, target): (&str, &str),
        lines: &[&str],
        body: &[u8],
    ) -> ClientAnswer {
        let answer = self.client.send(method, target, lines, body).await;
        self.seen.push(Observed::new(step, &answer));
        answer
    }

    /// A call without header lines and body.
    async fn plain(&mut self, step: &'static str, method: &str, target: &str) -> ClientAnswer {
        self.call(step, (method, target), &[], b"").await
    }

    async fn nothing_there(&mut self) {
        self.plain("ping", "GET", "/v2/").await;
        let missing = format!("/v2/base/app/manifests/{}", digest(b"none"));
        self.plain("unknown tag", "GET", "/v2/base/app/manifests/none")
            .await;
        self.plain("unknown tag, head", "HEAD", "/v2/base/app/manifests/none")
            .await;
        self.plain("unknown digest", "GET", &missing).await;
        let missing = format!("/v2/base/app/blobs/{}", digest(b"none"));
        self.plain("unknown blob", "GET", &missing).await;
        self.plain("unknown blob, head", "HEAD", &missing).await;
    }

    async fn begin(&mut self, step: &'static str) -> String {
        self.plain(step, "POST", "/v2/base/app/blobs/uploads/")
            .await
            .location()
    }

    async fn chunks(&mut self) {
        let begun = self.begin("begin chunks").await;
        self.plain("progress of nothing", "GET", &begun).await;
        let kind = "content-type: application/octet-stream";
        let range = [kind, "content-range: 0-2"];
        let first = self.call("first chunk", ("PATCH", &begun), &range, b"hel");
        let first = first.await.location();
        self.plain("progress of a chunk", "GET", &first).await;
        if begun.contains("?_state=") {
            self.call("old address", ("PATCH", &begun), &range, b"hel")
                .await;
        }
        let range = [kind, "content-range: 3-4"];
        let second = self.call("second chunk", ("PATCH", &first), &range, b"lo");
        let second = second.await.location();
        let end = with_digest(&second, &digest(b"hello"));
        self.plain("end of chunks", "PUT", &end).await;
        self.plain("progress of an end", "GET", &second).await;
    }

    async fn uploads(&mut self) {
        let kind = ["content-type: application/octet-stream"];
        for (step, blob) in [
            ("whole layer", b"layer".as_slice()),
            ("whole config", b"{}"),
        ] {
            let begun = self.begin("begin whole").await;
            let end = with_digest(&begun, &digest(blob));
            self.call(step, ("PUT", &end), &kind, blob).await;
        }
        let begun = self.begin("begin stream").await;
        let stream = self.call("stream", ("PATCH", &begun), &kind, b"stream");
        let end = with_digest(&stream.await.location(), &digest(b"stream"));
        self.plain("end of stream", "PUT", &end).await;

        let begun = self.begin("begin wrong").await;
        self.call("no digest", ("PUT", &begun), &kind, b"layer")
            .await;
        let begun = self.begin("begin wrong").await;
        let end = with_digest(&begun, &digest(b"other"));
        self.call("wrong digest", ("PUT", &end), &kind, b"layer")
            .await;
        let begun = self.begin("begin wrong").await;
        let end = with_digest(&begun, "nothing");
        self.call("malformed digest", ("PUT", &end), &kind, b"layer")
            .await;
        let begun = self.begin("begin cancelled").await;
        self.plain("cancel", "DELETE", &begun).await;
        self.plain("progress of none", "GET", &begun).await;
        let target = "/v2/base/app/blobs/uploads/00000000-0000-4000-8000-ffffffffffff";
        self.call("unknown upload", ("PATCH", target), &kind, b"a")
            .await;
    }

    async fn blobs(&mut self) {
        let layer = digest(b"layer");
        let target = format!("/v2/base/app/blobs/{layer}");
        self.plain("blob, head", "HEAD", &target).await;
        self.plain("blob", "GET", &target).await;
        let range = ["range: bytes=1-2"];
        self.call("part of a blob", ("GET", &target), &range, b"")
            .await;
        let range = ["range: bytes=9-12"];
        // docker-registry 2.8 promises a body then, and sends none.
        self.call("no such part", ("HEAD", &target), &range, b"")
            .await;
        let uploads = "/v2/other/app/blobs/uploads/?mount";
        let mount = format!("{uploads}={layer}&from=base/app");
        self.plain("mount", "POST", &mount).await;
        let mount = format!("{uploads}={}&from=base/app", digest(b"none"));
        self.plain("mount of nothing", "POST", &mount).await;
        let mount = format!("{uploads}={layer}");
        self.plain("mount from anywhere", "POST", &mount).await;
    }

    /// The digest of the manifest with the tag `v1`.
    async fn manifests(&mut self) -> String {
        let image = image(&digest(b"layer"));
        let text = image.to_string();
        let found = digest(text.as_bytes());
        let kind = [&*format!("content-type: {MANIFEST}")];
        let at = |reference: &str| format!("/v2/base/app/manifests/{reference}");
        let bytes = text.as_bytes();
        self.call("push by tag", ("PUT", &at("v1")), &kind, bytes)
            .await;
        self.call("push again", ("PUT", &at("v1")), &kind, bytes)
            .await;
        self.call("second tag", ("PUT", &at("v2")), &kind, bytes)
            .await;
        self.call("push by digest", ("PUT", &at(&found)), &kind, bytes)
            .await;
        let wrong = at(&digest(b"other"));
        self.call("push by wrong digest", ("PUT", &wrong), &kind, bytes)
            .await;
        let bad = "/v2/other/app/manifests/bad";
        self.call("broken manifest", ("PUT", bad), &kind, b"{")
            .await;
        let partial = self::image(&digest(b"none")).to_string();
        self.call("without a layer", ("PUT", bad), &kind, partial.as_bytes())
            .await;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{"mediaType": MANIFEST, "digest": found, "size": text.len(),
                           "platform": {"os": "linux", "architecture": "amd64"}}],
        });
        let kind = [&*format!("content-type: {INDEX}")];
        let index = index.to_string();
        self.call("index", ("PUT", &at("multi")), &kind, index.as_bytes())
            .await;
        let accept = [&*format!("accept: {MANIFEST}")];
        self.call("by tag, head", ("HEAD", &at("v1")), &accept, b"")
            .await;
        self.call("by tag", ("GET", &at("v1")), &accept, b"").await;
        self.call("by digest", ("GET", &at(&found)), &accept, b"")
            .await;
        self.plain("without accept", "GET", &at("v1")).await;
        let condition = [accept[0], &*format!("if-none-match: \"{found}\"")];
        self.call("unchanged", ("GET", &at("v1")), &condition, b"")
            .await;
        found
    }

    async fn lists(&mut self, manifest: &str) {
        for (step, target) in [
            ("tags", "/v2/base/app/tags/list"),
            ("page of tags", "/v2/base/app/tags/list?n=1"),
            ("next page of tags", "/v2/base/app/tags/list?n=1&last=multi"),
            ("catalog", "/v2/_catalog"),
            ("page of the catalog", "/v2/_catalog?n=1"),
            ("too large a page", "/v2/_catalog?n=5000"),
        ] {
            self.plain(step, "GET", target).await;
        }
        let target = format!("/v2/base/app/referrers/{manifest}");
        self.plain("referrers", "GET", &target).await;
    }

    async fn deletion(&mut self, manifest: &str) {
        let at = |reference: &str| format!("/v2/base/app/manifests/{reference}");
        self.plain("untag", "DELETE", &at("v2")).await;
        let unknown = at(&digest(b"none"));
        self.plain("delete unknown digest", "DELETE", &unknown)
            .await;
        let image = image(&digest(b"stream")).to_string();
        let kind = [&*format!("content-type: {MANIFEST}")];
        self.call("push another", ("PUT", &at("v3")), &kind, image.as_bytes())
            .await;
        let other = at(&digest(image.as_bytes()));
        self.plain("delete by digest", "DELETE", &other).await;
        self.plain("deleted", "HEAD", &other).await;
        self.plain("deleted with its tag", "HEAD", &at("v3")).await;
        self.plain("tags that are left", "GET", "/v2/base/app/tags/list")
            .await;
        self.plain("delete a part of an index", "DELETE", &at(manifest))
            .await;
    }

    async fn mistakes(&mut self) {
        self.plain("wrong method", "PUT", "/v2/base/app/tags/list")
            .await;
        self.plain("upper case", "GET", "/v2/base/App/tags/list")
            .await;
        self.plain("unknown repository", "GET", "/v2/none/app/tags/list")
            .await;
    }
}

/// An image of one layer.
pub fn image(layer: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer, "size": 5}],
    })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
