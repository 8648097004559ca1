//! The line: what every request goes through, in this order. Each step is a file below; each takes
//! what the one before it has proved.

pub(crate) mod admit;
pub(crate) mod answer;
pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod bearer;
pub(crate) mod body;
pub(crate) mod classify;
pub mod conn_info;
mod forwarded;
pub mod headers;
pub(crate) mod locate;
pub(crate) mod obligations;
pub(crate) mod plain;
pub(crate) mod record;
pub(crate) mod rejection;
pub(crate) mod respond;
pub(crate) mod route;
pub(crate) mod site;
pub(crate) mod target;
pub(crate) mod token;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::auth::Identity;
use crate::auth::verify::Verifier;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Traffic;
use crate::registry::call::Call;
use answer::manifest_budget::{Room, Rooms};
use answer::tag_write::TagTurns;
use answer::{catalog, forward, hidden, manifest_budget, redirects, rewrite, store, tag_write};
use authenticate::Authenticated;
use authorize::Authorized;
use body::ResponseBody;
use conn_info::ConnInfo;
use obligations::Obligations;
use record::Record;
use rejection::Rejection;
use respond::ResponseFormat;
use route::{Destination, Route};
use site::{Site, Sites, Target};
use target::RequestTarget;

/// What all requests of the process share.
pub(crate) struct Gate {
    /// The configuration in force, with its live parts. A request loads it once.
    pub(crate) sites: ArcSwap<Sites>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) access_log: Arc<AccessLog>,
    /// What is counted of requests that found no domain.
    pub(crate) nowhere: Arc<Traffic>,
    pub(crate) tag_turns: TagTurns,
    pub(crate) rooms: Rooms,
}

/// Answers one request. Its connection carries `open_requests` at once, this one included.
pub(crate) async fn handle(
    gate: &Gate,
    conn: &Arc<ConnInfo>,
    request: Request<Incoming>,
    open_requests: u32,
) -> Response<ResponseBody> {
    let sites = gate.sites.load_full();
    let conn = &conn.of_request(&sites.snapshot.trusted_proxies, request.headers());
    let mut record = Record::begin(gate, conn, request.method());
    let format = ResponseFormat::from_request(conn, &request, open_requests);
    let response = line(gate, &sites, conn, request, &mut record)
        .await
        .unwrap_or_else(|rejection| format.refuse(rejection, &mut record));
    record.status(response.status());
    response.map(|body| body.recorded(record))
}

