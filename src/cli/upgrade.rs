//! `moorgate upgrade`: lets a new process take over from the running one, or prints why it cannot.

use std::path::Path;
use std::process::ExitCode;

use super::ProcessOptions;
use crate::admin::control::ControlCommand;

pub fn run(config: &Path, processes: ProcessOptions) -> anyhow::Result<ExitCode> {
    let exit = super::send_command(config, processes, &ControlCommand::Upgrade {})?;
    // Also where the configuration is the reason.
    Ok(if exit == ExitCode::SUCCESS {
        exit
    } else {
        ExitCode::FAILURE
    })
}
