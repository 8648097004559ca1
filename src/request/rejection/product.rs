//! What registry products say when they refuse something, in the words of the distribution
//! specification: clients decide by status and code whether they try again, and whether a login
//! would help.

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::{ErrorSource, Extra, Rejection};
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::error_code::ErrorCode;
use crate::upstream::product::api::ApiError;

/// What an upstream says with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamRefusal {
    status: StatusCode,
    /// The code of its first error; empty without one.
    code: String,
    message: String,
    /// In seconds.
    retry_after: Option<u16>,
}

#[derive(Default, Deserialize)]
struct RefusalDocument {
    #[serde(default)]
    errors: Vec<RefusalEntry>,
}

#[derive(Default, Deserialize)]
struct RefusalEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The tag may not be written or deleted by anybody.
    Immutable,
    /// A policy of the product stands against it.
    Policy,
    /// What has to end before the product decides.
    ScanPending,
    /// Tags lead to the manifest, or an index contains it.
    InUse,
    Throttled,
    /// The product's own code for what is not there.
    Missing,
}

impl UpstreamRefusal {
    /// `body` is the response's, or empty.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let document: RefusalDocument = serde_json::from_slice(body).unwrap_or_default();
        let entry = document.errors.into_iter().next().unwrap_or_default();
        let retry_after = headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            status,
            code: entry.code,
            message: readable(&entry.message.unwrap_or_default()),
            retry_after,
        }
    }

    /// Whether a registry says it, and not a server that is no registry.
    pub(crate) fn is_of_registry(&self) -> bool {
        !self.code.is_empty()
    }

    /// Whether the registry cannot do it at all.
    pub(crate) fn is_unsupported(&self) -> bool {
        let is_unknown_form = matches!(&*self.code, "UNSUPPORTED" | "DIGEST_INVALID");
        self.status == StatusCode::METHOD_NOT_ALLOWED
            || (self.status == StatusCode::BAD_REQUEST && is_unknown_form)
    }

    /// Whether the repository, or what contains it, has to be made first.
    pub(crate) fn is_missing_repository(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && matches!(&*self.code, "NAME_UNKNOWN" | "NOT_FOUND" | "")
    }

    /// Whether the registry deletes no tags, as it answers to the deletion of one.
    pub(crate) fn deletes_no_tags(&self) -> bool {
        let is_bad = self.status == StatusCode::BAD_REQUEST;
        self.status == StatusCode::METHOD_NOT_ALLOWED || (is_bad && self.is_unsupported())
    }

    /// Whether tags or an index keep the manifest from being deleted.
    pub(crate) fn is_in_use(&self) -> bool {
        let is_refused = matches!(self.status.as_u16(), 400 | 403 | 409 | 412);
        self.meaning() == Some(Meaning::InUse) || (is_refused && says_in_use(&self.message))
    }

    /// What it says, for people.
    pub(crate) fn explained(&self) -> String {
        let message = self.message_or("it does not say why");
        format!(
            "the registry answered with status {}: {message}",
            self.status
        )
    }

    /// Whether the tag cannot be moved by anybody.
    pub(crate) fn is_immutable(&self) -> bool {
        self.meaning() == Some(Meaning::Immutable)
    }

    fn meaning(&self) -> Option<Meaning> {
        let says = |words: &str| self.message.to_ascii_lowercase().contains(words);
        let status = self.status.as_u16();
        let meaning = match (status, &*self.code) {
            (429, _) | (400 | 403 | 503, "TOOMANYREQUESTS") => Meaning::Throttled,
            (400, _) if says("rate exceeded") => Meaning::Throttled,
            (409, "TAG_IMMUTABLE" | "TAG_ALREADY_EXISTS") => Meaning::Immutable,
            (400 | 403 | 405 | 409 | 412, _) if says("immutab") => Meaning::Immutable,
            // Of a locked tag, by Azure.
            (405, "UNSUPPORTED") if says("disallowed") => Meaning::Immutable,
            (412, "PRECONDITION") => Meaning::Immutable,
            (412, "PROJECTPOLICYVIOLATION")
                if says("scan") && (says("pending") || says("running")) =>
            {
                Meaning::ScanPending
            }
            (412, "PROJECTPOLICYVIOLATION") => Meaning::Policy,
            (_, "GOOGLE_MANIFEST_DANGLING_TAG" | "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE") => {
                Meaning::InUse
            }
            (404, "NOT_FOUND" | "TAG_EXPIRED") => Meaning::Missing,
            _ => return None,
        };
        Some(meaning)
    }

    /// The message, or other words if the upstream has none.
    fn message_or(&self, other: &'static str) -> String {
        if self.message.is_empty() {
            other.to_owned()
        } else {
            self.message.clone()
        }
    }
}

