//! `moorgate manual DIR`: the manual pages, from the same texts as `--help`.

use std::path::Path;

use anyhow::Context;

/// Writes one page for each command, `moorgate.1` and `moorgate-COMMAND.1`, into a directory.
pub fn run(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(super::command(), directory)
        .with_context(|| format!("cannot write the pages to {}", directory.display()))?;
    Ok(())
}
