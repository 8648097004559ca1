//! The administrator's command that sets TXT records for dns-01: `COMMAND present|cleanup NAME
//! VALUE`.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The program and its first arguments.
pub(in crate::certs::orders) struct DnsCommand<'a>(pub(in crate::certs::orders) &'a [String]);

/// Why a record is not set, or not removed.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs::orders) enum CommandError {
    #[error("`{program}` cannot be started: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("`{program} {action}` failed ({status}): {output}")]
    Failed {
        program: String,
        action: &'static str,
        status: std::process::ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    #[error("`{program} {action}` did not end within {} minutes", COMMAND_TIMEOUT.as_secs() / 60)]
    TimedOut {
        program: String,
        action: &'static str,
    },
}

impl DnsCommand<'_> {
    /// Sets a record beside others of the name. The command ends when all resolvers can see it.
    pub(super) async fn present(&self, name: &str, value: &str) -> Result<(), CommandError> {
        self.run("present", name, value).await
    }

    /// Removes the record.
    pub(super) async fn cleanup(&self, name: &str, value: &str) -> Result<(), CommandError> {
        self.run("cleanup", name, value).await
    }

    async fn run(&self, action: &'static str, name: &str, value: &str) -> Result<(), CommandError> {
        let (program, arguments) = self
            .0
            .split_first()
            .map_or(("", &[][..]), |(first, rest)| (first, rest));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args([action, name, value])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let program = program.to_owned();
        let output = match timeout(COMMAND_TIMEOUT, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(CommandError::Start { program, source }),
            Err(_) => return Err(CommandError::TimedOut { program, action }),
        };
        if output.status.success() {
            return Ok(());
        }
        let written = if output.stderr.is_empty() {
            &output.stdout
        } else {
            &output.stderr
        };
        Err(CommandError::Failed {
            program,
            action,
            status: output.status,
            output: output_tail(&String::from_utf8_lossy(written)),
        })
    }
}

/// The end of the output of a program on one line: the reason of a failure usually comes last.
fn output_tail(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    let skipped = line.chars().count().saturating_sub(MAX_OUTPUT_CHARS);
    if line.is_empty() {
        "no output".to_owned()
    } else {
        line.chars().skip(skipped).collect()
    }
}

/// Two minutes are common until all servers of a zone have a record.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(10);
const MAX_OUTPUT_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script, "name"].map(str::to_owned).into()
    }

    #[tokio::test]
    async fn the_command_gets_action_name_and_value() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("arguments");
        let command = shell(&format!("echo \"$@\" >>{}", file.display()));
        DnsCommand(&command)
            .present("_acme-challenge.a.test", "value")
            .await
            .expect("set");
        DnsCommand(&command)
            .cleanup("_acme-challenge.a.test", "value")
            .await
            .expect("removed");
        let arguments = std::fs::read_to_string(file).expect("read");
        assert_eq!(
            arguments,
            "present _acme-challenge.a.test value\ncleanup _acme-challenge.a.test value\n"
        );
    }

    #[tokio::test]
    async fn an_error_quotes_the_output_of_the_command() {
        let command = shell("echo 'no such\nzone' >&2; exit 3");
        let error = DnsCommand(&command)
            .present("a", "b")
            .await
            .expect_err("failed")
            .to_string();
        assert_eq!(
            error,
            "`/bin/sh present` failed (exit status: 3): no such zone"
        );
        let missing = ["/nonexistent/command".to_owned()];
        let error = DnsCommand(&missing)
            .present("a", "b")
            .await
            .expect_err("missing")
            .to_string();
        assert!(
            error.starts_with("`/nonexistent/command` cannot be started: "),
            "{error}"
        );
    }
}
