//! Manifests of a played registry.

use http::Method;
use serde_json::{Value, json};

use super::answer::PlayedAnswer;
use super::contents::{descriptors, digest};
use super::registry::is_digest;
use super::{Played, RecordedRequest};

impl Played {
    pub fn manifest(
        &mut self,
        request: &RecordedRequest,
        (name, reference): (&str, &str),
    ) -> PlayedAnswer {
        match request.method {
            Method::PUT => self.put_manifest(request, (name, reference)),
            Method::DELETE => self.delete_manifest(name, reference),
            _ => self.get_manifest(request, (name, reference)),
        }
    }

    fn get_manifest(
        &self,
        request: &RecordedRequest,
        (name, reference): (&str, &str),
    ) -> PlayedAnswer {
        if let Some(target) = &self.switches.manifest_redirect {
            return PlayedAnswer::new(307).header("location", target.clone());
        }
        let repository = self.contents.repository(name);
        let found =
            repository.and_then(|repository| Some((repository.resolve(reference)?, repository)));
        let Some((digest, repository)) = found else {
            return unknown(name, reference);
        };
        let manifest = &repository.manifests[&digest];
        let etag = format!("\"{digest}\"");
        if request.header("if-none-match") == Some(&etag) {
            return PlayedAnswer::new(304);
        }
        let accepted: Vec<_> = request
            .headers
            .get_all("accept")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let refuses = self.switches.checks_accept && is_oci(&manifest.media_type);
        if refuses && !accepts(&accepted, &manifest.media_type) {
            let kind = if manifest.media_type.contains("index") {
                "index"
            } else {
                "manifest"
            };
            let message = format!(
                "OCI {kind} found, but accept header does not support OCI {}",
                plural(kind)
            );
            return PlayedAnswer::error(404, "MANIFEST_UNKNOWN", &message);
        }
        let mut answer = PlayedAnswer::new(200)
            .body(&manifest.media_type, manifest.bytes.clone())
            .header("etag", etag);
        if self.switches.product == "dockerhub" {
            answer = answer
                .header("ratelimit-limit", "200;w=21600")
                .header("ratelimit-remaining", "187;w=21600");
        }
        let tells = is_digest(reference)
            || request.method == Method::HEAD
            || self.switches.tells_digest_of_tag;
        if tells {
            answer.header("docker-content-digest", digest)
        } else {
            answer
        }
    }

    fn put_manifest(
        &mut self,
        request: &RecordedRequest,
        (name, reference): (&str, &str),
    ) -> PlayedAnswer {
        let document = match serde_json::from_slice::<Value>(&request.body) {
            Ok(document @ Value::Object(_)) if document["schemaVersion"] == 2 => document,
            _ => {
                return PlayedAnswer::error_about(
                    400,
                    "MANIFEST_INVALID",
                    "manifest invalid",
                    &json!({}),
                );
            }
        };
        let found = digest(&request.body);
        if is_digest(reference) && reference != found {
            let message = "provided digest did not match uploaded content";
            return PlayedAnswer::error(400, "DIGEST_INVALID", message);
        }
        let missing = self.missing_parts(name, &document);
        if !missing.is_empty() {
            return PlayedAnswer::json(400, &json!({ "errors": missing }));
        }
        let tag = (!is_digest(reference)).then_some(reference);
        if let Some(tag) = tag.filter(|tag| self.is_immutable(name, tag)) {
            return PlayedAnswer::refused(self.switches.immutable_tag, name, tag);
        }
        let media_type = request.header("content-type").unwrap_or_default();
        self.contents
            .put_manifest(name, tag, (media_type, &request.body));
        let answer = PlayedAnswer::new(201)
            .header(
                "location",
                self.location(&format!("/v2/{name}/manifests/{found}")),
            )
            .header("docker-content-digest", found);
        match document["subject"]["digest"].as_str() {
            Some(subject) if self.switches.has_referrers => answer.header("oci-subject", subject),
            _ => answer,
        }
    }

    /// Whether a tag is there and may not be moved.
    pub fn is_immutable(&self, name: &str, tag: &str) -> bool {
        let repository = self.contents.repository(name);
        self.switches.has_immutable_tags
            && repository.is_some_and(|repository| repository.tags.contains_key(tag))
    }

    /// An error for every part of a manifest that the repository does not have.
    fn missing_parts(&self, name: &str, document: &Value) -> Vec<Value> {
        let has = |part: &&Value| {
            let digest = part["digest"].as_str().unwrap_or_default();
            let repository = self.contents.repository(name);
            repository.is_some_and(|repository| {
                repository.blobs.contains(digest) || repository.manifests.contains_key(digest)
            })
        };
        let config = Some(&document["config"]).filter(|config| config.is_object());
        config
            .into_iter()
            .chain(descriptors(document, "layers"))
            .chain(descriptors(document, "manifests"))
            .filter(|part| !has(part))
            .map(|part| {
                json!({
                    "code": "MANIFEST_BLOB_UNKNOWN",
                    "message": "blob unknown to registry",
                    "detail": part["digest"],
                })
            })
            .collect()
    }
}

/// What is said of a manifest that is not there.
pub fn unknown(name: &str, reference: &str) -> PlayedAnswer {
    let detail = if is_digest(reference) {
        json!({"Name": name, "Revision": reference})
    } else {
        json!({ "Tag": reference })
    };
    PlayedAnswer::error_about(404, "MANIFEST_UNKNOWN", "manifest unknown", &detail)
}

fn is_oci(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.")
}

/// Nothing stands for everything here: the registry wants OCI's types by name.
fn accepts(accepted: &[&str], media_type: &str) -> bool {
    accepted
        .iter()
        .flat_map(|line| line.split(','))
        .any(|kind| kind.split(';').next().unwrap_or_default().trim() == media_type)
}

fn plural(kind: &str) -> &'static str {
    match kind {
        "index" => "indexes",
        _ => "manifests",
    }
}
