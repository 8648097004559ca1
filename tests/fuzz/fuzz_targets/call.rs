//! No request target makes the parser panic; whatever it accepts is plain and prints to itself.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use moorgate::internal::registry::Call;

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

fuzz_target!(|target: &str| {
    let (path, query) = split(target);
    for method in METHODS {
        let Ok(call) = Call::parse(&method, path, query) else { continue };
        let (printed_method, printed) = call.print();
        let (path, query) = split(&printed);
        assert!(path.starts_with("/v2/") && !path.contains("//") && !path.contains(['%', '\\', ';', '#']));
        assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
        assert_eq!(printed_method, method);
        assert_eq!(Call::parse(&method, path, query).as_ref(), Ok(&call));
    }
});

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}
