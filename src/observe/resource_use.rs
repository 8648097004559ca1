//! The use of a resource of which the process has a limited amount, and the warning that little of
//! it is left.

/// The use of a limited resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResourceUse {
    /// The name in metrics and in the log.
    pub(crate) resource: &'static str,
    pub(crate) used: u64,
    pub(crate) limit: u64,
    /// What was refused because of the limit, since the start; `None` where nothing ever is.
    pub(crate) refused: Option<u64>,
}

impl ResourceUse {
    /// The use of what is counted, of so many at most.
    pub(crate) fn new(resource: &'static str, used: usize, limit: usize) -> Self {
        Self {
            resource,
            used: used as u64,
            limit: limit as u64,
            refused: None,
        }
    }

    /// With what was refused since the start.
    pub(crate) fn refused(self, refused: u64) -> Self {
        Self {
            refused: Some(refused),
            ..self
        }
    }

    /// The one of which the larger part is in use.
    pub(crate) fn fuller(self, other: Self) -> Self {
        let share = |one: &Self| one.used as f64 / one.limit.max(1) as f64;
        let is_fuller = share(&other) > share(&self);
        // Of two that nobody uses, the one of which there is less.
        if is_fuller || (other.used == self.used && other.limit < self.limit) {
            other
        } else {
            self
        }
    }

    /// Warns when nine tenths are in use. The log says it once a minute.
    pub(crate) fn warn_if_scarce(self) {
        let Self {
            resource,
            used,
            limit,
            refused: _,
        } = self;
        if used >= limit - limit / 10 {
            tracing::warn!(resource, used, limit, "a limit is nearly reached");
        }
    }
}
