//! See `keywatch_fuzz::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keywatch_fuzz::websocket(data));
