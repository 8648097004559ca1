//! Decides whether a request is allowed. The proof is a [`Grant`], and nothing is answered without
//! one.

mod denial;

use std::net::IpAddr;
use std::sync::Arc;

use super::authenticate::Authenticated;
use super::bearer;
use super::obligations::{Obligations, TagObligation, TagPermission, WriteCondition};
use super::rejection::Rejection;
use super::site::Site;
use super::target::{PageAccess, RequestTarget};
use crate::auth::policy::{Decision, Principal, TagAccess};
use crate::auth::upload_session::SessionOwner;
use crate::auth::{Identity, UserName};
use crate::crypto;
use crate::registry::action::Action;
use crate::registry::call::{Call, CallError, Read, RepositoryCall};
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::registry::upload_id::{ReplicaId, UploadId};
use denial::Denial;

/// The proof that a request is allowed, and its obligations. Only [`authorize`] makes one.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The target of the request, or the one that replaces it.
    target: RequestTarget,
    obligations: Obligations,
    requester: Requester,
    /// The owner of the upload session of a call that uses or opens one.
    session_owner: Option<SessionOwner>,
    /// The replica of the upstream that has the upload session of the call.
    replica: Option<ReplicaId>,
}

/// The user and the address of a request.
#[derive(Clone, Debug)]
pub(crate) struct Requester {
    user: Option<UserName>,
    client: IpAddr,
}

impl Requester {
    pub(crate) fn principal(&self) -> Principal<'_> {
        Principal {
            user: self.user.as_ref().map(UserName::as_str),
            client: self.client,
        }
    }
}

impl Grant {
    pub(crate) fn target(&self) -> &RequestTarget {
        &self.target
    }

    pub(crate) fn obligations(&self) -> &Obligations {
        &self.obligations
    }

    pub(crate) fn principal(&self) -> Principal<'_> {
        self.requester.principal()
    }

    pub(crate) fn session_owner(&self) -> Option<&SessionOwner> {
        self.session_owner.as_ref()
    }

    /// The replica of the upstream that has the upload session of the call.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        self.replica
    }

    /// Takes the obligations of the tags out; they own the rejections.
    pub(crate) fn take_tag_writes(&mut self) -> Vec<TagObligation> {
        match std::mem::replace(&mut self.obligations, Obligations::Plain) {
            Obligations::TagWrites(tags) => tags,
            other => {
                self.obligations = other;
                Vec::new()
            }
        }
    }
}

/// A grant, and the rule that hides the repository, if one does.
pub(crate) struct Authorized {
    pub(crate) grant: Grant,
    pub(crate) hidden_by: Option<Box<str>>,
}

/// Decides by the access rules of the virtual host. Without rules every user may do everything.
///
/// A token allows at most its scope. Errors: 403 for a denied action, 401 where a login or another
/// token might help. A call to a repository that the user may not see is no error: it continues as
/// a call to a repository that does not exist.
pub(crate) fn authorize(
    site: &Site,
    client: IpAddr,
    Authenticated { identity, token }: Authenticated,
    target: RequestTarget,
) -> Result<Authorized, Rejection> {
    let user = match identity {
        Identity::User(user) => Some(user.name),
        Identity::Anonymous => None,
    };
    let requester = Requester { user, client };
    let granted = match target {
        RequestTarget::Page(used) => {
            page(site, &requester, used)?;
            GrantedTarget::new(target, Obligations::Plain)
        }
        RequestTarget::Call(call) => Authorizer {
            site,
            requester: &requester,
        }
        .call(call)?,
    };
    let GrantedTarget {
        target,
        obligations,
        hidden_by,
        replica,
    } = granted;
    let (target, obligations) = match &token {
        Some(access) => bearer::restrict_to_scope(access, target, obligations)?,
        None => (target, obligations),
    };
    let names_sessions = |call: &&Arc<Call>| call.is_upload() || call.session().is_some();
    let session_owner = target
        .call()
        .filter(names_sessions)
        .and_then(|_| owner(site, &requester));
    Ok(Authorized {
        grant: Grant {
            target,
            obligations,
            requester,
            session_owner,
            replica,
        },
        hidden_by,
    })
}