async fn line(
    gate: &Gate,
    sites: &Sites,
    conn: &Arc<ConnInfo>,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Rejection> {
    let (mut parts, body) = request.into_parts();
    classify::check(conn, &parts)?;
    let site = locate::locate(sites, conn, &parts)?;
    record.located(site);
    if let Some(endpoint) = token::endpoint(site, parts.uri.path()) {
        return Box::pin(token::answer(
            endpoint,
            (gate, sites, site),
            conn,
            (parts, body),
            record,
        ))
        .await;
    }
    let subject = classify::classify(site, &parts)?;
    record.called(&subject);
    let authorized = match granted((gate, sites, site), conn, &parts, subject, record).await {
        Ok(authorized) => authorized,
        Err(rejection) => {
            Box::pin(body::drain_short_body(conn, &parts.headers, body)).await;
            return Err(rejection);
        }
    };
    let Authorized { grant, hidden_by } = authorized;
    record.refused(hidden_by);
    let route = route::route(grant, site)?;
    forward::rewrite_target(&route, &mut parts.uri)?;
    answer(gate, route, conn, (parts, body), record).await
}

/// The answer of what a route leads to.
async fn answer(
    gate: &Gate,
    mut route: Route,
    conn: &Arc<ConnInfo>,
    (parts, body): (Parts, Incoming),
    record: &mut Record,
) -> Result<Response<ResponseBody>, Rejection> {
    let (body, room) = match manifest_budget::is_needed(&route) {
        // Seldom, as are the large ones below: every request to an upstream would carry their room
        // otherwise.
        true => Box::pin(with_room(&gate.rooms, &route, conn, &parts, body)).await?,
        false => (body, None),
    };
    if matches!(route.obligations(), Obligations::TagWrites(_)) {
        return Box::pin(tag_write::write(
            &gate.tag_turns,
            &mut route,
            conn,
            parts,
            (body, room),
            record,
        ))
        .await;
    }
    let to = match route.destination() {
        Destination::Upstream(target) => (&route, target),
        Destination::Store(store, call) => {
            return Box::pin(store::answer(
                (&route, store, call),
                conn,
                parts,
                (body, room),
                record,
            ))
            .await;
        }
    };
    if matches!(
        route.obligations(),
        Obligations::Filtered | Obligations::Hidden(_)
    ) {
        return Box::pin(restricted(to, conn, parts, body, record)).await;
    }
    let asked = rewrite::Asked::of(&route, &parts);
    let answer = forward::forward(to, conn, parts, body, record).await?;
    let answer = match redirects::follows(&route, &asked) {
        true => Box::pin(redirects::follow(to, &asked, answer)).await?,
        false => answer,
    };
    rewrite::rewrite(to, conn, &asked, answer, record)
}

/// A body that is to be held, with the room for it.
async fn with_room(
    rooms: &Rooms,
    route: &Route,
    conn: &ConnInfo,
    parts: &Parts,
    body: Incoming,
) -> Result<(Incoming, Option<Room>), Rejection> {
    let user = format!(
        "{} {}",
        route.site().host.domain,
        route.asker().user.unwrap_or_default()
    );
    match rooms.take(user, route.body_limit(), &body).await {
        Ok(room) => Ok((body, Some(room))),
        Err(rejection) => {
            body::drain_short_body(conn, &parts.headers, body).await;
            Err(rejection)
        }
    }
}

/// Who asks, and whether they may.
async fn granted(
    (gate, sites, site): (&Gate, &Sites, &Arc<Site>),
    conn: &ConnInfo,
    parts: &Parts,
    subject: RequestTarget,
    record: &mut Record,
) -> Result<Authorized, Rejection> {
    let call = if site.tokens.is_some() {
        subject.call().cloned()
    } else {
        None
    };
    let authorized = async {
        let authenticated = match (&site.tokens, &subject) {
            _ if authenticate::is_anonymous_request(site, &subject, &parts.headers) => {
                Identity::Anonymous.into()
            }
            (Some(tokens), RequestTarget::Call(_)) => {
                bearer::authenticate(tokens, site, &parts.headers)?.into()
            }
            (None, _) | (_, RequestTarget::Page(_)) => {
                let budgets = &sites.snapshot.failures;
                let entry = admit::admit(&gate.verifier, site, conn, budgets, &parts.headers)?;
                authenticate::authenticate(&gate.verifier, site, entry)
                    .await?
                    .into()
            }
        };
        let Authenticated { identity, .. } = &authenticated;
        record.identified(authenticate::user_of(identity));
        authorize::authorize(site, conn.client_address(), authenticated, subject)
    };
    authorized
        .await
        .map_err(|rejection| bearer::challenged(rejection, site, parts, call.as_deref()))
}

/// Reads from an upstream what the asker may not see whole, or not at all.
async fn restricted(
    to: (&Route, &Target),
    conn: &Arc<ConnInfo>,
    mut parts: Parts,
    body: Incoming,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Rejection> {
    let (route, _) = to;
    if let Some(Call::Catalog { page }) = route.call() {
        return catalog::of_upstream(to, page, conn, &parts, record).await;
    }
    hidden::ask_for_words(&mut parts);
    let asked = rewrite::Asked::of(route, &parts);
    let answer = forward::forward(to, conn, parts, body, record).await?;
    hidden::restore(route, rewrite::rewrite(to, conn, &asked, answer, record)?).await
}
