//! The API of Docker Hub.

use http::Method;
use serde_json::json;

use super::super::answer::PlayedAnswer;
use super::super::authorization::PlayedUser;
use super::super::grants::GrantUse;
use super::super::{Played, RecordedRequest};
use super::{components, message, numbered_page, object};

impl Played {
    pub(super) fn hub_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        if request.path() == "/v2/auth/token" && request.method == Method::POST {
            return self.hub_login(request);
        }
        let Some(user) = self.api_user(request) else {
            return message(401, "unauthorized");
        };
        let read = request.method == Method::GET;
        match components(request).as_slice() {
            ["v2", "repositories", namespace] | ["v2", "namespaces", namespace, "repositories"]
                if read =>
            {
                let names = numbered_page(request, "page_size", self.names_in(namespace));
                let listed = |name: &String| json!({"name": name, "namespace": namespace});
                let results: Vec<_> = names.iter().map(listed).collect();
                object(&json!({"count": results.len(), "next": null, "results": results}))
            }
            ["v2", "repositories", namespace, name, "tags"] if read => {
                let repository = self.contents.repository(&format!("{namespace}/{name}"));
                let Some(repository) = repository else {
                    return message(404, "object not found");
                };
                let tags = repository.tags.iter();
                let tags = tags.map(|(tag, digest)| json!({"name": tag, "digest": digest}));
                let tags = numbered_page(request, "page_size", tags.collect());
                object(&json!({"count": tags.len(), "next": null, "results": tags}))
            }
            ["v2", "repositories", namespace, name, "tags", tag]
                if request.method == Method::DELETE && request.path().ends_with('/') =>
            {
                self.delete_hub_tag(user, (&format!("{namespace}/{name}"), tag))
            }
            _ => message(404, "object not found"),
        }
    }

    fn hub_login(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let input = request.json();
        let text = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
        let Some(user) = self.user(&(text("identifier"), text("secret"))) else {
            return PlayedAnswer::json(
                401,
                &json!({"detail": "Incorrect authentication credentials"}),
            );
        };
        let ends = self.now() + std::time::Duration::from_mins(10);
        let token = self
            .grants
            .issue(GrantUse::Api, Vec::new(), user.is_admin, ends);
        object(&json!({ "access_token": token }))
    }

    fn delete_hub_tag(&mut self, user: PlayedUser, (name, tag): (&str, &str)) -> PlayedAnswer {
        if !user.is_admin {
            return message(403, "access denied: insufficient scope");
        }
        let is_there = self
            .contents
            .repository(name)
            .is_some_and(|repository| repository.tags.contains_key(tag));
        if !is_there {
            return message(404, "tag not found");
        }
        if self.is_immutable(name, tag) {
            return message(403, "tag is immutable and cannot be deleted");
        }
        self.contents.make_repository(name).tags.remove(tag);
        PlayedAnswer::new(204)
    }
}
