//! Distinct counting in fixed memory: HyperLogLog with 2^14 registers (16 KiB, standard error 0.81 %).
//!
//! Registers are atomic, so that the data plane adds through a shared reference without a lock. The estimator is that
//! of O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), §2.4: unbiased from the first
//! value on, without tables.

use std::sync::atomic::{AtomicU8, Ordering};

const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// Hash bits behind the register number.
const RANK_BITS: usize = 64 - PRECISION as usize;

/// A set of which only the size can be asked.
pub(super) struct Distinct {
    registers: Box<[AtomicU8]>,
}

impl Distinct {
    pub(super) fn new() -> Self {
        Self { registers: (0..REGISTERS).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Adds a value by 64 bits of its keyed hash.
    pub(super) fn insert(&self, hash: u64) {
        let Some(register) = self.registers.get((hash >> RANK_BITS) as usize) else { return };
        // The guard bit bounds the rank to RANK_BITS + 1.
        let rest = hash << PRECISION | 1 << (PRECISION - 1);
        let rank = rest.leading_zeros().to_le_bytes()[0] + 1;
        // Most values change nothing: a read keeps the cache line shared then.
        if register.load(Ordering::Relaxed) < rank {
            register.fetch_max(rank, Ordering::Relaxed);
        }
    }

    /// Estimated number of distinct values.
    pub(super) fn estimate(&self) -> f64 {
        let mut counts = [0_u32; RANK_BITS + 2];
        for register in &self.registers {
            if let Some(count) = counts.get_mut(usize::from(register.load(Ordering::Relaxed))) {
                *count += 1;
            }
        }
        let [zeros, ranks @ .., full] = &counts;
        let registers = f64::from(1_u32 << PRECISION);
        let mut sum = registers * tau(1.0 - f64::from(*full) / registers);
        for count in ranks.iter().rev() {
            sum = 0.5 * (sum + f64::from(*count));
        }
        sum += registers * sigma(f64::from(*zeros) / registers);
        registers * registers / (2.0 * std::f64::consts::LN_2 * sum)
    }
}

/// x + Σ x^(2^k) · 2^(k−1): the share of empty registers; infinite when all are.
fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let next = sum + power * weight;
        if next <= sum {
            return sum;
        }
        sum = next;
        weight *= 2.0;
    }
}

/// (1 − x − Σ (1 − x^(2^−k))² · 2^−k) / 3: the share of registers that are not full.
fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        weight *= 0.5;
        let next = sum - (1.0 - root).powi(2) * weight;
        if next >= sum {
            return sum / 3.0;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_ebpf::siphash;

    /// A well-mixed 64-bit number (splitmix64).
    fn mixed(number: u64) -> u64 {
        let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    #[test]
    fn estimates_stay_within_four_standard_errors_at_every_size() {
        let set = Distinct::new();
        assert!(set.estimate().abs() < f64::EPSILON);
        let mut next = 0_u64;
        for size in [1_u32, 2, 10, 100, 1_000, 10_000, 40_000, 70_000, 200_000, 1_000_000] {
            while next < u64::from(size) {
                set.insert(mixed(next));
                next += 1;
            }
            let error = (set.estimate() - f64::from(size)).abs() / f64::from(size);
            assert!(error < 4.0 * 0.0081, "{size}: {}", set.estimate());
        }
    }

    #[test]
    fn small_counts_round_to_the_truth() {
        let set = Distinct::new();
        for number in 0..50_u32 {
            set.insert(mixed(u64::from(number)));
            set.insert(mixed(u64::from(number)));
            assert!((set.estimate() - f64::from(number + 1)).abs() < 0.5, "{number}");
        }
    }

    #[test]
    fn hostile_hashes_neither_panic_nor_give_nonsense() {
        let set = Distinct::new();
        for hash in [0, u64::MAX, 1, 1 << 63, (1 << 50) - 1] {
            set.insert(hash);
        }
        assert!(set.estimate().is_finite());
        let set = Distinct::new();
        for register in 0..REGISTERS as u64 {
            set.insert(register << RANK_BITS);
        }
        assert!(set.estimate() > 1e18, "all registers full");
    }

    #[test]
    fn the_hash_of_accounts_is_good_enough() {
        let key = siphash::Key::from_bytes(&[7; 16]);
        let set = Distinct::new();
        for number in 0..10_000_u32 {
            let hash = siphash::hash128(key, &number.to_le_bytes());
            set.insert(u64::from_le_bytes(*hash.first_chunk().unwrap()));
        }
        assert!((set.estimate() - 10_000.0).abs() < 330.0);
    }
}
