//! The commands of the real program, beside a gateway of this process.

use std::path::Path;
use std::process::Command;

/// How a command ends, what it prints, and what it says, while this thread goes on serving. The
/// directory is `DIR`, and this process `PID`.
pub async fn cli(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
    command.args(arguments).arg("--config").arg(directory);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| {
        String::from_utf8(bytes)
            .unwrap()
            .replace(directory.to_str().unwrap(), "DIR")
            .replace(&format!("process {} ", std::process::id()), "process PID ")
    };
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
