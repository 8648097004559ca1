//! No password file makes the parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::auth::Htpasswd;

fuzz_target!(|file: &[u8]| {
    let _ = Htpasswd::parse(file);
});
