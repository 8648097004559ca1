//! The exchange of a user name and a password for a token, at the service that a registry names
//! ("Token Authentication Specification" of the distribution project).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::LoginError;
use super::hosts::ServiceUrl;
use super::service::{ServiceAnswer, ServiceClient, ServiceRequest, pairs};
use super::token::{RenewalPoint, UpstreamToken};

/// The token service of a registry, as its challenge names it.
#[derive(Debug)]
pub(super) struct BearerService {
    pub(super) url: ServiceUrl,
    pub(super) service: Option<String>,
    /// Whether it has refused GET as a method.
    wants_post: AtomicBool,
}

/// A user name and its password, for one exchange.
pub(super) struct PasswordPair<'a> {
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) basic: HeaderValue,
    /// In words, for errors.
    pub(super) credential: &'a str,
}

impl BearerService {
    pub(super) fn new(url: ServiceUrl, service: Option<String>) -> Self {
        Self {
            url,
            service,
            wants_post: AtomicBool::new(false),
        }
    }

    pub(super) fn is(&self, url: &ServiceUrl, service: Option<&str>) -> bool {
        self.url == *url && self.service.as_deref() == service
    }

    /// A token for these scopes.
    pub(super) async fn exchange(
        &self,
        client: &ServiceClient,
        pair: &PasswordPair<'_>,
        scopes: &[String],
    ) -> Result<UpstreamToken, LoginError> {
        let begun = Instant::now();
        let mut answer = None;
        if !self.wants_post.load(Ordering::Relaxed) {
            let got = client.send(self.get(pair, scopes)?).await?;
            let is_refused = matches!(
                got.status,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
            );
            answer = Some(got).filter(|_| !is_refused);
        }
        let ServiceAnswer { status, body, .. } = match answer {
            Some(answer) => answer,
            None => {
                let posted = client.send(self.post(pair, scopes)).await?;
                self.wants_post
                    .store(posted.status.is_success(), Ordering::Relaxed);
                posted
            }
        };
        if !status.is_success() {
            return Err(LoginError::ExchangeRefused {
                service: self.url.origin.to_string(),
                credential: pair.credential.to_owned(),
                answer: status.to_string(),
            });
        }
        token(&body, begun).map_err(|why| self.unusable(why))
    }

    fn get(
        &self,
        pair: &PasswordPair<'_>,
        scopes: &[String],
    ) -> Result<ServiceRequest, LoginError> {
        let service = self.service.iter().map(|service| ("service", service));
        let scopes = scopes.iter().map(|scope| ("scope", scope));
        let fields: Vec<_> = service
            .chain(scopes)
            .map(|(n, v)| (n, v.as_str()))
            .collect();
        let url = self.url.with_query(&pairs(&fields));
        let mut request =
            ServiceRequest::get(url.ok_or_else(|| self.unusable("its address is no URL"))?);
        request
            .headers
            .insert(header::AUTHORIZATION, pair.basic.clone());
        Ok(request)
    }

    /// The form of OAuth 2.0 (RFC 6749 §4.3.2), in which several scopes are one parameter.
    fn post(&self, pair: &PasswordPair<'_>, scopes: &[String]) -> ServiceRequest {
        let scope = scopes.join(" ");
        let mut fields = vec![
            ("grant_type", "password"),
            ("client_id", "moorgate"),
            ("username", pair.username),
            ("password", pair.password),
        ];
        fields.extend(
            self.service
                .iter()
                .map(|service| ("service", service.as_str())),
        );
        if !scope.is_empty() {
            fields.push(("scope", &scope));
        }
        ServiceRequest::form(self.url.clone(), &fields)
    }

    fn unusable(&self, why: &'static str) -> LoginError {
        LoginError::Unusable {
            service: self.url.origin.to_string(),
            why,
        }
    }
}

/// The answer of a token service.
#[derive(Deserialize)]
struct TokenDocument {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
    scope: Option<serde_json::Value>,
}

/// The token of an answer, whose exchange began at this time.
pub(super) fn token(body: &Bytes, begun: Instant) -> Result<UpstreamToken, &'static str> {
    let document: TokenDocument =
        serde_json::from_slice(body).map_err(|_| "it is no JSON with a token")?;
    let candidates = [document.token, document.access_token];
    let token = candidates.into_iter().flatten().find(|t| !t.is_empty());
    let token = token.ok_or("it has no token")?;
    let value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "its token does not fit into a header")?;
    let life = life(document.expires_in.as_ref());
    let mut token = UpstreamToken::new(value, begun, life, RenewalPoint::Late);
    let scope = document.scope.as_ref().and_then(|scope| scope.as_str());
    token.scope = scope.map(Into::into);
    Ok(token)
}

/// The life of a token. The specification says 60 s where an answer does not.
fn life(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    });
    seconds
        .filter(|seconds| *seconds >= 1.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_LIFE)
}

const DEFAULT_LIFE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_life_of_a_token_is_read_in_all_its_forms() {
        for (written, seconds) in [
            (json!(300), 300),
            (json!("300"), 300),
            (json!(300.0), 300),
            (json!(0), 60),
            (json!(-5), 60),
            (json!(1e300), 60),
            (json!("soon"), 60),
            (json!(null), 60),
            (json!([]), 60),
        ] {
            assert_eq!(life(Some(&written)).as_secs(), seconds, "{written}");
        }
        assert_eq!(life(None), DEFAULT_LIFE);
    }

    #[test]
    fn both_names_of_a_token_are_read_and_garbage_is_not() {
        let read = |body: &'static str| {
            let token = token(&Bytes::from_static(body.as_bytes()), Instant::now());
            token.map(|token| token.authorization.to_str().map(str::to_owned).ok())
        };
        for body in [
            r#"{"token":"abc"}"#,
            r#"{"access_token":"abc","expires_in":5,"issued_at":7}"#,
            r#"{"token":"","access_token":"abc"}"#,
        ] {
            assert_eq!(read(body), Ok(Some("Bearer abc".to_owned())), "{body}");
        }
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"token":""}"#,
            r#"{"token":5}"#,
            r#"{"token":"a\nb"}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
