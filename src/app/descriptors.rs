//! Fits the number of connections into the limit of open files, so that descriptors do not run out
//! while connections are accepted.

use super::StartError;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::{ConnectionSettings, Snapshot};
use crate::listen::limits::ConnectionBounds;
use crate::observe::usage::max_files;

/// The bounds of the settings, lowered where there are too few descriptors, which is logged when the
/// setting is another one than `before`.
pub(super) fn connection_bounds(
    settings: &ConnectionSettings,
    before: Option<&ConnectionSettings>,
) -> ConnectionBounds {
    let configured = settings.connections;
    let max_files = max_files().unwrap_or(u64::MAX);
    let connections = configured.min(affordable(max_files).max(MIN_CONNECTIONS));
    let is_known = before.is_some_and(|before| before.connections == configured);
    if connections < configured && !is_known {
        report_lowered(configured, connections, max_files);
    }
    ConnectionBounds {
        connections,
        per_client: settings.client_connections,
        client_rate: settings.client_connection_rate,
    }
}

fn report_lowered(configured: usize, connections: usize, max_files: u64) {
    let needed = needed(configured);
    // A few less than the default make no difference.
    if connections >= configured - configured / 20 {
        tracing::info!(
            configured,
            connections,
            max_files,
            needed,
            "the limit of open files is too low for `limits.connections`, which is lowered a little"
        );
        return;
    }
    tracing::warn!(
        configured,
        connections,
        max_files,
        needed,
        "the limit of open files is too low for `limits.connections`, which is lowered: raise LimitNOFILE or `ulimit -n`"
    );
}

/// The same at the start.
///
/// Errors: too few open files to serve with.
pub(super) fn bounds_at_start(snapshot: &Snapshot) -> Result<ConnectionBounds, StartError> {
    let problems = problems(snapshot);
    if problems.has_errors() {
        return Err(StartError::System(problems));
    }
    Ok(connection_bounds(&snapshot.connection, None))
}

fn problems(snapshot: &Snapshot) -> Problems {
    let mut problems = Problems::default();
    let least = needed(MIN_CONNECTIONS.min(snapshot.connection.connections));
    if let Some(max_files) = max_files().filter(|max| *max < least) {
        let message = format!(
            "at most {max_files} files and sockets may be open, fewer than the {least} that moorgate needs"
        );
        let main = snapshot.main_file();
        let help = "raise LimitNOFILE of the systemd unit, or `ulimit -n`";
        problems.push(Problem::at_key(
            &main,
            &["limits", "connections"],
            message,
            help,
        ));
    }
    problems
}

/// The descriptors for so many connections.
fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_mul(PER_CONNECTION) + OTHERS
}

fn affordable(max_files: u64) -> usize {
    let connections = max_files.saturating_sub(OTHERS) / PER_CONNECTION;
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// A socket of the client, and one of the upstream or a file of the store.
const PER_CONNECTION: u64 = 2;
/// Listeners, logs, the files of stores and of the state directory.
const OTHERS: u64 = 256;
/// Below this, serving makes no sense: a browser alone opens six.
const MIN_CONNECTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_affordable() {
        for (max_files, connections) in [(0, 0), (256, 0), (384, 64), (1024, 384), (20_256, 10_000)]
        {
            assert_eq!(affordable(max_files), connections);
            assert!(connections == 0 || needed(connections) <= max_files);
        }
        assert!(affordable(u64::MAX) > 1 << 60);
    }
}
