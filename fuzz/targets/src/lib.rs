//! What authsensor's fuzzers run. Each module is one target: a function that takes bytes of any kind and panics when
//! something does not hold. The libFuzzer programs in `fuzz/` only call these functions; the tests of this crate call
//! them over the checked-in seeds, so that targets and seeds cannot rot.
//!
//! Streams come as a [`script`]: text with a few marker bytes (cut, other side, end), which a fuzzer moves about as
//! easily as the text itself. [`rig`] plays them through the parser on the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a panic is how a target says that something does not hold"
)]

pub mod capture;
pub mod decompress;
pub mod frames;
pub mod head;
pub mod http;
pub mod input;
pub mod jwt;
pub mod packets;
pub mod proxy;
pub mod reassembly;
pub mod rig;
pub mod script;

/// What a target is: a function over arbitrary bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its seeds' directory and of its program.
pub const TARGETS: &[(&str, Target)] = &[
    ("capture", capture::target),
    ("decompress", decompress::target),
    ("head", head::target),
    ("http", http::target),
    ("jwt", jwt::target),
    ("packets", packets::target),
    ("proxy", proxy::target),
    ("reassembly", reassembly::target),
];
