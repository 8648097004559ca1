//! `/status`: the state of the process as JSON.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::app::App;
use crate::app::live::report::{CredentialLife, CredentialReport};
use crate::app::resources::resources;
use crate::certs::served::report::{CertificateReport, DomainBudget};
use crate::certs::state::ledger::LimitBudget;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::observe::resource_use::ResourceUse;
use crate::request::site::{Backend, Site};
use crate::upstream::health::HealthReport;
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
        "domains": sites.all.iter().map(|site| domain(site)).collect::<Vec<_>>(),
        "certificates": app.certificates().report().iter().map(certificate).collect::<Vec<_>>(),
        "budgets": app.issuer().budgets().iter().map(budget).collect::<Vec<_>>(),
        "listeners": app.listeners().iter().map(|listener| json!({
            "kind": listener.kind.as_str(),
            "configured": listener.configured.to_string(),
            "bound": listener.bound.to_string(),
        })).collect::<Vec<_>>(),
    })
}

/// The configuration in force, and why a newer one is not.
fn configuration(app: &App) -> Value {
    let reload = app.last_reload();
    let problems = app.file_problems().into_iter();
    json!({
        "loaded": timestamp(reload.loaded),
        "refused": reload.refused,
        "problems": problems
            .map(|(domain, problem)| json!({ "domain": domain, "problem": problem }))
            .collect::<Vec<_>>(),
    })
}

fn resource(used: ResourceUse) -> Value {
    let ResourceUse {
        resource,
        used,
        limit,
    } = used;
    json!({ "resource": resource, "used": used, "limit": limit })
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

fn domain(site: &Site) -> Value {
    let host = &site.host;
    json!({
        "domain": host.domain.as_str(),
        "aliases": host.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "listen": host.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "upstream": host.registry.upstream().map(|upstream| url(&upstream.url)),
        "directory": host.registry.store().map(|store| store.directory.display().to_string()),
        "upstream_product": site.registry.upstream().map(product),
        "upstream_credential": site.registry.upstream().map(credential),
        "upstream_abilities": abilities(site),
        "upstream_health": site.registry.upstream().and_then(health),
        "browser": host.browser.as_ref().map(|browser| url(&browser.url)),
        "browser_health": site.browser.as_ref().and_then(health),
        "users": site.users.current().users(),
    })
}

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
    let HealthReport {
        state,
        since,
        last_success,
        consecutive_failures,
        last_failure,
    } = backend.upstream.health()?.report();
    Some(json!({
        "state": state.as_str(),
        "since": since.map(timestamp),
        "last_success": last_success.map(timestamp),
        "consecutive_failures": consecutive_failures,
        "last_failure": last_failure.map(|failure| json!({
            "time": timestamp(failure.time),
            "reason": failure.reason.as_str(),
            "error": failure.error,
        })),
    }))
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
