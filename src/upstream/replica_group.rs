//! Several replicas of one upstream: which one gets a request, and what is tried at another one.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, sleep};

use super::ejection::{Ejection, ReplicaFailure, may_eject};
use super::error::UpstreamError;
use super::health::FailureReason;
use super::replica::{Replica, SendFailure, SentHead, copy_without_body};
use super::replica_references;
use super::request_body::{RequestBody, Upload};
use super::response_body::UpstreamBody;
use super::transfer::TransferLimits;
use crate::config::upstream::ReplicaCheck;
use crate::registry::upload_id::ReplicaId;

/// Several replicas of one upstream.
pub(crate) struct ReplicaGroup {
    pub(super) replicas: Box<[Arc<Replica>]>,
    pub(super) check: Option<ReplicaCheck>,
    /// Where the search for the next one begins.
    rotation: AtomicUsize,
    /// Held while one is ejected, so that the last one stays.
    ejecting: Mutex<()>,
}

/// A request for one replica.
struct ReplicaRequest {
    request: Request<RequestBody>,
    upload: Option<Arc<Upload>>,
    limits: TransferLimits,
    /// Whether it may be given up for another replica while it is waited for.
    is_repeatable: bool,
}

impl ReplicaGroup {
    pub(super) fn new(
        first: Arc<Replica>,
        others: Vec<Arc<Replica>>,
        check: Option<ReplicaCheck>,
    ) -> Arc<Self> {
        Arc::new(Self {
            replicas: std::iter::once(first).chain(others).collect(),
            check,
            rotation: AtomicUsize::new(0),
            ejecting: Mutex::new(()),
        })
    }

    pub(crate) fn replicas(&self) -> &[Arc<Replica>] {
        &self.replicas
    }

    pub(crate) fn check(&self) -> Option<&ReplicaCheck> {
        self.check.as_ref()
    }

