//! The API of Quay.

use http::Method;
use serde_json::json;

use super::super::answer::PlayedAnswer;
use super::super::{Played, RecordedRequest};
use super::{message, object};

impl Played {
    pub(super) fn quay_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(path) = request.path().strip_prefix("/api/v1/repository") else {
            return PlayedAnswer::no_page();
        };
        // Tokens of applications only.
        let user = self.api_user(request).filter(|_| {
            request
                .header("authorization")
                .is_some_and(|a| a.starts_with("Bearer "))
        });
        if !user.is_some_and(|user| user.is_admin) {
            return message(401, "Requires authentication");
        }
        if path.is_empty() {
            return self.list_quay_repositories(request);
        }
        let found = path.trim_matches('/').split_once("/tag/");
        let Some((name, tag)) = found.filter(|_| request.method == Method::DELETE) else {
            return message(404, "Not Found");
        };
        let is_there = self
            .contents
            .repository(name)
            .is_some_and(|repository| repository.tags.contains_key(tag));
        if !is_there {
            return message(404, "Not Found");
        }
        if self.is_immutable(name, tag) {
            return PlayedAnswer::refused(self.switches.immutable_tag, name, tag);
        }
        self.contents.make_repository(name).tags.remove(tag);
        PlayedAnswer::new(204)
    }

    fn list_quay_repositories(&self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(namespace) = request.parameter("namespace") else {
            return message(400, "namespace is required");
        };
        let names = self.names_in(&namespace);
        let begin = request.parameter("next_page");
        let begin: usize = begin.and_then(|page| page.parse().ok()).unwrap_or(0);
        let listed = |name: &String| json!({"namespace": namespace, "name": name});
        let page: Vec<_> = names.iter().skip(begin).take(100).map(listed).collect();
        let mut list = json!({ "repositories": page });
        if names.len() > begin + 100 {
            list["next_page"] = json!((begin + 100).to_string());
        }
        object(&list)
    }
}
