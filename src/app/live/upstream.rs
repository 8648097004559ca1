//! Asks an upstream what it is and what moorgate may do there, by nothing but `GET`, `HEAD` and
//! exchanges of credentials: it changes nothing.

mod conclusions;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::answer::{
    ANSWER_TIMEOUT, CORRECT, CauseAndHelp, SEE_LOG, check_registry, is_without_route, strings,
};
use super::report::UpstreamReport;
use crate::app::site::build_upstream;
use crate::certs::library_error::with_sources;
use crate::config::problem::Problem;
use crate::config::upstream::UpstreamSettings;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::name::RepositoryName;
use crate::request::site::Backend;
use crate::state_file::run_blocking;
use crate::upstream::credential::Credential;
use crate::upstream::error::UpstreamError;
use crate::upstream::login::error::LoginError;
use crate::upstream::login::inspection;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::TokenNeed;
use crate::upstream::product::ability::{self, Ability, AbilitySource, KnownAbility, Possibility};
use crate::upstream::product::api::ApiError;
use crate::upstream::product::inspection::RequestLimit;
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;

/// What the upstream of a domain says; `None` without an upstream.
pub(super) async fn inspect(
    host: &SharedVirtualHost,
    repository: Option<&RepositoryName>,
) -> Option<(UpstreamReport, Vec<Problem>)> {
    let settings = host.registry.upstream()?;
    let built = host.clone();
    let backend = run_blocking(move || build_upstream(&built)).await?;
    let mut inspector = UpstreamInspector {
        host,
        settings,
        backend,
        findings: HashMap::new(),
        limits: Vec::new(),
        problems: Vec::new(),
        repository: None,
        api_credential_expires: None,
        is_silent: false,
    };
    inspector.run(repository).await;
    Some(inspector.report())
}

/// What an answer says of an ability.
enum AbilityFinding {
    /// It works.
    Seen,
    /// The credential has the right, or needs none.
    Granted(&'static str),
    /// The credential lacks a right, in the product's words.
    Denied { right: Option<String>, why: String },
    /// The registry does not have it.
    Absent(String),
    /// No answer says it.
    Open(String),
}

/// A repository to ask about.
#[derive(Clone)]
struct ProbedRepository {
    outside: RepositoryName,
    at_registry: RepositoryName,
    /// Whether somebody named it for this purpose, or an answer did.
    is_certain: bool,
}

/// An answer to a question.
enum UpstreamReply {
    Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
    Refused(Arc<LoginError>),
    /// None that says anything, for a reason.
    None(CauseAndHelp),
}

struct UpstreamInspector<'a> {
    host: &'a SharedVirtualHost,
    settings: &'a UpstreamSettings,
    backend: Backend,
    findings: HashMap<Ability, AbilityFinding>,
    limits: Vec<RequestLimit>,
    problems: Vec<Problem>,
    repository: Option<ProbedRepository>,
    api_credential_expires: Option<String>,
    /// It has not answered once: further questions would take long.
    is_silent: bool,
}

