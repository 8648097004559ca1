//! Lets one request at a time find out whether an upstream that cannot be reached can be reached
//! again: the others need not wait for the end of a time limit to hear that it cannot.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the last connections to one server were like.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// Failed connections without a successful one between them.
    failures: AtomicU32,
    /// Whether a connection is being tried although the circuit is open.
    is_probed: AtomicBool,
}

/// The permission to make one connection.
pub(super) struct ConnectPermit<'a> {
    circuit: &'a Circuit,
    is_probe: bool,
}

impl Circuit {
    /// `None`: the last connections failed, and one is being tried just now.
    pub(super) fn permit(&self) -> Option<ConnectPermit<'_>> {
        let is_open = self.failures.load(Ordering::Relaxed) >= MAX_FAILURES;
        if is_open && self.is_probed.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(ConnectPermit {
            circuit: self,
            is_probe: is_open,
        })
    }

    pub(super) fn connected(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        let more = |failures: u32| Some(failures.saturating_add(1));
        let _ = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

impl Drop for ConnectPermit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.circuit.is_probed.store(false, Ordering::Release);
        }
    }
}

/// Fewer may be a server that is restarting.
pub(super) const MAX_FAILURES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_circuit_lets_one_connection_at_a_time_through() {
        let circuit = Circuit::default();
        for _ in 0..MAX_FAILURES {
            let both = (circuit.permit(), circuit.permit());
            assert!(both.0.is_some() && both.1.is_some());
            circuit.failed();
        }
        let probe = circuit.permit();
        assert!(probe.is_some());
        assert!(circuit.permit().is_none());
        drop(probe);
        let probe = circuit.permit();
        assert!(probe.is_some(), "the one before has ended");
        circuit.connected();
        drop(probe);
        let both = (circuit.permit(), circuit.permit());
        assert!(both.0.is_some() && both.1.is_some());
    }
}
