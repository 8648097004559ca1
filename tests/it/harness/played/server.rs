//! The servers of a player: each request is read whole, then answered at once.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::answer::PlayedAnswer;
use super::{Played, Recipient, RecordedRequest};

pub async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Serves until it is aborted; its connections end with it.
pub async fn serve(listener: TcpListener, to: Recipient, played: Arc<Mutex<Played>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(accepted.unwrap().0, to, played.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, to: Recipient, played: Arc<Mutex<Played>>) {
    let service = service_fn(move |request| answer(request, to, played.clone()));
    // A client may leave in the middle of anything.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: http::Request<Incoming>,
    to: Recipient,
    played: Arc<Mutex<Played>>,
) -> Result<http::Response<http_body_util::Full<bytes::Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = RecordedRequest::new(to, parts, body);
    let is_head = request.method == http::Method::HEAD;
    Ok(played
        .lock()
        .unwrap()
        .answer(&request)
        .into_response(is_head))
}

impl Played {
    fn answer(&mut self, request: &RecordedRequest) -> PlayedAnswer {
        self.recorded.push(request.to_record());
        match request.to {
            Recipient::Storage => self.storage(request),
            Recipient::Api => self.api(request),
            Recipient::Registry
                if request.path().starts_with("/v2/") && !self.is_realm(request) =>
            {
                self.registry(request)
                    .header("docker-distribution-api-version", "registry/2.0")
            }
            // The token endpoint, and an API that is on the registry's own host.
            Recipient::Registry => self.api(request),
        }
    }

    /// The object storage knows only its signed addresses.
    fn storage(&self, request: &RecordedRequest) -> PlayedAnswer {
        let xml = |status, code: &str| {
            let error = format!("<Error><Code>{code}</Code></Error>");
            PlayedAnswer::new(status).body("application/xml", error)
        };
        if request.headers.contains_key("authorization") {
            // Two ways to authorize one request.
            return xml(400, "InvalidArgument");
        }
        if request.parameter("X-Amz-Signature").is_none() {
            return xml(403, "AccessDenied");
        }
        let digest = request.path().trim_start_matches("/blobs/");
        match self.contents.blob(digest) {
            Some(blob) => super::registry::ranged(request, blob, "binary/octet-stream"),
            None => xml(404, "NoSuchKey"),
        }
    }
}
