//! `moorgate health`: whether the running process is ready, for health checks of containers and
//! services.

use std::path::Path;
use std::process::ExitCode;

use super::ProcessOptions;
use crate::admin::control::ControlCommand;

/// Exit status 0 if it is, 1 if it is not or does not answer.
pub fn run(config: &Path, processes: ProcessOptions) -> anyhow::Result<ExitCode> {
    super::send_command(config, processes, &ControlCommand::Health {})
}
