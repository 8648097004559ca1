//! The API of Docker Hub.

use http::Method;
use serde_json::{Value, json};

use super::super::answer::PlayedAnswer;
use super::super::authorization::PlayedUser;
use super::super::grants::GrantUse;
use super::super::{Played, RecordedRequest};
use super::{NumberedPage, components, message, object};

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
                let names = self.names_in(namespace).into_iter();
                let listed = |name: String| json!({"name": name, "namespace": namespace});
                self.hub_page(request, names.map(listed).collect())
                    .header("x-ratelimit-limit", "180")
                    .header("x-ratelimit-remaining", "179")
            }
            ["v2", "repositories", namespace, name, "tags"] if read => {
                let repository = self.contents.repository(&format!("{namespace}/{name}"));
                let Some(repository) = repository else {
                    return message(404, "object not found");
                };
                let tags = repository.tags.iter();
                let tags = tags.map(|(tag, digest)| json!({"name": tag, "digest": digest}));
                self.hub_page(request, tags.collect())
            }
            ["v2", "repositories", namespace, name, "tags", tag]
                if request.method == Method::DELETE && request.path().ends_with('/') =>
            {
                self.delete_hub_tag(user, (&format!("{namespace}/{name}"), tag))
            }
            _ => message(404, "object not found"),
        }
    }

    /// A page with the whole address of the next one.
    fn hub_page(&self, request: &RecordedRequest, all: Vec<Value>) -> PlayedAnswer {
        let NumberedPage {
            entries,
            total,
            next,
        } = self.numbered_page(request, ("page_size", 10), all);
        let own = format!("http://{}", self.addresses.api);
        let next = next.map(|next| match next.starts_with('/') {
            true => format!("{own}{next}"),
            false => next,
        });
        object(&json!({"count": total, "next": next, "previous": null, "results": entries}))
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
