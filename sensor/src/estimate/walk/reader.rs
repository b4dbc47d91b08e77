//! What is kept of a client or a network that is fed: how much it read, where that was no walk, and its progression.

use serde::{Deserialize, Serialize};

use super::super::table::Kept;
use super::super::time::{Tenths, seconds};
use super::regions::OwnRegions;
use super::stride::Stride;
use super::tracker::STEP;

/// A client or a network.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reader {
    /// Its progression.
    pub stride: Stride,
    /// Reads fed.
    pub reads: u32,
    /// Those beside its walks.
    pub regions: OwnRegions,
    /// When it last read.
    pub touched: Tenths,
}

impl Reader {
    /// Starts at `id`.
    pub fn new(id: u64, now: Tenths) -> Self {
        Self { stride: Stride::new(id), touched: now, ..Self::default() }
    }
}

impl Kept for Reader {
    /// Progressions by their evidence, others by age.
    fn worth(&self, now: Tenths) -> f32 {
        const DAY_S: f32 = 86_400.0;
        let age = seconds(self.touched, now) / DAY_S;
        let known = if self.reads > 16 { 0.5 } else { 0.0 };
        if age > 7.0 { -1.0 } else { self.stride.score().max(STEP) + known - age }
    }
}
