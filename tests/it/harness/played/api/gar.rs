//! The API of Google Artifact Registry, its token endpoint and the metadata server of a machine.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use super::super::answer::PlayedAnswer;
use super::super::authorization::PlayedUser;
use super::super::grants::GrantUse;
use super::super::requests::decoded;
use super::super::{Played, RecordedRequest};
use super::{components, object};

/// The key of a service account.
#[derive(Default)]
pub struct ServiceAccount {
    /// What its key file says; empty as long as there is none.
    pub key_file: String,
    public_key: Vec<u8>,
    pub is_disabled: bool,
}

impl ServiceAccount {
    /// A new one, whose tokens are exchanged at an address.
    pub fn new(token_uri: &str) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let file = json!({
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "1",
            "private_key": key.serialize_pem(),
            "client_email": CLIENT,
            "token_uri": token_uri,
        });
        Self {
            key_file: file.to_string(),
            public_key: key.public_key_raw().to_vec(),
            is_disabled: false,
        }
    }

    /// Whether it has signed what allows a token now.
    fn has_signed(&self, assertion: &str) -> bool {
        let Some((signed, signature)) = assertion.rsplit_once('.') else {
            return false;
        };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        if key.verify(signed.as_bytes(), &signature).is_err() {
            return false;
        }
        let claims = signed.split('.').nth(1).unwrap_or_default();
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let time = |key: &str| claims[key].as_i64().unwrap_or_default();
        !self.is_disabled
            && claims["iss"] == CLIENT
            && claims["scope"]
                .as_str()
                .is_some_and(|scope| !scope.is_empty())
            && (1..=3600).contains(&(time("exp") - time("iat")))
    }
}

impl Played {
    /// Whether a password is the key file.
    pub fn is_service_account(&self, password: &str) -> Option<PlayedUser> {
        let key = &self.service_account.key_file;
        (!key.is_empty() && key == password).then_some(PlayedUser { is_admin: true })
    }

    pub(super) fn google_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        match (request.method.as_str(), request.path()) {
            ("POST", "/token") => {
                let grant = request.parameter("grant_type");
                let assertion = request.parameter("assertion").unwrap_or_default();
                if grant.as_deref() == Some(JWT_BEARER)
                    && self.service_account.has_signed(&assertion)
                {
                    return self.google_token();
                }
                let error = json!({"error": "invalid_grant", "error_description": "Invalid JWT"});
                return PlayedAnswer::json(400, &error);
            }
            ("GET", METADATA_TOKEN) => {
                let is_disabled = self.service_account.is_disabled;
                if request.header("metadata-flavor") == Some("Google") && !is_disabled {
                    return self.google_token();
                }
                return PlayedAnswer::new(403);
            }
            _ => {}
        }
        if self.api_user(request).is_none() {
            return google_error(401, "UNAUTHENTICATED");
        }
        match components(request).as_slice() {
            ["v1", "projects", project, "locations", _, "repositories"]
                if request.method == Method::POST =>
            {
                let id = request.parameter("repositoryId").unwrap_or_default();
                self.create_google_repository(&format!("{project}/{id}"))
            }
            ["v1", "projects", .., "operations", project, id] => {
                self.contents.make_project(&format!("{project}/{id}"));
                let name = request.path().trim_start_matches("/v1/");
                object(&json!({"name": name, "done": true, "response": {}}))
            }
            [
                "v1",
                "projects",
                project,
                "locations",
                _,
                "repositories",
                repository,
                "packages",
                package,
                "tags",
                tag,
            ] if request.method == Method::DELETE => {
                let package = decoded(package);
                let name = format!("{project}/{repository}/{package}");
                if self.contents.repository(&name).is_none() {
                    return google_error(404, "NOT_FOUND");
                }
                match self.contents.make_repository(&name).tags.remove(*tag) {
                    Some(_) => object(&json!({})),
                    None => google_error(404, "NOT_FOUND"),
                }
            }
            _ => google_error(404, "NOT_FOUND"),
        }
    }

    fn google_token(&mut self) -> PlayedAnswer {
        let life = self.switches.token_life;
        let ends = self.now() + life;
        let token = self.grants.issue(GrantUse::Api, Vec::new(), true, ends);
        object(&json!({
            "access_token": token,
            "expires_in": life.as_secs(),
            "token_type": "Bearer",
        }))
    }

    /// Begins what is done once it is asked for.
    fn create_google_repository(&self, project: &str) -> PlayedAnswer {
        if self.contents.has_project(project) {
            return google_error(409, "ALREADY_EXISTS");
        }
        let name = format!("projects/acme/locations/europe/operations/{project}");
        object(&json!({"name": name, "done": false}))
    }
}

fn google_error(status: u16, kind: &str) -> PlayedAnswer {
    let error = json!({"code": status, "message": "refused", "status": kind});
    PlayedAnswer::json(status, &json!({ "error": error }))
}

const CLIENT: &str = "moorgate@acme.iam.gserviceaccount.com";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const METADATA_TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
