//! What `/status` says of upstreams and their replicas.

use serde_json::{Value, json};

use super::timestamp;
use crate::request::site::Backend;
use crate::upstream::health::{HealthReport, UpstreamHealth};
use crate::upstream::replica::Replica;
use crate::upstream::replica_service::ServiceReport;

/// What requests have shown of a server.
pub(super) fn health(health: &UpstreamHealth) -> Value {
    let HealthReport {
        state,
        since,
        last_success,
        consecutive_failures,
        last_failure,
    } = health.report();
    json!({
        "state": state.as_str(),
        "since": since.map(timestamp),
        "last_success": last_success.map(timestamp),
        "consecutive_failures": consecutive_failures,
        "last_failure": last_failure.map(|failure| json!({
            "time": timestamp(failure.time),
            "reason": failure.reason.as_str(),
            "error": failure.error,
        })),
    })
}

/// The replicas of an upstream; `None` with a single server.
pub(super) fn replicas(backend: &Backend) -> Option<Value> {
    let group = backend.upstream.group()?;
    let replicas = group.replicas().iter().map(|replica| one(replica));
    Some(replicas.collect())
}

fn one(replica: &Replica) -> Value {
    let ServiceReport {
        in_flight,
        ejected,
        ejections,
    } = replica.service_report();
    let state = match ejected {
        Some(_) => "ejected",
        None => "in-service",
    };
    json!({
        "url": replica.target().to_string(),
        "state": state,
        "requests_in_flight": in_flight,
        "ejections": ejections,
        "ejected": ejected.map(|ejection| json!({
            "since": timestamp(ejection.since),
            "reason": ejection.reason.as_str(),
            "error": ejection.error,
        })),
        "health": replica.health().map(|known| health(known)),
    })
}
