//! The code that authsensor's BPF object and its host side share.
//!
//! Everything here is `no_std` and compiled twice: into the kernel programs (`src/main.rs`, target
//! `bpfel-unknown-none`) and into the daemon, where the same functions parse capture files and are tested and
//! fuzzed. Bytes flow in as packets; records ([`wire`]) flow out.
#![no_std]

pub mod reason;
pub mod siphash;
pub mod wire;
