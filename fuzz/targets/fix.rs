//! See `keywatch_fuzz::fix`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::fix(data));
