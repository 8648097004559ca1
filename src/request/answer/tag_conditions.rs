//! Checks the conditions under which rules allow to set, move or delete a tag: that another
//! repository has the manifest (`from`), and that the tag is not too old (`immutable_after`).

mod refusal;
mod sources;

use bytes::Bytes;
use jiff::Timestamp;

use self::refusal::RefusedWrite;
use self::sources::Sources;
use crate::crypto;
use crate::journal::JournalError;
use crate::registry::action::Action;
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::request::context::RequestContext;
use crate::request::obligations::{
    AllowedWrite, TagObligation, TagPermission, TagWrite, WriteCondition,
};
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::state_file::run_blocking;

/// Which writes of a manifest's tags are allowed, now that the manifest is known. Where ages of tags
/// matter, the caller has locked them.
///
/// Errors: what is asked of the registry or the journal is not answered.
pub(super) async fn allowed_writes(
    cx: &RequestContext<'_>,
    route: &Route,
    obligations: Vec<TagObligation>,
    manifest: &Bytes,
) -> Result<Vec<AllowedWrite>, Rejection> {
    let Some(name) = route.call().and_then(Call::repository) else {
        return Err(Rejection::bad_target());
    };
    let mut allowed = Vec::with_capacity(obligations.len());
    // Of all tags together: a rule is about the repository and the manifest.
    let mut sources = Sources::default();
    for TagObligation {
        tag,
        create,
        overwrite,
    } in obligations
    {
        let mut check = ConditionCheck {
            cx,
            route,
            repository: name,
            tag: &tag,
            sources: &mut sources,
            age: None,
        };
        let digest = || digest(route, manifest);
        let create = check.refusal(Action::Push, create, &digest).await?;
        let overwrite = check.refusal(Action::Overwrite, overwrite, &digest).await?;
        allowed.push(AllowedWrite {
            allowed: match (create, overwrite) {
                (None, None) => TagWrite::Any,
                (None, Some(rejection)) => TagWrite::CreateOnly(rejection),
                (Some(rejection), None) => TagWrite::OverwriteOnly(rejection),
                (Some(create), Some(_)) => TagWrite::SameOnly(create),
            },
            tag,
        });
    }
    Ok(allowed)
}

/// The digest under which a manifest that is written will be known; the registry compares it with
/// the reference.
pub(super) fn digest(route: &Route, manifest: &[u8]) -> Option<Digest> {
    let Some(RepositoryCall::ManifestWrite { reference, .. }) =
        route.call().and_then(Call::operation)
    else {
        return None;
    };
    match reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(_) => {
            Digest::parse(&format!("sha256:{}", crypto::sha256_hex(manifest))).ok()
        }
    }
}

/// The rejection of the deletion of a tag; `None` if a condition is met.
///
/// Errors: the journal cannot be read.
pub(super) async fn deletion_refusal(
    cx: &RequestContext<'_>,
    route: &Route,
    tag: &Tag,
    conditions: Vec<WriteCondition>,
) -> Result<Option<Rejection>, Rejection> {
    let Some(repository) = route.call().and_then(Call::repository) else {
        return Err(Rejection::bad_target());
    };
    let mut check = ConditionCheck {
        cx,
        route,
        repository,
        tag,
        sources: &mut Sources::default(),
        age: None,
    };
    let permission = TagPermission::If(conditions);
    check.refusal(Action::DeleteTag, permission, &|| None).await
}

/// How long ago a tag was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagAge {
    PushedAt(Timestamp),
    /// Before pushes were recorded, or by another way to the registry.
    Unknown,
}

/// The conditions of one tag.
struct ConditionCheck<'c> {
    cx: &'c RequestContext<'c>,
    route: &'c Route,
    /// The name that clients know.
    repository: &'c RepositoryName,
    tag: &'c Tag,
    sources: &'c mut Sources,
    /// Once it was read.
    age: Option<TagAge>,
}

impl ConditionCheck<'_> {
    /// The rejection of an action with a manifest; `None` if it is allowed.
    async fn refusal(
        &mut self,
        action: Action,
        permission: TagPermission,
        digest: &(impl Fn() -> Option<Digest> + Sync),
    ) -> Result<Option<Rejection>, Rejection> {
        let conditions = match permission {
            TagPermission::Granted => return Ok(None),
            TagPermission::Denied(rejection) => return Ok(Some(rejection)),
            TagPermission::If(conditions) => conditions,
        };
        for condition in &conditions {
            if self.is_young(condition).await? && self.is_elsewhere(condition, digest).await? {
                return Ok(None);
            }
        }
        Ok(Some(
            RefusedWrite {
                user: self.route.principal().user,
                action,
                repository: self.repository,
                tag: self.tag,
                conditions: &conditions,
                is_age_known: self.age != Some(TagAge::Unknown),
            }
            .rejection(),
        ))
    }

    async fn is_young(&mut self, condition: &WriteCondition) -> Result<bool, Rejection> {
        let Some(limit) = condition.immutable_after else {
            return Ok(true);
        };
        let age = match self.age {
            Some(age) => age,
            None => *self.age.insert(self.read_age().await?),
        };
        Ok(match age {
            TagAge::Unknown => false,
            // A time that is still to come is that of a clock that was set back.
            TagAge::PushedAt(pushed) => {
                let age = Timestamp::now().duration_since(pushed);
                std::time::Duration::try_from(age).map_or(true, |age| age < limit)
            }
        })
    }

    async fn read_age(&self) -> Result<TagAge, Rejection> {
        let Some(journal) = self.cx.site.journal.clone() else {
            return Ok(TagAge::Unknown);
        };
        let (repository, tag) = (self.repository.clone(), self.tag.clone());
        // One read for each write of a tag, whose number is bounded by the memory for manifests.
        let read = run_blocking(move || journal.tag(&repository, &tag)).await;
        let read = read.map_err(|error: JournalError| Rejection::journal(error))?;
        Ok(read.pushed.map_or(TagAge::Unknown, TagAge::PushedAt))
    }

    /// Whether the manifest is where the condition wants it to be.
    async fn is_elsewhere(
        &mut self,
        condition: &WriteCondition,
        digest: &(impl Fn() -> Option<Digest> + Sync),
    ) -> Result<bool, Rejection> {
        let Some(source) = &condition.source else {
            return Ok(true);
        };
        let Some(digest) = digest() else {
            return Ok(false);
        };
        self.sources
            .have(self.cx, self.route, (source, &digest))
            .await
    }
}
