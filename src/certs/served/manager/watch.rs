//! What was seen of the two files of a certificate, so that they are read again only when that
//! tells something.

use std::path::Path;

use crate::state_file::Fingerprint;

/// What was seen of a pair of files.
#[derive(Default)]
pub(super) struct Watch {
    seen: Option<[Option<Fingerprint>; 2]>,
    /// Whether what was seen has been judged, for good or ill.
    pub(super) settled: bool,
}

/// What a look at a pair of files shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Other files than at the last look.
    Changed,
    /// The same, but not yet judged, or so fresh that a change need not show.
    Unsettled,
}

impl Watch {
    /// `None`: there is nothing to be read again.
    pub(super) fn look(&mut self, certificate: &Path, key: &Path) -> Option<Sight> {
        let sight = [
            Fingerprint::from_path(certificate),
            Fingerprint::from_path(key),
        ];
        if self.seen != Some(sight) {
            self.seen = Some(sight);
            self.settled = false;
            return Some(Sight::Changed);
        }
        let fresh = sight.iter().flatten().any(Fingerprint::is_fresh);
        (fresh || !self.settled).then_some(Sight::Unsettled)
    }
}
