//! What moorgate does, seen from outside. The list of modules is a table of contents.
#![expect(unreachable_pub, reason = "the harness is read like a library")]

mod harness;

mod abuse;
mod first_steps;
