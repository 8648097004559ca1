//! Where a product leaves the distribution specification: plain fields, to be set as a test likes.

use std::time::Duration;

/// What a player does differently. Statuses, codes and words are the product's own.
#[derive(Clone, Debug)]
pub struct Switches {
    /// By the name that the configuration has for it.
    pub product: &'static str,
    pub credentials: PlayedCredentials,
    pub challenge: PlayedChallenge,
    /// Whether `Basic` is taken where the challenge is `Bearer`.
    pub takes_basic: bool,
    /// How long a token lives.
    pub token_life: Duration,
    /// Whether `expires_in` stands beside it.
    pub tells_life: bool,
    /// Whether a token says itself what it allows, as a JWT.
    pub says_rights: bool,
    /// The actions that the user may be granted; an administrator may have all.
    pub rights: &'static [&'static str],
    /// An action of AWS that the keys have no right to.
    pub denied_action: Option<&'static str>,
    /// Whether a scope with `delete` is refused as a whole.
    pub refuses_delete_scope: bool,
    /// The action that a deletion needs.
    pub delete_action: &'static str,
    /// The exact number of components of a name.
    pub levels: Option<usize>,
    pub missing: MissingRepository,
    pub catalog: PlayedCatalog,
    pub pages: PlayedPages,
    /// Whether `tags/list` has pages at all.
    pub pages_tags: bool,
    /// Whether `tags/list` tells of manifests, as Google's does.
    pub describes_manifests: bool,
    pub chunks: PlayedChunks,
    /// Whether a chunk that does not begin where the last one ended is refused by 416.
    pub checks_ranges: bool,
    /// What the end of an upload that begins is called in `Range`.
    pub first_range: &'static str,
    /// Whether the address of an upload changes with each chunk, and an old one is refused.
    pub has_upload_state: bool,
    pub tag_deletion: RegistryDeletion,
    pub digest_deletion: RegistryDeletion,
    /// What keeps a manifest from deletion.
    pub deletion_guard: DeletionGuard,
    /// Whether tags are immutable now.
    pub has_immutable_tags: bool,
    pub immutable_tag: Refused,
    pub throttling: PlayedThrottling,
    /// How many of the next requests to the registry are throttled.
    pub throttled: usize,
    /// The same of its own API.
    pub api_throttled: usize,
    /// The same of its token endpoint.
    pub tokens_throttled: usize,
    /// Whether every page of a list of its own API has another one behind it.
    pub has_endless_lists: bool,
    /// The projects that its own API shows, and does not open to others than the administrator.
    pub closed_projects: Vec<&'static str>,
    /// Whether a `GET` of a blob leads to the storage server.
    pub redirects_blobs: bool,
    pub has_absolute_locations: bool,
    /// Whether a `GET` by tag tells the digest.
    pub tells_digest_of_tag: bool,
    /// Whether OCI's manifests are given only to those whose `Accept` names them.
    pub checks_accept: bool,
    pub has_referrers: bool,
    pub mounts: bool,
    /// Whether a mount without `from` fails instead of beginning an upload.
    pub refuses_anonymous_mounts: bool,
    /// The `Location` of every upload and of what was stored, instead of the registry's own: a
    /// hostile one.
    pub location: Option<String>,
    /// The realm of the challenge, instead of the registry's own: a hostile one.
    pub realm: Option<String>,
    /// What the token endpoint answers instead of a token: a redirect.
    pub token_redirect: Option<String>,
    /// The target of the next page, instead of the registry's own: a hostile one.
    pub next_page: Option<String>,
    /// Where blobs are redirected to, instead of the storage server.
    pub blob_redirect: Option<String>,
    /// Where manifests are redirected to, instead of being given.
    pub manifest_redirect: Option<String>,
    /// Where every call of its own API is redirected to.
    pub api_redirect: Option<String>,
}

/// What the player takes as credentials. All are fixed, and none is like another.
#[derive(Clone, Debug)]
pub struct PlayedCredentials {
    pub user: String,
    pub password: String,
    /// The token, or the password, that the product's own API takes.
    pub admin_user: String,
    pub admin_password: String,
    /// Keys of ECR, an application of Entra.
    pub key_id: String,
    pub secret_key: String,
}

/// How a registry asks for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlayedChallenge {
    /// Not at all.
    None,
    /// `Basic`, with all that stands behind it.
    Basic(&'static str),
    Bearer {
        service: &'static str,
        /// The path of the token endpoint.
        path: &'static str,
        /// On which of its servers it is.
        at: RealmServer,
    },
}

/// The server of a token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealmServer {
    Registry,
    Api,
}

/// What becomes of a push into a repository that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingRepository {
    Created,
    /// The repository itself must exist.
    Refused(&'static str),
    /// Its first components must exist, so many of them.
    RefusedProject {
        levels: usize,
        as_: MissingProject,
    },
}

/// How the lack of a project is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingProject {
    /// 404 with NAME_UNKNOWN.
    Unknown,
    /// 401 with an empty challenge.
    EmptyChallenge,
    /// Its scope is granted to nobody.
    NotGranted,
}

/// Who may read the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayedCatalog {
    Everybody,
    /// 401 for others.
    Admins,
    /// Everybody, for the namespaces of their own.
    Filtered,
    /// Nobody: 404.
    Absent,
}

/// How many entries a page may have.
#[derive(Clone, Copy, Debug)]
pub struct PlayedPages {
    /// Without `n`.
    pub default: usize,
    pub max: usize,
    /// What more than that is: refused, or cut.
    pub above: Option<Refused>,
}

/// What may be uploaded in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayedChunks {
    Any,
    /// Every chunk after the first is dropped, and answered by 201.
    First,
    /// A second one, or one with a `Content-Range`, is refused.
    None,
    /// One with a `Content-Range` of more is refused by 416.
    AtMost(usize),
}

/// What `DELETE` by the registry API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryDeletion {
    Done,
    Refused(Refused),
    /// A page that is no error of the specification.
    NoRoute,
}

/// What keeps a manifest from being deleted by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionGuard {
    None,
    Tagged(Refused),
    /// As a part of an index.
    Referenced(Refused),
    TaggedOrReferenced(Refused),
}

/// An error: status, code and message. In the message, `{tag}` and `{name}` are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

/// The form of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayedThrottling {
    /// As the specification has it, with this message.
    Error(Refused),
    /// The page of nginx.
    Nginx,
    /// A line of text.
    Text(&'static str),
}
