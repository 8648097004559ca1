//! No reference of an upstream makes the rewriter panic; what it keeps for itself leads nowhere
//! else. The first line of the input is the request's path, the rest the header's value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::registry::HostName;
use moorgate::internal::registry::{ResponseKind, Origin, Rewriter, Rewritten};

fuzz_target!(|input: &str| {
    let (request_path, value) = input.split_once('\n').unwrap_or(("/v2/", input));
    let upstream = HostName::parse("registry").expect("a host name");
    let public = HostName::parse("ci.example.com").expect("a host name");
    for base_path in ["", "/base"] {
        let rewriter = Rewriter {
            upstream: Origin { https: false, host: &upstream, port: 5000, base_path },
            is_public: &|name| *name == public,
            public_host: "ci.example.com:8443",
            request_path,
        };
        for answer in [ResponseKind::Redirect, ResponseKind::Other] {
            let kept = match rewriter.location(value, answer) {
                Rewritten::Path(path) | Rewritten::Beside(path) => path,
                Rewritten::Foreign | Rewritten::Refused => continue,
            };
            assert!(kept.starts_with('/') && !kept.starts_with("//"));
            assert!(kept.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'));
        }
        if let Some(link) = rewriter.link(value) {
            assert!(!link.contains(['\r', '\n', '\0']));
        }
    }
});
