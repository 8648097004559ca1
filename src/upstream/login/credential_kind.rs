//! The kinds of credentials, each with its own exchange.

use std::path::{Path, PathBuf};

use super::aws::{self, AwsLogin};
use super::entra::{EntraApplication, EntraLogin};
use super::google::GoogleLogin;
use super::password::PasswordLogin;
use crate::config::secret::{SecretError, SecretSource};
use crate::config::upstream::{AwsKeys, LoginKind, LoginSettings, UpstreamSettings};

/// The kinds of credentials, each with its own exchange.
pub(super) enum CredentialKind {
    Password(PasswordLogin),
    Aws(Box<AwsLogin>),
    Entra(Box<EntraLogin>),
    Google(GoogleLogin),
}

impl CredentialKind {
    /// With the credential in words.
    pub(super) fn new(
        login: &LoginSettings,
        settings: &UpstreamSettings,
    ) -> Result<(Self, String), LoginSetupError> {
        let LoginSettings {
            kind,
            endpoint,
            region,
        } = login;
        let endpoint = endpoint.as_ref();
        let google = |login: Result<GoogleLogin, _>| {
            let login = login.map_err(LoginSetupError::Address)?;
            let credential = login.credential().to_owned();
            Ok((Self::Google(login), credential))
        };
        match kind {
            LoginKind::Password { username, password } => {
                let login = PasswordLogin::new(username, password);
                let login = login.map_err(LoginSetupError::Secret)?;
                let credential =
                    format!("user `{username}`, the username and password in [upstream]");
                Ok((Self::Password(login), credential))
            }
            LoginKind::Aws { keys } => {
                let login = AwsLogin::new(settings, keys, region.as_deref(), endpoint);
                let login = login.map_err(LoginSetupError::Address)?;
                let credential = login.credential().to_owned();
                Ok((Self::Aws(Box::new(login)), credential))
            }
            LoginKind::ServiceAccount { key } => google(GoogleLogin::of_key(key, endpoint)),
            LoginKind::MetadataServer => google(GoogleLogin::of_machine(endpoint)),
            LoginKind::Entra {
                tenant,
                client_id,
                client_secret,
            } => {
                let application = EntraApplication {
                    tenant,
                    client_id,
                    client_secret,
                };
                let login = EntraLogin::new(settings, &application, endpoint);
                let login = login.map_err(LoginSetupError::Address)?;
                let credential = login.credential().to_owned();
                Ok((Self::Entra(Box::new(login)), credential))
            }
        }
    }
}

/// Why a login cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginSetupError {
    #[error("a secret of [upstream] {0}")]
    Secret(SecretError),
    #[error("{0}")]
    Address(&'static str),
}

/// The files that hold the secrets of a login.
pub(super) fn files(kind: &LoginKind) -> Vec<PathBuf> {
    let of = |secrets: &[Option<&SecretSource>]| {
        let files = secrets.iter().flatten().filter_map(|secret| secret.file());
        files.map(Path::to_owned).collect()
    };
    match kind {
        LoginKind::Password { password, .. } => of(&[Some(password)]),
        LoginKind::Aws { keys } => match keys {
            AwsKeys::Static {
                access_key_id,
                secret_access_key,
                session_token,
            } => of(&[
                Some(access_key_id),
                Some(secret_access_key),
                session_token.as_ref(),
            ]),
            AwsKeys::Profile { file, .. } => file
                .clone()
                .or_else(aws::keys::usual_file)
                .into_iter()
                .collect(),
            AwsKeys::WebIdentity { token_file, .. } => vec![token_file.clone()],
            AwsKeys::InstanceRole => aws::container::token_file().into_iter().collect(),
        },
        LoginKind::Entra { client_secret, .. } => of(&[Some(client_secret)]),
        LoginKind::ServiceAccount { key } => of(&[Some(key)]),
        LoginKind::MetadataServer => Vec::new(),
    }
}
