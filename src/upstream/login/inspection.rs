//! What is known of a login at a registry without showing a secret: whose it is, when its tokens
//! end, and what they allow.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::time::Instant;

use super::RegistryLogin;
use super::bearer::BearerService;
use super::credential_kind::CredentialKind;
use super::error::LoginError;
use super::password::{PasswordLogin, ServiceExchange};
use super::refusal::bearer;
use super::scope::TokenScope;
use super::token::UpstreamToken;
use crate::registry::challenge;
use crate::upstream::Upstream;
use crate::upstream::transfer::TransferLimits;

/// What is known of a token.
#[derive(Debug)]
pub(crate) struct TokenInspection {
    /// What it allows; `None` where neither it nor the answer with it says so.
    granted: Option<Vec<GrantedAccess>>,
}

/// What a token allows with one resource, as the `access` claim of registries has it ("Token
/// Authentication Specification" of the distribution project).
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct GrantedAccess {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

impl TokenInspection {
    /// Whether it allows all of the actions, a list with commas, in a repository; `None` where it
    /// does not say.
    pub(crate) fn allows(&self, repository: &str, actions: &str) -> Option<bool> {
        let granted = self.granted.as_ref()?;
        let granted: Vec<_> = granted
            .iter()
            .filter(|access| access.kind == "repository" && access.name == repository)
            .flat_map(|access| access.actions.iter().map(String::as_str))
            .collect();
        let has = |action: &str| granted.contains(&action) || granted.contains(&"*");
        Some(actions.split(',').all(has))
    }
}

/// The credential in words.
pub(crate) fn credential(login: &RegistryLogin) -> &str {
    &login.credential
}

/// When the token that lives longest ends; `None` while there is none.
pub(crate) fn expires(login: &RegistryLogin) -> Option<Instant> {
    login.tokens.expires()
}

/// Whether the credential is sent as it is, and does not end. `None`: the registry has not shown how
/// it takes it.
pub(crate) fn is_sent_as_is(login: &RegistryLogin) -> Option<bool> {
    match &login.kind {
        CredentialKind::Password(password) => password.wants_tokens().map(|wants| !wants),
        CredentialKind::Aws(_) | CredentialKind::Entra(_) | CredentialKind::Google(_) => {
            Some(false)
        }
    }
}

/// Exchanges a token for a scope, to see what it allows; `None` where the registry has no tokens.
///
/// Errors: why there is none.
pub(crate) async fn inspect(
    login: &Arc<RegistryLogin>,
    upstream: &Upstream,
    scope: TokenScope<'_>,
    limits: TransferLimits,
) -> Result<Option<TokenInspection>, Arc<LoginError>> {
    if let CredentialKind::Password(password) = &login.kind
        && password.wants_tokens() != Some(true)
    {
        let token = Box::pin(offered(login, password, upstream, scope, limits)).await?;
        return Ok(token.map(|token| TokenInspection {
            granted: granted(&token),
        }));
    }
    login.token(scope).await?;
    let token = login.slot(scope).current();
    Ok(token.map(|token| TokenInspection {
        granted: granted(&token),
    }))
}

/// The token of a registry that takes passwords and offers tokens to those who send none.
async fn offered(
    login: &RegistryLogin,
    password: &PasswordLogin,
    upstream: &Upstream,
    scope: TokenScope<'_>,
    limits: TransferLimits,
) -> Result<Option<UpstreamToken>, LoginError> {
    let Ok(response) = upstream.ping(limits).await else {
        return Ok(None);
    };
    let found = challenge::of_response(response.headers());
    let Some(challenge) = bearer(&found) else {
        return Ok(None);
    };
    let realm = challenge.parameter("realm").unwrap_or_default();
    let is_private = !upstream.is_public();
    let url = login.hosts.service(realm, is_private, &login.credential)?;
    let name = challenge.parameter("service").map(str::to_owned);
    let exchange = ServiceExchange {
        service: &BearerService::new(url, name),
        scopes: &scope.texts(login.product.dialect()),
        credential: &login.credential,
    };
    let token = password.exchange_at(&login.client, exchange).await?;
    Ok(Some(token))
}

/// What a token says that it allows: in its claims, or beside it.
fn granted(token: &UpstreamToken) -> Option<Vec<GrantedAccess>> {
    let text = token.authorization.to_str().ok();
    let jwt = text.and_then(|text| text.strip_prefix("Bearer "));
    jwt.and_then(claimed)
        .or_else(|| token.scope.as_deref().map(scoped))
}

/// The claims of a JWT (RFC 7519), which are not verified: the registry does that.
fn claimed(token: &str) -> Option<Vec<GrantedAccess>> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    // No access at all is `null` in services written in Go.
    let access = claims.get("access")?.clone();
    serde_json::from_value::<Option<Vec<GrantedAccess>>>(access)
        .ok()
        .map(Option::unwrap_or_default)
}

/// `repository:a/b:pull,push registry:catalog:*`
fn scoped(scope: &str) -> Vec<GrantedAccess> {
    let one = |text: &str| {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(GrantedAccess {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    };
    scope.split_ascii_whitespace().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspection(granted: Option<Vec<GrantedAccess>>) -> TokenInspection {
        TokenInspection { granted }
    }

    #[test]
    fn claims_and_scopes_say_what_a_token_allows() {
        let claims = r#"{"access":[{"type":"repository","name":"a/b","actions":["pull","push"]},
            {"type":"registry","name":"catalog","actions":["*"]}]}"#;
        let jwt = format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims));
        let by_scope = scoped("repository:a/b:pull,push registry:catalog:* odd");
        for granted in [claimed(&jwt), Some(by_scope)] {
            let token = inspection(granted);
            assert_eq!(token.allows("a/b", "pull"), Some(true));
            assert_eq!(token.allows("a/b", "pull,push"), Some(true));
            assert_eq!(token.allows("a/b", "pull,push,delete"), Some(false));
            assert_eq!(token.allows("a", "pull"), Some(false));
            assert_eq!(token.allows("catalog", "pull"), Some(false));
        }
        let all = inspection(Some(scoped("repository:a:*")));
        assert_eq!(all.allows("a", "pull,delete"), Some(true));
    }

    #[test]
    fn an_opaque_token_says_nothing_and_an_empty_one_denies() {
        assert_eq!(inspection(claimed("opaque")).allows("a", "pull"), None);
        assert_eq!(inspection(claimed("a.b.c")).allows("a", "pull"), None);
        for (claims, allows) in [
            (r#"{"access":null}"#, Some(false)),
            (r#"{"access":[]}"#, Some(false)),
            (r#"{"access":7}"#, None),
            ("{}", None),
        ] {
            let jwt = format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(inspection(claimed(&jwt)).allows("a", "pull"), allows);
        }
    }
}
