//! Where the keys come from that sign requests to AWS. Read anew for each exchange, so that keys may
//! be rotated.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::container::ContainerService;
use super::sign::SigningKeys;
use crate::config::secret::SecretSource;
use crate::config::upstream::{AwsKeys, UpstreamUrl};
use crate::state_file::run_blocking;
use crate::upstream::login::error::LoginError;
use crate::upstream::login::hosts::ServiceUrl;
use crate::upstream::login::service::{ServiceAnswer, ServiceClient, ServiceRequest};

/// Where the keys come from.
pub(super) struct KeySource {
    keys: AwsKeys,
    /// The token service, or that of the machine.
    endpoint: UpstreamUrl,
    credential: String,
    /// Where the environment names it.
    container: Option<ContainerService>,
}

impl KeySource {
    pub(super) fn new(keys: AwsKeys, endpoint: UpstreamUrl, credential: &str) -> Self {
        Self {
            keys,
            endpoint,
            credential: credential.to_owned(),
            container: None,
        }
    }

    /// With the service of the container in which moorgate runs.
    pub(super) fn of_container(self, container: Option<ContainerService>) -> Self {
        Self { container, ..self }
    }

    pub(super) async fn keys(&self, client: &ServiceClient) -> Result<SigningKeys, LoginError> {
        match &self.keys {
            AwsKeys::Static { .. } | AwsKeys::Profile { .. } => {
                let keys = self.keys.clone();
                run_blocking(move || stored(&keys))
                    .await
                    .map_err(|why| self.unreadable(why))
            }
            AwsKeys::WebIdentity { role, token_file } => {
                let path = token_file.clone();
                let token = run_blocking(move || SecretSource::of_file(path).read()).await;
                let token = token.map_err(|cause| self.unreadable(format!("its token {cause}")))?;
                self.assume(client, role, &token).await
            }
            AwsKeys::InstanceRole => self.of_machine(client).await,
        }
    }

    fn unreadable(&self, why: String) -> LoginError {
        LoginError::Unreadable {
            credential: self.credential.clone(),
            why,
        }
    }

    fn unusable(&self, why: &'static str) -> LoginError {
        LoginError::Unusable {
            service: self.endpoint.to_string(),
            why,
        }
    }

    fn url(&self, path: &str) -> Result<ServiceUrl, LoginError> {
        let url = ServiceUrl::new(&self.endpoint, path);
        url.ok_or_else(|| self.unusable("its path is not valid"))
    }

    fn success(&self, answer: ServiceAnswer) -> Result<Bytes, LoginError> {
        if answer.status == StatusCode::OK {
            return Ok(answer.body);
        }
        Err(LoginError::ExchangeRefused {
            service: self.endpoint.to_string(),
            credential: self.credential.clone(),
            answer: answer.status.to_string(),
        })
    }

    /// AssumeRoleWithWebIdentity, which is not signed.
    async fn assume(
        &self,
        client: &ServiceClient,
        role: &str,
        token: &SecretString,
    ) -> Result<SigningKeys, LoginError> {
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleSessionName", "moorgate"),
            ("RoleArn", role),
            ("WebIdentityToken", token.expose_secret()),
        ];
        let request = ServiceRequest::form(self.url("/")?, &fields);
        let body = self.success(client.send(request).await?)?;
        let keys = std::str::from_utf8(&body).ok().and_then(|xml| {
            Some(SigningKeys {
                access_key_id: element(xml, "AccessKeyId")?.to_owned(),
                secret_access_key: element(xml, "SecretAccessKey")?.into(),
                session_token: Some(element(xml, "SessionToken")?.into()),
            })
        });
        keys.ok_or_else(|| self.unusable("it has no keys"))
    }

    /// Those of the container, or of the machine by version 2 of its metadata service.
    async fn of_machine(&self, client: &ServiceClient) -> Result<SigningKeys, LoginError> {
        if let Some(container) = &self.container {
            let mut request = ServiceRequest::get(container.url.clone());
            let token = container.authorization().await;
            if let Some(token) = token.map_err(|why| self.unreadable(why))? {
                request.headers.insert(header::AUTHORIZATION, token);
            }
            let body = client.send(request).await?;
            return self.key_document(&self.success(body)?);
        }
        let mut request = ServiceRequest::get(self.url("/latest/api/token")?);
        request.method = Method::PUT;
        let seconds = HeaderValue::from_static("60");
        let name = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
        request.headers.insert(name, seconds);
        let session = self.success(client.send(request).await?)?;
        let session = HeaderValue::from_maybe_shared(session)
            .map_err(|_| self.unusable("its session token does not fit into a header"))?;
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let roles = self.get(client, ROLES, Some(&session)).await?;
        let role = std::str::from_utf8(&roles).ok();
        let role = role.and_then(|roles| roles.lines().next()).map(str::trim);
        let role = role.filter(|role| !role.is_empty() && role.bytes().all(is_of_role));
        let role = role.ok_or_else(|| self.unusable("the machine has no role"))?;
        self.document(client, &format!("{ROLES}{role}"), Some(&session))
            .await
    }

    async fn get(
        &self,
        client: &ServiceClient,
        path: &str,
        session: Option<&HeaderValue>,
    ) -> Result<Bytes, LoginError> {
        let mut request = ServiceRequest::get(self.url(path)?);
        if let Some(session) = session {
            let name = HeaderName::from_static("x-aws-ec2-metadata-token");
            request.headers.insert(name, session.clone());
        }
        self.success(client.send(request).await?)
    }

    async fn document(
        &self,
        client: &ServiceClient,
        path: &str,
        session: Option<&HeaderValue>,
    ) -> Result<SigningKeys, LoginError> {
        self.key_document(&self.get(client, path, session).await?)
    }

    fn key_document(&self, body: &[u8]) -> Result<SigningKeys, LoginError> {
        let document: KeyDocument =
            serde_json::from_slice(body).map_err(|_| self.unusable("it has no keys"))?;
        Ok(SigningKeys {
            access_key_id: document.access_key_id,
            secret_access_key: document.secret_access_key.into(),
            session_token: Some(document.token.into()),
        })
    }
}

