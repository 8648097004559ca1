//! No value of an Authorization header makes the parser panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::auth::basic;

fuzz_target!(|value: &[u8]| {
    let _ = basic::parse(value);
});
