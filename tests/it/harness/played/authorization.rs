//! Who may do what at a played registry: its challenge, its token endpoint, and the scope of every
//! call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;

use super::answer::PlayedAnswer;
use super::grants::{GrantUse, PlayedScope};
use super::{
    MissingProject, MissingRepository, Played, PlayedCatalog, PlayedChallenge, RealmServer,
    Recipient, RecordedRequest,
};

/// Who made a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayedUser {
    pub is_admin: bool,
}

/// The credentials of a `Basic` header.
pub fn basic_credentials(request: &RecordedRequest) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The token of a `Bearer` header.
pub fn bearer_token(request: &RecordedRequest) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

impl Played {
    /// The user that a pair of credentials is of.
    pub fn user(&self, (user, password): &(String, String)) -> Option<PlayedUser> {
        let own = &self.switches.credentials;
        if *user == own.admin_user && *password == own.admin_password {
            return Some(PlayedUser { is_admin: true });
        }
        if *user == own.user && *password == own.password {
            return Some(PlayedUser { is_admin: false });
        }
        let user = match user.as_str() {
            "oauth2accesstoken" => self.grants.get(password, self.now()),
            "AWS" => self
                .grants
                .get(password, self.now())
                .filter(|grant| grant.use_ == GrantUse::Password),
            "_json_key" => return self.is_service_account(password),
            "_json_key_base64" => {
                let key = String::from_utf8(STANDARD.decode(password).ok()?).ok()?;
                return self.is_service_account(&key);
            }
            _ => None,
        };
        user.map(|_| PlayedUser { is_admin: false })
    }

    /// Whether a request may do what needs these scopes; who made it.
    pub fn authorized(
        &self,
        request: &RecordedRequest,
        needed: &[PlayedScope],
    ) -> Result<PlayedUser, PlayedAnswer> {
        let switches = &self.switches;
        if switches.challenge == PlayedChallenge::None {
            return Ok(PlayedUser { is_admin: true });
        }
        let takes_basic =
            switches.takes_basic || matches!(switches.challenge, PlayedChallenge::Basic(_));
        if let Some(credentials) = basic_credentials(request).filter(|_| takes_basic) {
            let user = self.user(&credentials);
            let may = |user: &PlayedUser| {
                needed.iter().all(|scope| {
                    self.grantable(scope, *user)
                        .is_some_and(|own| own.covers(scope))
                })
            };
            return user
                .filter(may)
                .ok_or_else(|| self.challenged(request, needed, None));
        }
        let Some(token) = bearer_token(request) else {
            return Err(self.challenged(request, needed, None));
        };
        let Some(grant) = self.grants.get(token, self.now()) else {
            return Err(self.challenged(request, needed, Some("invalid_token")));
        };
        let covers = |needed: &PlayedScope| grant.scopes.iter().any(|scope| scope.covers(needed));
        let may = match grant.use_ {
            GrantUse::Registry => needed.iter().all(covers),
            GrantUse::Api => switches.product == "gar",
            GrantUse::Refresh | GrantUse::Password => false,
        };
        if !may {
            return Err(self.challenged(request, needed, Some("insufficient_scope")));
        }
        Ok(PlayedUser {
            is_admin: grant.is_admin,
        })
    }

    /// A 401 with the challenge of the product.
    fn challenged(
        &self,
        request: &RecordedRequest,
        needed: &[PlayedScope],
        error: Option<&str>,
    ) -> PlayedAnswer {
        let answer =
            PlayedAnswer::error_about(401, "UNAUTHORIZED", "authentication required", &json!(null));
        let basic_only = self.switches.product == "harbor"
            && (request.headers.contains_key("authorization") || request.path() == "/v2/_catalog");
        let challenge = match &self.switches.challenge {
            PlayedChallenge::Bearer { .. } if basic_only => "Basic realm=\"harbor\"".to_owned(),
            PlayedChallenge::None => return answer,
            PlayedChallenge::Basic(parameters) => format!("Basic {parameters}"),
            PlayedChallenge::Bearer { service, .. } => {
                let realm = self.realm(request);
                let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
                let scopes: Vec<_> = needed.iter().map(PlayedScope::to_string).collect();
                if !scopes.is_empty() {
                    challenge += &format!(",scope=\"{}\"", scopes.join(" "));
                }
                if let Some(error) = error {
                    challenge += &format!(",error=\"{error}\"");
                }
                challenge
            }
        };
        answer.header("www-authenticate", challenge)
    }

    /// The address of the token endpoint. Harbor makes it of the `Host` of the request.
    fn realm(&self, request: &RecordedRequest) -> String {
        if let Some(realm) = &self.switches.realm {
            return realm.clone();
        }
        let PlayedChallenge::Bearer { path, at, .. } = self.switches.challenge else {
            return String::new();
        };
        let authority = match at {
            RealmServer::Api => self.addresses.api.to_string(),
            RealmServer::Registry if self.switches.product == "harbor" => {
                request.header("host").unwrap_or_default().to_owned()
            }
            RealmServer::Registry => self.addresses.registry.to_string(),
        };
        format!("http://{authority}{path}")
    }

