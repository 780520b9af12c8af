//! See `keywatch_fuzz::tls_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::tls_records(data));
