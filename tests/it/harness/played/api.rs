//! The API that each product has beside the registry API, and the services that exchange
//! credentials for it. It works on the same contents.

mod acr;
mod aws;
mod dockerhub;
mod ecr;
mod gar;
mod ghcr;
mod gitlab;
mod harbor;
mod quay;

use serde_json::{Value, json};

pub use aws::{aws_error, not_authorized};
pub use gar::ServiceAccount;

use super::answer::PlayedAnswer;
use super::authorization::{PlayedUser, basic_credentials, bearer_token};
use super::grants::GrantUse;
use super::{Played, RecordedRequest};

impl Played {
    pub fn api(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        if self.is_realm(request) {
            return self.token(request);
        }
        if let Some(target) = &self.switches.api_redirect {
            return PlayedAnswer::new(307).header("location", target.clone());
        }
        if let Some(answer) = self.api_throttled() {
            return answer;
        }
        match self.switches.product {
            "acr" => self.acr_api(request),
            "dockerhub" => self.hub_api(request),
            "ecr" => self.aws_api(request),
            "gar" => self.google_api(request),
            "ghcr" => self.github_api(request),
            "gitlab" => self.gitlab_api(request),
            "harbor" => self.harbor_api(request),
            "quay" => self.quay_api(request),
            _ => PlayedAnswer::no_page(),
        }
    }

    /// Whose credentials a request to the API brings: a pair, a token of the API, or a personal one.
    fn api_user(&self, request: &RecordedRequest) -> Option<PlayedUser> {
        if let Some(pair) = basic_credentials(request) {
            return self.user(&pair);
        }
        let token = bearer_token(request).or_else(|| request.header("private-token"))?;
        let own = &self.switches.credentials;
        if token == own.admin_password {
            return Some(PlayedUser { is_admin: true });
        }
        if token == own.password {
            return Some(PlayedUser { is_admin: false });
        }
        let grant = self.grants.get(token, self.now())?;
        let is_admin = grant.is_admin;
        (grant.use_ == GrantUse::Api).then_some(PlayedUser { is_admin })
    }

    /// The repositories of a namespace, without it.
    fn names_in(&self, namespace: &str) -> Vec<String> {
        let below = format!("{namespace}/");
        let names = self.contents.names();
        let names = names.iter().filter_map(|name| name.strip_prefix(&below));
        names.map(str::to_owned).collect()
    }
}

/// A page of a list that the parameters name, counted from 1.
struct NumberedPage<T> {
    entries: Vec<T>,
    total: usize,
    /// Path and query of the next one, or what the test has in its place.
    next: Option<String>,
}

impl Played {
    /// The page that a request names. The API gives so many entries where it does not say how many.
    fn numbered_page<T>(
        &self,
        request: &RecordedRequest,
        (size_key, default): (&str, usize),
        all: Vec<T>,
    ) -> NumberedPage<T> {
        let number = |key: &str| request.parameter(key).and_then(|text| text.parse().ok());
        let size: usize = number(size_key).unwrap_or(default).min(MAX_PAGE);
        let page: usize = number("page").unwrap_or(1);
        let total = all.len();
        let is_endless = self.switches.has_endless_lists;
        let begin = if is_endless {
            0
        } else {
            page.saturating_sub(1) * size
        };
        let has_next = is_endless || total > begin + size;
        let others = request.query().split('&').filter(|pair| !pair.is_empty());
        let others = others.filter(|pair| !pair.starts_with("page="));
        let next: Vec<_> = others
            .map(str::to_owned)
            .chain([format!("page={}", page + 1)])
            .collect();
        let own = format!("{}?{}", request.path(), next.join("&"));
        NumberedPage {
            entries: all.into_iter().skip(begin).take(size).collect(),
            total,
            next: has_next.then(|| self.switches.next_page.clone().unwrap_or(own)),
        }
    }
}

/// The most that all of them give.
const MAX_PAGE: usize = 100;

/// The components of a path, each still encoded.
fn components(request: &RecordedRequest) -> Vec<&str> {
    request.path().trim_matches('/').split('/').collect()
}

/// `{"message": …}`, as most APIs have their errors.
fn message(status: u16, text: &str) -> PlayedAnswer {
    PlayedAnswer::json(status, &json!({ "message": text }))
}

fn object(value: &Value) -> PlayedAnswer {
    PlayedAnswer::json(200, value)
}
