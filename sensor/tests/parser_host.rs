//! The shared parser as the host runs it: conversations cut in every way, credentials in every form, hostile bytes.
//!
//! Everything goes through [`sensor::capture::host::HostEngine`], whose functions are the kernel programs' own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail the test"
)]

#[path = "parser/fingerprints.rs"]
mod fingerprints;
#[path = "support/tunnels.rs"]
mod frames;
#[path = "parser/framing.rs"]
mod framing;
#[path = "parser/heads.rs"]
mod heads;
#[path = "parser/hostile.rs"]
mod hostile;
#[path = "parser/identities.rs"]
mod identities;
#[path = "parser/layers.rs"]
mod layers;
#[path = "parser/lists.rs"]
mod lists;
#[path = "parser/odd_heads.rs"]
mod odd_heads;
#[path = "parser/odd_splits.rs"]
mod odd_splits;
#[path = "parser/pairing.rs"]
mod pairing;
#[path = "parser/proxy.rs"]
mod proxy;
#[path = "parser/rig.rs"]
mod rig;
#[path = "parser/route_match.rs"]
mod route_match;
#[path = "parser/slow_hostile.rs"]
mod slow_hostile;
#[path = "parser/socks.rs"]
mod socks;
#[path = "parser/splits.rs"]
mod splits;
#[path = "parser/tunnels.rs"]
mod tunnels;
