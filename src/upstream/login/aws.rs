//! The password of Amazon's registries: its API gives one of 12 hours for a signed request.

pub(super) mod container;
pub(super) mod keys;
pub(super) mod sign;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::LoginError;
use super::hosts::ServiceUrl;
use super::service::{ServiceAnswer, ServiceClient, ServiceRequest};
use super::token::{RenewalPoint, UpstreamToken};
use crate::clock::time_of_day;
use crate::config::upstream::{AwsKeys, Scheme, UpstreamSettings, UpstreamUrl};
use crate::registry::host::HostName;
use crate::upstream::product::api::ApiHeaders;
use crate::upstream::product::ecr_region;
use container::ContainerService;
use keys::KeySource;
use sign::{SigningKeys, SigningScope, UnsignedRequest};

/// A login at one registry of Amazon.
pub(super) struct AwsLogin {
    source: KeySource,
    region: String,
    api: UpstreamUrl,
    credential: String,
    /// What signed the last requests to the API.
    kept: Mutex<Option<KeptKeys>>,
    /// One exchange for keys at a time.
    exchange: tokio::sync::Mutex<()>,
}

/// Keys that sign further requests for a while.
struct KeptKeys {
    keys: Arc<SigningKeys>,
    end: Instant,
}

/// A request to the API, to be signed.
pub(super) struct AwsRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    /// Those that are signed beside the usual ones, in lower case.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Why such a login cannot be set up.
const NO_REGION: &str = "the name of the registry does not tell the region of AWS: write `region` \
                         and `api` in [upstream]";

