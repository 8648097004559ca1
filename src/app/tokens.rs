//! The keys of tokens and the refresh tokens: opened when a domain needs them, and refreshed as
//! files are.

use std::sync::Arc;

use crate::auth::token::{Tokens, TokensError};
use crate::clock::time_of_day;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::VirtualHost;
use crate::request::site::Sites;

/// Opens what issues and verifies tokens, if a domain needs it. Kept across reloads, like the state
/// directory.
pub(super) fn tokens(
    snapshot: &Snapshot,
    before: Option<&Sites>,
    problems: &mut Problems,
) -> Option<Arc<Tokens>> {
    let host = snapshot
        .domains
        .iter()
        .find(|host| host.auth.mode.tokens().is_some())?;
    if let Some(kept) = before.and_then(from_sites) {
        return Some(kept);
    }
    match Tokens::open(&snapshot.state, time_of_day()) {
        Ok(tokens) => Some(Arc::new(tokens)),
        Err(error) => {
            problems.push(problem(host, &error));
            None
        }
    }
}

/// Reports files of tokens that cannot be used, for `moorgate check`.
pub(super) fn check(snapshot: &Snapshot, problems: &mut Problems) {
    let host = snapshot
        .domains
        .iter()
        .find(|host| host.auth.mode.tokens().is_some());
    if let Some(host) = host
        && let Err(error) = Tokens::check(&snapshot.state)
    {
        problems.push(problem(host, &error));
    }
}

fn problem(host: &VirtualHost, error: &TokensError) -> Problem {
    let help = "make the file readable and the state directory writable for moorgate's user; a damaged file can be taken away";
    Problem::at_key(&host.source, &["auth", "mode"], error.to_string(), help)
}

/// What issues and verifies the tokens of these sites.
pub(crate) fn from_sites(sites: &Sites) -> Option<Arc<Tokens>> {
    sites.all.iter().find_map(|site| site.tokens.clone())
}

/// Writes and re-reads the token files. Blocks on the disk and on locks.
pub(super) fn refresh(sites: &Sites) {
    if let Some(tokens) = from_sites(sites) {
        tokens.refresh(time_of_day());
    }
}
