//! moorgate's own login at registries that want tokens: which token each call gets, how often one
//! is exchanged, and who never gets the credentials.

mod answers;
mod hostile;
pub mod played;
mod product;
mod reload;
mod secrets;
mod services;
mod services_refused;
mod tokens;
