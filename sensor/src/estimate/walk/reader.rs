//! What is kept of a client or a network that is fed: how much it read, how far it jumps, and its progression.

use super::super::table::Kept;
use super::super::time::{Tenths, seconds};
use super::stride::Stride;
use super::tracker::{Moment, REACH, REGION, STEP};

/// Jumps after which a reader's own neighbourhood is known.
const KNOWN: u8 = 4;
/// Weight of one read in the reader's means.
const WEIGHT: f32 = 0.125;

/// A client or a network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    stride: Stride,
    /// Reads fed: the clock of its walks.
    reads: u32,
    /// Mean logarithm (to 2) of the jumps that are too far to be steps, and the share of reads that are such.
    jump: f32,
    jumping: f32,
    jumps: u8,
    touched: Tenths,
}

impl Reader {
    /// Starts at `id`.
    pub fn new(id: u64, now: Tenths) -> Self {
        Self { stride: Stride::new(id, 0), touched: now, ..Self::default() }
    }

    /// Counts a read of `id`; by whatever `chance` one read of anybody hits near it. The moment on its own clock, with the
    /// chance of this reader, and the length of its progression.
    ///
    /// Who reads at random in a narrow range (a branch and its members) comes near its own reads often; how often, its
    /// jumps say: the mean logarithm of the distance of two random numbers below R is log₂ R − 2.16.
    pub fn read(&mut self, id: u64, chance: f32, now: Tenths) -> (Moment, u32) {
        self.reads = self.reads.saturating_add(1);
        self.touched = now;
        let distance = id.abs_diff(self.stride.last());
        let jumps = distance >= REACH;
        self.jumping += WEIGHT * (if jumps { 1.0 } else { 0.0 } - self.jumping);
        if jumps {
            let log = log2(distance);
            self.jump = if self.jumps == 0 { log } else { self.jump + WEIGHT * (log - self.jump) };
            self.jumps = self.jumps.saturating_add(1);
        }
        let moment = Moment { clock: self.reads, chance: chance.max(self.own()).min(1.0), now };
        // A progression is made of jumps: what is near by chance says nothing against it.
        let length = self.stride.take(id, Moment { chance, ..moment });
        (moment, length)
    }

    /// Chance by its own jumps that one read comes near another.
    pub fn own(&self) -> f32 {
        if self.jumps < KNOWN {
            return 0.0;
        }
        self.jumping * (REGION / exp2(self.jump + 2.16)).min(1.0)
    }
}

/// Logarithm to 2, within 0.09: linear between powers.
#[expect(clippy::cast_precision_loss, reason = "an approximation")]
fn log2(value: u64) -> f32 {
    let power = (value | 1).ilog2();
    power as f32 + ((value | 1) as f32 / (1u64 << power) as f32 - 1.0)
}

/// 2 to the `power` (0 to 66), within 6 %: linear between powers.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an approximation"
)]
fn exp2(power: f32) -> f32 {
    let whole = power.floor();
    (1u128 << (whole as u32).min(100)) as f32 * (1.0 + power - whole)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_range_is_known_by_its_jumps() {
        let (mut reader, mut state) = (Reader::new(5_000, 0), 1u64);
        let mut mean = 0.0;
        for _ in 0..1_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mean += reader.read(5_000 + (state >> 33) % 2_000, 1e-6, 0).0.chance / 1_000.0;
        }
        assert!((0.03..0.13).contains(&mean), "of 128 in 2000: {mean}");
        let mut walker = Reader::new(1, 0);
        for id in 2..100 {
            assert!(walker.read(id, 1e-6, 0).0.chance < 2e-6);
        }
    }
}