    /// Sends a request to the replica that it names, or to the one with the fewest in flight.
    ///
    /// It is sent to another one, once, if no byte of it was written, or if it can be repeated and
    /// the replica did not answer it: with 502, 503 or 504, or not at all.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if let Some(id) = request.extensions_mut().remove::<ReplicaId>() {
            let sending = ReplicaRequest::new(request, upload, limits);
            return self.send_to(id, sending).await;
        }
        let again = is_repeatable(&request).then(|| copy_without_body(&request));
        let sending = ReplicaRequest::new(request, upload.clone(), limits);
        let replica = self.choose(None).unwrap_or(&self.replicas[0]);
        let first = self.attempt(replica, sending).await;
        let (request, failed) = match first {
            Ok(response) if !is_unavailable(response.status()) => return Ok(response),
            Ok(response) => (again, Ok(response)),
            Err(SendFailure { error, unsent, .. }) => {
                let again = again.filter(|_| error.is_of_upstream());
                (unsent.map(|unsent| *unsent).or(again), Err(error))
            }
        };
        let Some(request) = request else {
            return failed;
        };
        let Some(other) = self.choose(Some(replica)) else {
            self.check_ejected();
            return failed;
        };
        drop(failed);
        let sending = ReplicaRequest::new(request, upload, limits);
        let second = self.attempt(other, sending).await;
        second.map_err(|failed| failed.error)
    }

    /// Sends a request of a session to its replica, and to no other.
    async fn send_to(
        self: &Arc<Self>,
        id: ReplicaId,
        sending: ReplicaRequest,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let replica = self.replicas.iter().find(|replica| replica.id == id);
        let replica = replica.ok_or(UpstreamError::ReplicaGone)?;
        if let Some(ejection) = replica.service.ejection() {
            self.check_if_due(replica, &ejection);
            return Err(out_of_service(&ejection));
        }
        let mut sent = self.attempt(replica, sending).await;
        if let Ok(response) = &mut sent
            && let Some(head) = response.extensions_mut().get_mut::<SentHead>()
        {
            head.replica = Some(id);
        }
        sent.map_err(|failed| match (failed.error, replica.service.ejection()) {
            (UpstreamError::Ejected, Some(ejection)) => out_of_service(&ejection),
            (error, _) => error,
        })
    }

    /// The replica in service with the fewest requests in flight, in rotation among equals.
    /// `tried`: another than this one, and rather one whose last connection did not fail.
    fn choose(self: &Arc<Self>, tried: Option<&Arc<Replica>>) -> Option<&Arc<Replica>> {
        let mut least = None;
        let mut equals = 0;
        for replica in &self.replicas {
            let Some(load) = self.load(replica, tried) else {
                continue;
            };
            match least {
                Some(known) if load > known => {}
                Some(known) if load == known => equals += 1,
                _ => (least, equals) = (Some(load), 1),
            }
        }
        let least = least?;
        let skipped = self.rotation.fetch_add(1, Ordering::Relaxed) % equals;
        let is_least =
            |replica: &&Arc<Replica>| self.load(replica, tried).is_some_and(|load| load <= least);
        let mut chosen = self.replicas.iter().filter(is_least);
        // They may have got other requests meanwhile.
        let others = || {
            self.replicas
                .iter()
                .find(|replica| self.load(replica, tried).is_some())
        };
        chosen.nth(skipped).or_else(others)
    }

    /// What the choice goes by; `None`: it is not to be chosen.
    fn load(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        tried: Option<&Arc<Replica>>,
    ) -> Option<(bool, u32)> {
        if tried.is_some_and(|tried| Arc::ptr_eq(tried, replica)) {
            return None;
        }
        for cut in replica.service.take_cuts() {
            let cause = (cut.reason(), cut.to_string());
            self.failed(replica, ReplicaFailure::Answer, cause);
        }
        if let Some(ejection) = replica.service.ejection() {
            self.check_if_due(replica, &ejection);
            return None;
        }
        let is_suspect = tried.is_some() && replica.service.is_suspect();
        Some((is_suspect, replica.service.in_flight()))
    }

    fn check_if_due(self: &Arc<Self>, replica: &Arc<Replica>, ejection: &Ejection) {
        if Instant::now() >= ejection.until {
            self.begin_check(replica);
        }
    }

    /// Nothing else is left: whichever of them works again is needed at once.
    #[cold]
    fn check_ejected(self: &Arc<Self>) {
        let ejected = self.replicas.iter();
        for replica in ejected.filter(|replica| replica.service.is_ejected()) {
            self.begin_check(replica);
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        sending: ReplicaRequest,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let in_flight = replica.service.begin_request();
        let is_repeatable = sending.is_repeatable;
        let mut result = self.answer(replica, sending).await;
        match &mut result {
            Ok(response) if is_unavailable(response.status()) => {
                let error = format!("it answers {}: see its own log", response.status());
                self.failed(
                    replica,
                    ReplicaFailure::Answer,
                    (FailureReason::Status, error),
                );
            }
            Ok(_) => replica.service.answered(),
            Err(failed) => self.count(replica, &failed.error, is_repeatable),
        }
        let response = result.as_mut().ok();
        if let Some(response) = response {
            replica_references::generalize(&self.replicas, response.headers_mut());
            response.extensions_mut().insert(replica.id);
            response.body_mut().count(in_flight);
        }
        result
    }

    /// Waits for the answer to a request. One that can be repeated is given up when its replica is
    /// ejected; while it takes long, whether the replica answers at all is checked beside.
    async fn answer(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        sending: ReplicaRequest,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let ReplicaRequest {
            mut request,
            upload,
            limits,
            is_repeatable,
        } = sending;
        let headers = request.headers_mut();
        headers.insert(header::HOST, replica.authority.clone());
        let mut ejected = pin!(replica.service.next_ejection());
        let mut sent = pin!(replica.send(request, upload, limits));
        let mut silence = pin!(sleep(MAX_SILENCE));
        loop {
            // Each branch is polled on where it was.
            tokio::select! {
                biased;
                result = &mut sent => return result,
                () = &mut ejected, if is_repeatable => return Err(UpstreamError::Ejected.into()),
                () = &mut silence => {
                    self.begin_check(replica);
                    silence.as_mut().reset(Instant::now() + SILENCE_INTERVAL);
                }
            }
        }
    }

    /// Counts a request without a usable answer. A registry may take long over a body.
    fn count(&self, replica: &Replica, error: &UpstreamError, is_repeatable: bool) {
        let failure = match error {
            UpstreamError::Unreachable(_) | UpstreamError::ConnectTimedOut => {
                ReplicaFailure::Connect
            }
            UpstreamError::TimedOut if !is_repeatable => return,
            _ => ReplicaFailure::Answer,
        };
        if let Some(reason) = error.reason() {
            self.failed(replica, failure, (reason, error.explained()));
        }
    }

    /// `cause`: with what remedies it.
    #[cold]
    fn failed(
        &self,
        replica: &Replica,
        failure: ReplicaFailure,
        (reason, cause): (FailureReason, String),
    ) {
        if replica.service.failed(failure) {
            self.eject(replica, reason, cause);
        }
    }

    /// Takes a replica out of service, unless too few would stay.
    pub(super) fn eject(&self, replica: &Replica, reason: FailureReason, error: String) {
        let _ejecting = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if replica.service.is_ejected() {
            return;
        }
        let ejected = self.replicas.iter();
        let ejected = ejected.filter(|replica| replica.service.is_ejected());
        if !may_eject(self.replicas.len(), ejected.count()) {
            return;
        }
        if let Some(health) = replica.health() {
            let (domain, upstream) = (health.domain(), health.url());
            let reason = reason.as_str();
            tracing::warn!(domain, upstream, reason, error, "replica ejected");
        }
        replica.service.eject(reason, error);
    }
}

impl ReplicaRequest {
    fn new(
        request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Self {
        Self {
            is_repeatable: is_repeatable(&request),
            request,
            upload,
            limits,
        }
    }
}

/// Whether nothing is different after the request has been sent twice: the beginning of an upload
/// leaves a session that ends by itself.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    if !request.body().is_empty() {
        return false;
    }
    match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::POST => request.uri().path().ends_with("/blobs/uploads/"),
        _ => false,
    }
}

fn is_unavailable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

fn out_of_service(ejection: &Ejection) -> UpstreamError {
    UpstreamError::ReplicaEjected {
        retry_after: ejection.until.duration_since(Instant::now()),
    }
}

/// How long an answer may take before the replica is checked.
const MAX_SILENCE: Duration = Duration::from_secs(1);
/// After that, how often.
const SILENCE_INTERVAL: Duration = Duration::from_secs(5);
