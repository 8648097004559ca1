//! The keys of tokens and the refresh tokens: opened once they are needed, looked after as files
//! are.

use std::sync::Arc;

use crate::auth::token::Tokens;
use crate::clock::time_of_day;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::request::site::Sites;

/// What gives and verifies tokens, where a domain wants them. It stays over reloads, as the state
/// directory does.
pub(super) fn tokens(
    snapshot: &Snapshot,
    before: Option<&Sites>,
    problems: &mut Problems,
) -> Option<Arc<Tokens>> {
    let host = snapshot
        .domains
        .iter()
        .find(|host| host.auth.mode.tokens().is_some())?;
    if let Some(kept) = before.and_then(of) {
        return Some(kept);
    }
    match Tokens::open(&snapshot.state, time_of_day()) {
        Ok(tokens) => Some(Arc::new(tokens)),
        Err(error) => {
            let help = "make the state directory writable for moorgate's user; a damaged file can be taken away";
            problems.push(Problem::at_key(
                &host.source,
                &["auth", "mode"],
                error.to_string(),
                help,
            ));
            None
        }
    }
}

/// What gives and verifies the tokens of these sites.
pub(crate) fn of(sites: &Sites) -> Option<Arc<Tokens>> {
    sites.all.iter().find_map(|site| site.tokens.clone())
}

/// Writes and reads what is kept in files. Waits for the disk.
pub(super) fn look(sites: &Sites) {
    if let Some(tokens) = of(sites) {
        tokens.look(time_of_day());
    }
}
