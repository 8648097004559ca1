//! No first bytes of a connection make the reader of PROXY headers panic; what is no header is
//! passed on whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moorgate::internal::listen::proxy_protocol::read;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut rest = bytes;
    let Ok(preface) = runtime.block_on(read(&mut rest)) else { return };
    let passed_on = [&preface.rest[..], rest].concat();
    assert!(bytes.ends_with(&passed_on));
    if preface.source.is_some() {
        assert!(passed_on.len() < bytes.len());
    }
});
