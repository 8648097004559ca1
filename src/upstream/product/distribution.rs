//! A registry that keeps to the distribution specification.

use super::{Capabilities, Dialect};

pub(super) struct Distribution;

impl Dialect for Distribution {
    /// Versions before 3 delete no tags, which only an attempt shows.
    fn capabilities(&self) -> Capabilities {
        Capabilities::STANDARD
    }
}
