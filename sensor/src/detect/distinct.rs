//! Counting distinct values: exactly up to a bound, by HyperLogLog beyond it.
//!
//! [`Registers`] is one sketch, [`Distinct`] a count that never forgets (an open finding), and
//! [`Window`](super::window::Window) uses both for a count over time. Standard error of a sketch: 1.04/√4096 = 1.63 %.

use std::collections::HashSet;

use ahash::RandomState;
use sensor_ebpf::siphash;

use super::field::Key;

/// Registers are chosen by the first twelve bits.
const PRECISION: u32 = 12;
/// Registers of a sketch; its standard error is 1.04 divided by the root of it.
const REGISTERS: usize = 1 << PRECISION;
/// Bits that are left for the rank.
const RANK_BITS: usize = 64 - PRECISION as usize;

/// A HyperLogLog sketch: 4 KiB of registers and how many there are of each value, so that an estimate costs 53 steps.
///
/// Flajolet et al., "HyperLogLog" (2007), with the unbiased estimator of Ertl, "New cardinality estimation algorithms
/// for HyperLogLog sketches" (2017), algorithm 6. Only additions, products and square roots: the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    values: Box<[u8; REGISTERS]>,
    counts: [u32; RANK_BITS + 2],
}

impl Registers {
    pub fn new() -> Self {
        let mut counts = [0; RANK_BITS + 2];
        counts[0] = 1 << PRECISION;
        Self { values: Box::new([0; REGISTERS]), counts }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.values.fill(0);
        self.counts.fill(0);
        self.counts[0] = 1 << PRECISION;
    }

    /// Adds a value. The hash has a fixed key so that a replay gives the same estimates; account hashes are already
    /// keyed, and a crafted set of the other fields can bend only counts far above a rule's threshold.
    pub fn insert(&mut self, key: &Key) {
        let hash = u128::from_le_bytes(siphash::hash128(siphash::Key { k0: 0x6175_7468, k1: 0x7365_6e73 }, key));
        #[expect(clippy::cast_possible_truncation, reason = "half of the hash is plenty")]
        let hash = hash as u64;
        let rank = ((hash << PRECISION) | 1 << (PRECISION - 1)).leading_zeros() + 1;
        #[expect(clippy::cast_possible_truncation, reason = "twelve bits and a rank of at most 53")]
        self.raise((hash >> RANK_BITS) as usize, rank as u8);
    }

    /// Takes in all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (index, rank) in other.values.iter().enumerate() {
            self.raise(index, *rank);
        }
    }

    fn raise(&mut self, index: usize, rank: u8) {
        let Some(register) = self.values.get_mut(index).filter(|register| **register < rank) else { return };
        let before = std::mem::replace(register, rank);
        if let Some(count) = self.counts.get_mut(usize::from(before)) {
            *count -= 1;
        }
        if let Some(count) = self.counts.get_mut(usize::from(rank)) {
            *count += 1;
        }
    }

    /// The estimate.
    pub fn estimate(&self) -> u64 {
        let m = f64::from(1u32 << PRECISION);
        let count = |rank: usize| f64::from(self.counts.get(rank).copied().unwrap_or(0));
        let mut z = m * tau(1.0 - count(RANK_BITS + 1) / m);
        for rank in (1..=RANK_BITS).rev() {
            z = 0.5 * (z + count(rank));
        }
        z += m * sigma(count(0) / m);
        let estimate = 0.5 / std::f64::consts::LN_2 * m * m / z;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; a cast saturates")]
        let rounded = estimate.round() as u64;
        rounded
    }
}

#[expect(clippy::float_cmp, reason = "the series is summed until a term no longer changes it")]
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

#[expect(clippy::float_cmp, reason = "the series is summed until a term no longer changes it")]
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// Distinct values since it was made.
#[derive(Clone, Debug)]
pub(super) enum Distinct {
    /// All values, at most the bound.
    Exact { values: HashSet<Key, RandomState>, bound: usize },
    /// Beyond the bound.
    Sketch(Registers),
}

impl Distinct {
    /// Exact up to `bound` values.
    pub fn new(bound: usize) -> Self {
        Self::Exact { values: HashSet::default(), bound }
    }

    /// Carries on from an estimate.
    pub fn from_sketch(sketch: Registers) -> Self {
        Self::Sketch(sketch)
    }

    pub fn insert(&mut self, key: &Key) {
        match self {
            Self::Exact { values, bound } => {
                if values.len() < *bound || values.contains(key) {
                    values.insert(*key);
                    return;
                }
                // Order does not matter to a sketch, so the set's order never shows.
                let mut sketch = Registers::new();
                for value in values.iter() {
                    sketch.insert(value);
                }
                sketch.insert(key);
                *self = Self::Sketch(sketch);
            }
            Self::Sketch(sketch) => sketch.insert(key),
        }
    }

    /// The count, and whether it is exact.
    pub fn count(&self) -> (u64, bool) {
        match self {
            Self::Exact { values, .. } => (values.len() as u64, true),
            Self::Sketch(sketch) => (sketch.estimate(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn estimates_are_within_four_standard_errors() {
        let mut sketch = Registers::new();
        assert_eq!(sketch.estimate(), 0);
        let mut next = 0u64;
        for total in [1u64, 10, 100, 1_000, 5_000, 10_000, 20_000, 100_000, 1_000_000] {
            while next < total {
                sketch.insert(&key(next));
                sketch.insert(&key(next / 2));
                next += 1;
            }
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let error = (sketch.estimate() as f64 - total as f64).abs() / total as f64;
            assert!(error < 4.0 * 0.01625, "{total}: {}", sketch.estimate());
        }
    }

    #[test]
    fn merging_equals_inserting_both() {
        let (mut left, mut right, mut both) = (Registers::new(), Registers::new(), Registers::new());
        for number in 0..30_000 {
            (if number % 3 == 0 { &mut left } else { &mut right }).insert(&key(number));
            both.insert(&key(number));
        }
        left.merge(&right);
        assert_eq!(left.values, both.values);
        assert_eq!(left.counts, both.counts);
        left.clear();
        assert_eq!(left.estimate(), 0);
    }

    #[test]
    fn exact_up_to_the_bound_then_an_estimate() {
        let mut distinct = Distinct::new(100);
        for number in 0..100 {
            distinct.insert(&key(number));
            distinct.insert(&key(0));
        }
        assert_eq!(distinct.count(), (100, true));
        distinct.insert(&key(100));
        let (count, exact) = distinct.count();
        assert!(!exact && (95..=107).contains(&count), "{count}");
    }
}
