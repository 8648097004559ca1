//! What `moorgate check` says of what a start would stumble over: the files that the configuration
//! names, and the machine.

mod certificates;
mod live;
mod live_upstreams;
mod machine;

use std::fs;
use std::path::Path;

use crate::harness::cli;

/// The exit status of the command and what it says, numbers of processes left out.
async fn check(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let (status, _, said) = cli(directory, &[&["check"], arguments].concat()).await;
    (status.unwrap(), masked(said))
}

/// What a command says, without the name and number of this process.
fn masked(said: String) -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("by {} (pid {})", name.trim(), std::process::id());
    said.replace(&holder, "by NAME (pid PID)")
}