/// Pages show all repositories to every user who may read them, and let those who may change
/// something change any repository.
fn page(site: &Site, requester: &Requester, used: PageAccess) -> Result<(), Rejection> {
    let seen = site.policy.sees_everything(requester.principal());
    if !seen.allowed {
        let message = "these pages show everything, and your user may not see all of it";
        return Err(Rejection::denied(message).decided_by(seen.rule));
    }
    let changed = site.policy.changes_everything(requester.principal());
    if used == PageAccess::Change && !changed.allowed {
        let message = "these pages may be read, but not used to change something: \
                       that is for those who may do everything in all repositories";
        return Err(Rejection::denied(message).decided_by(changed.rule));
    }
    Ok(())
}

fn owner(site: &Site, requester: &Requester) -> Option<SessionOwner> {
    let key = site.session_key.as_ref()?;
    Some(key.owner(site.host.domain.as_str(), requester.user.clone()?))
}

/// The target of a grant with its obligations, and the rule that hides the repository, if one does.
struct GrantedTarget {
    target: RequestTarget,
    obligations: Obligations,
    hidden_by: Option<Box<str>>,
    /// The replica of the upstream that has the upload session of the call.
    replica: Option<ReplicaId>,
}

impl GrantedTarget {
    fn new(target: RequestTarget, obligations: Obligations) -> Self {
        Self {
            target,
            obligations,
            hidden_by: None,
            replica: None,
        }
    }

    /// The call as it was requested.
    fn plain(call: Arc<Call>) -> Self {
        Self::new(RequestTarget::Call(call), Obligations::Plain)
    }
}

struct Authorizer<'a> {
    site: &'a Site,
    requester: &'a Requester,
}

