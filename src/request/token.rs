//! The token endpoint: issues tokens with the current rights of a user, who presents a password or
//! a refresh token, or of anonymous clients. Also serves the public keys that verify tokens.

mod form;
mod grant;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;

use super::body::ResponseBody;
use super::context::RequestContext;
use super::rejection::{RefusalReason, Rejection};
use super::site::Site;
use super::target::{TOKEN_PATH, TokenEndpoint};
use super::{admit, authenticate};
use crate::auth::basic::Credentials;
use crate::auth::token::refresh::Holder;
use crate::auth::token::{Bearer, TokenAccess, Tokens};
use crate::auth::verify::VerifyError;
use crate::auth::{Identity, UserName};
use crate::clock;
use crate::config::vhost::TokenSettings;
use crate::upstream::client_body::ClientBody;
use form::{PresentedCredentials, TokenRequest};

/// The token endpoint of a path, if it is one.
pub(crate) fn endpoint(site: &Site, path: &str) -> Option<TokenEndpoint> {
    site.tokens.as_ref()?;
    match path {
        TOKEN_PATH => Some(TokenEndpoint::Token),
        "/.well-known/jwks.json" => Some(TokenEndpoint::Keys),
        _ => None,
    }
}

/// The rejection of a request whose site is not known: for one of the token endpoint it is what
/// clients of that can read.
pub(crate) fn to_endpoint(path: &str, rejection: Rejection) -> Rejection {
    if path == TOKEN_PATH {
        rejection.at_token_endpoint()
    } else {
        rejection
    }
}

/// Answers a request to a token endpoint.
pub(crate) async fn answer(
    cx: &mut RequestContext<'_>,
    endpoint: TokenEndpoint,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    cx.record.at(endpoint);
    let site = cx.site;
    let (Some(tokens), Some(settings)) = (&site.tokens, site.host.auth.mode.tokens()) else {
        return Err(Rejection::no_page());
    };
    match endpoint {
        TokenEndpoint::Keys => keys(tokens, &cx.parts.method),
        TokenEndpoint::Token => {
            let issuer = TokenIssuer {
                cx,
                tokens,
                settings,
            };
            issuer.answer(body).await
        }
    }
    .map_err(Rejection::at_token_endpoint)
}

fn keys(tokens: &Tokens, method: &Method) -> Result<Response<ResponseBody>, Rejection> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Rejection::method_not_allowed("GET, HEAD"));
    }
    // A new key is published an hour before it signs.
    Ok(document(
        tokens.public_keys(),
        *method == Method::HEAD,
        "public, max-age=300",
    ))
}

/// Issues the token of one request.
struct TokenIssuer<'c, 'r> {
    cx: &'c mut RequestContext<'r>,
    tokens: &'r Tokens,
    settings: &'r TokenSettings,
}

/// The response of the distribution project's "Token Authentication Specification".
#[derive(Serialize)]
struct TokenResponse<'a> {
    token: &'a str,
    /// The same under the name of OAuth 2.0 (RFC 6749 §5.1).
    access_token: &'a str,
    token_type: &'static str,
    /// From the moment at which the client reads it. Without an `issued_at`: clients add the two, and
    /// compare a time of this clock with their own.
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

impl TokenIssuer<'_, '_> {
    async fn answer(mut self, body: ClientBody) -> Result<Response<ResponseBody>, Rejection> {
        let request = form::read(self.cx.site, self.cx.conn, &self.cx.parts, body).await?;
        match self.issue(&request).await {
            Err(rejection) if self.cx.parts.method == Method::POST => Err(rejection.after_body()),
            issued => issued,
        }
    }

    async fn issue(&mut self, request: &TokenRequest) -> Result<Response<ResponseBody>, Rejection> {
        let user = self.identify(request).await?;
        self.cx.record.identified(user.as_ref());
        let access = grant::granted(
            &self.cx.site.policy,
            user.as_ref(),
            self.cx.conn.client_address(),
            &request.scopes,
        )
        .await;
        let refresh_token = match (&user, &request.presented) {
            (Some(user), PresentedCredentials::Password(_)) if request.offline => {
                self.refresh_token(user, &request.client).await
            }
            _ => None,
        };
        self.response(user.as_ref(), &access, refresh_token).await
    }

    /// Errors: 401 with a Basic challenge for wrong credentials, and without credentials unless
    /// anonymous access is allowed.
    async fn identify(&self, request: &TokenRequest) -> Result<Option<UserName>, Rejection> {
        let site = self.cx.site;
        match &request.presented {
            PresentedCredentials::Password(credentials) => {
                self.password(credentials).await.map(Some)
            }
            PresentedCredentials::Refresh(token) => self.redeem(token).await.map(Some),
            PresentedCredentials::None if site.host.auth.anonymous.actions().is_empty() => {
                Err(Rejection::unauthorized(site, "log in to use this registry"))
            }
            PresentedCredentials::None => Ok(None),
        }
    }

