//! See `fuzz_targets::http`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::http::target(data));
