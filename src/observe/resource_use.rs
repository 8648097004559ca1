//! The use of a resource of which the process has a limited amount, and the warning that little of
//! it is left.

/// The use of a limited resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceUse {
    /// The name in metrics and in the log.
    pub(crate) resource: &'static str,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

impl ResourceUse {
    /// The use of what is counted, of so many at most.
    pub(crate) fn new(resource: &'static str, used: usize, limit: usize) -> Self {
        Self {
            resource,
            used: used as u64,
            limit: limit as u64,
        }
    }

    /// Warns when nine tenths are in use. The log says it once a minute.
    pub(crate) fn warn_if_scarce(self) {
        let Self {
            resource,
            used,
            limit,
        } = self;
        if used >= limit - limit / 10 {
            tracing::warn!(resource, used, limit, "a limit is nearly reached");
        }
    }
}
