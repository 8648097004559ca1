//! The requests of retention to one repository: its tags, manifests, blobs and referrers. None of
//! them counts as a pull.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::facts::{ManifestFacts, ManifestReferences};
use crate::registry::digest::Digest;
use crate::registry::json_strings::{Selected, StringReplacer, StringVisitor};
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::answer::own_calls::{OwnBody, OwnCalls, refusal};
use crate::request::answer::page_size::{MAX_PAGE_SIZE, SMALL_PAGE_SIZE};
use crate::request::gateway::Gateway;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::retention::image_config::ImageConfig;
use crate::retention::registry::{RegistryError, SavedManifest};
use crate::store::is_digest_of;
use crate::upstream::response_body::UpstreamBody;

/// One repository.
#[derive(Clone)]
pub(super) struct RepositoryCalls {
    pub(super) gateway: Arc<Gateway>,
    pub(super) calls: OwnCalls,
    /// The name at the registry.
    pub(super) name: RepositoryName,
    /// Whether the registry has shown that it lists no referrers.
    lists_no_referrers: Arc<AtomicBool>,
}

/// A million tags of the longest names.
const MAX_LIST_BYTES: u64 = 256 << 20;
const MAX_TAGS: usize = 1_000_000;
/// Each page adds something: so many have ten million entries at most.
const MAX_PAGES: usize = 10_000;
/// An index of some ten thousand referrers.
const MAX_REFERRERS_BYTES: usize = 8 << 20;
const MAX_CONFIG_BYTES: usize = 4 << 20;

impl RepositoryCalls {
    /// `calls`: of the domain.
    pub(super) fn new(gateway: &Arc<Gateway>, calls: &OwnCalls, name: RepositoryName) -> Self {
        Self {
            gateway: gateway.clone(),
            calls: calls.within(&name),
            name,
            lists_no_referrers: Arc::default(),
        }
    }