/// The most of a foreign text that is passed on.
const MAX_MESSAGE_LENGTH: usize = 500;

/// The text without what a terminal or a log would act on.
fn readable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_MESSAGE_LENGTH).collect()
}

/// In seconds, where the product does not say it.
const DEFAULT_RETRY_AFTER: u16 = 10;
/// What clients get to wait at most: some products name the end of a day's quota.
const MAX_RETRY_AFTER: u16 = 3600;

impl UpstreamRefusal {
    /// The response in place of a refusal that clients would misunderstand; `None` for any other.
    pub(crate) fn misunderstood(&self, call: Option<&Call>) -> Option<Rejection> {
        let is_deletion = matches!(
            call.and_then(Call::operation),
            Some(RepositoryCall::ManifestDelete { .. })
        );
        let Some(meaning) = self.meaning() else {
            let is_denied = self.status == StatusCode::FORBIDDEN && self.code != "DENIED";
            return (is_deletion && is_denied)
                .then(|| product_denied(self.message_or("the registry refuses it")));
        };
        Some(match meaning {
            Meaning::Immutable => {
                product_denied(self.message_or("the tag is immutable at the registry"))
            }
            Meaning::Policy => {
                product_denied(self.message_or("a policy of the registry stands against it"))
            }
            Meaning::InUse => {
                let words = self.message_or("the registry refuses it");
                let why = "the registry deletes no manifest while tags lead to it, or an index \
                           contains it: delete these first";
                product_denied(format!("{why} ({words})"))
            }
            Meaning::ScanPending => {
                let words = self.message_or("the registry has not finished its scan");
                Rejection::busy(words)
            }
            Meaning::Throttled => throttled(self.retry_after),
            Meaning::Missing => return missing(call?),
        })
    }

    /// The refusal of a request that moorgate has made for the client's.
    pub(crate) fn rejection(&self) -> Rejection {
        if let Some(rejection) = self.misunderstood(None) {
            return rejection;
        }
        let message = self.message_or("the upstream registry does not say why");
        match self.status {
            StatusCode::NOT_FOUND => {
                Rejection::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, message)
            }
            StatusCode::FORBIDDEN => product_denied(message),
            _ => {
                let status = self.status;
                Rejection::bad_gateway(OwnCallRefused { status, message })
            }
        }
    }
}

/// What is not there, by the code of the specification.
fn missing(call: &Call) -> Option<Rejection> {
    let (code, message) = match call.operation()? {
        RepositoryCall::ManifestRead { .. } | RepositoryCall::ManifestDelete { .. } => {
            (ErrorCode::ManifestUnknown, "manifest unknown")
        }
        RepositoryCall::BlobRead { .. } | RepositoryCall::BlobDelete { .. } => {
            (ErrorCode::BlobUnknown, "blob unknown")
        }
        RepositoryCall::Upload { .. } => (ErrorCode::BlobUploadUnknown, "upload session unknown"),
        RepositoryCall::TagsList { .. }
        | RepositoryCall::Referrers { .. }
        | RepositoryCall::ManifestWrite { .. }
        | RepositoryCall::UploadStart { .. }
        | RepositoryCall::Mount { .. } => (ErrorCode::NameUnknown, "repository unknown"),
    };
    Some(Rejection::new(StatusCode::NOT_FOUND, code, message))
}

