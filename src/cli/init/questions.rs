//! Questions to whoever sits at the terminal, for options that were not given.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

/// Asks, if there is a terminal to ask at.
pub(super) struct Questions {
    is_terminal: bool,
}

impl Questions {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    pub(super) fn can_ask(&self) -> bool {
        self.is_terminal
    }

    /// The value of an option that has to be there; `option` says how to give it without being
    /// asked.
    pub(super) fn required(
        &self,
        given: Option<String>,
        option: &str,
        question: &str,
    ) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        if !self.is_terminal {
            bail!("missing: {option} ({question})");
        }
        loop {
            let answer = ask(question)?;
            if !answer.is_empty() {
                return Ok(answer);
            }
        }
    }

    /// The value of an option that may be left out.
    pub(super) fn optional(
        &self,
        given: Option<String>,
        question: &str,
    ) -> anyhow::Result<Option<String>> {
        if given.is_some() || !self.is_terminal {
            return Ok(given);
        }
        let answer = ask(question)?;
        Ok((!answer.is_empty()).then_some(answer))
    }
}

fn ask(question: &str) -> anyhow::Result<String> {
    eprint!("{question}: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    let read = io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    if read == 0 {
        bail!("no answer: nothing was written");
    }
    Ok(answer.trim().to_owned())
}