    /// Whether a request is one to the token endpoint.
    pub fn is_realm(&self, request: &RecordedRequest) -> bool {
        matches!(&self.switches.challenge, PlayedChallenge::Bearer { path, at, .. }
            if request.path() == *path
            && (*at == RealmServer::Registry) == (request.to == Recipient::Registry))
    }

    /// Exchanges credentials for a token: `GET` with `Basic`, or a form.
    pub fn token(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        if let Some(target) = &self.switches.token_redirect {
            return PlayedAnswer::new(307).header("location", target.clone());
        }
        let PlayedChallenge::Bearer { service, .. } = self.switches.challenge else {
            return PlayedAnswer::no_page();
        };
        if let Some(left) = self.switches.tokens_throttled.checked_sub(1) {
            self.switches.tokens_throttled = left;
            let answer = PlayedAnswer::error(429, "TOOMANYREQUESTS", "too many requests");
            return answer.header("retry-after", "7");
        }
        let user = match request.method {
            Method::GET => basic_credentials(request).and_then(|pair| self.user(&pair)),
            // Google's and GitHub's know no other way.
            Method::POST if !["gar", "ghcr", "gitlab", "quay"].contains(&self.switches.product) => {
                self.user_of_form(request)
            }
            _ => return PlayedAnswer::error(404, "UNSUPPORTED", "no such way to get a token"),
        };
        let Some(user) = user else {
            return PlayedAnswer::error(401, "UNAUTHORIZED", "incorrect username or password");
        };
        if request.parameter("service").as_deref() != Some(service) {
            return PlayedAnswer::error(400, "INVALID", "service is not the registry's");
        }
        let written = request.parameters("scope");
        let written: Vec<_> = written.iter().flat_map(|scope| scope.split(' ')).collect();
        let mut granted = Vec::new();
        for text in written.into_iter().filter(|text| !text.is_empty()) {
            let Some(scope) = PlayedScope::parse(text) else {
                return PlayedAnswer::error(400, "INVALID", "scope is malformed");
            };
            let has_delete = scope.actions.iter().any(|action| action == "delete");
            if has_delete && self.switches.refuses_delete_scope {
                return PlayedAnswer::error(400, "INVALID", "scope is malformed");
            }
            granted.extend(self.grantable(&scope, user));
        }
        self.issued(granted, user)
    }

    fn user_of_form(&self, request: &RecordedRequest) -> Option<PlayedUser> {
        match request.parameter("grant_type")?.as_str() {
            "password" => {
                let pair = (
                    request.parameter("username")?,
                    request.parameter("password")?,
                );
                self.user(&pair)
            }
            "refresh_token" => {
                let token = request.parameter("refresh_token")?;
                let grant = self.grants.get(&token, self.now())?;
                (grant.use_ == GrantUse::Refresh).then_some(PlayedUser { is_admin: false })
            }
            _ => None,
        }
    }

    /// A scope as a user gets it, if at all. Harbor gives what the role has, whatever is asked for.
    fn grantable(&self, scope: &PlayedScope, user: PlayedUser) -> Option<PlayedScope> {
        let switches = &self.switches;
        if scope.kind == "registry" {
            let may = match switches.catalog {
                PlayedCatalog::Everybody | PlayedCatalog::Filtered => true,
                PlayedCatalog::Admins => user.is_admin,
                PlayedCatalog::Absent => false,
            };
            return may.then(|| scope.clone());
        }
        let levels = scope.name.split('/').count();
        let is_missing = matches!(switches.missing, MissingRepository::RefusedProject {
            as_: MissingProject::NotGranted, levels } if !self.has_project_of(&scope.name, levels));
        if scope.name.contains('*') || switches.levels.is_some_and(|l| l != levels) || is_missing {
            return None;
        }
        let all = ["pull", "push", "delete"];
        let mut granted = match switches.product {
            "harbor" => PlayedScope::repository(&scope.name, &all),
            _ => scope.clone(),
        };
        if !user.is_admin {
            let may = |action: &String| action == "*" || switches.rights.contains(&action.as_str());
            granted.actions.retain(may);
        }
        (!granted.actions.is_empty()).then_some(granted)
    }

    fn issued(&mut self, scopes: Vec<PlayedScope>, user: PlayedUser) -> PlayedAnswer {
        let life = self.switches.token_life;
        let ends = self.now() + life;
        self.grants.says_scopes = self.switches.says_rights;
        let token = self
            .grants
            .issue(GrantUse::Registry, scopes, user.is_admin, ends);
        let mut answer = match self.switches.product {
            "acr" => json!({ "access_token": token }),
            "dockerhub" => json!({ "token": token, "access_token": token }),
            _ => json!({ "token": token }),
        };
        if self.switches.tells_life {
            answer["expires_in"] = life.as_secs().into();
        }
        PlayedAnswer::json(200, &answer)
    }
}
