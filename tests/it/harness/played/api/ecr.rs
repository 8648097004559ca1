//! The API of Amazon ECR: actions of JSON 1.1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::answer::PlayedAnswer;
use super::super::grants::GrantUse;
use super::super::{DeletionGuard, Played};
use super::aws::{aws_answer, aws_error};

impl Played {
    pub(super) fn ecr_action(&mut self, action: &str, input: &Value) -> PlayedAnswer {
        let name = input["repositoryName"].as_str().unwrap_or_default();
        match action {
            "GetAuthorizationToken" => self.ecr_token(),
            "CreateRepository" => self.create_ecr_repository(name),
            "DescribeRepositories" => self.describe_ecr_repositories(input),
            _ if self.contents.repository(name).is_none() => {
                let message = format!(
                    "The repository with name '{name}' does not exist in the registry with id \
                     '{ACCOUNT}'"
                );
                aws_error("RepositoryNotFoundException", &message)
            }
            "ListImages" => self.list_ecr_images(name),
            "BatchDeleteImage" => self.delete_ecr_images(name, input),
            _ => aws_error("UnknownOperationException", ""),
        }
    }

    fn ecr_token(&mut self) -> PlayedAnswer {
        let life = self.switches.token_life;
        let ends = self.now() + life;
        let password = self
            .grants
            .issue(GrantUse::Password, Vec::new(), false, ends);
        let now = std::time::SystemTime::now();
        let expires = (now + life).duration_since(std::time::UNIX_EPOCH).unwrap();
        let data = json!({
            "authorizationToken": STANDARD.encode(format!("AWS:{password}")),
            "expiresAt": expires.as_secs_f64(),
            "proxyEndpoint": format!("https://{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"),
        });
        aws_answer(200, &json!({ "authorizationData": [data] }))
    }

    fn create_ecr_repository(&mut self, name: &str) -> PlayedAnswer {
        if self.contents.repository(name).is_some() {
            let message = format!(
                "The repository with name '{name}' already exists in the registry with id \
                 '{ACCOUNT}'"
            );
            return aws_error("RepositoryAlreadyExistsException", &message);
        }
        self.contents.make_repository(name);
        aws_answer(200, &json!({ "repository": described(name) }))
    }

    fn describe_ecr_repositories(&self, input: &Value) -> PlayedAnswer {
        let wanted = input["repositoryNames"].as_array();
        let names = self.contents.names();
        let is_wanted = |name: &&String| wanted.is_none_or(|wanted| wanted.contains(&json!(name)));
        let found: Vec<_> = names
            .iter()
            .filter(is_wanted)
            .map(|n| described(n))
            .collect();
        if let Some(wanted) = wanted.filter(|wanted| wanted.len() != found.len()) {
            let message = format!("One of {wanted:?} does not exist");
            return aws_error("RepositoryNotFoundException", &message);
        }
        aws_answer(200, &json!({ "repositories": found }))
    }

    fn list_ecr_images(&self, name: &str) -> PlayedAnswer {
        let repository = self.contents.repository(name).expect("it was looked up");
        let images = repository.manifests.keys().flat_map(|digest| {
            let tags = repository.tags_of(digest);
            if tags.is_empty() {
                return vec![json!({ "imageDigest": digest })];
            }
            let tagged = |tag| json!({"imageDigest": digest, "imageTag": tag});
            tags.into_iter().map(tagged).collect()
        });
        aws_answer(200, &json!({ "imageIds": images.collect::<Vec<_>>() }))
    }

    fn delete_ecr_images(&mut self, name: &str, input: &Value) -> PlayedAnswer {
        let ids = input["imageIds"].as_array().cloned().unwrap_or_default();
        if ids.is_empty() || ids.len() > 100 {
            let message = "Invalid parameter at 'imageIds' failed to satisfy constraint: 'Member \
                           must have length between 1 and 100'";
            return aws_error("InvalidParameterException", message);
        }
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in ids {
            match self.delete_ecr_image(name, &id) {
                Ok(images) => deleted.extend(images),
                Err((code, reason)) => failures.push(json!({
                    "imageId": id,
                    "failureCode": code,
                    "failureReason": reason,
                })),
            }
        }
        aws_answer(200, &json!({"imageIds": deleted, "failures": failures}))
    }

    fn delete_ecr_image(
        &mut self,
        name: &str,
        id: &Value,
    ) -> Result<Vec<Value>, (&'static str, &'static str)> {
        let guard = |played: &Self, digest: &str| {
            let guards = matches!(played.switches.deletion_guard, DeletionGuard::Referenced(_));
            guards && played.guarded(name, digest).is_some()
        };
        let repository = self.contents.repository(name).expect("it was looked up");
        let (tag, digest) = (id["imageTag"].as_str(), id["imageDigest"].as_str());
        let reference = tag.or(digest).ok_or((
            "MissingDigestAndTag",
            "Invalid request parameters: both tag and digest cannot be null",
        ))?;
        let found = repository
            .resolve(reference)
            .ok_or(("ImageNotFound", "Requested image not found"))?;
        if tag.is_some() && digest.is_some_and(|digest| digest != found) {
            return Err(("ImageTagDoesNotMatchDigest", "Tag does not match digest"));
        }
        let tags = repository.tags_of(&found);
        // The image goes with its last tag.
        let is_gone = tag.is_none() || tags.len() == 1;
        if is_gone && guard(self, &found) {
            let reason = "Requested image referenced by manifest list";
            return Err(("ImageReferencedByManifestList", reason));
        }
        let untagged: Vec<_> = match tag {
            Some(tag) => vec![tag.to_owned()],
            None => tags,
        };
        let repository = self.contents.make_repository(name);
        for tag in &untagged {
            repository.tags.remove(tag);
        }
        if is_gone {
            repository.remove(&found);
        }
        let mut images: Vec<_> = untagged
            .iter()
            .map(|tag| json!({"imageDigest": found, "imageTag": tag}))
            .collect();
        if images.is_empty() {
            images.push(json!({ "imageDigest": found }));
        }
        Ok(images)
    }
}

fn described(name: &str) -> Value {
    json!({
        "repositoryArn": format!("arn:aws:ecr:eu-central-1:{ACCOUNT}:repository/{name}"),
        "registryId": ACCOUNT,
        "repositoryName": name,
        "repositoryUri": format!("{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/{name}"),
        "imageTagMutability": "MUTABLE",
    })
}

const ACCOUNT: &str = "123456789012";
