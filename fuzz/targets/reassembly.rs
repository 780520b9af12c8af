//! See `keywatch_fuzz::reassembly`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::reassembly(data));
