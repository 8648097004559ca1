//! The rules of the line, one file for each: what a request may be, and what becomes of it.

mod bodies;
mod forms;
mod hosts;
mod locations;
mod own_answers;
mod passing_headers;
mod paths;
mod ping;
mod retries;
mod storage;
mod upstreams;
