//! What can only be seen by asking, for `moorgate check --live`: whether registries and pages
//! answer, whether the names of the domains are in DNS, and whether they lead to a port where
//! somebody listens.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::certs::library_error::with_sources;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::upstream::{UpstreamAuthorization, UpstreamUrl};
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::credential::Credential;
use crate::upstream::error::UpstreamError;
use crate::upstream::known_product::KnownProduct;
use crate::upstream::login::UpstreamRequest;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;

/// Asks for all domains side by side. Warnings, in the order of the domains: all of it may change
/// without the configuration. `is_running`: whether the listeners should answer.
pub(crate) async fn problems(snapshot: &Snapshot, is_running: bool) -> Problems {
    let mut asked = JoinSet::new();
    for (index, host) in snapshot.domains.iter().enumerate() {
        let host = host.clone();
        asked.spawn(async move { (index, problems_of(&host, is_running).await) });
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(index, _)| *index);
    let mut problems = Problems::default();
    problems.extend(found.into_iter().flat_map(|(_, found)| found));
    problems
}

async fn problems_of(host: &SharedVirtualHost, is_running: bool) -> Vec<Problem> {
    let upstream = async {
        let settings = host.registry.upstream()?;
        let registry = Target {
            host,
            keys: &["upstream", "url"],
            url: &settings.url,
            path: "/v2/",
        };
        let product = Arc::new(KnownProduct::new(settings));
        let credential = Credential::new(settings, &host.timeouts, &product).ok()?;
        let answer = registry.ask(credential).await;
        registry.problem(answer.and_then(|answer| check_registry(answer, &settings.authorization)))
    };
    let browser = async {
        let page = Target {
            host,
            keys: &["browser", "url"],
            url: &host.browser.as_ref()?.url,
            path: "/",
        };
        page.problem(page.ask(Credential::None).await.map(drop))
    };
    let names = async {
        let mut problems = Vec::new();
        for name in host.names().filter(|name| is_in_dns(name)) {
            problems.extend(name_problem(host, name, is_running).await);
        }
        problems
    };
    let (upstream, browser, names) = tokio::join!(upstream, browser, names);
    upstream.into_iter().chain(browser).chain(names).collect()
}

/// Something that must answer over HTTP.
struct Target<'a> {
    host: &'a SharedVirtualHost,
    keys: &'static [&'static str],
    url: &'a UpstreamUrl,
    path: &'static str,
}

/// What a registry said to the first request of every client.
struct RegistryAnswer {
    status: StatusCode,
    wants_tokens: bool,
}

/// What is wrong, and what to do.
type CauseAndHelp = (String, &'static str);

impl Target<'_> {
    async fn ask(&self, credential: Credential) -> Result<RegistryAnswer, CauseAndHelp> {
        let roots = self
            .host
            .registry
            .upstream()
            .and_then(|upstream| upstream.roots.clone());
        let trust = run_blocking(move || Trust::new(roots.as_ref())).await.ok();
        let unusable = |error: &dyn std::error::Error| (error.to_string(), CORRECT);
        let connector =
            Connector::new(self.url.clone(), trust.as_ref()).map_err(|error| unusable(&error))?;
        let timeouts = &self.host.timeouts;
        let upstream = Upstream::new(connector, 1, timeouts.upstream_connect, None);
        let authority = self
            .url
            .host
            .authority(self.url.port, self.url.scheme.default_port());
        let request = Request::get(format!("{}{}", self.url.base_path, self.path))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "moorgate")
            .body(RequestBody::empty())
            .map_err(|error| unusable(&error))?;
        let sending = UpstreamRequest {
            request,
            upload: None,
            limits: TransferLimits::new(timeouts, false),
        };
        let answer = credential.send(&upstream, sending, TokenScope::Registry);
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(RegistryAnswer {
                status: answer.status(),
                wants_tokens: wants_tokens(answer.headers().get(header::WWW_AUTHENTICATE)),
            }),
            Ok(Err(UpstreamError::Login(error))) => Err((error.to_string(), CORRECT)),
            Ok(Err(error)) => Err((with_sources(&error), error.remedy().unwrap_or(CORRECT))),
            Err(_) => Err(("it did not answer in time".to_owned(), SEE_LOG)),
        }
    }

    fn problem(&self, answer: Result<(), CauseAndHelp>) -> Option<Problem> {
        let (what, help) = answer.err()?;
        let message = format!("{}: {what}", self.url);
        Some(Problem::at_key(&self.host.source, self.keys, message, help).warning())
    }
}