fn product_denied(message: String) -> Rejection {
    Rejection::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
}

/// The registry takes no more requests for now.
pub(crate) fn throttled(retry_after: Option<u16>) -> Rejection {
    let seconds = retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
    let message = "the upstream registry takes no more requests for now: try again later";
    Rejection::new(
        StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::TooManyRequests,
        message,
    )
    .with(Extra::RetryAfter(seconds.clamp(1, MAX_RETRY_AFTER)))
}

/// The product's API does not make what an upload needs, or moorgate may not ask it to.
pub(crate) fn no_creation(name: &str) -> Rejection {
    let message = format!(
        "{name} is missing at the registry, and moorgate cannot make it there: its \
         administrator has to"
    );
    Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, message)
}

/// There is no such tag.
pub(crate) fn tag_unknown(tag: &str) -> Rejection {
    let message = format!("there is no tag {tag}");
    Rejection::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, message)
}

/// The registry deletes no tags, and no manifests either with which a tag would go.
pub(crate) fn no_tag_deletion() -> Rejection {
    let message = "the registry deletes neither tags nor manifests: its administrator may \
                   allow it there (docker-registry: storage.delete.enabled)";
    tag_deletion_refused(message)
}

/// The administrator has turned it off.
pub(crate) fn tag_deletion_off() -> Rejection {
    tag_deletion_refused("tags of this registry are not deleted ([upstream] untag)")
}

fn tag_deletion_refused(message: &'static str) -> Rejection {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Rejection::new(status, ErrorCode::Unsupported, message).with(Extra::Allow("GET, HEAD, PUT"))
}

/// The tag leads where it led before.
pub(crate) fn tag_not_deleted() -> Rejection {
    Rejection::bad_gateway(TagDeletionError::Undone)
}

/// The tag leads to the manifest that was to be deleted with it.
pub(crate) fn tag_swapped() -> Rejection {
    Rejection::bad_gateway(TagDeletionError::HalfDone)
}

/// Whether a product refuses a deletion because of tags or an index.
pub(crate) fn says_in_use(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["referenced", "is tagged", "dangling tag"]
        .iter()
        .any(|words| message.contains(words))
}

/// Whether a product's own API refuses a deletion for a reason in the repository, and not because of
/// a right.
pub(crate) fn is_kept(message: &str) -> bool {
    // GitHub deletes the last tag of a package only with the package.
    let message = message.to_ascii_lowercase();
    let others = ["immutab", "delete the package"];
    says_in_use(&message) || others.iter().any(|words| message.contains(words))
}

/// The product's own API did not do what the client's request needs.
pub(crate) fn api_failed(error: ApiError) -> Rejection {
    match error {
        ApiError::NotFound => Rejection::new(
            StatusCode::NOT_FOUND,
            ErrorCode::ManifestUnknown,
            "manifest unknown",
        ),
        ApiError::RepositoryUnknown => Rejection::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NameUnknown,
            "repository name not known to registry",
        ),
        ApiError::Denied(message) => {
            let message = readable(&message);
            let mut denied = product_denied(message.clone());
            denied.error_source = ErrorSource::Upstream;
            denied.caused_by(ApiError::Denied(message))
        }
        ApiError::Throttled(seconds) => throttled(seconds),
        ApiError::Unsupported => no_tag_deletion(),
        error @ (ApiError::Unreachable(_)
        | ApiError::TimedOut
        | ApiError::Unauthorized(_)
        | ApiError::Secret(_)
        | ApiError::Login(_)
        | ApiError::Unexpected { .. }
        | ApiError::Invalid
        | ApiError::TooManyPages) => Rejection::bad_gateway(error),
    }
}

