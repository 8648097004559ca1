//! Whether what is written to standard error may have colours.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};

/// On a terminal that has colours, unless `NO_COLOR` is set (<https://no-color.org>).
pub(crate) fn wants_colour() -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    io::stderr().is_terminal() && allows_colour(&variable("NO_COLOR"), &variable("TERM"))
}

fn allows_colour(no_color: &OsStr, term: &OsStr) -> bool {
    no_color.is_empty() && term != "dumb"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_can_be_refused() {
        let allows = |no_color: &str, term: &str| allows_colour(no_color.as_ref(), term.as_ref());
        assert!(allows("", "xterm-256color") && allows("", ""));
        assert!(!allows("1", "xterm") && !allows("0", "xterm") && !allows("", "dumb"));
    }
}
