//! `moorgate reload`: the running process reads its configuration again, and says here what is
//! wrong with it.

use std::path::Path;
use std::process::ExitCode;

use crate::admin::control::Command;

/// Asks for the reload.
pub fn run(config: &Path) -> anyhow::Result<ExitCode> {
    super::ask(config, &Command::Reload {})
}
