//! Takes a tag away from its manifest at a registry that deletes manifests only: a manifest of
//! moorgate's own takes the tag, and is then deleted with it. The manifest that had the tag stays,
//! and so do its other tags. Whoever pushes to the tag in between keeps what they have pushed: the
//! manifest that is deleted then has no tag any more.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::json;

use super::own_calls::{OwnBody, refusal};
use super::own_deletion::{Deleted, DeletionError, OwnDeletion};
use crate::crypto;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::{Rejection, product};
use crate::upstream::response_body::UpstreamBody;

/// The deletion of one tag, which the caller has locked. Owns all it needs, so that it can go on
/// without its client.
pub(in crate::request) struct Swap {
    pub(in crate::request) deletion: OwnDeletion,
    pub(in crate::request) tag: Tag,
}

/// The manifest that has the tag.
struct TaggedManifest {
    digest: Option<Digest>,
    media_type: HeaderValue,
}

impl Swap {
    /// Errors: 404 without such a tag; 405, with nothing changed, if the registry deletes no
    /// manifests.
    pub(in crate::request) async fn run(self) -> Result<(), Rejection> {
        let before = self.tagged().await?.ok_or_else(|| self.unknown())?;
        let placeholder = UniqueManifest::new(&before.media_type)?;
        // Nobody can have it yet: whether it may be deleted is all that this tells.
        self.delete(&placeholder.digest).await?;
        self.push_config(&placeholder).await?;
        let put = self.put(placeholder.body()).await;
        if let Err(error) = put {
            return self.clean_up(&placeholder, error).await;
        }
        match self.delete(&placeholder.digest).await {
            Ok(Deleted::Gone) => Ok(()),
            // An answer may be lost, or another node of the registry not know the manifest yet.
            Ok(Deleted::Unknown) | Err(_) => self.finish(&placeholder, &before).await,
        }
    }

    fn unknown(&self) -> Rejection {
        product::tag_unknown(self.tag.as_str())
    }

    /// `None` without such a tag.
    async fn tagged(&self) -> Result<Option<TaggedManifest>, Rejection> {
        let path = self.deletion.manifest_path(self.tag.as_str());
        let response = self.deletion.calls.send(Method::HEAD, &path, None).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(refusal(response).await.rejection()),
        }
        let headers = response.headers();
        let digest = headers.get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok());
        let media_type = headers.get(header::CONTENT_TYPE).cloned();
        Ok(Some(TaggedManifest {
            digest,
            media_type: media_type.unwrap_or(HeaderValue::from_static(OCI_MANIFEST)),
        }))
    }

    /// Deletes a manifest with all of its tags.
    ///
    /// Errors: 405 if the registry deletes none; what it says else.
    async fn delete(&self, digest: &Digest) -> Result<Deleted, Rejection> {
        let deleted = self.deletion.manifest(digest).await;
        deleted.map_err(DeletionError::rejection)
    }

    async fn push_config(&self, placeholder: &UniqueManifest) -> Result<(), Rejection> {
        let path = format!("/v2/{}/blobs/uploads/", self.deletion.repository);
        let started = self.deletion.calls.send(Method::POST, &path, None).await?;
        if started.status() != StatusCode::ACCEPTED {
            return Err(refusal(started).await.rejection());
        }
        let mut target = self.deletion.calls.location(&path, &started)?;
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str("digest=");
        target.push_str(placeholder.config_digest.as_str());
        let body = OwnBody {
            media_type: HeaderValue::from_static("application/octet-stream"),
            content: placeholder.config.clone(),
        };
        let same = self.deletion.calls.continuing(&started);
        let response = same.send_to(Method::PUT, &target, Some(body)).await?;
        created(response).await
    }

    async fn put(&self, manifest: OwnBody) -> Result<(), Rejection> {
        let path = self.deletion.manifest_path(self.tag.as_str());
        created(
            self.deletion
                .calls
                .send(Method::PUT, &path, Some(manifest))
                .await?,
        )
        .await
    }

    /// The registry did not say that the placeholder took the tag. If it did so all the same, this
    /// deletes both.
    async fn clean_up(
        &self,
        placeholder: &UniqueManifest,
        error: Rejection,
    ) -> Result<(), Rejection> {
        let deleted = self.delete(&placeholder.digest).await;
        match deleted {
            Ok(Deleted::Gone) if self.tagged().await?.is_none() => Ok(()),
            _ => Err(error),
        }
    }

    /// The registry did not say that the placeholder is gone. Tries once more, and gives the tag
    /// back to its manifest if it cannot be done.
    async fn finish(
        &self,
        placeholder: &UniqueManifest,
        before: &TaggedManifest,
    ) -> Result<(), Rejection> {
        let is_placeholder = |digest: &Digest| *digest == placeholder.digest;
        let has_tag = |tagged: &TaggedManifest| tagged.digest.as_ref().is_none_or(is_placeholder);
        // Without the tag, or with what somebody has pushed since, it is done.
        if !self.tagged().await?.is_some_and(|tagged| has_tag(&tagged)) {
            return Ok(());
        }
        let error = match self.delete(&placeholder.digest).await {
            Ok(Deleted::Gone) => return Ok(()),
            Ok(Deleted::Unknown) => product::tag_not_deleted(),
            Err(error) => error,
        };
        if !self.tagged().await?.is_some_and(|tagged| has_tag(&tagged)) {
            return Ok(());
        }
        self.restore(before).await.and(Err(error))
    }

    /// Gives the tag back to the manifest that had it.
    async fn restore(&self, before: &TaggedManifest) -> Result<(), Rejection> {
        let digest = before.digest.as_ref();
        let path = self
            .deletion
            .manifest_path(digest.ok_or_else(product::tag_swapped)?.as_str());
        let response = self.deletion.calls.send(Method::GET, &path, None).await?;
        if response.status() != StatusCode::OK {
            return Err(product::tag_swapped());
        }
        let limit = self.deletion.calls.site().host.limits.manifest_bytes;
        let content = manifest(response, limit).await;
        let body = OwnBody {
            media_type: before.media_type.clone(),
            content: content.ok_or_else(product::tag_swapped)?,
        };
        self.put(body).await.map_err(|_| product::tag_swapped())
    }
}

