//! The admin listener, which is read-only and knows no secret, and the control socket, which takes
//! commands.

pub(crate) mod control;
mod metrics;
mod status;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use crate::app::App;
use crate::certs::served::internal_ca::InternalCa;
use crate::listen::limits::ConnectionLimits;
use crate::registry::host::Authority;
use crate::request::host::requested_authority;
use crate::state_file::run_blocking;
use control::ControlSocket;
use metrics::MetricsFormat;

/// Serves the admin listeners and the control socket of an app until it drains.
pub fn serve(app: &Arc<App>) {
    serve_listeners(app);
    serve_control_socket(app);
}

fn serve_listeners(app: &Arc<App>) {
    let Some(mut listeners) = app.take_admin_listeners() else {
        return;
    };
    let own = app.clone();
    app.spawn_until_drain(async move {
        while let Some(listener) = listeners.recv().await {
            let limits = ConnectionLimits::of_trusted(MAX_CONNECTIONS);
            own.serve_plain(listener, limits, answer);
        }
    });
}

/// Without a control socket, requests are served all the same.
fn serve_control_socket(app: &Arc<App>) {
    let state = app.state_directory();
    match ControlSocket::bind(&state) {
        Ok(socket) => app.spawn_until_drain(control::serve(app.clone(), socket)),
        Err(error) => {
            let path = ControlSocket::directory(&state);
            tracing::warn!(path = %path.display(), %error, "no control socket: commands cannot reach this process");
        }
    }
}

/// Connections of one admin listener. They are not among those that clients may use up.
const MAX_CONNECTIONS: usize = 64;

/// Where the certificate of moorgate's own CA is.
pub(crate) const CA_PATH: &str = "/ca.pem";

/// Answers `/healthz`, `/readyz`, `/status`, `/metrics` and `/ca.pem`.
async fn answer<B>(app: Arc<App>, request: Request<B>) -> Response<Full<Bytes>> {
    if !is_addressed_directly(&request) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "ask for this by its address or as localhost\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "this only reads\n");
        answer
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let readiness = readiness(&app).await;
            let status = match readiness {
                Readiness::Ready => StatusCode::OK,
                Readiness::NotAccepting | Readiness::StoreMissing => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            };
            let body = Bytes::from(format!("{}\n", readiness.as_str()));
            answer_of(status, "text/plain; charset=utf-8", body)
        }
        // Written on a thread that may block: with many domains these take milliseconds, and this
        // thread serves registry traffic too.
        "/status" => json(&run_blocking(move || status::status(&app)).await),
        "/metrics" => metrics(&app, MetricsFormat::accepted(request.headers())).await,
        CA_PATH => ca_certificate(&app).await,
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz, /readyz, /status, /metrics and /ca.pem\n",
        ),
    }
}

/// The certificate of moorgate's own CA, for whoever may not read the state directory.
async fn ca_certificate(app: &App) -> Response<Full<Bytes>> {
    let state = app.state_directory();
    match run_blocking(move || InternalCa::certificate(&state)).await {
        Ok(Some(pem)) => answer_of(StatusCode::OK, "application/x-pem-file", Bytes::from(pem)),
        Ok(None) => text(
            StatusCode::NOT_FOUND,
            "moorgate's own CA does not exist: no domain needs it\n",
        ),
        Err(error) => {
            tracing::warn!(%error, "certificate of the internal CA cannot be read");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the certificate of the CA cannot be read\n",
            )
        }
    }
}

/// Whether a process can serve all that it is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// It starts or drains.
    NotAccepting,
    StoreMissing,
}

impl Readiness {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotAccepting => "not ready",
            Self::StoreMissing => "not ready: the directory of a store is not there",
        }
    }
}

/// Stores are asked for on a thread that may block, as a network file system may.
async fn readiness(app: &Arc<App>) -> Readiness {
    if !app.is_ready() {
        return Readiness::NotAccepting;
    }
    let own = app.clone();
    if run_blocking(move || own.has_all_stores()).await {
        Readiness::Ready
    } else {
        Readiness::StoreMissing
    }
}

async fn metrics(app: &Arc<App>, format: MetricsFormat) -> Response<Full<Bytes>> {
    let app = app.clone();
    let Ok(metrics) = run_blocking(move || metrics::metrics(&app, format)).await else {
        let message = "the metrics cannot be written\n";
        return text(StatusCode::INTERNAL_SERVER_ERROR, message);
    };
    let mut answer = answer_of(StatusCode::OK, format.content_type(), Bytes::from(metrics));
    let accept = HeaderValue::from_static("accept");
    answer.headers_mut().insert(header::VARY, accept);
    answer
}

/// Whether the Host is an address or localhost: a web page could otherwise read the response
/// through a name of its own that resolves to this address (DNS rebinding).
fn is_addressed_directly<B>(request: &Request<B>) -> bool {
    requested_authority(request)
        .is_ok_and(|Authority { host, .. }| host.ip().is_some() || host.as_str() == "localhost")
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    answer_of(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    answer_of(
        StatusCode::OK,
        "application/json",
        Bytes::from(format!("{value:#}\n")),
    )
}

fn answer_of(status: StatusCode, kind: &'static str, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(content));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
