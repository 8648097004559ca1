//! No scope makes the parser panic; whatever it accepts prints to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::registry::Scope;

fuzz_target!(|text: &str| {
    let Ok(scope) = Scope::parse(text) else { return };
    assert_eq!(scope.to_string(), text);
    let _ = (scope.resource(), scope.rights());
});
