//! What ACME keeps below the state directory: accounts, certificates, orders in flight, and the
//! ledger of orders and failures.

pub mod ledger;
pub mod paths;
pub mod pending_order;
pub mod storage;
#[cfg(test)]
mod tests;
