//! The rules of the line, one file for each: what a request may be, and what becomes of it.

mod bodies;
mod forms;
mod hosts;
mod locations;
mod loops;
mod nameless;
mod opaque_addresses;
mod own_answers;
mod page_sizes;
mod passing_headers;
mod paths;
mod ping;
mod retries;
mod storage;
mod upstream_logins;
mod upstreams;
