//! The real program between real clients and real registries, each a process of its own: Debian's
//! docker-registry behind it; skopeo, podman, buildah, containerd, a Docker engine,
//! charliecloud, curl, nginx and htpasswd in front.
//!
//! Needs root, for the mount namespaces that give clients their own `/etc` and leave the machine's
//! alone. A tool that is missing fails the test with what to install; `./ctl.sh test` installs them
//! all.

mod clients;
mod engine;
mod fixture;
mod image;
mod machine;
mod pebble_accounts;
mod pebble_ca;
pub mod ports;
pub mod process;
mod program_image;
mod replica_process;
mod transfer;

mod access;
mod big_blob;
mod caddy_import;
mod charliecloud;
mod commands;
mod compose;
mod container_image;
mod debian_package;
mod docker_engine;
mod early_answers;
mod first_run;
mod kubernetes;
mod manifests;
mod names;
mod nginx;
mod pebble;
mod pebble_limits;
mod pebble_many;
mod products;
mod pull_times;
mod registry_settings;
mod replicas;
mod rules;
mod service;
mod signals;
mod skopeo;
mod soak;
mod store;
mod token;
mod upstream_errors;
mod users;
