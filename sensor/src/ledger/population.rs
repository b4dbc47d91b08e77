//! How many distinct credentials of an issuer may be older than the horizon: measured, and held to a budget.
//!
//! Whoever forges an `iat` before the horizon, or leaves it out, is believed until the ledger has watched for the
//! longest lifetime. The credentials that really are that old are as many as were alive when the ledger began, a figure
//! that is measured before the operator confirms the issuer; what comes beyond it is doubt that shows.
//!
//! Distinct credentials are counted by `HyperLogLog` (Flajolet et al. 2007) over their keyed fingerprints, which nobody
//! can steer: 4096 registers, a standard error of 1.6 %, exact to one or two below a hundred. Forgetting a credential
//! and seeing it again spends nothing; but once the budget is spent, one that was taken for older than the horizon and
//! then forgotten (a flood of other credentials, [`max_seen`](crate::config::model::Ledger::max_seen)) is doubtful too.

use super::table::Key;

const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;

/// The credentials of one issuer that may be older than the horizon.
#[derive(Debug)]
pub struct Population {
    budget: Option<u64>,
    /// Empty until the first one.
    registers: Vec<u8>,
    zeros: u32,
    /// Sum of 2^-register.
    sum: f64,
    /// Credentials beyond the budget, each counted when it was new.
    pub exceeded: u64,
    /// It changed since it was last written down.
    changed: bool,
}

impl Population {
    /// Nobody yet, at most `budget`.
    pub fn new(budget: Option<u64>) -> Self {
        Self { budget, registers: Vec::new(), zeros: 0, sum: 0.0, exceeded: 0, changed: false }
    }

    /// Most credentials, if there is a bound.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Counts one.
    pub fn count(&mut self, key: &Key) {
        if self.registers.is_empty() {
            self.registers = vec![0; REGISTERS];
            self.zeros = 1 << BITS;
            self.sum = f64::from(1u32 << BITS);
        }
        let (low, high) = key.halves();
        let rank = u8::try_from(high.leading_zeros() + 1).unwrap_or(65);
        let place = usize::try_from(low >> (64 - BITS)).unwrap_or(0);
        if let Some(register) = self.registers.get_mut(place)
            && *register < rank
        {
            self.zeros -= u32::from(*register == 0);
            self.sum += exp2(rank) - exp2(*register);
            *register = rank;
            self.changed = true;
        }
    }

    /// What is to be written down of it, if it changed since the last time.
    pub fn changes(&mut self) -> Option<&[u8]> {
        std::mem::take(&mut self.changed).then_some(&self.registers)
    }

    /// Goes on from what was written down.
    pub fn restore(&mut self, registers: &[u8]) {
        // No rank is beyond the 64 bits that it counts in.
        if registers.len() == REGISTERS && registers.iter().all(|rank| *rank <= 65) {
            registers.clone_into(&mut self.registers);
            self.zeros = registers.iter().map(|rank| u32::from(*rank == 0)).sum();
            self.sum = registers.iter().map(|rank| exp2(*rank)).sum();
        }
    }

    /// Distinct credentials counted, about.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive estimate far below 2^53")]
    pub fn distinct(&self) -> u64 {
        if self.registers.is_empty() {
            return 0;
        }
        let registers = f64::from(1u32 << BITS);
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / self.sum;
        // Few credentials are better told by the registers that nobody hit.
        let estimate = if raw <= 2.5 * registers && self.zeros > 0 {
            registers * (registers / f64::from(self.zeros)).ln()
        } else {
            raw
        };
        estimate.round() as u64
    }

    /// True when no more than the budget were counted.
    pub fn within(&self) -> bool {
        self.budget.is_none_or(|budget| self.distinct() <= budget)
    }

    /// True when one more fits the budget.
    pub fn has_room(&self) -> bool {
        self.budget.is_none_or(|budget| self.distinct() < budget)
    }
}

/// 2^-rank.
fn exp2(rank: u8) -> f64 {
    f64::from_bits((1023 - u64::from(rank)) << 52)
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::siphash::{Key as SipKey, hash128};

    use super::*;
    use crate::observation::{Fingerprint, ServiceId};

    fn key(n: u64) -> Key {
        Key { service: ServiceId(0), fingerprint: Fingerprint(hash128(SipKey { k0: 5, k1: 6 }, &n.to_le_bytes())) }
    }

    #[test]
    fn counts_distinct_ones_of_any_number() {
        for (count, error) in [(1u64, 0.0), (10, 0.0), (100, 0.02), (5000, 0.05), (12_000, 0.05), (300_000, 0.05)] {
            let mut population = Population::new(None);
            for n in 0..count {
                population.count(&key(n));
                population.count(&key(n / 2));
            }
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let (got, want) = (population.distinct() as f64, count as f64);
            assert!((got - want).abs() <= want * error, "{got} for {want}");
            assert!(population.has_room() && population.within(), "no budget, no bound");
        }
    }

    #[test]
    fn a_budget_is_spent_by_distinct_ones_only() {
        let mut population = Population::new(Some(50));
        for _ in 0..1000 {
            population.count(&key(7));
        }
        assert!(population.has_room());
        (0..50).for_each(|n| population.count(&key(n)));
        assert!(population.within() && !population.has_room());
        population.count(&key(50));
        assert!(!population.within());
        let written = population.changes().unwrap().to_vec();
        assert!(population.changes().is_none(), "nothing changed since");
        let mut restored = Population::new(Some(51));
        restored.restore(&written);
        assert_eq!(restored.distinct(), 51);
        assert!(restored.within() && !restored.has_room());
        restored.restore(b"something else");
        assert_eq!(restored.distinct(), 51);
        assert!(!Population::new(Some(0)).has_room());
    }
}
