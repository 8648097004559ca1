//! Amazon Elastic Container Registry.

use http::{HeaderName, Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ApiCall, ApiClient, ApiError, ApiResponse, readable};
use super::{ApiFuture, Capabilities, Chunks, Deletion, Dialect, TaggedImage, Untagged};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::digest::Digest;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;

pub(super) struct Ecr;

impl Dialect for Ecr {
    /// The API and the token service of the registry's region. Other hosts of the same domain belong
    /// to anybody.
    fn credential_hosts(&self, registry: &HostName) -> Vec<String> {
        let Some((region, domain)) = region(registry) else {
            return Vec::new();
        };
        ["api.ecr", "sts"]
            .iter()
            .map(|service| format!("{service}.{region}.{domain}"))
            .collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            image_goes_with_last_tag: true,
            chunks: Chunks::One,
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }

    fn api_url(&self, registry: &UpstreamUrl) -> Option<UpstreamUrl> {
        let (region, domain) = region(&registry.host)?;
        Some(UpstreamUrl {
            scheme: Scheme::Https,
            host: HostName::parse(&format!("api.ecr.{region}.{domain}")).ok()?,
            port: 443,
            base_path: String::new(),
        })
    }

    /// The image goes with its last tag: that is AWS's rule. One that an index contains stays, and
    /// so would its tag.
    fn untag<'a>(&'a self, api: &'a ApiClient, image: TaggedImage<'a>) -> ApiFuture<'a, Untagged> {
        Box::pin(async move {
            let TaggedImage { repository, tag } = image;
            let id = json!({ "imageTag": tag.as_str() });
            match delete_image(api, repository, &id).await? {
                None => Ok(Untagged::Done),
                Some(failure) if failure.failure_code == REFERENCED => Ok(Untagged::HasOtherTags),
                Some(failure) => Err(failure.error()),
            }
        })
    }

    fn delete_manifest<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> ApiFuture<'a, ()> {
        let id = json!({ "imageDigest": digest.as_str() });
        Box::pin(async move {
            let failure = delete_image(api, repository, &id).await?;
            failure.map_or(Ok(()), |failure| Err(failure.error()))
        })
    }

    fn create<'a>(
        &'a self,
        api: &'a ApiClient,
        repository: &'a RepositoryName,
    ) -> ApiFuture<'a, ()> {
        Box::pin(create_repository(api, repository))
    }
}

/// The region of a registry and the domain of its partition, as its name tells.
pub(crate) fn region(registry: &HostName) -> Option<(&str, &str)> {
    let (_, rest) = parts(registry)?;
    let (region, suffix) = rest.split_once('.')?;
    let domain = match suffix {
        "on.aws" => "amazonaws.com",
        "on.amazonwebservices.com.cn" => "amazonaws.com.cn",
        other => other,
    };
    Some((region, domain))
}

/// The account of a registry, as its name tells.
fn account(registry: &HostName) -> Option<&str> {
    let (account, _) = parts(registry)?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    is_account.then_some(account)
}

/// What stands before and after the name of the service.
fn parts(registry: &HostName) -> Option<(&str, &str)> {
    let name = registry.as_str();
    [".dkr.ecr.", ".dkr.ecr-fips.", ".dkr-ecr.", ".dkr-ecr-fips."]
        .iter()
        .find_map(|service| name.split_once(service))
}

/// The answer of BatchDeleteImage.
#[derive(Deserialize)]
struct DeletedImages {
    #[serde(default)]
    failures: Vec<ImageFailure>,
}

/// Why one image was not deleted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageFailure {
    #[serde(default)]
    failure_code: String,
    #[serde(default)]
    failure_reason: String,
}

/// Deletes a tag, or an image with all of its tags. Returns why it was not.
async fn delete_image(
    api: &ApiClient,
    repository: &RepositoryName,
    id: &Value,
) -> Result<Option<ImageFailure>, ApiError> {
    let mut input = input(api, repository);
    input["imageIds"] = json!([id]);
    let response = send(api, BATCH_DELETE_IMAGE, input).await?;
    if !response.status.is_success() {
        return Err(refusal(&response));
    }
    let DeletedImages { failures } =
        serde_json::from_slice(&response.body).map_err(|_| ApiError::Invalid)?;
    Ok(failures.into_iter().next())
}

