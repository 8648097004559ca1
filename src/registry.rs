//! The vocabulary of the registry protocol (OCI distribution specification 1.1): the meaning of
//! requests and the content of responses. Pure: no I/O, no async. Untrusted input is parsed here
//! once, into types whose values are always valid.

pub(crate) mod host;

pub(crate) mod digest;
pub(crate) mod name;
pub(crate) mod name_map;
pub(crate) mod pattern;
pub(crate) mod reference;
pub(crate) mod upload_id;

pub(crate) mod action;
pub(crate) mod call;
pub(crate) mod challenge;
pub(crate) mod error_code;
pub(crate) mod json_strings;
pub(crate) mod link;
pub(crate) mod location;
pub(crate) mod product;
pub(crate) mod scope;
