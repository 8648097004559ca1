//! The context of one request, which all steps share.

use std::sync::Arc;

use http::request::Parts;

use super::conn_info::ConnInfo;
use super::gateway::Gateway;
use super::record::RequestRecord;
use super::site::{Site, Sites};

/// One request, once its virtual host is known. The body is separate: the step that answers
/// consumes it.
pub(crate) struct RequestContext<'a> {
    pub(crate) gateway: &'a Gateway,
    /// The configuration that the request sees to its end.
    pub(crate) sites: &'a Sites,
    pub(crate) site: &'a Arc<Site>,
    pub(crate) conn: &'a Arc<ConnInfo>,
    /// Head of the request. [`forward`](super::answer::forward) moves the headers out.
    pub(crate) parts: Parts,
    pub(crate) record: &'a mut RequestRecord,
}
