//! What ACME keeps below the state directory: accounts, certificates, orders in flight, and the
//! ledger of orders and failures.

pub(crate) mod ledger;
pub(crate) mod paths;
pub(crate) mod pending_order;
pub(crate) mod storage;
#[cfg(test)]
mod tests;
