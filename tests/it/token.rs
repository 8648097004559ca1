//! Token mode: what the token endpoint gives, what a token is good for, and when it is worth
//! nothing.

mod attacks;
mod calls;
mod changes;
mod endpoint;
mod fixture;
mod kept_passwords;
mod many;
mod mounts;
mod refresh;
