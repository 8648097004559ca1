//! The login at the registry for the product's own API: signatures with its keys, or its tokens.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::RegistryLogin;
use super::aws::AwsRequest;
use super::credential_kind::CredentialKind;
use super::error::LoginError;
use super::scope::TokenScope;
use crate::upstream::product::ApiFuture;
use crate::upstream::product::api::{ApiError, ApiHeaders, ApiLogin, ApiRequest, ApiScope};

impl RegistryLogin {
    /// What the product's own API takes as well; `None` of a user name with a password, which is
    /// sent as it is.
    pub(crate) fn for_api(self: &Arc<Self>) -> Option<Arc<dyn ApiLogin>> {
        match &self.kind {
            CredentialKind::Password(_) => None,
            CredentialKind::Aws(_) | CredentialKind::Entra(_) | CredentialKind::Google(_) => {
                Some(Arc::new(LoginOfApi(self.clone())))
            }
        }
    }
}

/// A login, as the product's own API takes it.
struct LoginOfApi(Arc<RegistryLogin>);

impl ApiLogin for LoginOfApi {
    fn authorize<'a>(&'a self, request: ApiRequest<'a>) -> ApiFuture<'a, ApiHeaders> {
        Box::pin(async move {
            let Self(login) = self;
            let authorized = match &login.kind {
                CredentialKind::Aws(aws) => {
                    let headers: Vec<_> = request
                        .headers
                        .iter()
                        .map(|(name, value)| (name.as_str(), *value))
                        .collect();
                    let request = AwsRequest {
                        method: request.method,
                        authority: request.authority,
                        path: request.path,
                        headers: &headers,
                        body: request.body,
                    };
                    aws.authorize(&login.client, &request)
                        .await
                        .map_err(Arc::new)
                }
                _ => login.bearer(request.scope).await,
            };
            authorized.map_err(ApiError::Login)
        })
    }

    fn refused<'a>(&'a self, scope: ApiScope<'a>, headers: &'a HeaderMap) -> ApiFuture<'a, ()> {
        Box::pin(async move {
            let Self(login) = self;
            if let CredentialKind::Aws(aws) = &login.kind {
                aws.forget_keys();
            } else if let Some(value) = headers.get(header::AUTHORIZATION) {
                login.slot(token_scope(scope)).invalidate(value);
            }
            Ok(())
        })
    }

    fn name(&self) -> &str {
        &self.0.credential
    }
}

impl RegistryLogin {
    async fn bearer(self: &Arc<Self>, scope: ApiScope<'_>) -> Result<ApiHeaders, Arc<LoginError>> {
        let token = self.token(token_scope(scope)).await?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token.value);
        Ok(ApiHeaders {
            headers,
            is_new: token.is_new,
        })
    }
}

fn token_scope(scope: ApiScope<'_>) -> TokenScope<'_> {
    match scope {
        ApiScope::Registry => TokenScope::Registry,
        ApiScope::Repository { name, need } => TokenScope::Repository {
            name: name.as_str(),
            need,
            from: None,
        },
    }
}