/// Characters of the names of roles.
fn is_of_role(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte)
}

/// The keys of a machine's role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyDocument {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// The text of an element without attributes, as AWS writes them.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty() && !text.contains(['<', '&']))
}

fn stored(keys: &AwsKeys) -> Result<SigningKeys, String> {
    match keys {
        AwsKeys::Static {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let read = |secret: &SecretSource| secret.read().map_err(|error| format!("it {error}"));
            Ok(SigningKeys {
                access_key_id: read(access_key_id)?.expose_secret().to_owned(),
                secret_access_key: read(secret_access_key)?,
                session_token: session_token.as_ref().map(read).transpose()?,
            })
        }
        AwsKeys::Profile { name, file } => {
            let path = file.clone().or_else(usual_file);
            let path = path.ok_or("it names no file, and HOME is not set")?;
            let text = SecretSource::of_file(path).read_whole();
            let text = text.map_err(|error| format!("it {error}"))?;
            profile(text.expose_secret(), name)
                .ok_or_else(|| format!("the file has no keys for the profile `{name}`"))
        }
        AwsKeys::WebIdentity { .. } | AwsKeys::InstanceRole => Err("it has no file".to_owned()),
    }
}

/// The shared credentials file.
pub(in crate::upstream::login) fn usual_file() -> Option<PathBuf> {
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".aws/credentials"));
    named.or_else(home)
}

/// The keys of a profile in a shared credentials file.
fn profile(text: &str, name: &str) -> Option<SigningKeys> {
    let (mut id, mut secret, mut session) = <(Option<&str>, Option<&str>, Option<&str>)>::default();
    let mut is_inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            is_inside = section.strip_suffix(']').map(str::trim) == Some(name);
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| is_inside) else {
            continue;
        };
        let value = Some(value.trim()).filter(|value| !value.is_empty());
        match key.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => session = value,
            _ => {}
        }
    }
    Some(SigningKeys {
        access_key_id: id?.to_owned(),
        secret_access_key: secret?.into(),
        session_token: session.map(Into::into),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_out_of_many() {
        let text = "# comment\n[default]\naws_access_key_id=A\naws_secret_access_key = B=\n\
                    [other]\r\naws_access_key_id = C\r\naws_secret_access_key = D\r\n\
                    aws_session_token = E\r\n[empty]\naws_access_key_id = F\n";
        let read = |name| {
            profile(text, name).map(|keys| {
                let secret = keys.secret_access_key.expose_secret().to_owned();
                let session = keys
                    .session_token
                    .map(|token| token.expose_secret().to_owned());
                (keys.access_key_id, secret, session)
            })
        };
        assert_eq!(read("default"), Some(("A".into(), "B=".into(), None)));
        let other = ("C".into(), "D".into(), Some("E".into()));
        assert_eq!(read("other"), Some(other));
        assert_eq!(read("empty"), None);
        assert_eq!(read("none"), None);
    }

    #[test]
    fn elements_are_read_and_markup_is_not() {
        let xml = "<R><AccessKeyId>A</AccessKeyId><SessionToken> B= </SessionToken><X><Y/></X></R>";
        assert_eq!(element(xml, "AccessKeyId"), Some("A"));
        assert_eq!(element(xml, "SessionToken"), Some("B="));
        assert_eq!(element(xml, "X"), None);
        assert_eq!(element(xml, "SecretAccessKey"), None);
    }
}
