//! Tokens on registry calls: verifies them, restricts calls to their scope, and makes the
//! challenge.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};

use super::admit;
use super::obligations::Obligations;
use super::rejection::{RefusalReason, Rejection};
use super::site::Site;
use super::target::RequestTarget;
use crate::auth::token::{InvalidToken, TokenAccess, Tokens, Verified};
use crate::clock;
use crate::registry::call::{Call, Read, RepositoryCall};
use crate::registry::name::RepositoryName;
use crate::registry::scope::{Resource, Right, Rights};

/// Verifies the token of a request. A transfer may continue after its token has expired.
///
/// Errors: 401 for no token, for other credentials, and for an invalid or expired token; 400 for
/// two Authorization headers. [`challenged`] adds the challenge.
pub(crate) async fn authenticate(
    tokens: &Tokens,
    site: &Site,
    headers: &HeaderMap,
) -> Result<Verified, Rejection> {
    let Some(value) = admit::authorization(headers)? else {
        return Err(Rejection::unauthorized(site, "log in to use this registry"));
    };
    let Some(token) = token(value) else {
        return Err(Rejection::unauthorized(
            site,
            "only tokens are accepted here: get one at /token",
        )
        .because(RefusalReason::UnusableCredentials));
    };
    let domain = site.host.domain.as_str();
    let verify = || tokens.verify(token, domain, &site.users.current(), clock::time_of_day());
    let mut verified = verify();
    if matches!(verified, Err(InvalidToken::ListUnknown)) {
        // Boxed to keep this rare future out of every request's future.
        Box::pin(tokens.read_list(token)).await;
        verified = verify();
    }
    let verified = verified.map_err(Rejection::invalid_token)?;
    // Issued when the domain still allowed anonymous access.
    if verified.user.is_none() && site.host.auth.anonymous.actions().is_empty() {
        return Err(Rejection::unauthorized(site, "log in to use this registry"));
    }
    Ok(verified)
}

/// The token after `Bearer` (RFC 6750 §2.1).
fn token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Restricts what the rules allow to the scope of the token.
///
/// Errors: 401 if the scope does not suffice, of which the rules allow the user to get more. A
/// mount that the rules do not allow is an upload by now, and needs no scope of the other
/// repository. Hidden repositories stay hidden: no token includes them.
pub(crate) fn restrict_to_scope(
    access: &TokenAccess,
    target: RequestTarget,
    obligations: Obligations,
) -> Result<(RequestTarget, Obligations), Rejection> {
    let RequestTarget::Call(call) = &target else {
        return Ok((target, obligations));
    };
    if matches!(obligations, Obligations::Hidden(_)) {
        return Ok((target, obligations));
    }
    if !RequiredScope::from_call(call).is_met(access) {
        return Err(Rejection::insufficient_scope());
    }
    match &**call {
        // Without a source repository the registry would search all of them.
        Call::Repository {
            name,
            operation: RepositoryCall::Mount { from: None, .. },
        } => {
            let upload = Arc::new(Call::upload_start(name));
            Ok((RequestTarget::Call(upload), Obligations::Unmounted))
        }
        _ => Ok((target, obligations)),
    }
}

/// Adds the challenge to a rejection that asks for a login: the token endpoint and the scope
/// (RFC 6750 §3).
pub(crate) fn challenged(
    rejection: Rejection,
    site: &Site,
    parts: &Parts,
    call: Option<&Call>,
) -> Rejection {
    let Some(call) = call.filter(|_| rejection.needs_challenge()) else {
        return rejection;
    };
    let error = rejection.bearer_error();
    let mut text = format!(
        "Bearer realm=\"https://{}/token\",service=\"{}\"",
        host(parts),
        site.host.domain
    );
    if let Some(scope) = RequiredScope::from_call(call).scope(error.is_some()) {
        text.push_str(&format!(",scope=\"{scope}\""));
    }
    if let Some(error) = error {
        text.push_str(&format!(",error=\"{error}\""));
    }
    match HeaderValue::try_from(text) {
        Ok(value) => rejection.with_challenge(value),
        // The host was parsed, so this does not happen. A 401 without a challenge is still a 401.
        Err(_) => rejection,
    }
}