    /// A path of the repository.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    /// All tags. A repository that is not there has none.
    pub(super) async fn tags(&self) -> Result<BTreeSet<Tag>, RegistryError> {
        let path = self.path("tags/list");
        let mut query = format!("n={MAX_PAGE_SIZE}");
        let mut tags = BTreeSet::new();
        for page in 0..MAX_PAGES {
            let target = format!("{path}?{query}");
            let response = self.calls.send(Method::GET, &target, None).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED
                    if page == 0 && !query.ends_with(&format!("={SMALL_PAGE_SIZE}")) =>
                {
                    query = format!("n={SMALL_PAGE_SIZE}");
                    continue;
                }
                StatusCode::NOT_FOUND if tags.is_empty() => {
                    return unless_known(&target, response).await.map(|()| tags);
                }
                _ => return Err(unexpected(&Method::GET, &target, response).await),
            }
            let next = self.calls.next_query(&path, &response);
            let before = tags.len();
            tags = with_listed(tags, response)
                .await
                .map_err(|why| failed(&target, why))?;
            match next {
                None => return Ok(tags),
                Some(next) if next != query && tags.len() > before => query = next,
                Some(_) => return Err(failed(&target, "the next page of the list is the same")),
            }
        }
        Err(failed(&path, "the list has no end"))
    }

    /// The manifest to which a tag leads; `None` without such a tag.
    pub(super) async fn digest_of(&self, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let path = self.path(&format!("manifests/{tag}"));
        let response = self.calls.send(Method::HEAD, &path, None).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(unexpected(&Method::HEAD, &path, response).await),
        }
        let digest = response.headers().get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok());
        if digest.is_some() {
            return Ok(digest);
        }
        let read = self.read_manifest(&path).await?;
        Ok(read.map(|(_, bytes)| sha256_of(&bytes)))
    }

    /// Whether there is a manifest.
    pub(super) async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.has(&format!("manifests/{digest}")).await
    }

    /// Whether there is a blob. One that is elsewhere is there.
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.has(&format!("blobs/{digest}")).await
    }

    async fn has(&self, rest: &str) -> Result<bool, RegistryError> {
        let path = self.path(rest);
        let response = self.calls.send(Method::HEAD, &path, None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() || status.is_redirection() => Ok(true),
            _ => Err(unexpected(&Method::HEAD, &path, response).await),
        }
    }

    /// A manifest, byte for byte.
    pub(super) async fn manifest(
        &self,
        digest: &Digest,
    ) -> Result<Option<SavedManifest>, RegistryError> {
        let path = self.path(&format!("manifests/{digest}"));
        let Some((media_type, bytes)) = self.read_manifest(&path).await? else {
            return Ok(None);
        };
        if !is_digest_of(digest, &bytes) {
            return Err(failed(&path, "the registry gave another manifest"));
        }
        Ok(Some(SavedManifest {
            digest: digest.clone(),
            media_type,
            bytes,
        }))
    }

    async fn read_manifest(&self, path: &str) -> Result<Option<(String, Bytes)>, RegistryError> {
        let response = self.calls.send(Method::GET, path, None).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(unexpected(&Method::GET, path, response).await),
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or(OCI_MANIFEST).to_owned();
        let limit = self.calls.site().host.limits.manifest_bytes;
        let limit = usize::try_from(limit.max(MIN_MANIFEST_LIMIT)).unwrap_or(usize::MAX);
        let bytes = read(response, limit).await;
        let bytes = bytes.ok_or_else(|| failed(path, "the manifest is too long, or cut"))?;
        Ok(Some((kind, bytes)))
    }

    /// What is known of a manifest. Once it has been read, nobody asks whether it is still there.
    pub(super) async fn facts(
        &self,
        digest: &Digest,
    ) -> Result<Option<Arc<ManifestFacts>>, RegistryError> {
        if let Some(facts) = self.gateway.known_manifests.get(digest) {
            return Ok(Some(facts));
        }
        let Some(manifest) = self.manifest(digest).await? else {
            return Ok(None);
        };
        let bytes = &manifest.bytes;
        // What is of no known kind needs nothing that a registry knows of either.
        let references = ManifestReferences::parse(bytes).unwrap_or_default();
        let config = match references.config() {
            Some(config) => self.config(&config.digest).await?,
            None => ImageConfig::default(),
        };
        let config = config.annotated(bytes);
        let facts = ManifestFacts::new(digest, bytes.len(), &references, config);
        let facts = Arc::new(facts);
        self.gateway.known_manifests.insert(digest, &facts);
        Ok(Some(facts))
    }

    /// The configuration of an image. Where it is in a storage to which moorgate follows no
    /// redirects, or not there at all, nothing is known of it.
    async fn config(&self, digest: &Digest) -> Result<ImageConfig, RegistryError> {
        let path = self.path(&format!("blobs/{digest}"));
        let response = self.calls.download(&self.gateway, &path).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND || status.is_redirection() {
            return Ok(ImageConfig::default());
        }
        if status != StatusCode::OK {
            return Err(unexpected(&Method::GET, &path, response).await);
        }
        let bytes = read(response, MAX_CONFIG_BYTES).await;
        let bytes = bytes.ok_or_else(|| failed(&path, "the configuration is too long, or cut"))?;
        if !is_digest_of(digest, &bytes) {
            return Err(failed(&path, "the registry gave another blob"));
        }
        Ok(ImageConfig::parse(&bytes))
    }

    /// The referrers of a manifest, by the API of the distribution specification. None where the
    /// registry has no such API: it has tags for them.
    pub(super) async fn referrers(&self, digest: &Digest) -> Result<Vec<Digest>, RegistryError> {
        if self.lists_no_referrers.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let path = self.path(&format!("referrers/{digest}"));
        let mut target = path.clone();
        let mut found = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let response = self.calls.send(Method::GET, &target, None).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::BAD_REQUEST
                    if found.is_empty() =>
                {
                    // One that has it gives an empty list of what it does not know.
                    self.lists_no_referrers.store(true, Ordering::Relaxed);
                    return Ok(Vec::new());
                }
                _ => return Err(unexpected(&Method::GET, &target, response).await),
            }
            let next = self.calls.next_query(&path, &response);
            let bytes = read(response, MAX_REFERRERS_BYTES).await;
            let bytes = bytes.ok_or_else(|| failed(&target, "the list is too long, or cut"))?;
            let list: ReferrersJson = serde_json::from_slice(&bytes)
                .map_err(|_| failed(&target, "the list of referrers is not valid"))?;
            let before = found.len();
            let digests = list.manifests.iter();
            found.extend(digests.filter_map(|entry| Digest::parse(&entry.digest).ok()));
            match next {
                Some(next) if found.len() > before => target = format!("{path}?{next}"),
                Some(_) | None => return Ok(found.into_iter().collect()),
            }
        }
        Err(failed(&path, "the list has no end"))
    }

    /// Writes a manifest to a tag or a digest.
    pub(super) async fn put(
        &self,
        reference: &str,
        manifest: &SavedManifest,
    ) -> Result<(), RegistryError> {
        let path = self.path(&format!("manifests/{reference}"));
        let media_type = HeaderValue::try_from(manifest.media_type.as_str());
        let body = OwnBody {
            media_type: media_type.unwrap_or(HeaderValue::from_static(OCI_MANIFEST)),
            content: manifest.bytes.clone(),
        };
        let response = self.calls.send(Method::PUT, &path, Some(body)).await?;
        if !response.status().is_success() {
            return Err(unexpected(&Method::PUT, &path, response).await);
        }
        let stored = response.headers().get(CONTENT_DIGEST);
        let stored = stored.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok());
        match stored {
            Some(stored) if stored != manifest.digest => {
                let why = format!("the registry made {stored} of {}", manifest.digest);
                Err(failed(&path, why))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct ReferrersJson {
    manifests: Vec<ListedReferrer>,
}

#[derive(Deserialize)]
struct ListedReferrer {
    digest: String,
}

/// The tags of a list that is read as it arrives. What cannot be addressed ends it.
#[derive(Default)]
struct ListedTags {
    tags: BTreeSet<Tag>,
    is_wrong: bool,
}

impl StringVisitor for ListedTags {
    fn replaced(&mut self, tag: &str) -> Option<String> {
        match Tag::parse(tag) {
            Ok(tag) if self.tags.len() < MAX_TAGS => {
                self.tags.insert(tag);
            }
            Ok(_) | Err(_) => self.is_wrong = true,
        }
        None
    }
}

/// The tags with those of a page.
async fn with_listed(
    tags: BTreeSet<Tag>,
    response: Response<UpstreamBody>,
) -> Result<BTreeSet<Tag>, &'static str> {
    let listed = ListedTags {
        tags,
        is_wrong: false,
    };
    let mut scanner = StringReplacer::new(Selected::Elements("tags"), listed);
    let mut body = response.into_body();
    let (mut length, mut first) = (0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "the list is cut")?;
        let data = frame.into_data().unwrap_or_default();
        first = first.or_else(|| {
            data.iter()
                .find(|byte| !byte.is_ascii_whitespace())
                .copied()
        });
        length += data.len() as u64;
        if length > MAX_LIST_BYTES {
            return Err("the list is too long");
        }
        scanner.next(&data);
    }
    match scanner.into_visitor() {
        Some(listed) if first == Some(b'{') && !listed.is_wrong => Ok(listed.tags),
        Some(_) | None => Err("the list of tags is not valid"),
    }
}

