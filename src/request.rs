//! The line: what every request goes through, in this order. Each step is a file below; each takes
//! what the one before it has proved.

pub(crate) mod admit;
pub(crate) mod answer;
pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod bearer;
pub(crate) mod body;
pub(crate) mod classify;
pub(crate) mod conn_info;
mod context;
mod forwarded;
pub(crate) mod gateway;
pub mod headers;
pub(crate) mod host;
pub(crate) mod locate;
pub(crate) mod obligations;
pub(crate) mod plain;
mod public_origin;
pub(crate) mod record;
pub(crate) mod rejection;
pub(crate) mod respond;
pub(crate) mod retained;
pub(crate) mod route;
pub(crate) mod site;
pub(crate) mod target;
pub(crate) mod token;
mod user_limits;
pub(crate) mod via;

use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;

use crate::auth::Identity;
use crate::upstream::client_body::ClientBody;
use authenticate::Authenticated;
use authorize::Authorized;
use body::ResponseBody;
use conn_info::ConnInfo;
use context::RequestContext;
use gateway::Gateway;
use record::RequestRecord;
use rejection::Rejection;
use respond::ResponseFormat;
use site::Sites;
use target::RequestTarget;

/// Answers one request. Its connection carries `open_requests` at once, this one included.
pub(crate) async fn handle(
    gateway: &Gateway,
    conn: &Arc<ConnInfo>,
    request: Request<ClientBody>,
    open_requests: u32,
) -> Response<ResponseBody> {
    let sites = gateway.sites.load_full();
    let conn = &conn.for_request(&sites.snapshot.trusted_proxies, request.headers());
    let mut record = RequestRecord::begin(gateway, conn, request.method());
    let format = ResponseFormat::from_request(conn, &request, open_requests);
    let response = line(gateway, &sites, conn, request, &mut record)
        .await
        .unwrap_or_else(|rejection| format.refuse(rejection, &mut record));
    record.status(response.status());
    response.map(|body| body.recorded(record))
}

/// The steps, in their order.
async fn line(
    gateway: &Gateway,
    sites: &Sites,
    conn: &Arc<ConnInfo>,
    request: Request<ClientBody>,
    record: &mut RequestRecord,
) -> Result<Response<ResponseBody>, Rejection> {
    let (parts, body) = request.into_parts();
    let site = match classify::check(conn, &parts) {
        Ok(()) => locate::locate(sites, conn, &parts),
        Err(rejection) => Err(rejection),
    };
    let site = site.map_err(|rejection| token::to_endpoint(parts.uri.path(), rejection))?;
    record.located(site);
    let mut cx = RequestContext {
        gateway,
        sites,
        site,
        conn,
        parts,
        record,
    };
    if let Some(endpoint) = token::endpoint(site, cx.parts.uri.path()) {
        return Box::pin(token::answer(&mut cx, endpoint, body)).await;
    }
    classify::check_target_length(conn, &cx.parts)?;
    let target = classify::classify(site, &cx.parts)?;
    cx.record.called(&target);
    let has_body = !body.is_end_stream();
    let route = match grant(&mut cx, target, has_body).await {
        Ok(Authorized { grant, hidden_by }) => {
            cx.record.refused(hidden_by);
            route::route(grant, site)
        }
        Err(rejection) => Err(rejection),
    };
    let route = match route {
        Ok(route) => route,
        Err(rejection) => {
            Box::pin(body::drain_short_body(conn, &cx.parts.headers, body)).await;
            return Err(rejection);
        }
    };
    answer::forward::rewrite_target(&route, &mut cx.parts.uri)?;
    answer::answer(&mut cx, route, body).await
}

/// Who makes the request, and whether they may.
async fn grant(
    cx: &mut RequestContext<'_>,
    target: RequestTarget,
    has_body: bool,
) -> Result<Authorized, Rejection> {
    let call = if cx.site.tokens.is_some() {
        target.call().cloned()
    } else {
        None
    };
    let authorized = match authenticate(cx, &target).await {
        Ok(authenticated) => {
            let identity = &authenticated.identity;
            cx.record.identified(authenticate::user_of(identity));
            let limits = &cx.gateway.user_limits;
            let running = limits.count(cx.site, cx.conn, identity, has_body)?;
            cx.record.running(running);
            authorize::authorize(cx.site, cx.conn.client_address(), authenticated, target)
        }
        Err(rejection) => Err(rejection),
    };
    authorized
        .map_err(|rejection| bearer::challenged(rejection, cx.site, &cx.parts, call.as_deref()))
}

async fn authenticate(
    cx: &RequestContext<'_>,
    target: &RequestTarget,
) -> Result<Authenticated, Rejection> {
    let site = cx.site;
    let headers = &cx.parts.headers;
    match (&site.tokens, target) {
        _ if authenticate::is_anonymous_request(site, target, headers) => {
            Ok(Identity::Anonymous.into())
        }
        (Some(tokens), RequestTarget::Call(_)) => bearer::authenticate(tokens, site, headers)
            .await
            .map(Authenticated::from),
        (None, _) | (_, RequestTarget::Page(_)) => {
            let verifier = &cx.gateway.verifier;
            let budgets = &cx.sites.snapshot.failures;
            let entry = admit::admit(verifier, site, cx.conn, budgets, headers)?;
            let identity = authenticate::authenticate(verifier, site, entry).await?;
            Ok(identity.into())
        }
    }
}