impl Authorizer<'_> {
    fn decide(
        &self,
        action: Action,
        repository: &RepositoryName,
        tag: Option<&Tag>,
    ) -> Decision<'_> {
        self.site.policy.decide(
            self.requester.principal(),
            action,
            repository.as_str(),
            tag.map(Tag::as_str),
        )
    }

    fn decide_tag(&self, action: Action, repository: &RepositoryName, tag: &Tag) -> TagAccess<'_> {
        let (principal, repository) = (self.requester.principal(), repository.as_str());
        let policy = &self.site.policy;
        policy.decide_tag(principal, action, repository, tag.as_str())
    }

    fn call(&self, call: Arc<Call>) -> Result<GrantedTarget, Rejection> {
        let policy = &self.site.policy;
        if self.needs_no_decision(&call) {
            return Ok(GrantedTarget::plain(call));
        }
        match &*call {
            Call::Ping { .. } => Ok(GrantedTarget::plain(call)),
            Call::Catalog { .. } => {
                if policy.is_open()
                    || !policy.may_somewhere(self.requester.principal(), Action::Catalog)
                {
                    let decision = Decision {
                        allowed: false,
                        rule: None,
                    };
                    return Err(self.refused(Action::Catalog, None, None).by(decision));
                }
                Ok(GrantedTarget::new(
                    RequestTarget::Call(call),
                    Obligations::Filtered,
                ))
            }
            Call::Repository { name, operation } => self.repository(&call, name, operation),
        }
    }

    fn repository(
        &self,
        call: &Arc<Call>,
        name: &RepositoryName,
        operation: &RepositoryCall,
    ) -> Result<GrantedTarget, Rejection> {
        match operation {
            RepositoryCall::TagsList { .. } => self.access(call, name, Action::List, None),
            RepositoryCall::ManifestRead { read, .. } | RepositoryCall::BlobRead { read, .. } => {
                self.read(call, name, *read)
            }
            RepositoryCall::Referrers { .. } => self.read(call, name, Read::Get),
            RepositoryCall::ManifestDelete {
                reference: Reference::Tag(tag),
            } => self.delete_tag(call, name, tag),
            RepositoryCall::ManifestDelete {
                reference: Reference::Digest(_),
            }
            | RepositoryCall::BlobDelete { .. } => {
                self.access(call, name, Action::DeleteManifest, None)
            }
            RepositoryCall::ManifestWrite { reference, tags } => {
                let tags = self.write(name, reference, tags)?;
                Ok(GrantedTarget::new(RequestTarget::Call(call.clone()), tags))
            }
            RepositoryCall::UploadStart { .. } => {
                self.push(name)?;
                Ok(GrantedTarget::plain(call.clone()))
            }
            RepositoryCall::Mount { from, .. } => {
                self.push(name)?;
                if self.may_mount(from.as_ref()) {
                    return Ok(GrantedTarget::plain(call.clone()));
                }
                let upload = Arc::new(Call::upload_start(name));
                Ok(GrantedTarget::new(
                    RequestTarget::Call(upload),
                    Obligations::Unmounted,
                ))
            }
            RepositoryCall::Upload { session, step } => {
                self.push(name)?;
                let (session, replica) = self.open(name, session)?;
                let opened = Call::Repository {
                    name: name.clone(),
                    operation: RepositoryCall::Upload {
                        session,
                        step: step.clone(),
                    },
                };
                let plain = GrantedTarget::plain(Arc::new(opened));
                Ok(GrantedTarget { replica, ..plain })
            }
        }
    }

    /// Whether every user may do it. Upload sessions have owners and tags are locked without rules
    /// too.
    fn needs_no_decision(&self, call: &Call) -> bool {
        let is_simple = !call.is_manifest_write() && call.session().is_none();
        self.site.policy.is_open() && self.requester.user.is_some() && is_simple
    }

    /// An action on the content of a repository.
    fn access(
        &self,
        call: &Arc<Call>,
        repository: &RepositoryName,
        action: Action,
        tag: Option<&Tag>,
    ) -> Result<GrantedTarget, Rejection> {
        let decision = self.decide(action, repository, tag);
        let denial = self.refused(action, Some(repository), tag);
        self.allow_or_hide(call, repository, decision, denial)
    }

    fn delete_tag(
        &self,
        call: &Arc<Call>,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<GrantedTarget, Rejection> {
        let decided = self.decide_tag(Action::DeleteTag, repository, tag);
        let denial = self.refused(Action::DeleteTag, Some(repository), Some(tag));
        let mut granted = self.allow_or_hide(call, repository, decided.decision, denial)?;
        // What is hidden is not deleted, whatever its age is.
        if decided.decision.allowed && !decided.conditions.is_empty() {
            let conditions = decided.conditions.iter().map(WriteCondition::new);
            granted.obligations = Obligations::TagDeletion(tag.clone(), conditions.collect());
        }
        Ok(granted)
    }

    fn read(
        &self,
        call: &Arc<Call>,
        repository: &RepositoryName,
        read: Read,
    ) -> Result<GrantedTarget, Rejection> {
        let decision = match read {
            Read::Get => self.decide(Action::Pull, repository, None),
            Read::Head => {
                let policy = &self.site.policy;
                policy.decide_head(self.requester.principal(), repository.as_str())
            }
        };
        let denial = self.refused(Action::Pull, Some(repository), None);
        self.allow_or_hide(call, repository, decision, denial)
    }

    fn allow_or_hide(
        &self,
        call: &Arc<Call>,
        repository: &RepositoryName,
        decision: Decision<'_>,
        denial: Denial<'_>,
    ) -> Result<GrantedTarget, Rejection> {
        if decision.allowed {
            return Ok(GrantedTarget::plain(call.clone()));
        }
        if self.requester.user.is_none()
            || self
                .site
                .policy
                .sees(self.requester.principal(), repository.as_str())
        {
            return Err(denial.by(decision));
        }
        let mut hidden = Call::clone(call);
        // Without randomness there is no name that a client cannot guess.
        let Some(placeholder) = placeholder_repository(self.site, repository) else {
            return Err(denial.by(decision));
        };
        if let Call::Repository { name, .. } = &mut hidden {
            *name = placeholder;
        }
        let rule = denial::named(decision.rule);
        Ok(GrantedTarget {
            target: RequestTarget::Call(Arc::new(hidden)),
            obligations: Obligations::Hidden(repository.clone()),
            hidden_by: Some(rule),
            replica: None,
        })
    }

    fn push(&self, repository: &RepositoryName) -> Result<(), Rejection> {
        let decision = self.decide(Action::Push, repository, None);
        if decision.allowed {
            Ok(())
        } else {
            Err(self
                .refused(Action::Push, Some(repository), None)
                .by(decision))
        }
    }

    /// Without a source repository the registry would search all of them.
    fn may_mount(&self, from: Option<&RepositoryName>) -> bool {
        from.is_some_and(|from| self.decide(Action::MountFrom, from, None).allowed)
    }

    fn write(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        tags: &[Tag],
    ) -> Result<Obligations, Rejection> {
        let own = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let mut obligations: Vec<TagObligation> = Vec::new();
        for tag in own.into_iter().chain(tags) {
            if !obligations.iter().any(|other| other.tag == *tag) {
                obligations.push(self.tag_obligation(repository, tag)?);
            }
        }
        if obligations.is_empty() {
            self.push(repository)?;
        }
        // Where no rule distinguishes creating from overwriting or asks for the age of a tag, the
        // existing tag does not matter.
        let always = self.site.locks_tags() || self.site.policy.limits_ages();
        let depends = |obligation: &TagObligation| {
            let TagObligation {
                create, overwrite, ..
            } = obligation;
            always || !(create.is_granted() && overwrite.is_granted())
        };
        Ok(
            if self.site.locks_repositories() || obligations.iter().any(depends) {
                Obligations::TagWrites(obligations)
            } else {
                Obligations::Plain
            },
        )
    }

    fn tag_obligation(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<TagObligation, Rejection> {
        let permission = |action| {
            let decided = self.decide_tag(action, repository, tag);
            if !decided.decision.allowed {
                let refused = self.refused(action, Some(repository), Some(tag));
                return TagPermission::Denied(refused.by(decided.decision));
            }
            if decided.conditions.is_empty() {
                return TagPermission::Granted;
            }
            TagPermission::If(decided.conditions.iter().map(WriteCondition::new).collect())
        };
        match (permission(Action::Push), permission(Action::Overwrite)) {
            (TagPermission::Denied(rejection), TagPermission::Denied(_)) => Err(rejection),
            (create, overwrite) => Ok(TagObligation {
                tag: tag.clone(),
                create,
                overwrite,
            }),
        }
    }

    /// The session id of the registry, and the replica that has the session. A session of another
    /// user is unknown, and one of a replica that is no longer configured.
    fn open(
        &self,
        repository: &RepositoryName,
        upload: &UploadId,
    ) -> Result<(UploadId, Option<ReplicaId>), Rejection> {
        let unknown = || Rejection::bad_call(CallError::UploadUnknown);
        let session = match owner(self.site, self.requester) {
            Some(owner) => owner.unbind(repository, upload),
            // Nothing proves where an address comes from.
            None => Some(upload.clone()).filter(|upload| !upload.is_address()),
        };
        let session = session.ok_or_else(unknown)?;
        let backend = self.site.registry.upstream();
        let Some((replica, session)) = session.as_at_replica() else {
            // It was begun when there was one server, which is the first one by custom.
            let first = backend.and_then(|backend| backend.upstream.first_of_several());
            return Ok((session, first));
        };
        let is_there = backend.is_some_and(|backend| backend.upstream.has(replica));
        is_there
            .then_some((session, Some(replica)))
            .ok_or_else(unknown)
    }

    fn refused<'r>(
        &'r self,
        action: Action,
        repository: Option<&'r RepositoryName>,
        tag: Option<&'r Tag>,
    ) -> Denial<'r> {
        Denial {
            site: self.site,
            principal: self.requester.principal(),
            action,
            repository,
            tag,
        }
    }
}