/// The product's own API did not list the repositories.
pub(crate) fn listing_failed(error: ApiError) -> Rejection {
    match error {
        ApiError::Unsupported | ApiError::NotFound => no_listing(
            "this registry lists repositories by its product's own API only: its administrator \
             gives this proxy credentials for it ([upstream] username and password, or \
             [upstream.admin])",
        ),
        other => api_failed(other),
    }
}

/// The product lists the repositories of a namespace only, and none is known.
pub(crate) fn no_namespace() -> Rejection {
    no_listing(
        "this registry lists the repositories of a namespace only, and this proxy knows none: its \
         administrator names them ([[upstream.map]])",
    )
}

fn no_listing(message: &'static str) -> Rejection {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Rejection::new(status, ErrorCode::Unsupported, message).with(Extra::Allow(""))
}

/// The registry did not send a list to its end, or sent none that can be read.
pub(crate) fn list_cut() -> Rejection {
    Rejection::bad_gateway(ListCut)
}

/// A list without its end.
#[derive(Debug, thiserror::Error)]
#[error("the upstream registry did not send a whole list: try again")]
struct ListCut;

/// The upstream refused a request of moorgate itself.
#[derive(Debug, thiserror::Error)]
#[error("the upstream registry refused a step of it with status {status}: {message}")]
struct OwnCallRefused {
    status: StatusCode,
    message: String,
}

