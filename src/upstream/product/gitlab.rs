//! The container registry of GitLab.

use super::{Capabilities, Dialect};
use crate::registry::host::HostName;

pub(super) struct Gitlab;

impl Dialect for Gitlab {
    /// The realm is on the host of GitLab itself, which is another one where GitLab is one's own.
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["gitlab.com"].map(str::to_owned).to_vec()
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            immutable_tags: true,
            own_refusals: true,
            hides_missing_projects: true,
            ..Capabilities::STANDARD
        }
    }
}
