//! The vocabulary of the registry protocol (OCI distribution specification 1.1): the meaning of
//! requests and the content of responses. Pure: no I/O, no async. Untrusted input is parsed here
//! once, into types whose values are always valid.

pub mod host;

pub mod digest;
pub mod name;
pub mod pattern;
pub mod reference;
pub mod upload_id;

pub mod action;
pub mod call;
pub mod error_code;
pub(crate) mod link;
pub mod location;
pub mod scope;
