//! No Caddyfile makes the import panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::import::{CaddyVersion, is_understood};

fuzz_target!(|text: &str| {
    for version in [CaddyVersion::V1, CaddyVersion::V2] {
        let _ = is_understood(text, version);
    }
});
