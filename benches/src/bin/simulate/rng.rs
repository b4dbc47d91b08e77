//! Draws. Everything follows from the seed: a stream of numbers for what happens, a hash for what is.

use benches::behind::Random;
pub use benches::behind::mix;

/// A stream of draws (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Rng(Random);

/// Entries of the table of gaps.
const GAPS: usize = 4096;

impl Rng {
    /// The stream `name` of `seed`.
    pub const fn new(seed: u64, name: u64) -> Self {
        Self(Random(mix(seed ^ mix(name))))
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0.draw()
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// At least 0, below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// Time to the next of events that come at `rate`, in its unit.
    pub fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.share()).ln() / rate
    }

    /// `mean`, rounded up or down so that it is the mean.
    pub fn round(&mut self, mean: f64) -> u64 {
        (mean + self.share()).floor() as u64
    }
}

/// Gaps between a member's requests: exponential, by table.
#[derive(Debug)]
pub struct Gaps(Vec<u32>);

impl Gaps {
    /// With this mean, at least 1.
    pub fn new(mean: f64) -> Self {
        let quantile = |index: usize| -(1.0 - (index as f64 + 0.5) / GAPS as f64).ln();
        Self((0..GAPS).map(|index| (quantile(index) * mean).max(1.0) as u32).collect())
    }

    /// One gap.
    pub fn draw(&self, rng: &mut Rng) -> u32 {
        self.0.get(rng.next() as usize % GAPS).copied().unwrap_or(1)
    }

    /// The longest.
    pub fn longest(&self) -> u32 {
        self.0.last().copied().unwrap_or(1)
    }
}
