//! No password file makes the parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::auth::htpasswd::Htpasswd;

fuzz_target!(|file: &[u8]| {
    let _ = Htpasswd::parse(file);
});
