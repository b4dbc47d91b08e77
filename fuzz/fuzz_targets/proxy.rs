//! See `fuzz_targets::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::proxy::target(data));
