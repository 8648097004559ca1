//! `moorgate unlock`: resets the failed logins of a user, of an address, or of everybody.

use crate::admin::control::{ControlCommand, UnlockTarget};

/// Options of `moorgate unlock`.
#[derive(Debug, clap::Args)]
#[group(id = "whom", required = true, multiple = false)]
pub struct UnlockOptions {
    /// A user, or the address of a client (IPv6: its /64).
    #[arg(value_name = "USER|ADDRESS", group = "whom")]
    user: Option<String>,
    /// Everybody.
    #[arg(long, group = "whom")]
    all: bool,
}

pub(super) fn reset(options: UnlockOptions, domain: Option<String>) -> ControlCommand {
    let whom = match options.user {
        None => UnlockTarget::All,
        Some(user) => match user.parse() {
            Ok(address) => UnlockTarget::Address(address),
            Err(_) => UnlockTarget::User(user),
        },
    };
    ControlCommand::Unlock { whom, domain }
}
