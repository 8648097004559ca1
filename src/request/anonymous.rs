//! Who comes without a login, where some things may be had so.

use http::{HeaderMap, header};

use super::classify::Subject;
use super::site::Site;
use crate::auth::basic;
use crate::config::vhost::AnonymousAccess;
use crate::registry::call::Call;

/// Whether a request is to be judged as that of nobody in particular. Never the ping: clients
/// choose by its answer alone whether they ever send a password. Never a page: a browser asks for a
/// password only if told.
pub(crate) fn is_welcome(site: &Site, subject: &Subject, headers: &HeaderMap) -> bool {
    let may_be = site.host.auth.anonymous == AnonymousAccess::Pull;
    let is_call = match subject {
        Subject::Call(call) => !matches!(**call, Call::Ping { .. }),
        Subject::Page(_) => false,
    };
    may_be && is_call && is_without_login(headers)
}

/// No credentials, or the empty pair that skopeo and its kin send when they have nothing else to
/// send.
fn is_without_login(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return true };
    all.next().is_none()
        && basic::parse(value.as_bytes()).is_ok_and(|credentials| credentials.is_empty())
}