/// The whole body, if it is not longer.
pub(super) async fn read(response: Response<UpstreamBody>, limit: usize) -> Option<Bytes> {
    let collected = Limited::new(response.into_body(), limit).collect().await;
    Some(collected.ok()?.to_bytes())
}

fn sha256_of(bytes: &[u8]) -> Digest {
    let text = format!("sha256:{}", crate::crypto::sha256_hex(bytes));
    Digest::parse(&text).expect("an algorithm and its hexadecimal digits")
}

/// Nothing, if a registry says that the repository is not there.
async fn unless_known(target: &str, response: Response<UpstreamBody>) -> Result<(), RegistryError> {
    let refusal = refusal(response).await;
    if refusal.is_of_registry() {
        return Ok(());
    }
    let why = refusal.explained();
    Err(failed(target, why))
}

pub(super) async fn unexpected(
    method: &Method,
    target: &str,
    response: Response<UpstreamBody>,
) -> RegistryError {
    let why = refusal(response).await.explained();
    RegistryError::Failed(format!("{method} {target}: {why}"))
}

pub(super) fn failed(target: &str, why: impl std::fmt::Display) -> RegistryError {
    RegistryError::Failed(format!("{target}: {why}"))
}

impl From<Rejection> for RegistryError {
    fn from(rejection: Rejection) -> Self {
        Self::Failed(rejection.explained())
    }
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Clients may push less through moorgate than what the registry has.
const MIN_MANIFEST_LIMIT: u64 = 4 << 20;
