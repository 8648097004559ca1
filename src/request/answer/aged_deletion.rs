//! Deletes tags that may only be deleted while they are young.

use http::Response;

use super::{deletion, store, tag_conditions};
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::obligations::Obligations;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route};
use crate::upstream::client_body::ClientBody;

/// Deletes a tag, if it is young enough. It cannot become older by what others do meanwhile.
pub(super) async fn run(
    cx: &mut RequestContext<'_>,
    route: Route,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let Obligations::TagDeletion(tag, conditions) = route.obligations() else {
        return Err(Rejection::bad_target());
    };
    let conditions = conditions.clone();
    let refusal = tag_conditions::deletion_refusal(cx, &route, tag, conditions).await?;
    if let Some(rejection) = refusal {
        return Err(rejection);
    }
    match route.destination() {
        Destination::Upstream(_) => deletion::to_upstream(cx, route, body).await,
        Destination::Store(to) => store::answer(cx, to, body).await,
    }
}