impl AwsLogin {
    pub(super) fn new(
        settings: &UpstreamSettings,
        keys: &AwsKeys,
        region: Option<&str>,
        endpoint: Option<&UpstreamUrl>,
    ) -> Result<Self, &'static str> {
        let of_host = ecr_region(&settings.url.host);
        let domain = of_host.map_or("amazonaws.com", |(_, domain)| domain);
        let region = region
            .or(of_host.map(|(region, _)| region))
            .ok_or(NO_REGION)?;
        let service = |name: &str| https(&format!("{name}.{region}.{domain}")).ok_or(NO_REGION);
        let container = match keys {
            AwsKeys::InstanceRole => ContainerService::from_environment(environment)?,
            _ => None,
        };
        let usual = match keys {
            AwsKeys::InstanceRole => container::machine_service(),
            _ => service("sts")?,
        };
        let credential = described(keys);
        let source = KeySource::new(
            keys.clone(),
            endpoint.cloned().unwrap_or(usual),
            &credential,
        );
        Ok(Self {
            source: source.of_container(container.map(|found| found.at(endpoint))),
            api: settings
                .api
                .clone()
                .map_or_else(|| service("api.ecr"), Ok)?,
            region: region.to_owned(),
            credential,
            kept: Mutex::new(None),
            exchange: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    /// A password.
    pub(super) async fn exchange(
        &self,
        client: &ServiceClient,
    ) -> Result<UpstreamToken, LoginError> {
        let keys = self.source.keys(client).await?;
        let begun = Instant::now();
        let request = self
            .request(&keys)
            .ok_or_else(|| self.unusable("its address is no URL"))?;
        let ServiceAnswer { status, body, .. } = client.send(request).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        let document: PasswordDocument =
            serde_json::from_slice(&body).map_err(|_| self.unusable("it has no password"))?;
        let data = document.authorization_data.into_iter().next();
        let data = data.ok_or_else(|| self.unusable("it has no password"))?;
        let is_pair = STANDARD
            .decode(&data.authorization_token)
            .is_ok_and(|pair| pair.contains(&b':'));
        let value = HeaderValue::try_from(format!("Basic {}", data.authorization_token)).ok();
        let value = value.filter(|_| is_pair);
        let value = value.ok_or_else(|| self.unusable("its password is not valid"))?;
        let life = life(data.expires_at, time_of_day());
        Ok(UpstreamToken::new(value, begun, life, RenewalPoint::Half))
    }

    fn request(&self, keys: &SigningKeys) -> Option<ServiceRequest> {
        let url = ServiceUrl::new(&self.api, "/")?;
        let host = url
            .origin
            .host
            .authority(url.origin.port, url.origin.scheme.default_port());
        let headers = [("content-type", JSON), ("x-amz-target", TARGET)];
        let signed = self.signed(
            keys,
            &AwsRequest {
                method: &Method::POST,
                authority: &host,
                path: url.target.path(),
                headers: &headers,
                body: BODY,
            },
        )?;
        let mut request = ServiceRequest::get(url);
        request.method = Method::POST;
        request.body = BODY.into();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            request
                .headers
                .insert(name, HeaderValue::from_static(value));
        }
        request.headers.extend(signed);
        Some(request)
    }

    /// The headers that sign a request to the API. Its keys are obtained anew after a while, or once
    /// it has refused them.
    pub(super) async fn authorize(
        &self,
        client: &ServiceClient,
        request: &AwsRequest<'_>,
    ) -> Result<ApiHeaders, LoginError> {
        let (keys, is_new) = self.kept_keys(client).await?;
        let headers = self.signed(&keys, request);
        let headers = headers.ok_or_else(|| self.unusable("its keys do not fit into a header"))?;
        Ok(ApiHeaders { headers, is_new })
    }

    /// The keys, and whether they were obtained now. Others wait for that.
    async fn kept_keys(
        &self,
        client: &ServiceClient,
    ) -> Result<(Arc<SigningKeys>, bool), LoginError> {
        let kept = || {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = kept.as_ref().filter(|kept| Instant::now() < kept.end);
            kept.map(|kept| kept.keys.clone())
        };
        if let Some(keys) = kept() {
            return Ok((keys, false));
        }
        let _guard = self.exchange.lock().await;
        if let Some(keys) = kept() {
            return Ok((keys, false));
        }
        let keys = Arc::new(self.source.keys(client).await?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(KeptKeys {
            keys: keys.clone(),
            end: Instant::now() + KEYS_LIFE,
        });
        Ok((keys, true))
    }

    /// The next request is signed with keys that are obtained anew.
    pub(super) fn forget_keys(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The headers that sign a request, beside those that it has.
    fn signed(&self, keys: &SigningKeys, request: &AwsRequest<'_>) -> Option<HeaderMap> {
        let date = sign::date(time_of_day());
        let mut own = vec![("x-amz-date", date.as_str())];
        let session = keys.session_token.as_ref();
        own.extend(session.map(|token| ("x-amz-security-token", token.expose_secret())));
        let mut headers = [request.headers, &own, &[("host", request.authority)]].concat();
        headers.sort_unstable();
        let unsigned = UnsignedRequest {
            method: request.method.as_str(),
            path: request.path,
            headers: &headers,
            body: request.body,
        };
        let scope = SigningScope {
            region: &self.region,
            service: "ecr",
        };
        let authorization = keys.authorization(&unsigned, &scope, &date);
        let mut signed = HeaderMap::new();
        own.push((header::AUTHORIZATION.as_str(), &authorization));
        for (name, value) in own {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            signed.insert(HeaderName::try_from(name).ok()?, value);
        }
        Some(signed)
    }

    /// What of an error is shown: its type alone. Its text may repeat the signed request.
    fn refused(&self, status: StatusCode, body: &[u8]) -> LoginError {
        let service = self.api.to_string();
        let document: Option<AwsErrorDocument> = serde_json::from_slice(body).ok();
        let kind = document.map(|document| document.kind).unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let is_type = |kind: &str| {
            kind.len() <= MAX_TYPE && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if kind.starts_with("Throttling") {
            let status = StatusCode::TOO_MANY_REQUESTS;
            return LoginError::Unavailable { service, status };
        }
        LoginError::ExchangeRefused {
            service,
            credential: self.credential.clone(),
            answer: match kind {
                kind if !kind.is_empty() && is_type(kind) => format!("{status}, {kind}"),
                _ => status.to_string(),
            },
        }
    }

    fn unusable(&self, why: &'static str) -> LoginError {
        LoginError::Unusable {
            service: self.api.to_string(),
            why,
        }
    }
}

const JSON: &str = "application/x-amz-json-1.1";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const BODY: &[u8] = b"{}";
const MAX_TYPE: usize = 64;
/// Far below the life of temporary keys, and soon enough for those that are rotated.
const KEYS_LIFE: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PasswordDocument {
    authorization_data: Vec<PasswordData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PasswordData {
    authorization_token: String,
    /// In seconds since 1970.
    expires_at: Option<f64>,
}

#[derive(Deserialize)]
struct AwsErrorDocument {
    #[serde(rename = "__type")]
    kind: String,
}

/// The life of a password. Clocks that disagree make it an hour at least.
fn life(expires_at: Option<f64>, now: SystemTime) -> Duration {
    let end = expires_at.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let end = end.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    let life = end.and_then(|end| end.duration_since(now).ok());
    life.unwrap_or_default().max(Duration::from_hours(1))
}

/// The keys in words.
fn described(keys: &AwsKeys) -> String {
    match keys {
        AwsKeys::Static { .. } => "the AWS keys in [upstream.login]".to_owned(),
        AwsKeys::Profile { name, file } => {
            let file = file.clone().or_else(keys::usual_file).unwrap_or_default();
            format!("the AWS profile `{name}` in {}", file.display())
        }
        AwsKeys::WebIdentity { role, .. } => format!("the AWS role `{role}`"),
        AwsKeys::InstanceRole => "the AWS role of this machine".to_owned(),
    }
}

fn https(host: &str) -> Option<UpstreamUrl> {
    Some(UpstreamUrl {
        scheme: Scheme::Https,
        host: HostName::parse(host).ok()?,
        port: Scheme::Https.default_port(),
        base_path: String::new(),
    })
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
