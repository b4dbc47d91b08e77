//! See `fuzz_targets::packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::packets::target(data));
