//! See `keywatch_fuzz::capture_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::capture_file(data));
