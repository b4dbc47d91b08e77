//! See `fuzz_targets::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::head::target(data));
