//! What the slow path may take, and what it counts.

use std::time::Duration;

use crate::config::model::Bounds;

/// Bounds of the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows that it follows at once.
    pub flows: usize,
    /// Bytes that it holds.
    pub held_bytes: usize,
    /// Bytes that wait behind a hole in one half.
    pub half_bytes: usize,
    /// Bytes of a request that are remembered to compare retransmissions with: the longest head.
    pub head_bytes: usize,
    /// Fragmented IP packets that are put together at once, and segments out of such that wait for their flow.
    pub fragments: usize,
    /// How long missing bytes are waited for.
    pub hole_timeout: Duration,
}

impl From<&Bounds> for Limits {
    fn from(bounds: &Bounds) -> Self {
        Self {
            flows: bounds.slow_flows,
            held_bytes: bounds.slow_path_bytes,
            half_bytes: bounds.slow_half_bytes,
            head_bytes: bounds.head_bytes as usize,
            fragments: bounds.fragments,
            hole_timeout: bounds.hole_timeout,
        }
    }
}

impl Default for Limits {
    /// Those of a configuration that says nothing.
    fn default() -> Self {
        Self {
            flows: 16_384,
            held_bytes: 64 << 20,
            half_bytes: 1 << 20,
            head_bytes: 64 << 10,
            fragments: 1024,
            hole_timeout: Duration::from_secs(5),
        }
    }
}

/// What the slow path counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowCounts {
    /// Flows that it follows.
    pub flows: u64,
    /// Bytes that it holds.
    pub held: u64,
    /// Flows that went because a bound was reached.
    pub evicted: u64,
    /// Of these, flows that rested between two messages, for the kernel to take back.
    pub evicted_resting: u64,
    /// Of these, flows whose state had been lost before.
    pub evicted_found: u64,
    /// Of these, flows of a client that had more than its share.
    pub evicted_share: u64,
    /// Holes that were given up.
    pub holes: u64,
    /// Segments out of every window.
    pub out_of_window: u64,
    /// Segments that contradict what was seen before.
    pub conflicts: u64,
    /// Contradictions of which no other version could be made.
    pub unjudged: u64,
    /// Other versions of requests that were sent to be judged.
    pub versions: u64,
}
