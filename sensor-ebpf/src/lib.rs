//! The code that authsensor's BPF object and its host side share.
//!
//! Everything here is `no_std` and compiled twice: into the kernel programs (`src/main.rs`, target
//! `bpfel-unknown-none`) and into the daemon, where the same functions parse capture files and are tested and
//! fuzzed. Bytes flow in as packets; records ([`wire`]) flow out.
#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "words are taken apart on purpose, constants are far below 2^32, and sequence numbers wrap by definition"
)]
#![allow(clippy::similar_names, reason = "`work` and `word` are this crate's most frequent names")]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(internal_features, reason = "the lock word needs the atomic intrinsics"))]

pub mod engine;
pub mod flow;
pub mod http;
pub mod layers;
pub mod lock;
pub mod packet;
pub mod reason;
pub mod route;
pub mod siphash;
pub mod slow;
pub mod swar;
pub mod wire;
pub mod words;
pub mod work;
