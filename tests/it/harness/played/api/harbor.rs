//! The API of Harbor.

use http::Method;
use serde_json::json;

use super::super::answer::PlayedAnswer;
use super::super::requests::decoded;
use super::super::{Played, RecordedRequest};
use super::{NumberedPage, components};

impl Played {
    pub(super) fn harbor_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(user) = self.api_user(request) else {
            return PlayedAnswer::error(401, "UNAUTHORIZED", "unauthorized");
        };
        let path = components(request);
        if path == ["api", "v2.0", "users", "current", "permissions"] {
            return self.harbor_permissions(request);
        }
        let &["api", "v2.0", "projects", ref rest @ ..] = path.as_slice() else {
            return PlayedAnswer::no_page();
        };
        match rest {
            [] if request.method == Method::POST => {
                let input = request.json();
                let name = input["project_name"].as_str().unwrap_or_default();
                if !user.is_admin {
                    return PlayedAnswer::error(403, "FORBIDDEN", "forbidden");
                }
                if !self.contents.make_project(name) {
                    let message = format!("The project named {name} already exists");
                    return PlayedAnswer::error(409, "CONFLICT", &message);
                }
                PlayedAnswer::new(201).header("location", "/api/v2.0/projects/1")
            }
            [] => {
                let projects = self.contents.projects();
                let projects = projects.filter(|name| !name.contains('/'));
                self.harbor_page(request, projects.cloned().collect())
            }
            [project] if self.contents.has_project(project) => {
                PlayedAnswer::json(200, &json!({"name": project, "project_id": 7}))
            }
            [_] => PlayedAnswer::error(404, "NOT_FOUND", "project not found"),
            [project, "repositories"] => {
                let is_closed = self.switches.closed_projects.contains(project);
                if is_closed && !user.is_admin {
                    return PlayedAnswer::error(403, "FORBIDDEN", "forbidden");
                }
                if !self.contents.has_project(project) {
                    let message = format!("project {project} not found");
                    return PlayedAnswer::error(404, "NOT_FOUND", &message);
                }
                let names = self.names_in(project).into_iter();
                let names = names.map(|name| format!("{project}/{name}"));
                self.harbor_page(request, names.collect())
            }
            [
                project,
                "repositories",
                name,
                "artifacts",
                reference,
                "tags",
                tag,
            ] if request.method == Method::DELETE => {
                // Slashes are encoded twice.
                let name = format!("{project}/{}", decoded(&decoded(name)));
                self.delete_harbor_tag(&name, (reference, tag))
            }
            _ => PlayedAnswer::no_page(),
        }
    }

    /// A page of things by their names, with a link to the path of the next one.
    fn harbor_page(&self, request: &RecordedRequest, names: Vec<String>) -> PlayedAnswer {
        let NumberedPage {
            entries,
            total,
            next,
        } = self.numbered_page(request, ("page_size", 10), names);
        let listed = entries.iter().map(|name| json!({ "name": name }));
        let answer = PlayedAnswer::json(200, &listed.collect());
        let answer = answer.header("x-total-count", total.to_string());
        match next {
            Some(next) => answer.header("link", format!("<{next}>; rel=\"next\"")),
            None => answer,
        }
    }

    fn harbor_permissions(&self, request: &RecordedRequest) -> PlayedAnswer {
        if request.parameter("scope").as_deref() != Some("/project/7") {
            return PlayedAnswer::json(200, &json!([]));
        }
        let permissions = [
            ("repository", "pull"),
            ("repository", "push"),
            ("artifact", "delete"),
            ("tag", "delete"),
        ];
        let has = |action: &str| self.switches.rights.contains(&action);
        let own = permissions.iter().filter(|(_, action)| has(action));
        let own = own.map(|(resource, action)| json!({"resource": resource, "action": action}));
        PlayedAnswer::json(200, &own.collect())
    }

    fn delete_harbor_tag(&mut self, name: &str, (reference, tag): (&str, &str)) -> PlayedAnswer {
        let repository = self.contents.repository(name);
        let is_there = repository.is_some_and(|repository| {
            let digest = repository.resolve(reference);
            digest.is_some() && repository.tags.get(tag) == digest.as_ref()
        });
        if !is_there {
            let message = format!("artifact {name}:{tag} not found");
            return PlayedAnswer::error(404, "NOT_FOUND", &message);
        }
        if self.is_immutable(name, tag) {
            return PlayedAnswer::refused(self.switches.immutable_tag, name, tag);
        }
        self.contents.make_repository(name).tags.remove(tag);
        PlayedAnswer::new(200)
    }
}
