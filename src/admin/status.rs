//! `/status`: the state of the process as JSON.

mod upstreams;

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::app::App;
use crate::app::live::report::{CredentialLife, CredentialReport};
use crate::app::resources::resources;
use crate::app::retention::{RetentionSchedule, dry_run, schedule_of};
use crate::certs::library_error::with_sources;
use crate::certs::served::report::{CertificateReport, DomainBudget};
use crate::certs::state::ledger::LimitBudget;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::observe::resource_use::ResourceUse;
use crate::registry::host::HostName;
use crate::request::site::{Backend, Site};
use crate::retention::run::records::LastRun;
use crate::store::AreaUse;
use crate::upstream::product::ability::{Ability, AbilitySource};

pub(super) fn status(app: &Arc<App>) -> Value {
    let sites = app.gateway().sites.load();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": app.is_ready(),
        "started": timestamp(app.started()),
        "configuration": configuration(app),
        "connections": app.connections(),
        "resources": resources(app).into_iter().map(resource).collect::<Vec<_>>(),
        "logins": logins(app),
        "domains": sites.all.iter().map(|site| domain(app, site)).collect::<Vec<_>>(),
        "certificates": app.certificates().report().iter().map(certificate).collect::<Vec<_>>(),
        "budgets": app.issuer().budgets().iter().map(budget).collect::<Vec<_>>(),
        "listeners": listeners(app),
    })
}

/// The configuration in force, and why a newer one is not.
fn configuration(app: &App) -> Value {
    let status = app.configuration();
    let of_files = status.problems.iter().map(|(file, problem)| {
        json!({
            "file": file.display().to_string(),
            "domain": problem.domain.as_ref().map(HostName::as_str),
            "effect": problem.effect.as_str(),
            "problem": problem.text,
        })
    });
    let of_domains = app.file_problems().into_iter();
    let of_domains =
        of_domains.map(|(domain, problem)| json!({ "domain": domain, "problem": problem }));
    json!({
        "loaded": timestamp(status.loaded),
        "refused": status.refused().map(|problem| &problem.text),
        "problems": of_files.chain(of_domains).collect::<Vec<_>>(),
    })
}

/// The listeners that are there, and those that could not be bound.
fn listeners(app: &App) -> Vec<Value> {
    let bound = app.listeners().into_iter().map(|listener| {
        json!({
            "kind": listener.kind.as_str(),
            "configured": listener.configured.to_string(),
            "bound": listener.bound.to_string(),
        })
    });
    let unbound = app.unbound_listeners().into_iter().map(|listener| {
        json!({
            "kind": listener.kind.as_str(),
            "configured": listener.configured.to_string(),
            "bound": null,
            "problem": listener.problem,
        })
    });
    bound.chain(unbound).collect()
}

fn resource(used: ResourceUse) -> Value {
    let ResourceUse {
        resource,
        used,
        limit,
        refused,
    } = used;
    json!({ "resource": resource, "used": used, "limit": limit, "refused": refused })
}

/// Password checks and lockouts.
fn logins(app: &App) -> Value {
    let verifier = &app.gateway().verifier;
    let checks = verifier.status();
    let lockout = verifier.lockout_status();
    json!({
        "hashed": checks.hashed,
        "waiting": checks.waiting,
        "remembered": checks.remembered,
        "refused": lockout.refused.iter().map(|(_, count)| count).sum::<u64>(),
        "failed": lockout.failed,
        "known_wrong": lockout.repeated,
        "failing_addresses": lockout.addresses,
        "failing_users": lockout.users,
        "memory_bytes": lockout.bytes,
    })
}

fn domain(app: &App, site: &Site) -> Value {
    let host = &site.host;
    json!({
        "domain": host.domain.as_str(),
        "aliases": host.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "listen": host.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "upstream": host.registry.upstream().map(|upstream| url(&upstream.url)),
        "directory": host.registry.store().map(|store| store.directory.display().to_string()),
        "quotas": site.registry.store().map(|store| quotas(&store.area_use())),
        "upstream_product": site.registry.upstream().map(product),
        "upstream_credential": site.registry.upstream().map(credential),
        "upstream_abilities": abilities(site),
        "upstream_health": site.registry.upstream().and_then(health),
        "upstream_replicas": site.registry.upstream().and_then(upstreams::replicas),
        "browser": host.browser.as_ref().map(|browser| url(&browser.url)),
        "browser_health": site.browser.as_ref().and_then(health),
        "users": site.users.current().users(),
        "retention": retention(app, site),
    })
}