    async fn password(&self, credentials: &Credentials) -> Result<UserName, Rejection> {
        let verifier = &self.cx.gateway.verifier;
        let budgets = &self.cx.sites.snapshot.failures;
        let entry = admit::login(verifier, self.cx.site, self.cx.conn, budgets, credentials)?;
        match authenticate::authenticate(verifier, self.cx.site, entry).await? {
            Identity::User(user) => Ok(user.name),
            Identity::Anonymous => Err(Rejection::unauthorized(
                self.cx.site,
                "log in to use this registry",
            )),
        }
    }

    /// A known token is accepted whatever failed before. An unknown one may have been issued by
    /// another process: the file is read only for clients with tries left. Where the domain accepts
    /// no refresh tokens, one is no wrong guess: it may be from before.
    async fn redeem(&self, token: &str) -> Result<UserName, Rejection> {
        let Some(lifetime) = self.settings.refresh_lifetime else {
            return Err(Rejection::unauthorized(
                self.cx.site,
                "refresh tokens are not accepted here any more: log in again",
            )
            .because(RefusalReason::InvalidToken));
        };
        if let Some(user) = self.holder(token, lifetime) {
            return Ok(user);
        }
        let verifier = &self.cx.gateway.verifier;
        let domain = self.cx.site.host.domain.as_str();
        let client = self.cx.conn.client_address();
        let budgets = &self.cx.sites.snapshot.failures;
        let admitted = verifier.admit_secret(domain, token, client, budgets);
        admitted.map_err(|error| self.refused(error))?;
        self.tokens
            .refresh_tokens()
            .catch_up(clock::time_of_day())
            .await;
        self.holder(token, lifetime)
            .ok_or_else(|| self.refused(verifier.wrong_secret(domain, token, client, budgets)))
    }

    /// The user of a valid refresh token.
    fn holder(&self, token: &str, lifetime: Duration) -> Option<UserName> {
        let domain = self.cx.site.host.domain.as_str();
        let now = clock::time_of_day();
        let record = self
            .tokens
            .refresh_tokens()
            .redeem(token, domain, lifetime, now)?;
        let users = self.cx.site.users.current();
        let user = users.claim(&record.user).user?;
        (self.tokens.entry_tag(domain, user, &users) == record.entry).then(|| user.clone())
    }

    fn refused(&self, error: VerifyError) -> Rejection {
        if let VerifyError::Refused(refused) = &error {
            admit::log(refused, self.cx.site, self.cx.conn, None);
        }
        match error {
            VerifyError::WrongPassword => Rejection::unauthorized(
                self.cx.site,
                "this refresh token is not valid any more: log in again",
            )
            .because(RefusalReason::InvalidToken),
            VerifyError::Refused(_) => {
                admit::rejection(error, self.cx.site).because(RefusalReason::TooManyFailures)
            }
            VerifyError::Overloaded => admit::rejection(error, self.cx.site),
        }
    }

    /// `None` where the domain issues none, and after an error: clients then use the password again.
    async fn refresh_token(&self, user: &UserName, client: &str) -> Option<Zeroizing<String>> {
        let lifetime = self.settings.refresh_lifetime?;
        let domain = self.cx.site.host.domain.as_str();
        let entry = self
            .tokens
            .entry_tag(domain, user, &self.cx.site.users.current());
        let holder = Holder {
            domain,
            user,
            entry: &entry,
            client,
            lifetime,
        };
        match self
            .tokens
            .refresh_tokens()
            .issue(&holder, clock::time_of_day())
            .await
        {
            Ok(token) => Some(token),
            Err(error) => {
                tracing::error!(domain, %user, %error, "refresh token could not be issued");
                None
            }
        }
    }

    async fn response(
        &self,
        user: Option<&UserName>,
        access: &TokenAccess,
        refresh_token: Option<Zeroizing<String>>,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let domain = self.cx.site.host.domain.as_str();
        let now = clock::time_of_day();
        let entry = user.map(|user| {
            self.tokens
                .entry_tag(domain, user, &self.cx.site.users.current())
        });
        let bearer = Bearer {
            domain,
            user: user.zip(entry.as_deref()),
        };
        self.tokens.write_list(bearer, access, now).await;
        let token = self
            .tokens
            .issue(bearer, access, self.settings.lifetime, now)
            .map_err(|error| {
                tracing::error!(domain, %error, "token could not be issued");
                Rejection::token_unavailable()
            })?;
        let scope = access.to_scopes();
        let answer = TokenResponse {
            token: &token,
            access_token: &token,
            token_type: "Bearer",
            expires_in: self.settings.lifetime.as_secs(),
            scope: (scope.len() <= MAX_SCOPE_BYTES).then_some(&scope),
            refresh_token: refresh_token.as_ref().map(|token| token.as_str()),
        };
        let mut text =
            serde_json::to_string(&answer).map_err(|_| Rejection::token_unavailable())?;
        text.push('\n');
        Ok(document(text, false, "no-store"))
    }
}

fn document(
    text: impl Into<Bytes>,
    head_only: bool,
    caching: &'static str,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(text, head_only));
    let length = HeaderValue::from(response.body().own_length());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

/// Longer ones are left out: no client is known that reads them, and the responses that a client
/// does not read take memory.
const MAX_SCOPE_BYTES: usize = 2048;
