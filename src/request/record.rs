//! The record of a request: filled in along the line, written to the access log and counted at its
//! end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::conn_info::ConnInfo;
use super::gateway::Gateway;
use super::rejection::{Refusal, RefusalReason};
use super::site::Site;
use super::target::{RequestTarget, TokenEndpoint};
use crate::auth::UserName;
use crate::auth::running::RunningRequest;
use crate::observe::access_log::{AccessLog, AccessLogEntry};
use crate::observe::metrics::{Interruption, RequestLabel, RequestOutcome, Traffic};
use crate::registry::call::Call;
use crate::upstream::request_body::{Upload, UploadFailure};

/// The facts of one request. Written when it is dropped: after the last byte of the response went
/// to the connection, or when the client left.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    log: Arc<AccessLog>,
    unlocated_traffic: Arc<Traffic>,
    conn: Arc<ConnInfo>,
    time: SystemTime,
    start: Instant,
    method: Method,
    site: Option<Arc<Site>>,
    user: Option<UserName>,
    /// Counts among those of its user until its end.
    running: Option<RunningRequest>,
    label: RequestLabel,
    call: Option<Arc<Call>>,
    upload: Option<Arc<Upload>>,
    forwarded: Option<Instant>,
    upstream: Option<Duration>,
    status: Option<StatusCode>,
    bytes_out: u64,
    end: RequestEnd,
    rule: Option<Box<str>>,
    reason: Option<RefusalReason>,
    tried: Option<Box<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// Both bodies were transferred completely.
    Complete,
    /// The upstream interrupted its response.
    UpstreamCut,
    /// The client left before the end of its body or of the response.
    ClientGone,
}

impl RequestEnd {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::UpstreamCut => "upstream-cut",
            Self::ClientGone => "client-gone",
        }
    }

    fn cut(self) -> Option<Interruption> {
        match self {
            Self::Complete => None,
            Self::UpstreamCut => Some(Interruption::Upstream),
            Self::ClientGone => Some(Interruption::Client),
        }
    }
}

impl RequestRecord {
    /// Begins the record of a request.
    pub(crate) fn begin(gateway: &Gateway, conn: &Arc<ConnInfo>, method: &Method) -> Box<Self> {
        Box::new(Self {
            log: gateway.access_log.clone(),
            unlocated_traffic: gateway.unlocated_traffic.clone(),
            conn: conn.clone(),
            time: SystemTime::now(),
            start: Instant::now(),
            method: method.clone(),
            site: None,
            user: None,
            running: None,
            label: RequestLabel::Nothing,
            call: None,
            upload: None,
            forwarded: None,
            upstream: None,
            status: None,
            bytes_out: 0,
            end: RequestEnd::ClientGone,
            rule: None,
            reason: None,
            tried: None,
        })
    }

    /// The request is for this virtual host.
    pub(crate) fn located(&mut self, site: &Arc<Site>) {
        site.traffic.started();
        self.site = Some(site.clone());
    }

    /// The request has this target.
    pub(crate) fn called(&mut self, subject: &RequestTarget) {
        (self.label, self.call) = match subject {
            RequestTarget::Call(call) => (RequestLabel::Call(call.kind()), Some(call.clone())),
            RequestTarget::Page(_) => (RequestLabel::Page, None),
        };
    }

    /// The request is to an endpoint of moorgate itself.
    pub(crate) fn at(&mut self, endpoint: TokenEndpoint) {
        self.label = match endpoint {
            TokenEndpoint::Token => RequestLabel::Token,
            TokenEndpoint::Keys => RequestLabel::Keys,
        };
    }

    /// The user, once authenticated.
    pub(crate) fn identified(&mut self, user: Option<&UserName>) {
        if user.is_some() {
            self.conn.record_login();
        }
        self.user = user.cloned();
    }

    /// The request counts from now on.
    pub(crate) fn running(&mut self, running: RunningRequest) {
        self.running = Some(running);
    }

    /// The request is forwarded, with this body.
    pub(crate) fn forwarded(&mut self, upload: Option<Arc<Upload>>) {
        self.upload = upload;
        self.forwarded = Some(Instant::now());
    }

    /// The upstream has sent its response head or failed.
    pub(crate) fn answered(&mut self) {
        self.upstream = self.forwarded.map(|since| since.elapsed());
    }

    /// The access rule that refuses the request.
    pub(crate) fn refused(&mut self, rule: Option<Box<str>>) {
        self.rule = rule.or(self.rule.take());
    }

    /// The request is refused.
    pub(crate) fn rejected(&mut self, refusal: Option<Box<Refusal>>) {
        let Refusal {
            rule,
            reason,
            tried,
        } = *refusal.unwrap_or_default();
        self.refused(rule);
        self.reason = reason;
        self.tried = tried;
    }

    /// The status of the response.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Whether there is a request body that has not been read to its end.
    pub(crate) fn is_body_unread(&self) -> bool {
        self.upload
            .as_ref()
            .is_some_and(|upload| !upload.is_finished())
    }

    /// Whether no user has been authenticated.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.user.is_none()
    }

    /// Bytes of the response body went to the connection.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The response has ended.
    pub(super) fn end(&mut self, end: RequestEnd) {
        // A client that interrupted its upload counts as gone, even if it can still read the
        // response.
        let is_cut = self
            .upload
            .as_ref()
            .is_some_and(|upload| upload.failure() == Some(UploadFailure::Cut));
        self.end = if is_cut && end == RequestEnd::Complete {
            RequestEnd::ClientGone
        } else {
            end
        };
    }

    /// The domain, once it is known.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.site.as_ref().map(|site| site.host.domain.as_str())
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        let duration = self.start.elapsed();
        let bytes_in = self.upload.as_ref().map_or(0, |upload| upload.bytes());
        let ended = RequestOutcome {
            label: self.label,
            status,
            cut: self.end.cut(),
            received: bytes_in,
            sent: self.bytes_out,
            duration,
            upstream: self.upstream,
        };
        match &self.site {
            Some(site) => site.traffic.finished(&ended),
            None => {
                self.unlocated_traffic.started();
                self.unlocated_traffic.finished(&ended);
            }
        }
        if !self.log.is_on() {
            return;
        }
        let call = self.call.as_deref();
        self.log.write(&AccessLogEntry {
            time: self.time,
            client: self.conn.client().to_str().unwrap_or_default(),
            user: self.user.as_ref().map(UserName::as_str),
            domain: self.domain(),
            method: self.method.as_str(),
            call: match self.label {
                RequestLabel::Nothing | RequestLabel::Page => None,
                label => Some(label.as_str()),
            },
            repository: call.and_then(Call::repository).map(|name| name.as_str()),
            reference: call.and_then(Call::reference),
            status,
            bytes_in,
            bytes_out: self.bytes_out,
            duration,
            upstream: self.upstream,
            protocol: self.conn.protocol.as_str(),
            end: self.end.as_str(),
            rule: self.rule.as_deref(),
            reason: self.reason.map(RefusalReason::as_str),
            tried: self.tried.as_deref(),
        });
    }
}
