//! Lists of registry products: the same pages for clients, wherever their entries come from.

mod catalog;
mod failures;
mod fixture;
mod tags;
mod whole_lists;
