//! See `keywatch_fuzz::http2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::http2(data));
