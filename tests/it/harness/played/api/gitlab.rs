//! The part of GitLab's API that is about its registry.

use http::Method;
use serde_json::json;

use super::super::answer::PlayedAnswer;
use super::super::requests::decoded;
use super::super::{Played, RecordedRequest};
use super::{components, message};

impl Played {
    pub(super) fn gitlab_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(user) = self.api_user(request) else {
            return message(401, "401 Unauthorized");
        };
        let path = components(request);
        let &["api", "v4", "projects", project, ref rest @ ..] = path.as_slice() else {
            return message(404, "404 Not Found");
        };
        let project = decoded(project);
        if !self.contents.has_project(&project) {
            return message(404, "404 Project Not Found");
        }
        // A repository's number is its place among all.
        let names = self.contents.names();
        let is_own = |name: &str| name == project || name.starts_with(&format!("{project}/"));
        let own = names.iter().enumerate().filter(|(_, name)| is_own(name));
        match rest {
            ["registry", "repositories"] => {
                let listed = own.map(|(id, path)| {
                    let tags = self.contents.repository(path);
                    let tags = tags.into_iter().flat_map(|found| found.tags.keys());
                    let tags: Vec<_> = tags.map(|tag| json!({ "name": tag })).collect();
                    json!({"id": id, "path": path, "tags": tags})
                });
                let page = self.numbered_page(request, ("per_page", 20), listed.collect());
                PlayedAnswer::json(200, &json!(page.entries))
            }
            ["registry", "repositories", id, "tags", tag] if request.method == Method::DELETE => {
                if !user.is_admin {
                    return message(403, "403 Forbidden");
                }
                let found = own.into_iter().find(|(own, _)| own.to_string() == *id);
                let removed = found
                    .and_then(|(_, name)| self.contents.make_repository(name).tags.remove(*tag));
                match removed {
                    Some(_) => PlayedAnswer::json(200, &json!(200)),
                    None => message(404, "404 Tag Not Found"),
                }
            }
            _ => message(404, "404 Not Found"),
        }
    }
}