impl UpstreamInspector<'_> {
    async fn run(&mut self, repository: Option<&RepositoryName>) {
        if let Err((cause, help)) = self.ping().await {
            let message = format!("{}: {cause}", self.settings.url);
            let key = match self.settings.others.as_slice() {
                [] => "url",
                _ => "urls",
            };
            self.warn(&["upstream", key], message, &help);
            for ability in Ability::ALL {
                let why = "the registry gave no answer to the login".to_owned();
                self.findings.insert(ability, AbilityFinding::Open(why));
            }
            return;
        }
        self.replicas().await;
        if let Credential::Client = self.backend.credential {
            return;
        }
        let limits = TransferLimits::new(&self.host.timeouts, false);
        // Without an answer, the product is what nothing denies.
        let _ = timeout(ANSWER_TIMEOUT, self.backend.know_product(limits)).await;
        let listed = self.catalog().await;
        self.repository = self.choose(repository, &listed);
        if let Some(probed) = self.repository.clone() {
            let tags = self.tags(&probed).await;
            self.tokens(&probed).await;
            self.manifest(&probed, tags.first().map(String::as_str))
                .await;
        }
        self.api().await;
        self.pull_limit().await;
    }

    /// Asks each of several replicas, whichever has answered before.
    async fn replicas(&mut self) {
        let Some(group) = self.backend.upstream.group().cloned() else {
            return;
        };
        for replica in group.replicas() {
            let limits = TransferLimits::new(&self.host.timeouts, false);
            let answer = replica.ask(replica.request("/v2/"), limits);
            let (cause, help) = match timeout(ANSWER_TIMEOUT, answer).await {
                Ok(Ok(status)) if !status.is_server_error() => continue,
                Ok(Ok(status)) => (format!("it answers {status}"), SEE_LOG),
                Ok(Err(error)) => (with_sources(&error), error.remedy().unwrap_or(CORRECT)),
                Err(_) => ("it did not answer in time".to_owned(), SEE_LOG),
            };
            let message = format!("{}: {cause}", replica.target());
            self.warn(&["upstream", "urls"], message, help);
        }
    }

    /// Asks what every client asks first.
    async fn ping(&mut self) -> Result<(), CauseAndHelp> {
        let reply = self.send(Method::GET, "/v2/", TokenScope::Registry).await;
        match reply {
            UpstreamReply::Answer {
                status, headers, ..
            } => check_registry(status, &headers, &self.settings.authorization),
            UpstreamReply::Refused(error) => Err((error.to_string(), self.login_help(&error))),
            UpstreamReply::None(cause) => Err(cause),
        }
    }

    fn login_help(&self, error: &LoginError) -> String {
        let (product, _) = self.backend.product.get();
        let is_denied = matches!(error, LoginError::ExchangeRefused { answer, .. }
            if answer.contains("AccessDenied"));
        match ability::login_right(product).filter(|_| is_denied) {
            Some(right) => format!("give it {right}"),
            None => CORRECT.to_owned(),
        }
    }

    /// Asks for the list of repositories, in which there may be one to ask about.
    async fn catalog(&mut self) -> Vec<String> {
        if self.known(Ability::Catalog).possibility != Possibility::Yes {
            return Vec::new();
        }
        let reply = self
            .send(Method::GET, "/v2/_catalog?n=100", TokenScope::Catalog)
            .await;
        if let UpstreamReply::Answer { status, body, .. } = &reply
            && status.is_success()
        {
            self.find(Ability::Catalog, AbilityFinding::Seen);
            return strings(body, "repositories");
        }
        let finding = self.refusal(Ability::Catalog, &reply);
        self.find(Ability::Catalog, finding);
        Vec::new()
    }

    /// The named repository, or else the first one that clients can name, or else one that the
    /// access rules name.
    fn choose(
        &self,
        named: Option<&RepositoryName>,
        listed: &[String],
    ) -> Option<ProbedRepository> {
        let names = &self.settings.names;
        let probed = |outside: RepositoryName, is_certain| {
            let at_registry = names.to_registry(&outside).ok()?;
            Some(ProbedRepository {
                outside,
                at_registry,
                is_certain,
            })
        };
        if let Some(named) = named {
            return probed(named.clone(), true);
        }
        let first = listed.iter().find_map(|name| names.to_client(name));
        if let Some(first) = first {
            return probed(first, true);
        }
        let rules = self.host.access.rules.iter().filter(|rule| !rule.deny);
        let written = rules.flat_map(|rule| &rule.repositories);
        let literal = written.filter_map(|pattern| RepositoryName::parse(pattern.as_str()).ok());
        literal.filter_map(|name| probed(name, false)).next()
    }

    /// Lists the tags; some of them.
    async fn tags(&mut self, probed: &ProbedRepository) -> Vec<String> {
        let name = &probed.at_registry;
        let scope = TokenScope::Repository {
            name: name.as_str(),
            need: TokenNeed::Read,
            from: None,
        };
        let target = format!("/v2/{name}/tags/list?n=10");
        let reply = self.send(Method::GET, &target, scope).await;
        match &reply {
            UpstreamReply::Answer { status, body, .. } if status.is_success() => {
                self.find(Ability::List, AbilityFinding::Seen);
                if let Some(probed) = &mut self.repository {
                    probed.is_certain = true;
                }
                return strings(body, "tags");
            }
            UpstreamReply::Answer { status, .. } if *status == StatusCode::NOT_FOUND => {
                if let Some(probed) = &mut self.repository {
                    probed.is_certain = false;
                }
                let why = format!("the registry has no repository {}", probed.outside);
                self.find(Ability::List, AbilityFinding::Open(why));
            }
            _ => {
                if let UpstreamReply::Refused(error) = &reply
                    && matches!(**error, LoginError::NoRepository { .. })
                    && let Some(probed) = &mut self.repository
                {
                    probed.is_certain = false;
                }
                let finding = self.refusal(Ability::List, &reply);
                self.find(Ability::List, finding);
            }
        }
        Vec::new()
    }

    /// Exchanges tokens for what clients do, and compares them with what was wanted.
    async fn tokens(&mut self, probed: &ProbedRepository) {
        let has_own_admin = self.settings.admin.is_some();
        let by_api = |known: KnownAbility| known.possibility == Possibility::Api && has_own_admin;
        for (need, abilities) in [
            (TokenNeed::Read, &[Ability::Pull][..]),
            (TokenNeed::Write, &[Ability::Push]),
            (TokenNeed::Delete, &[Ability::Untag, Ability::Delete]),
        ] {
            for ability in abilities {
                if by_api(self.known(*ability)) {
                    continue;
                }
                let finding = self.token(probed, need, *ability).await;
                self.findings.insert(*ability, finding);
            }
        }
    }

    async fn token(
        &self,
        probed: &ProbedRepository,
        need: TokenNeed,
        ability: Ability,
    ) -> AbilityFinding {
        let Credential::Own(login) = &self.backend.credential else {
            return AbilityFinding::Granted("");
        };
        let name = probed.at_registry.as_str();
        let scope = TokenScope::Repository {
            name,
            need,
            from: None,
        };
        let actions = self.backend.product.dialect().token_actions(need);
        // Rights to metadata come with those to content, where a product has them apart.
        let content: Vec<_> = actions
            .split(',')
            .filter(|action| ["pull", "push", "delete"].contains(action))
            .collect();
        let limits = TransferLimits::new(&self.host.timeouts, false);
        match inspection::inspect(login, &self.backend.upstream, scope, limits).await {
            Ok(None) => self.open(ability, "a password says nothing of rights"),
            Ok(Some(token)) => match token.allows(name, &content.join(",")) {
                Some(true) => AbilityFinding::Granted("its token allows it"),
                Some(false) => self.denied(ability, "its token does not allow it"),
                None => self.open(ability, "its token does not say what it allows"),
            },
            Err(error) => match &*error {
                LoginError::ExchangeRefused { .. } | LoginError::NoRight { .. } => {
                    self.denied(ability, "no token is given for it")
                }
                other => self.open(ability, &other.to_string()),
            },
        }
    }

    /// Asks for a manifest without getting it, and for what refers to it.
    async fn manifest(&mut self, probed: &ProbedRepository, tag: Option<&str>) {
        let name = &probed.at_registry;
        let scope = TokenScope::Repository {
            name: name.as_str(),
            need: TokenNeed::Read,
            from: None,
        };
        let mut digest = EMPTY_DIGEST.to_owned();
        if let Some(tag) = tag {
            let target = format!("/v2/{name}/manifests/{tag}");
            let reply = self.send(Method::HEAD, &target, scope).await;
            match &reply {
                UpstreamReply::Answer {
                    status, headers, ..
                } if status.is_success() => {
                    self.find(Ability::Pull, AbilityFinding::Seen);
                    let sent = headers.get("docker-content-digest");
                    let sent = sent.and_then(|value| value.to_str().ok());
                    digest = sent.map_or(digest, str::to_owned);
                }
                _ => {
                    let finding = self.refusal(Ability::Pull, &reply);
                    self.find(Ability::Pull, finding);
                }
            }
        }
        if !matches!(
            self.findings.get(&Ability::List),
            Some(AbilityFinding::Seen)
        ) {
            return;
        }
        let target = format!("/v2/{name}/referrers/{digest}");
        if let UpstreamReply::Answer { status, .. } = self.send(Method::GET, &target, scope).await {
            if status.is_success() {
                self.find(Ability::Referrers, AbilityFinding::Seen);
            } else if is_without_route(status) {
                let why = "the registry has no such call; clients use tags instead".to_owned();
                self.find(Ability::Referrers, AbilityFinding::Absent(why));
            }
        }
    }

    /// Asks the product's own API about its credential.
    async fn api(&mut self) {
        let Some(api) = self.backend.api.clone().filter(|_| self.backend.has_api()) else {
            return;
        };
        let dialect = self.backend.product.dialect();
        let name = self.repository.as_ref().map(|probed| &probed.at_registry);
        let answer = timeout(ANSWER_TIMEOUT, dialect.inspect(&api, name)).await;
        match answer.unwrap_or(Err(ApiError::TimedOut)) {
            Ok(answer) => {
                for (ability, has_right) in answer.rights {
                    let finding = if has_right {
                        AbilityFinding::Granted("the product's API says so")
                    } else {
                        self.denied(ability, "the product's API says so")
                    };
                    self.findings.insert(ability, finding);
                }
                self.limits.extend(answer.limits);
                self.api_credential_expires = answer.expires;
            }
            // What the project of the robot is called, its own permissions may hide.
            Err(ApiError::Unsupported | ApiError::NotFound | ApiError::Denied(_)) => {}
            Err(error) => {
                let cause = with_sources(&error);
                for ability in Ability::ALL {
                    if self.known(ability).possibility == Possibility::Api {
                        self.findings
                            .insert(ability, AbilityFinding::Open(cause.clone()));
                    }
                }
                self.warn(
                    &["upstream"],
                    cause,
                    "correct `api` or the credential for it",
                );
            }
        }
    }

    /// Asks how many pulls are left, where no answer has said it and a question costs none.
    async fn pull_limit(&mut self) {
        let (product, _) = self.backend.product.get();
        let is_known = self.limits.iter().any(|limit| limit.name == "pulls");
        let Some(name) = ability::limit_repository(product).filter(|_| !is_known) else {
            return;
        };
        let scope = TokenScope::Repository {
            name,
            need: TokenNeed::Read,
            from: None,
        };
        let target = format!("/v2/{name}/manifests/latest");
        drop(self.send(Method::HEAD, &target, scope).await);
    }

    async fn send(&mut self, method: Method, target: &str, scope: TokenScope<'_>) -> UpstreamReply {
        if self.is_silent {
            return UpstreamReply::None(("it did not answer before".to_owned(), String::new()));
        }
        let base_path = &self.settings.url.base_path;
        let request = Request::builder()
            .method(method)
            .uri(format!("{base_path}{target}"))
            .header(header::HOST, self.backend.authority.clone())
            .header(header::USER_AGENT, "moorgate")
            .header(header::ACCEPT, ACCEPT)
            .body(RequestBody::empty());
        let request = match request {
            Ok(request) => request,
            Err(error) => return UpstreamReply::None((error.to_string(), CORRECT.to_owned())),
        };
        let limits = TransferLimits::new(&self.host.timeouts, false);
        let exchange = async {
            let response = self.backend.send(request, None, limits, scope).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok::<_, UpstreamError>((parts, body))
        };
        let reply = match timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok((parts, body))) => {
                if let Some(limit) = RequestLimit::of_registry(&parts.headers) {
                    self.limits.retain(|known| known.name != limit.name);
                    self.limits.push(limit);
                }
                return UpstreamReply::Answer {
                    status: parts.status,
                    headers: parts.headers,
                    body,
                };
            }
            Ok(Err(UpstreamError::Login(error))) => return UpstreamReply::Refused(error),
            Ok(Err(error)) => {
                let help = error.remedy().unwrap_or(CORRECT);
                (with_sources(&error), help.to_owned())
            }
            Err(_) => ("it did not answer in time".to_owned(), SEE_LOG.to_owned()),
        };
        self.is_silent = true;
        UpstreamReply::None(reply)
    }

    fn known(&self, ability: Ability) -> KnownAbility {
        let (product, _) = self.backend.product.get();
        let source = AbilitySource {
            product,
            settings: self.settings,
            has_api: self.backend.has_api(),
        };
        source.get(ability)
    }

    fn warn(&mut self, keys: &[&str], message: String, help: &str) {
        let problem = Problem::at_key(&self.host.source, keys, message, help);
        self.problems.push(problem.warning());
    }
}

/// Of no bytes: a registry lists what refers to any digest.
const EMPTY_DIGEST: &str =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, application/json";
const MAX_BODY_BYTES: usize = 512 * 1024;