impl ImageFailure {
    fn error(self) -> ApiError {
        let Self {
            failure_code,
            failure_reason,
        } = self;
        match failure_code.as_str() {
            "ImageNotFound" | "InvalidImageTag" | "InvalidImageDigest" => ApiError::NotFound,
            "UpstreamTooManyRequests" => ApiError::Throttled(None),
            _ if failure_reason.is_empty() => ApiError::Denied(readable(&failure_code)),
            _ => ApiError::Denied(readable(&failure_reason)),
        }
    }
}

async fn create_repository(api: &ApiClient, repository: &RepositoryName) -> Result<(), ApiError> {
    let response = send(api, CREATE_REPOSITORY, input(api, repository)).await?;
    match response.error_type().as_deref() {
        _ if response.status.is_success() => Ok(()),
        // Somebody else was faster.
        Some("RepositoryAlreadyExistsException") => Ok(()),
        _ => Err(refusal(&response)),
    }
}

/// The repository, with the account where the name of the registry tells it: the keys may be those
/// of another one.
fn input(api: &ApiClient, repository: &RepositoryName) -> Value {
    let mut input = json!({ "repositoryName": repository.as_str() });
    if let Some(account) = account(&api.registry().host) {
        input["registryId"] = account.into();
    }
    input
}

async fn send(
    api: &ApiClient,
    action: &'static str,
    input: Value,
) -> Result<ApiResponse, ApiError> {
    let headers = [
        (header::CONTENT_TYPE, "application/x-amz-json-1.1"),
        (HeaderName::from_static("x-amz-target"), action),
    ];
    let call = ApiCall::new(Method::POST, "/".to_owned());
    api.send(call.with_headers(&headers).with_body(input)).await
}

/// What an error means. All of them have the same status.
fn refusal(response: &ApiResponse) -> ApiError {
    let message = response.message();
    let name = response.error_type();
    match name.as_deref() {
        Some("RepositoryNotFoundException") => ApiError::RepositoryUnknown,
        Some(
            "AccessDeniedException"
            | "InvalidParameterException"
            | "KmsException"
            | "LimitExceededException"
            | "ValidationException",
        ) => ApiError::Denied(message),
        _ => response.refusal(),
    }
}

/// The code of a part of an index.
const REFERENCED: &str = "ImageReferencedByManifestList";
const BATCH_DELETE_IMAGE: &str = "AmazonEC2ContainerRegistry_V20150921.BatchDeleteImage";
const CREATE_REPOSITORY: &str = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_registry_tells_its_account_its_region_and_its_api() {
        for (host, account_id, api) in [
            (
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                Some("123456789012"),
                Some("https://api.ecr.eu-central-1.amazonaws.com"),
            ),
            (
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
                Some("123456789012"),
                Some("https://api.ecr.us-east-1.amazonaws.com"),
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some("123456789012"),
                Some("https://api.ecr.cn-north-1.amazonaws.com.cn"),
            ),
            (
                "123456789012.dkr-ecr.eu-west-1.on.aws",
                Some("123456789012"),
                Some("https://api.ecr.eu-west-1.amazonaws.com"),
            ),
            (
                "mirror.dkr.ecr.eu-west-1.amazonaws.com",
                None,
                Some("https://api.ecr.eu-west-1.amazonaws.com"),
            ),
            ("registry.example.com", None, None),
            ("public.ecr.aws", None, None),
        ] {
            let registry = UpstreamUrl {
                scheme: Scheme::Https,
                host: HostName::parse(host).expect(host),
                port: 443,
                base_path: String::new(),
            };
            assert_eq!(account(&registry.host), account_id, "{host}");
            let found = Ecr.api_url(&registry).map(|url| url.to_string());
            assert_eq!(found.as_deref(), api, "{host}");
        }
    }
}
