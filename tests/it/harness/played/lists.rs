//! Lists of a played registry, in pages.

use serde_json::{Map, Value, json};

use super::answer::{JSON, PlayedAnswer};
use super::authorization::PlayedUser;
use super::contents::PlayedRepository;
use super::{Played, PlayedCatalog, RecordedRequest, Refused};

impl Played {
    pub fn list_repositories(&self, request: &RecordedRequest, user: PlayedUser) -> PlayedAnswer {
        if self.switches.catalog == PlayedCatalog::Absent {
            return PlayedAnswer::no_page();
        }
        let shown = |name: &String| self.shows(name, user.is_admin);
        let names = self.contents.names().into_iter().filter(shown).collect();
        match self.page(request, names) {
            Ok((page, link)) => listed(&json!({ "repositories": page }), link),
            Err(answer) => answer,
        }
    }

    pub fn list_tags(&self, request: &RecordedRequest, name: &str) -> PlayedAnswer {
        let filled = self.contents.repository(name).filter(|repository| {
            self.switches.product == "ecr" || !repository.manifests.is_empty()
        });
        let Some(repository) = filled else {
            let message = "repository name not known to registry";
            let detail = json!({ "name": name });
            return PlayedAnswer::error_about(404, "NAME_UNKNOWN", message, &detail);
        };
        let tags: Vec<_> = repository.tags.keys().cloned().collect();
        let page = if self.switches.pages_tags {
            self.page(request, tags)
        } else {
            Ok((tags, None))
        };
        let (page, link) = match page {
            Ok(page) => page,
            Err(answer) => return answer,
        };
        let mut list = json!({"name": name, "tags": page});
        if self.switches.describes_manifests {
            list["child"] = self.children(name);
            list["manifest"] = described(repository);
        }
        listed(&list, link)
    }

    pub fn list_referrers(&self, name: &str, digest: &str) -> PlayedAnswer {
        if !self.switches.has_referrers {
            return PlayedAnswer::no_page();
        }
        let repository = self.contents.repository(name);
        let referrers: Vec<_> = repository.map_or_else(Vec::new, |found| found.referrers(digest));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers});
        PlayedAnswer::new(200).body(INDEX, index.to_string())
    }

    /// A page of a sorted list, and the link to the next one.
    fn page(
        &self,
        request: &RecordedRequest,
        all: Vec<String>,
    ) -> Result<(Vec<String>, Option<String>), PlayedAnswer> {
        let pages = self.switches.pages;
        let wanted: Option<usize> = request.parameter("n").and_then(|n| n.parse().ok());
        if let Some(n) = wanted.filter(|n| *n > pages.max)
            && let Some(Refused {
                status,
                code,
                message,
            }) = pages.above
        {
            let detail = json!({ "n": n });
            return Err(PlayedAnswer::error_about(status, code, message, &detail));
        }
        let size = wanted.unwrap_or(pages.default).min(pages.max);
        let after = request.parameter("last").unwrap_or_default();
        let mut rest = all.into_iter().filter(|entry| **entry > *after);
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let has_more = rest.next().is_some();
        let link = page.last().filter(|_| has_more).map(|last| {
            let last = last.replace('/', "%2F");
            let own = format!("{}?last={last}&n={size}", request.path());
            let target = self.switches.next_page.clone().unwrap_or(own);
            format!("<{target}>; rel=\"next\"")
        });
        Ok((page, link))
    }

    /// The next components of the repositories below one, as Google lists them.
    fn children(&self, name: &str) -> Value {
        let below = format!("{name}/");
        let names = self.contents.names();
        let children = names.iter().filter_map(|other| other.strip_prefix(&below));
        let mut children: Vec<_> = children.filter_map(|rest| rest.split('/').next()).collect();
        children.dedup();
        json!(children)
    }
}

/// The manifests of a repository, as Google lists them.
fn described(repository: &PlayedRepository) -> Value {
    let manifests = repository.manifests.iter().map(|(digest, manifest)| {
        let about = json!({
            "imageSizeBytes": manifest.bytes.len().to_string(),
            "layerId": "",
            "mediaType": manifest.media_type,
            "tag": repository.tags_of(digest),
            "timeCreatedMs": "0",
            "timeUploadedMs": "1700000000000",
        });
        (digest.clone(), about)
    });
    Value::Object(manifests.collect::<Map<_, _>>())
}

fn listed(list: &Value, link: Option<String>) -> PlayedAnswer {
    let answer = PlayedAnswer::new(200).body(JSON, format!("{list}\n"));
    match link {
        Some(link) => answer.header("link", link),
        None => answer,
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
