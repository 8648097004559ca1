//! What a refusal of the registry means: another password, token or service may be accepted, and
//! the request is sent once more, or nothing else can be sent.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};

use super::credential_kind::CredentialKind;
use super::error::LoginError;
use super::password::PasswordLogin;
use super::scope::TokenScope;
use super::token::AuthorizationValue;
use super::{RegistryLogin, UpstreamRequest, failed};
use crate::registry::challenge::{self, AuthChallenge};
use crate::upstream::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::product::TokenNeed;
use crate::upstream::replica::SentHead;
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;
use crate::upstream::transfer::TransferLimits;

/// A request that the registry has refused.
pub(super) struct RefusedRequest {
    pub(super) sent: AuthorizationValue,
    /// To be sent once more; `None` if its body is gone.
    pub(super) again: Option<Request<RequestBody>>,
    pub(super) limits: TransferLimits,
}

impl RegistryLogin {
    /// Learns from a refusal, and sends the request once more.
    pub(super) async fn repeat(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        refused: RefusedRequest,
        headers: &HeaderMap,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let RefusedRequest {
            sent,
            again,
            limits,
        } = refused;
        self.product.learn(headers);
        let learned = self
            .learn(upstream, &sent, &challenge::of_response(headers))
            .await;
        if let Err(error) = learned {
            let error = self.explained(upstream, error, &sent, limits).await;
            let error = self.in_scope(error, scope);
            if sent.is_exchanged {
                self.slot(scope).refuse(&sent.value, error.clone());
            }
            return Err(failed(upstream, error));
        }
        if sent.is_exchanged {
            self.slot(scope).invalidate(&sent.value);
        }
        let Some(request) = again else {
            // A fault of nobody: the next request gets another token.
            return Err(UpstreamError::Login(Arc::new(LoginError::Ended)));
        };
        let mut sending = UpstreamRequest {
            request,
            upload: None,
            limits,
        };
        let next = self.authorization(upstream, &sending, scope).await;
        let next = next.map_err(|error| failed(upstream, error))?;
        let value = next.value.clone();
        let headers = sending.request.headers_mut();
        headers.insert(header::AUTHORIZATION, value);
        let response = upstream.send(sending.request, None, limits).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let error = Arc::new(self.refusal_of_token(&challenge::of_response(response.headers())));
        let error = self.explained(upstream, error, &next, limits).await;
        let error = self.in_scope(error, scope);
        if next.is_exchanged {
            self.slot(scope).refuse(&next.value, error.clone());
        }
        Err(failed(upstream, error))
    }

    /// Tells credentials that lack a right from those that are wrong, where the registry does not:
    /// Harbor refuses the catalog and any project that it does not have in the same way. With wrong
    /// ones, nobody gets into a registry that lets nobody in without any.
    async fn explained(
        &self,
        upstream: &Arc<Upstream>,
        error: Arc<LoginError>,
        sent: &AuthorizationValue,
        limits: TransferLimits,
    ) -> Arc<LoginError> {
        if !matches!(*error, LoginError::Refused { .. }) || !self.hides(upstream, limits).await {
            return error;
        }
        let with = upstream.ping_with(sent.value.clone(), limits).await;
        if !with.is_ok_and(|response| response.status() == StatusCode::OK) {
            return error;
        }
        let without = self.ping.answer(upstream, limits).await;
        if !without.is_ok_and(|answer| answer.status == StatusCode::UNAUTHORIZED) {
            return error;
        }
        let credential = self.credential.clone();
        Arc::new(LoginError::NoRight { credential })
    }

    /// Whether the product, once it is known, refuses what is missing like wrong credentials.
    async fn hides(&self, upstream: &Arc<Upstream>, limits: TransferLimits) -> bool {
        let known = self.know_product(upstream, limits).await;
        known.is_ok() && self.product.dialect().capabilities().hides_missing_projects
    }

    /// What the lack of a right to read or write says where the product hides what is missing.
    fn in_scope(&self, error: Arc<LoginError>, scope: TokenScope<'_>) -> Arc<LoginError> {
        let hides = || self.product.dialect().capabilities().hides_missing_projects;
        match (&*error, scope) {
            (
                LoginError::NoRight { credential },
                TokenScope::Repository {
                    need: TokenNeed::Read | TokenNeed::Write,
                    ..
                },
            ) if hides() => Arc::new(LoginError::NoRepository {
                credential: credential.clone(),
            }),
            _ => error,
        }
    }

    /// Learns why the registry has refused what it was sent. Errors: nothing else can be sent.
    async fn learn(
        &self,
        upstream: &Upstream,
        sent: &AuthorizationValue,
        found: &[AuthChallenge<'_>],
    ) -> Result<(), Arc<LoginError>> {
        let CredentialKind::Password(login) = &self.kind else {
            return self.unless_new(sent, found);
        };
        if sent.is_exchanged {
            if let Some(challenge) = bearer(found) {
                self.learn_service(login, upstream, challenge)?;
            } else if found.iter().any(|challenge| challenge.is("basic")) {
                login.learn_basic();
                return Ok(());
            }
            return self.unless_new(sent, found);
        }
        if let Some(challenge) = bearer(found) {
            return self.learn_service(login, upstream, challenge);
        }
        if sent.value != login.basic().value {
            // Another request has read the password again.
            return Ok(());
        }
        match login.refresh(&self.credential).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Arc::new(self.refusal())),
            Err(error) => Err(Arc::new(error)),
        }
    }

    /// Another token may be better, unless this one was obtained for the very request.
    fn unless_new(
        &self,
        sent: &AuthorizationValue,
        found: &[AuthChallenge<'_>],
    ) -> Result<(), Arc<LoginError>> {
        if sent.is_new {
            return Err(Arc::new(self.refusal_of_token(found)));
        }
        Ok(())
    }

    pub(super) fn learn_service(
        &self,
        login: &PasswordLogin,
        upstream: &Upstream,
        challenge: &AuthChallenge<'_>,
    ) -> Result<(), Arc<LoginError>> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let url = self
            .hosts
            .service(realm, !upstream.is_public(), &self.credential)?;
        login.learn_service(url, challenge.parameter("service"));
        Ok(())
    }

    fn refusal(&self) -> LoginError {
        LoginError::Refused {
            credential: self.credential.clone(),
        }
    }

    /// Why the registry refuses a token that it has just issued.
    fn refusal_of_token(&self, found: &[AuthChallenge<'_>]) -> LoginError {
        let error = bearer(found).and_then(|challenge| challenge.parameter("error"));
        if error == Some("insufficient_scope") {
            return LoginError::NoRight {
                credential: self.credential.clone(),
            };
        }
        self.refusal()
    }
}

/// The refused request, to be sent once more.
pub(super) fn again(
    response: &mut Response<UpstreamBody>,
    buffered: Option<(Request<RequestBody>, Bytes)>,
) -> Option<Request<RequestBody>> {
    if let Some((head, bytes)) = buffered {
        return Some(head.map(|_| RequestBody::buffered(bytes)));
    }
    let sent = response.extensions_mut().remove::<SentHead>()?;
    Some(sent.into_request())
}

/// The challenge of a registry that wants tokens and takes no passwords.
pub(super) fn bearer<'a, 'b>(found: &'a [AuthChallenge<'b>]) -> Option<&'a AuthChallenge<'b>> {
    if found.iter().any(|challenge| challenge.is("basic")) {
        return None;
    }
    found.iter().find(|challenge| challenge.is("bearer"))
}