/// The last and the next run of retention.
fn retention(app: &App, site: &Site) -> Option<Value> {
    let RetentionSchedule { records, next } = match schedule_of(&app.state_directory(), site) {
        Ok(schedule) => schedule?,
        Err(error) => return Some(json!({ "problem": with_sources(&error) })),
    };
    let dry_run = dry_run(site);
    let running = app.retention().running(&site.host.domain).map(|job| {
        let (done, of) = job.progress.repositories();
        json!({ "repositories_done": done, "repositories": of })
    });
    Some(json!({
        "dry_run": dry_run.is_some(),
        "dry_run_why": dry_run,
        "running": running,
        "last_run": records.last.map(|last| last_run(&last)),
        "next_run": next.map(|next| format!("{next:.0}")),
        "recorded_since": recorded_since(site).map(|since| format!("{since:.0}")),
    }))
}

/// Since when pulls have been recorded without a gap. What cannot be read is logged with each write.
fn recorded_since(site: &Site) -> Option<jiff::Timestamp> {
    site.journal.as_ref()?.recorded_since().ok()?
}

fn last_run(last: &LastRun) -> Value {
    let LastRun {
        began,
        ended,
        trigger,
        outcome,
        plan,
        tags,
        manifests,
        bytes,
        recorded_since,
        problem,
    } = last;
    json!({
        "began": format!("{began:.0}"),
        "ended": format!("{ended:.0}"),
        "trigger": trigger.as_str(),
        "outcome": outcome.as_str(),
        "plan": plan,
        "tags": tags,
        "manifests": manifests,
        "bytes": bytes,
        "recorded_since": recorded_since.map(|since| format!("{since:.0}")),
        "problem": problem,
    })
}

/// The areas with quotas, the fullest by name.
fn quotas(areas: &[AreaUse]) -> Value {
    let named = areas.iter().take(MAX_NAMED_AREAS).map(AreaUse::to_json);
    json!({ "areas": areas.len(), "fullest": named.collect::<Vec<_>>() })
}

/// There may be an area for each user.
const MAX_NAMED_AREAS: usize = 50;

/// The product of an upstream, and how it is known.
fn product(backend: &Backend) -> Value {
    let (product, source) = backend.product.get();
    json!({ "name": product.as_str(), "known_by": source.as_str() })
}

/// Whose credential moorgate sends, and when its newest token ends.
fn credential(backend: &Backend) -> Value {
    let CredentialReport { name, life } = CredentialReport::new(&backend.credential);
    let expires = match life {
        CredentialLife::Until(end) => Some(timestamp(end)),
        CredentialLife::Unknown | CredentialLife::Endless => None,
    };
    json!({
        "name": name,
        "ends": life.ends(),
        "token_expires": expires,
    })
}

/// What the upstream can, as far as that is known without asking it.
fn abilities(site: &Site) -> Option<Value> {
    let backend = site.registry.upstream()?;
    let source = AbilitySource {
        product: backend.product.get().0,
        settings: site.host.registry.upstream()?,
        has_api: backend.has_api(),
    };
    let one = |ability: Ability| {
        let known = source.get(ability);
        let value = json!({ "answer": known.possibility.as_str(), "why": known.why });
        (ability.as_str().to_owned(), value)
    };
    Some(Value::Object(Ability::ALL.into_iter().map(one).collect()))
}

/// What requests have shown of an upstream.
fn health(backend: &Backend) -> Option<Value> {
    backend
        .upstream
        .health()
        .map(|health| upstreams::health(health))
}

fn certificate(report: &CertificateReport) -> Value {
    json!({
        "domain": report.domain.as_str(),
        "source": report.source.to_string(),
        "names": report.names,
        "issuer": report.issuer,
        "serial": report.serial,
        "not_before": report.not_before.map(timestamp),
        "not_after": report.not_after.map(timestamp),
        "problem": report.problem,
        "acme": report.acme,
    })
}

fn budget(domain: &DomainBudget) -> Value {
    let left = |budget: &LimitBudget| (budget.limit.label().to_owned(), json!(budget.left));
    json!({
        "domain": domain.domain.as_str(),
        "ca": domain.ca.as_str(),
        "left": domain.budget.iter().map(left).collect::<serde_json::Map<_, _>>(),
    })
}

/// Shows no credentials: the URL of an upstream cannot contain any.
fn url(url: &UpstreamUrl) -> String {
    let (scheme, default_port) = match url.scheme {
        Scheme::Http => ("http", 80),
        Scheme::Https => ("https", 443),
    };
    format!(
        "{scheme}://{}{}",
        url.host.authority(url.port, default_port),
        url.base_path
    )
}

fn timestamp(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}
