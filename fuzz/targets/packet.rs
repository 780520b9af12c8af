//! See `keywatch_fuzz::packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::packet(data));