/// A tag is not deleted.
#[derive(Debug, thiserror::Error)]
enum TagDeletionError {
    #[error("the upstream registry did not delete the tag, which is as it was: try again")]
    Undone,
    #[error(
        "the upstream registry deleted only half: the tag leads to an empty manifest now; \
         delete it again, or push to it"
    )]
    HalfDone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::digest::Digest;
    use crate::registry::name::RepositoryName;
    use crate::registry::reference::{Reference, Tag};

    fn call(operation: RepositoryCall) -> Call {
        Call::Repository {
            name: RepositoryName::parse("app").expect("valid"),
            operation,
        }
    }

    fn tag() -> Reference {
        Reference::Tag(Tag::parse("v1").expect("valid"))
    }

    fn put() -> Call {
        call(RepositoryCall::ManifestWrite {
            reference: tag(),
            tags: Vec::new(),
        })
    }

    fn get() -> Call {
        call(RepositoryCall::ManifestRead {
            reference: tag(),
            read: crate::registry::call::Read::Get,
        })
    }

    fn delete() -> Call {
        let digest = format!("sha256:{}", "0".repeat(64));
        call(RepositoryCall::ManifestDelete {
            reference: Reference::Digest(Digest::parse(&digest).expect("valid")),
        })
    }

    fn refusal(status: u16, code: &str, message: &str) -> UpstreamRefusal {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        UpstreamRefusal::new(
            StatusCode::from_u16(status).expect("a status"),
            &HeaderMap::new(),
            body.to_string().as_bytes(),
        )
    }

    /// Status and code of the response, and whether the product's words are in it.
    fn answer(call: &Call, refusal: &UpstreamRefusal) -> Option<(u16, &'static str, bool)> {
        let rejection = refusal.misunderstood(Some(call))?;
        let has_words = rejection.message.contains(&refusal.message);
        let status = StatusCode::from(rejection.status).as_u16();
        Some((status, rejection.code.as_str(), has_words))
    }

    #[test]
    fn what_products_say_becomes_what_clients_understand() {
        let ecr = "The image tag 'v1' already exists in the 'app' repository and cannot be \
                   overwritten because the repository is immutable.";
        let harbor = "the tag v1 configured as immutable, cannot be updated";
        let denied = Some((403, "DENIED", true));
        let throttled = Some((429, "TOOMANYREQUESTS", false));
        for (call, (status, code, message), expected) in [
            (put(), (400, "TAG_INVALID", ecr), denied),
            (put(), (412, "PRECONDITION", harbor), denied),
            (put(), (412, "PRECONDITION", "configured as such"), denied),
            (
                put(),
                (409, "TAG_IMMUTABLE", "tag v1 cannot change"),
                denied,
            ),
            (put(), (409, "TAG_ALREADY_EXISTS", "it exists"), denied),
            (put(), (405, "UNSUPPORTED", "it is disallowed here"), denied),
            (put(), (400, "DENIED", "it has tag immutability"), denied),
            (put(), (403, "DENIED", "tag v1 is immutable"), denied),
            (
                get(),
                (412, "PROJECTPOLICYVIOLATION", "has 3 vulnerabilities"),
                denied,
            ),
            (
                get(),
                (412, "PROJECTPOLICYVIOLATION", "the scan is running"),
                Some((503, "UNAVAILABLE", true)),
            ),
            (get(), (429, "", ""), Some((429, "TOOMANYREQUESTS", true))),
            (
                get(),
                (429, "TOOMANYREQUESTS", "pull rate limit"),
                throttled,
            ),
            (put(), (400, "UNKNOWN", "Rate exceeded"), throttled),
            (
                delete(),
                (400, "GOOGLE_MANIFEST_DANGLING_TAG", "still tagged"),
                denied,
            ),
            (
                delete(),
                (403, "UNAUTHORIZED", "manifest is referenced"),
                denied,
            ),
            (
                get(),
                (404, "NOT_FOUND", "x"),
                Some((404, "MANIFEST_UNKNOWN", false)),
            ),
            (
                get(),
                (404, "TAG_EXPIRED", "x"),
                Some((404, "MANIFEST_UNKNOWN", false)),
            ),
            // What clients understand already.
            (get(), (404, "MANIFEST_UNKNOWN", "x"), None),
            (put(), (403, "DENIED", "quota exceeded"), None),
            (put(), (400, "MANIFEST_INVALID", "x"), None),
            (put(), (400, "TAG_INVALID", "no such form"), None),
            (get(), (500, "", ""), None),
        ] {
            let refusal = refusal(status, code, message);
            assert_eq!(answer(&call, &refusal), expected, "{call:?} {refusal:?}");
        }
    }

    #[test]
    fn a_throttled_client_learns_when_to_try_again() {
        for (header_value, seconds) in [
            (None, 10),
            (Some("7"), 7),
            (Some("0"), 1),
            (Some("60000"), 3600),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = header_value {
                headers.insert(header::RETRY_AFTER, value.parse().expect("a value"));
            }
            let refusal = UpstreamRefusal::new(StatusCode::TOO_MANY_REQUESTS, &headers, b"slow");
            let rejection = refusal.misunderstood(None).expect("throttled");
            assert!(
                matches!(rejection.extra, Extra::RetryAfter(given) if given == seconds),
                "{rejection:?}"
            );
        }
    }

    #[test]
    fn foreign_words_are_short_and_plain() {
        let long = "\u{1b}[31m\n".repeat(1000);
        let refusal = refusal(409, "TAG_IMMUTABLE", &long);
        assert_eq!(refusal.message.chars().count(), MAX_MESSAGE_LENGTH);
        assert!(!refusal.message.contains(char::is_control));
    }

    #[test]
    fn only_some_refusals_say_that_a_deletion_is_unknown() {
        for (status, code, expected) in [
            (405, "UNSUPPORTED", true),
            (405, "", true),
            (400, "UNSUPPORTED", true),
            (400, "DIGEST_INVALID", true),
            (400, "TAG_INVALID", false),
            (404, "UNSUPPORTED", false),
            (403, "DENIED", false),
        ] {
            assert_eq!(
                refusal(status, code, "").is_unsupported(),
                expected,
                "{status} {code}"
            );
        }
    }
}