fn wants_tokens(challenge: Option<&HeaderValue>) -> bool {
    let challenge = challenge.and_then(|value| value.to_str().ok());
    challenge.is_some_and(|text| text.to_ascii_lowercase().starts_with("bearer"))
}

/// Whether this is what a registry says to moorgate's first request.
fn check_registry(
    answer: RegistryAnswer,
    authorization: &UpstreamAuthorization,
) -> Result<(), CauseAndHelp> {
    let RegistryAnswer {
        status,
        wants_tokens,
    } = answer;
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    match authorization {
        UpstreamAuthorization::Pass if wants_tokens => Err((
            "this registry wants tokens, which clients cannot get through moorgate".to_owned(),
            "set `username` and `password` in [upstream], with which moorgate gets them",
        )),
        UpstreamAuthorization::Login(_) if is_refused => Err((
            format!("this registry refuses moorgate's own login ({status})"),
            "give it the right to use the registry",
        )),
        UpstreamAuthorization::Strip if is_refused => Err((
            format!("this registry demands a login ({status})"),
            "set `username` and `password` in [upstream], or authorization = \"pass\"",
        )),
        UpstreamAuthorization::Pass if is_refused => Ok(()),
        _ if status.is_success() => Ok(()),
        _ => Err((
            format!("no registry answers there: {status} to a request of /v2/"),
            "name the registry itself, with the path before /v2/ if it has one",
        )),
    }
}

/// Whether the name has to be looked up: no address, and none that is always this machine.
fn is_in_dns(name: &HostName) -> bool {
    let text = name.as_str();
    name.ip().is_none() && text != "localhost" && !text.ends_with(".localhost")
}

/// Looks a name up, and connects to where it leads if moorgate runs.
async fn name_problem(
    host: &SharedVirtualHost,
    name: &HostName,
    is_running: bool,
) -> Option<Problem> {
    let key = if *name == host.domain {
        "domain"
    } else {
        "aliases"
    };
    let warn = |message: String, help: &str| {
        Problem::at_key(&host.source, &[key], message, help).warning()
    };
    let addresses = match lookup(name).await {
        Ok(addresses) => addresses,
        Err(cause) => {
            let message = format!("{name} cannot be looked up: {cause}");
            return Some(warn(
                message,
                "add an A or AAAA record, or correct the name",
            ));
        }
    };
    let ports = host.listen.iter().map(|listen| listen.0.port());
    let ports: BTreeSet<u16> = ports.filter(|port| is_running && *port != 0).collect();
    for port in ports {
        for address in &addresses {
            let at = SocketAddr::new(address.ip(), port);
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await;
            let cause = match connected {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            let message = format!("{name} leads to {at}, where nobody can be reached: {cause}");
            let help =
                "let the name lead to this machine, and its firewall and router pass the port";
            return Some(warn(message, help));
        }
    }
    None
}

async fn lookup(name: &HostName) -> Result<Vec<SocketAddr>, String> {
    let name = name.as_str().to_owned();
    let looked_up = run_blocking(move || {
        (name.as_str(), 0)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>)
    });
    match timeout(LOOKUP_TIMEOUT, looked_up).await {
        Ok(Ok(addresses)) if addresses.is_empty() => Err("it has no address".to_owned()),
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

const CORRECT: &str = "correct it and check again";
const SEE_LOG: &str = "see its log, or correct the URL";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
