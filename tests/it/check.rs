//! What `moorgate check` says of what a start would stumble over: the files that the configuration
//! names, and the machine.

mod certificates;
mod live;
mod machine;

use std::fs;
use std::path::Path;

use crate::harness::cli;

/// The exit status of the command and what it says, numbers of processes left out.
async fn check(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let (status, _, said) = cli(directory, &[&["check"], arguments].concat()).await;
    let pid = format!("(pid {})", std::process::id());
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let said = said.replace(&pid, "(pid PID)");
    let said = said.replace(&format!("by {} (pid", name.trim()), "by NAME (pid");
    (status.unwrap(), said)
}
