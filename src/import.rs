//! Translates the configuration of other programs into moorgate's own.

pub(crate) mod caddy;
