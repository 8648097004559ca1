//! `retention`: begins runs, which may take hours, and says how far they are. The command waits for
//! the end of its run by asking again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::ControlReply;
use crate::app::App;
use crate::app::retention::RetentionJob;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::site::Site;
use crate::retention::run::directory::RunDirectory;
use crate::retention::run::jobs::RunRequest;
use crate::retention::run::plan_id::PlanId;
use crate::retention::run::report::RunReport;
use crate::state_file::run_blocking;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RetentionAction {
    Plan { domain: String, beyond_limits: bool },
    Apply { plan: String, beyond_limits: bool },
    Undo { plan: String },
    Explain { domain: String, image: String },
}

/// How far a run is: the text of the reply in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetentionJobState {
    pub(crate) job: u64,
    /// Repositories.
    pub(crate) done: u64,
    pub(crate) of: u64,
    /// What came of it; `None`: it is under way.
    pub(crate) report: Option<RunReport>,
}

/// Begins a run.
pub(super) async fn begin(app: &Arc<App>, action: RetentionAction) -> ControlReply {
    let requested = match action {
        RetentionAction::Plan {
            domain,
            beyond_limits,
        } => site(app, &domain).map(|site| (site, RunRequest::Plan { beyond_limits })),
        RetentionAction::Apply {
            plan,
            beyond_limits,
        } => planned(app, &plan).await.map(|(site, plan)| {
            let request = RunRequest::Apply {
                plan,
                beyond_limits,
            };
            (site, request)
        }),
        RetentionAction::Undo { plan } => {
            let planned = planned(app, &plan).await;
            planned.map(|(site, plan)| (site, RunRequest::Undo { plan }))
        }
        RetentionAction::Explain { domain, image } => {
            site(app, &domain).and_then(|site| Ok((site, explained(&domain, &image)?)))
        }
    };
    let (site, request) = match requested {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    match crate::app::retention::begin(app, &site, request) {
        Ok(job) => state_of(&job),
        Err(error) => ControlReply::failed(error.to_string()),
    }
}

/// Waits a while for the end of a run.
pub(super) async fn wait(app: &Arc<App>, job: u64) -> ControlReply {
    let Some(job) = app.retention().job(job) else {
        return ControlReply::failed(
            "the run is not known: moorgate was started again; the same command continues",
        );
    };
    // What it says is read below.
    let _ = timeout(WAIT_TIME, job.ended()).await;
    state_of(&job)
}

fn state_of(job: &RetentionJob) -> ControlReply {
    let (done, of) = job.progress.repositories();
    let state = RetentionJobState {
        job: job.id,
        done,
        of,
        report: job.report().map(|report| RunReport::clone(&report)),
    };
    match serde_json::to_string(&state) {
        Ok(text) => ControlReply::done(text),
        Err(error) => ControlReply::failed(error.to_string()),
    }
}

/// The domain of a name, if it has rules.
fn site(app: &App, domain: &str) -> Result<Arc<Site>, ControlReply> {
    let Some(site) = app.site(domain) else {
        let sites = app.gateway().sites.load();
        let all = sites.all.iter().map(|site| site.host.domain.as_str());
        let all: Vec<_> = all.collect();
        let text = format!("there is no domain {domain}; there are: {}", all.join(", "));
        return Err(ControlReply::refused(text));
    };
    if site.host.retention.is_none() {
        let file = site.host.source.display();
        let text =
            format!("{domain} has no retention: write a [[retention]] rule in {file} and reload");
        return Err(ControlReply::refused(text));
    }
    Ok(site)
}

/// The plan of a name, and the domain that it is for.
async fn planned(app: &App, name: &str) -> Result<(Arc<Site>, PlanId), ControlReply> {
    let id = PlanId::parse(name);
    let id = id.map_err(|error| ControlReply::refused(format!("{name}: {error}")))?;
    let sites = app.gateway().sites.load_full();
    let state = app.state_directory();
    let (directory, own_id) = (state.clone(), id.clone());
    let found = run_blocking(move || {
        let with_rules = sites
            .all
            .iter()
            .filter(|site| site.host.retention.is_some());
        let mut with_rules = with_rules.cloned();
        with_rules.find(|site| RunDirectory::new(&directory, &site.host.domain).has(&own_id))
    });
    match found.await {
        Some(site) => Ok((site, id)),
        None => Err(ControlReply::failed(format!(
            "there is no plan {id} of a domain with retention: plans are below {} for 30 days; \
             `moorgate retention plan DOMAIN` makes one",
            state.join("retention").display()
        ))),
    }
}

fn explained(domain: &str, image: &str) -> Result<RunRequest, ControlReply> {
    let within = image
        .strip_prefix(domain)
        .and_then(|rest| rest.strip_prefix('/'));
    let parsed = within
        .unwrap_or(image)
        .rsplit_once(':')
        .and_then(|(repository, tag)| {
            let repository = RepositoryName::parse(repository).ok()?;
            let tag = Tag::parse(tag).ok()?;
            Some(RunRequest::Explain { repository, tag })
        });
    parsed.ok_or_else(|| {
        let text = format!(
            "{image} is no image of a repository: write it as base/app:v1, without the domain"
        );
        ControlReply::refused(text)
    })
}

/// Far below the time that a command may take.
const WAIT_TIME: Duration = Duration::from_secs(5);
