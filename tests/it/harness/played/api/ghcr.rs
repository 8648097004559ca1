//! The packages of GitHub's REST API: each version is a manifest.

use http::Method;
use serde_json::{Value, json};

use super::super::answer::PlayedAnswer;
use super::super::requests::decoded;
use super::super::{Played, RecordedRequest};
use super::{NumberedPage, components, message};

impl Played {
    /// Owners are organizations, but for those whose name begins with `user-`.
    pub(super) fn github_api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        let Some(user) = self.api_user(request) else {
            return message(401, "Bad credentials");
        };
        let path = components(request);
        if path == ["rate_limit"] {
            return self.github_limits(user.is_admin);
        }
        if let ["users", owner] = path.as_slice() {
            let kind = if is_user(owner) {
                "User"
            } else {
                "Organization"
            };
            return PlayedAnswer::json(200, &json!({"login": owner, "type": kind}));
        }
        let &[kind @ ("orgs" | "users"), owner, "packages", ref rest @ ..] = path.as_slice() else {
            return message(404, "Not Found");
        };
        if (kind == "users") != is_user(owner) {
            return message(404, "Not Found");
        }
        let deletes = request.method == Method::DELETE;
        if deletes && !user.is_admin {
            return message(
                403,
                "You need at least delete:packages scope to delete a package.",
            );
        }
        match rest {
            [] => {
                if request.parameter("package_type").as_deref() != Some("container") {
                    return message(400, "Invalid argument.");
                }
                let names = self.names_in(owner).into_iter();
                let listed = |name: String| json!({"name": name, "package_type": "container"});
                self.github_page(request, names.map(listed).collect())
            }
            ["container", package, "versions"] if !deletes => {
                let name = format!("{owner}/{}", decoded(package));
                match self.github_versions(&name) {
                    Some(versions) => self.github_page(request, versions),
                    None => message(404, "Package not found."),
                }
            }
            ["container", package, "versions", id] if deletes => {
                self.delete_github_version(&format!("{owner}/{}", decoded(package)), id)
            }
            _ => message(404, "Not Found"),
        }
    }

    /// A page with a link to the whole address of the next one.
    fn github_page(&self, request: &RecordedRequest, all: Vec<Value>) -> PlayedAnswer {
        let NumberedPage { entries, next, .. } = self.numbered_page(request, ("per_page", 30), all);
        let answer = PlayedAnswer::json(200, &Value::Array(entries));
        let Some(next) = next else {
            return answer;
        };
        let own = format!("http://{}", self.addresses.api);
        let own = if next.starts_with('/') { &*own } else { "" };
        answer.header(
            "link",
            format!("<{own}{next}>; rel=\"next\", <{own}/last>; rel=\"last\""),
        )
    }

    /// The limit of requests, and the scopes of a classic token in the headers.
    fn github_limits(&self, is_admin: bool) -> PlayedAnswer {
        let scopes = [
            ("pull", "read:packages"),
            ("push", "write:packages"),
            ("delete", "delete:packages"),
        ];
        let has = |action: &str| is_admin || self.switches.rights.contains(&action);
        let own = scopes.iter().filter(|(action, _)| has(action));
        let own: Vec<_> = own.map(|(_, scope)| *scope).collect();
        PlayedAnswer::json(200, &json!({"rate": {"limit": 5000, "remaining": 4999}}))
            .header("x-oauth-scopes", own.join(", "))
            .header("x-ratelimit-limit", "5000")
            .header("x-ratelimit-remaining", "4999")
            .header(
                "github-authentication-token-expiration",
                "2027-01-31 12:00:00 UTC",
            )
    }

    /// The versions of a package, the newest first.
    fn github_versions(&self, name: &str) -> Option<Vec<Value>> {
        let repository = self.contents.repository(name)?;
        let mut versions: Vec<_> = repository
            .manifests
            .iter()
            .map(|(digest, manifest)| {
                let tags = repository.tags_of(digest);
                json!({
                    "id": manifest.id,
                    "name": digest,
                    "metadata": {"package_type": "container", "container": {"tags": tags}},
                })
            })
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version["id"].as_u64()));
        Some(versions)
    }

    fn delete_github_version(&mut self, name: &str, id: &str) -> PlayedAnswer {
        let versions = self.github_versions(name).unwrap_or_default();
        let found = versions
            .iter()
            .find(|version| version["id"].as_u64() == id.parse().ok());
        let Some(version) = found else {
            return message(404, "Package version not found.");
        };
        let tags = |version: &Value| {
            let tags = version["metadata"]["container"]["tags"].as_array();
            tags.map_or(0, Vec::len)
        };
        let tagged = versions.iter().filter(|version| tags(version) > 0).count();
        if tags(version) > 0 && tagged == 1 {
            let text = "You cannot delete the last tagged version of a package. You must delete \
                        the package instead.";
            return message(400, text);
        }
        let digest = version["name"].as_str().expect("a digest").to_owned();
        self.contents.make_repository(name).remove(&digest);
        PlayedAnswer::new(204)
    }
}

fn is_user(owner: &str) -> bool {
    owner.starts_with("user-")
}
