//! What can only be seen by asking, for `moorgate check --live`: whether registries and pages
//! answer, what registries let moorgate do, whether the names of the domains are in DNS, and whether
//! they lead to a port where somebody listens.

mod answer;
pub(crate) mod report;
mod upstream;

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http::{Request, header};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::certs::library_error::with_sources;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::upstream::UpstreamUrl;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::state_file::run_blocking;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;
use answer::{ANSWER_TIMEOUT, CORRECT, CauseAndHelp, SEE_LOG};
use report::UpstreamReport;

/// What was found by asking.
pub(crate) struct LiveReport {
    /// Warnings, in the order of the domains: all of it may change without the configuration.
    pub(crate) problems: Problems,
    /// In the order of the domains, of those with an upstream.
    pub(crate) upstreams: Vec<UpstreamReport>,
}

/// What is asked, beside the configuration.
#[derive(Clone)]
pub(crate) struct LiveOptions {
    /// Whether the listeners should answer.
    pub(crate) is_running: bool,
    /// The repository whose rights are of interest, by the name that clients know.
    pub(crate) repository: Option<RepositoryName>,
}

/// Asks for all domains side by side.
pub(crate) async fn inspect(snapshot: &Snapshot, options: &LiveOptions) -> LiveReport {
    let mut asked = JoinSet::new();
    for (index, host) in snapshot.domains.iter().enumerate() {
        let (host, options) = (host.clone(), options.clone());
        asked.spawn(async move { (index, inspect_domain(&host, &options).await) });
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(index, _)| *index);
    let mut live = LiveReport {
        problems: Problems::default(),
        upstreams: Vec::new(),
    };
    for (_, (report, problems)) in found {
        live.upstreams.extend(report);
        live.problems.extend(problems);
    }
    live
}

async fn inspect_domain(
    host: &SharedVirtualHost,
    options: &LiveOptions,
) -> (Option<UpstreamReport>, Vec<Problem>) {
    let browser = async {
        let page = Target {
            host,
            url: &host.browser.as_ref()?.url,
        };
        page.problem(page.send().await)
    };
    let names = async {
        let mut problems = Vec::new();
        for name in host.names().filter(|name| is_in_dns(name)) {
            problems.extend(name_problem(host, name, options.is_running).await);
        }
        problems
    };
    let upstream = upstream::inspect(host, options.repository.as_ref());
    let (upstream, browser, names) = tokio::join!(upstream, browser, names);
    let (report, problems) = upstream.unzip();
    let problems = problems.into_iter().flatten().chain(browser).chain(names);
    (report, problems.collect())
}

/// A page that must answer over HTTP.
struct Target<'a> {
    host: &'a SharedVirtualHost,
    url: &'a UpstreamUrl,
}

impl Target<'_> {
    async fn send(&self) -> Result<(), CauseAndHelp> {
        let roots = self
            .host
            .registry
            .upstream()
            .and_then(|upstream| upstream.roots.clone());
        let trust = run_blocking(move || Trust::new(roots.as_ref())).await.ok();
        let unusable = |error: &dyn std::error::Error| (error.to_string(), CORRECT.to_owned());
        let connector =
            Connector::new(self.url.clone(), trust.as_ref()).map_err(|error| unusable(&error))?;
        let timeouts = &self.host.timeouts;
        let upstream = Upstream::new(connector, 1, timeouts.upstream_connect, None);
        let authority = self
            .url
            .host
            .authority(self.url.port, self.url.scheme.default_port());
        let request = Request::get(format!("{}/", self.url.base_path))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "moorgate")
            .body(RequestBody::empty())
            .map_err(|error| unusable(&error))?;
        let limits = TransferLimits::new(timeouts, false);
        match timeout(ANSWER_TIMEOUT, upstream.send(request, None, limits)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let help = error.remedy().unwrap_or(CORRECT);
                Err((with_sources(&error), help.to_owned()))
            }
            Err(_) => Err(("it did not answer in time".to_owned(), SEE_LOG.to_owned())),
        }
    }

    fn problem(&self, answer: Result<(), CauseAndHelp>) -> Option<Problem> {
        let (what, help) = answer.err()?;
        let message = format!("{}: {what}", self.url);
        let keys = ["browser", "url"];
        Some(Problem::at_key(&self.host.source, &keys, message, help).warning())
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
