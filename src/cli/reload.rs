//! `moorgate reload`: makes the running process reload its configuration and prints the problems.

use std::path::Path;
use std::process::ExitCode;

use super::ProcessOptions;
use crate::admin::control::ControlCommand;

pub fn run(config: &Path, processes: ProcessOptions) -> anyhow::Result<ExitCode> {
    super::send_command(config, processes, &ControlCommand::Reload {})
}