/// The host and port as the client wrote them, which [`locate`](super::locate::locate) has checked:
/// clients send tokens only to the host that issued them.
fn host(parts: &Parts) -> &str {
    let header = parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    header
        .or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
        .unwrap_or_default()
}

/// The scope that a call needs.
enum RequiredScope<'a> {
    Nothing,
    Catalog,
    /// One of these rights to a repository.
    Right(&'a RepositoryName, &'static [Right]),
    /// The right to push to one repository and to pull from the other.
    Mount {
        to: &'a RepositoryName,
        from: &'a RepositoryName,
    },
}

impl<'a> RequiredScope<'a> {
    fn from_call(call: &'a Call) -> Self {
        match call {
            Call::Ping { .. } => Self::Nothing,
            Call::Catalog { .. } => Self::Catalog,
            Call::Repository {
                name: to,
                operation:
                    RepositoryCall::Mount {
                        from: Some(from), ..
                    },
            } => Self::Mount { to, from },
            Call::Repository { name, operation } => Self::Right(name, needed_rights(operation)),
        }
    }

    fn is_met(&self, access: &TokenAccess) -> bool {
        match self {
            Self::Nothing => true,
            Self::Catalog => access.has_catalog(),
            Self::Right(repository, rights) => {
                let given = access.rights(repository);
                rights.iter().any(|right| given.has(*right))
            }
            Self::Mount { to, from } => access.rights(to).has(Right::Push) && access.may_pull(from),
        }
    }

    /// The scopes that a token must be requested with, separated by spaces (RFC 6750 §3). `again`:
    /// the presented token does not suffice, as when a push checks whether content exists and may
    /// not pull.
    fn scope(&self, again: bool) -> Option<String> {
        let of = |repository: &RepositoryName, rights: &[Right]| {
            Resource::Repository(repository.clone()).scope(rights.iter().copied().collect())
        };
        Some(match self {
            Self::Nothing => return None,
            Self::Catalog => Resource::Catalog.scope(Rights::ALL),
            Self::Right(repository, [Right::Push]) => of(repository, &PUSH),
            Self::Right(repository, [first, ..]) if !again => of(repository, &[*first]),
            Self::Right(repository, rights) => of(repository, rights),
            Self::Mount { to, from } if to == from => of(to, &PUSH),
            // What the request is for comes first: some clients read no further.
            Self::Mount { to, from } => {
                format!("{} {}", of(to, &PUSH), of(from, &[Right::Pull]))
            }
        })
    }
}

/// A push reads what is there already.
const PUSH: [Right; 2] = [Right::Pull, Right::Push];

/// Rights to the repository of which an operation needs one.
fn needed_rights(operation: &RepositoryCall) -> &'static [Right] {
    match operation {
        // As in the rules: a push checks with HEAD whether content exists.
        RepositoryCall::ManifestRead {
            read: Read::Head, ..
        }
        | RepositoryCall::BlobRead {
            read: Read::Head, ..
        } => &[Right::Pull, Right::Push],
        RepositoryCall::TagsList { .. }
        | RepositoryCall::ManifestRead {
            read: Read::Get, ..
        }
        | RepositoryCall::BlobRead {
            read: Read::Get, ..
        }
        | RepositoryCall::Referrers { .. } => &[Right::Pull],
        RepositoryCall::ManifestWrite { .. }
        | RepositoryCall::UploadStart { .. }
        | RepositoryCall::Mount { .. }
        | RepositoryCall::Upload { .. } => &[Right::Push],
        RepositoryCall::ManifestDelete { .. } | RepositoryCall::BlobDelete { .. } => {
            &[Right::Delete]
        }
    }
}
