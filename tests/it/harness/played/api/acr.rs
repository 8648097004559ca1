//! The API of Azure Container Registry, and what Entra gives for it.

use http::Method;
use serde_json::json;

use super::super::answer::PlayedAnswer;
use super::super::grants::{GrantUse, PlayedScope};
use super::super::{Played, RecordedRequest};
use super::object;

impl Played {
    pub(super) fn acr_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let is_form = request.method == Method::POST;
        match request.path() {
            "/oauth2/token" => self.token(request),
            "/oauth2/exchange" if is_form => self.exchange_entra_token(request),
            path if is_form && path.ends_with("/oauth2/v2.0/token") => self.entra_token(request),
            path => match path.strip_prefix("/acr/v1/") {
                Some(rest) => self.acr_call(request, rest),
                None => PlayedAnswer::no_page(),
            },
        }
    }

    /// Client credentials for a token of Entra.
    fn entra_token(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let own = &self.switches.credentials;
        let has = |key: &str, value: &str| request.parameter(key).as_deref() == Some(value);
        let is_known = has("grant_type", "client_credentials")
            && has("client_id", &own.key_id)
            && has("client_secret", &own.secret_key)
            && request.parameter("scope").is_some();
        if !is_known {
            let error = json!({"error": "invalid_client", "error_description": "AADSTS7000215"});
            return PlayedAnswer::json(401, &error);
        }
        let life = std::time::Duration::from_hours(1);
        let ends = self.now() + life;
        let token = self.grants.issue(GrantUse::Api, Vec::new(), false, ends);
        object(&json!({
            "token_type": "Bearer",
            "expires_in": life.as_secs(),
            "access_token": token,
        }))
    }

    /// A token of Entra for a refresh token of the registry.
    fn exchange_entra_token(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let token = request.parameter("access_token").unwrap_or_default();
        let grant = self.grants.get(&token, self.now());
        let is_fine = grant.is_some_and(|grant| grant.use_ == GrantUse::Api)
            && request.parameter("grant_type").as_deref() == Some("access_token")
            && request.parameter("service").is_some();
        if !is_fine {
            return PlayedAnswer::error(401, "UNAUTHORIZED", "authentication failed");
        }
        let ends = self.now() + std::time::Duration::from_hours(3);
        let token = self
            .grants
            .issue(GrantUse::Refresh, Vec::new(), false, ends);
        object(&json!({ "refresh_token": token }))
    }

    fn acr_call(&mut self, request: &RecordedRequest, path: &str) -> PlayedAnswer {
        let deletes = request.method == Method::DELETE;
        let (name, rest) = path
            .split_once("/_")
            .unwrap_or((path.trim_end_matches("/_tags"), ""));
        let action = if deletes { "delete" } else { "metadata_read" };
        let needed = match path {
            "_catalog" => PlayedScope::catalog(),
            _ => PlayedScope::repository(name, &[action]),
        };
        if let Err(answer) = self.authorized(request, &[needed]) {
            return answer;
        }
        if path == "_catalog" {
            return object(&json!({ "repositories": self.contents.names() }));
        }
        let Some(repository) = self.contents.repository(name) else {
            let message = format!("repository \"{name}\" is not found");
            return PlayedAnswer::error(404, "NAME_UNKNOWN", &message);
        };
        match rest.split_once('/') {
            None if rest == "tags" && !deletes => {
                let tags = repository.tags.iter();
                let tags = tags.map(|(tag, digest)| json!({"name": tag, "digest": digest}));
                object(&json!({"imageName": name, "tags": tags.collect::<Vec<_>>()}))
            }
            Some(("tags", tag)) if deletes => {
                if !repository.tags.contains_key(tag) {
                    let message = "the specified tag does not exist";
                    return PlayedAnswer::error(404, "TAG_UNKNOWN", message);
                }
                if self.is_immutable(name, tag) {
                    return PlayedAnswer::error(405, "UNSUPPORTED", "The operation is disallowed");
                }
                self.contents.make_repository(name).tags.remove(tag);
                PlayedAnswer::new(202)
            }
            _ => PlayedAnswer::no_page(),
        }
    }
}