async fn manifest(response: Response<UpstreamBody>, limit: u64) -> Option<Bytes> {
    use http_body_util::{BodyExt, Limited};
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let collected = Limited::new(response.into_body(), limit).collect().await;
    Some(collected.ok()?.to_bytes())
}

async fn created(response: Response<UpstreamBody>) -> Result<(), Rejection> {
    if response.status().is_success() {
        return Ok(());
    }
    Err(refusal(response).await.rejection())
}

/// A manifest that is the only one of its kind, so that nothing but the tag leads to it.
struct UniqueManifest {
    config: Bytes,
    config_digest: Digest,
    manifest: Bytes,
    digest: Digest,
    media_type: &'static str,
}

impl UniqueManifest {
    /// Of the family of the manifest that has the tag: a registry may accept one of them only.
    fn new(beside: &HeaderValue) -> Result<Self, Rejection> {
        let unique = crypto::random::<32>().map_err(|_| product::tag_not_deleted())?;
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "created": "1970-01-01T00:00:00Z",
            "config": { "Labels": { "org.moorgate.deletes-tag": crypto::hex(&unique) } },
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = config.to_string();
        let config_digest = digest(&config);
        let is_docker = beside
            .as_bytes()
            .starts_with(b"application/vnd.docker.distribution.");
        let (media_type, config_type, layer_type) = if is_docker {
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        };
        let size = config.len();
        // Some registries want a layer, and any blob that is there will do.
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": config_type, "digest": config_digest.as_str(), "size": size },
            "layers": [
                { "mediaType": layer_type, "digest": config_digest.as_str(), "size": size },
            ],
        });
        let manifest = manifest.to_string();
        Ok(Self {
            digest: digest(&manifest),
            config: config.into(),
            config_digest,
            manifest: manifest.into(),
            media_type,
        })
    }

    fn body(&self) -> OwnBody {
        OwnBody {
            media_type: HeaderValue::from_static(self.media_type),
            content: self.manifest.clone(),
        }
    }
}

fn digest(text: &str) -> Digest {
    let text = format!("sha256:{}", crypto::sha256_hex(text.as_bytes()));
    Digest::parse(&text).expect("an algorithm and its hexadecimal digits")
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
