//! No form of a request for a token, and no query, makes the parser panic; what is read is what was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::registry::pairs;

fuzz_target!(|text: &str| {
    for pair in pairs(text) {
        let Ok((name, value)) = pair else { continue };
        let written = format!("{}={}", encoded(&name), encoded(&value));
        let again = pairs(&written).next().expect("one").expect("readable");
        assert_eq!(again, (name, value));
    }
});

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
