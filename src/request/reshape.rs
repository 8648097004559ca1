//! The target that goes on in place of the client's, where what was granted is not what was asked
//! for. Everywhere else path and query stay byte for byte.

use http::Uri;
use http::uri::PathAndQuery;

use super::authorize::Terms;
use super::reject::Rejection;
use super::route::Route;
use crate::registry::call::{Call, Parameter, without_parameters};

/// Puts the granted call's own path, or its query without a mount, in place of what the client
/// sent.
pub(crate) fn reshape(route: &Route, uri: &mut Uri) -> Result<(), Rejection> {
    let Some(call) = route.call() else {
        return Ok(());
    };
    let target = match route.terms() {
        Terms::Hidden(_) => with_path(&path(call), uri.query()),
        Terms::Unmounted => {
            let query = without_parameters(
                uri.query().unwrap_or_default(),
                &[Parameter::Mount, Parameter::From],
            );
            with_path(
                uri.path(),
                Some(query.as_str()).filter(|query| !query.is_empty()),
            )
        }
        Terms::Plain if route.sessions().is_some() && call.session().is_some() => {
            with_path(&path(call), uri.query())
        }
        Terms::Plain | Terms::Filtered | Terms::Tags(_) => return Ok(()),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Rejection::bad_base_path())?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| Rejection::bad_base_path())?;
    Ok(())
}

fn path(call: &Call) -> String {
    let (_, target) = call.print();
    target
        .split_once('?')
        .map_or(target.clone(), |(path, _)| path.to_owned())
}

fn with_path(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}
