//! `moorgate reload`: the running process reads its configuration again and reports its problems.

use std::path::Path;
use std::process::ExitCode;

use crate::admin::control::ControlCommand;

pub fn run(config: &Path) -> anyhow::Result<ExitCode> {
    super::send_command(config, &ControlCommand::Reload {})
}