/// A random name with as many levels: the registry responds as if the repository did not exist. Where
/// names are mapped, by the same rule: registries answer differently where the first level does not
/// exist. `None` where there is no randomness, or no room for it.
fn placeholder_repository(site: &Site, repository: &RepositoryName) -> Option<RepositoryName> {
    // A name that cannot exist there is refused before its placeholder is needed.
    let names = site.names();
    let names = names.filter(|names| names.to_registry(repository).is_ok());
    let prefix = names.map_or("", |names| names.prefix_of(repository));
    let below = &repository.as_str()[prefix.len()..];
    let levels = below.split('/').count().min(MAX_LEVELS);
    let level = |_| crypto::random::<16>().map(|bytes| crypto::hex(&bytes));
    let random: Vec<_> = (0..levels).map(level).collect::<Result<_, _>>().ok()?;
    let shorter = (1..=levels).rev().filter_map(|levels| random.get(..levels));
    let mut placeholders = shorter
        .filter_map(|levels| RepositoryName::parse(&format!("{prefix}{}", levels.join("/"))).ok());
    placeholders.find(|name| names.is_none_or(|names| names.to_registry(name).is_ok()))
}

/// 33 bytes each, with a slash: 230 at most, which is a name.
const MAX_LEVELS: usize = 7;
