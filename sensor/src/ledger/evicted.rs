//! What the ledger once knew and had to forget for want of room.
//!
//! A Bloom filter of evicted issuances. It has no false negatives, so an evicted credential is never called
//! `unissued`; a forged one passes for evicted only with the filter's false-positive probability, which is exported
//! and is the budget of this kind of doubt: unlike a time interval, nobody can aim at it, since bits are chosen by a
//! keyed fingerprint. Two generations, so that under steady eviction the filter empties itself.

use super::store::Id;

/// Filter bits for each issuance that the store can hold.
const BITS_PER_ENTRY: usize = 16;
/// Most issuances that a generation is made for: 8 MiB. Beyond it doubt grows, not memory.
const ENTRIES_MAX: usize = 1 << 22;
/// Bits set for each evicted issuance.
const PROBES: u64 = 4;

#[derive(Debug, Default)]
struct Generation {
    words: Vec<u64>,
    set: u64,
    inserted: u64,
    keep_until: u64,
}

impl Generation {
    fn fill(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        if self.words.is_empty() { 0.0 } else { self.set as f64 / (self.words.len() * 64) as f64 }
    }

    fn place(&self, id: Id, probe: u64) -> (usize, u64) {
        let (first, second) = (mixed(id.0), mixed(!id.0));
        let bit = first.wrapping_add(probe.wrapping_mul(second | 1));
        let word = (bit >> 6) as usize & self.words.len().wrapping_sub(1);
        (word, 1 << (bit & 63))
    }

    fn contains(&self, id: Id) -> bool {
        (0..PROBES).all(|probe| {
            let (word, bit) = self.place(id, probe);
            self.words.get(word).is_some_and(|word| word & bit != 0)
        })
    }

    fn insert(&mut self, id: Id) {
        self.inserted += 1;
        for probe in 0..PROBES {
            let (word, bit) = self.place(id, probe);
            if let Some(word) = self.words.get_mut(word) {
                self.set += u64::from(*word & bit == 0);
                *word |= bit;
            }
        }
    }
}

/// Ids are random in their leading bits only; this spreads them (the finaliser of `SplitMix64`).
fn mixed(id: u64) -> u64 {
    let id = (id ^ id >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let id = (id ^ id >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    id ^ id >> 31
}

/// The filter.
#[derive(Debug)]
pub struct Evicted {
    current: Generation,
    previous: Generation,
    capacity: usize,
}

impl Evicted {
    /// A filter for a store of `capacity` entries. Takes no memory before the first eviction, then `capacity` × 2 bytes
    /// a generation, but no more than 8 MiB.
    pub fn new(capacity: usize) -> Self {
        Self {
            current: Generation::default(),
            previous: Generation::default(),
            capacity: capacity.clamp(64, ENTRIES_MAX),
        }
    }

    /// Remembers `id` at least until monotonic time `keep_until`.
    pub fn insert(&mut self, id: Id, keep_until: u64, now: u64) {
        let turn = self.current.inserted >= self.capacity as u64 && self.previous.keep_until < now;
        if turn || self.current.words.is_empty() {
            let words = vec![0; (self.capacity * BITS_PER_ENTRY / 64).next_power_of_two()];
            let fresh = Generation { words, ..Generation::default() };
            self.previous = std::mem::replace(&mut self.current, fresh);
        }
        self.current.keep_until = self.current.keep_until.max(keep_until);
        self.current.insert(id);
    }

    /// Remembers `id` until monotonic time `keep_until` if it was evicted: it was handed out again.
    pub fn prolong(&mut self, id: Id, keep_until: u64, now: u64) {
        if self.contains(id, now) {
            self.insert(id, keep_until, now);
        }
    }

    /// True when `id` was (or, rarely, may have been) evicted and not yet outlived at monotonic time `now`.
    pub fn contains(&self, id: Id, now: u64) -> bool {
        [&self.current, &self.previous].into_iter().any(|part| now <= part.keep_until && part.contains(id))
    }

    /// Probability that a credential which was never evicted passes for evicted.
    pub fn false_positives(&self) -> f64 {
        let pass = |generation: &Generation| generation.fill().powi(4);
        1.0 - (1.0 - pass(&self.current)) * (1.0 - pass(&self.previous))
    }
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::siphash::{Key as SipKey, hash128};

    use super::*;

    /// With as few bits as ids have.
    fn key(n: u64) -> Id {
        let hash = hash128(SipKey { k0: 1, k1: 2 }, &n.to_le_bytes());
        Id(u64::from_be_bytes(*hash.first_chunk().unwrap()) & !0xff)
    }

    #[test]
    fn never_forgets_before_its_time_and_seldom_errs() {
        let mut filter = Evicted::new(1000);
        for n in 0..5000 {
            filter.insert(key(n), 100, 10);
        }
        assert!((0..5000).all(|n| filter.contains(key(n), 50)));
        assert!((0..5000).all(|n| !filter.contains(key(n), 101)), "outlived");

        let mut filter = Evicted::new(1000);
        (0..1000).for_each(|n| filter.insert(key(n), 100, 10));
        let wrong = (10_000..20_000).filter(|n| filter.contains(key(*n), 50)).count();
        assert!(wrong < 100, "{wrong} of 10000");
        assert!(filter.false_positives() < 0.01);
    }

    #[test]
    fn empties_itself_under_steady_eviction() {
        let mut filter = Evicted::new(100);
        for n in 0..100_000 {
            filter.insert(key(n), n + 200, n);
            assert!(filter.contains(key(n.saturating_sub(150)), n));
        }
        assert!(filter.false_positives() < 0.1, "{}", filter.false_positives());
    }
}
