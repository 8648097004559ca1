//! The client of a registry (or of a browser page's server) behind a virtual host: one server, or
//! several replicas of it. Knows nothing of a request's meaning.

mod circuit;
pub(crate) mod client_body;
pub(crate) mod connector;
pub(crate) mod credential;
pub(crate) mod destination;
mod ejection;
pub(crate) mod error;
mod first_bytes;
pub(crate) mod health;
pub(crate) mod known_product;
pub(crate) mod login;
pub(crate) mod message_length;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod replica;
mod replica_check;
pub(crate) mod replica_group;
mod replica_references;
pub(crate) mod replica_service;
pub(crate) mod request_body;
pub(crate) mod response_body;
pub(crate) mod transfer;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};

use crate::config::upstream::{ReplicaCheck, UpstreamUrl};
use crate::registry::upload_id::ReplicaId;
use connector::Connector;
use error::UpstreamError;
use health::{HealthState, UpstreamHealth};
use replica::Replica;
use replica_group::ReplicaGroup;
use request_body::{RequestBody, Upload};
use response_body::UpstreamBody;
use transfer::TransferLimits;

/// One upstream and its connections.
pub(crate) struct Upstream {
    /// The only server, or the first of several.
    first: Arc<Replica>,
    /// All of several.
    group: Option<Arc<ReplicaGroup>>,
}

impl Upstream {
    /// One server. `health`: `None` where nothing is told of it: the storage of a registry.
    pub(crate) fn new(
        connector: Connector,
        workers: usize,
        connect_timeout: Duration,
        health: Option<Arc<UpstreamHealth>>,
    ) -> Arc<Self> {
        let id = ReplicaId::default();
        let replica = Replica::new(id, connector, workers, connect_timeout, health);
        Self::of(replica)
    }

    /// One server.
    pub(crate) fn of(replica: Arc<Replica>) -> Arc<Self> {
        Arc::new(Self {
            first: replica,
            group: None,
        })
    }

    /// Several, which differ in nothing but host and port.
    pub(crate) fn of_replicas(
        first: Arc<Replica>,
        others: Vec<Arc<Replica>>,
        check: Option<ReplicaCheck>,
    ) -> Arc<Self> {
        let group = ReplicaGroup::new(first.clone(), others, check);
        Arc::new(Self {
            first,
            group: Some(group),
        })
    }

    /// The address of the server, or of the first replica, by which those above know all of them.
    pub(crate) fn target(&self) -> &UpstreamUrl {
        self.first.target()
    }

    /// Whether a connection led to a public address.
    pub(crate) fn is_public(&self) -> bool {
        self.replicas().any(|replica| replica.is_public())
    }

    /// The server, or all replicas.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let all = match &self.group {
            Some(group) => group.replicas(),
            None => std::slice::from_ref(&self.first),
        };
        all.iter()
    }

    /// Whether it consists of just these.
    pub(crate) fn is_of(&self, replicas: &[Arc<Replica>], check: Option<&ReplicaCheck>) -> bool {
        let own = self.group.as_ref().and_then(|group| group.check());
        self.replicas().count() == replicas.len()
            && own == check
            && self
                .replicas()
                .zip(replicas)
                .all(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// `None` with a single server.
    pub(crate) fn group(&self) -> Option<&Arc<ReplicaGroup>> {
        self.group.as_ref()
    }

    /// The first of several replicas.
    pub(crate) fn first_of_several(&self) -> Option<ReplicaId> {
        self.group.as_ref().map(|_| self.first.id)
    }

    /// Whether this is one of its replicas.
    pub(crate) fn has(&self, replica: ReplicaId) -> bool {
        self.replicas().any(|own| own.id == replica)
    }

    /// The health of the server, or of a replica that works, if one does.
    pub(crate) fn health(&self) -> Option<&Arc<UpstreamHealth>> {
        let mut healths = self.healths();
        let healthy = healths.find(|health| health.state() == HealthState::Healthy);
        healthy.or(self.first.health())
    }

    /// The health of the server, or of all replicas: for what they have in common.
    pub(crate) fn healths(&self) -> impl Iterator<Item = &Arc<UpstreamHealth>> {
        self.replicas().filter_map(|replica| replica.health())
    }

    /// Sends a request, whose target is in origin form, and returns when the response head is here.
    /// A redirect or refusal of a request without a body has its [`SentHead`](replica::SentHead)
    /// among its extensions; the response of one of several replicas its [`ReplicaId`]. A request
    /// with a [`ReplicaId`] goes to that replica.
    ///
    /// What comes of it is the upstream's health. A client that leaves drops this future, which
    /// shows nothing.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if let Some(group) = &self.group {
            // Boxed to keep this large future out of every request's future.
            return Box::pin(group.send(request, upload, limits)).await;
        }
        let sent = self.first.send(request, upload, limits).await;
        sent.map_err(|failed| failed.error)
    }

    /// Asks whether it is a registry, as clients do first, without credentials. No request of a
    /// client: what comes of it is not the upstream's health.
    pub(crate) async fn ping(
        &self,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        self.ask(self.first.request(PING), limits).await
    }

    /// Asks whether it is a registry that lets these credentials in.
    pub(crate) async fn ping_with(
        &self,
        authorization: HeaderValue,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut request = self.first.request(PING);
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, authorization);
        self.ask(request, limits).await
    }

    async fn ask(
        &self,
        request: Request<RequestBody>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if let Some(group) = &self.group {
            return Box::pin(group.send(request, None, limits)).await;
        }
        let answered = self.first.exchange(request, None, limits).await;
        answered.map_err(|failed| failed.error)
    }
}

const PING: &str = "/v2/";
