//! A bounded map from a credential to something small, without stalls.
//!
//! Chained hash map over a slab: no rehash, no tombstones, every operation touches a handful of slots. When full it
//! forgets the least recently used (approximately: one bit, second chance), and counts that. Keys are keyed hashes
//! that an attacker cannot steer. Memory is reserved as address space and taken as entries come.

use super::store::Id;
use crate::ahead;

pub use super::store::Key;

/// Slots that an eviction looks at before it takes the next one whatever its use: bounds the stall.
const CLOCK_LOOKS: usize = 64;
/// Fewest and most buckets.
const BUCKETS: (usize, usize) = (16, 1 << 30);
/// Buckets for each entry of a roomy map.
const ROOMY: usize = 4;

/// What stands for a credential.
pub trait Keyed: Copy + Eq {
    /// Random bits of it, the last ones at least.
    fn spread(&self) -> u64;
}

impl Keyed for Id {
    /// Its leading bits are random, the last ones unused.
    fn spread(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

impl Keyed for Key {
    fn spread(&self) -> u64 {
        let leading = self.fingerprint.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        leading ^ u64::from(self.service.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Kept,
    /// Kept, and used since the clock's hand last passed.
    Used,
}

/// Links are slot numbers plus one, so that zeroed memory is an empty table (and costs no page until used).
#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    next: u32,
    state: State,
}

/// The map.
#[derive(Debug)]
pub struct ClockMap<V, K = Key> {
    buckets: Vec<u32>,
    slots: Vec<Slot<K, V>>,
    free: u32,
    len: usize,
    capacity: usize,
    hand: usize,
    evictions: u64,
}

impl<V, K: Keyed> ClockMap<V, K> {
    /// Room for `capacity` entries, at least one.
    pub fn new(capacity: usize) -> Self {
        Self::with_buckets(capacity, 1)
    }

    /// The same, with so many buckets that hardly two entries share one: for what each request looks up, because only what
    /// stands first in its bucket can be fetched ahead.
    pub fn roomy(capacity: usize) -> Self {
        Self::with_buckets(capacity, ROOMY)
    }

    fn with_buckets(capacity: usize, each: usize) -> Self {
        let capacity = capacity.clamp(1, BUCKETS.1);
        let buckets = vec![0; (capacity * each).next_power_of_two().clamp(BUCKETS.0, BUCKETS.1)];
        Self { buckets, slots: Vec::new(), free: 0, len: 0, capacity, hand: 0, evictions: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Entries forgotten to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The value of `key`, which counts as a use.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.find(key)?;
        let slot = self.slots.get_mut(slot as usize)?;
        slot.state = State::Used;
        Some(&mut slot.value)
    }

    /// Forgets `key`, if it is in the map.
    pub fn remove(&mut self, key: &K) {
        if let Some(slot) = self.find(key) {
            self.release(slot);
        }
    }

    /// The value of `key`, without counting as a use.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.slots.get(self.find(key)? as usize).map(|slot| &slot.value)
    }

    /// Asks for the memory in which a look for `key` begins.
    pub fn fetch(&self, key: &K) {
        ahead::fetch(&self.buckets, self.bucket(key));
    }

    /// Asks for the memory of what that finds; worth it once that memory has come. False if there is nothing for sure.
    pub fn fetch_entry(&self, key: &K) -> bool {
        let link = self.buckets.get(self.bucket(key)).copied().unwrap_or(0);
        let slot = link.checked_sub(1);
        if let Some(slot) = slot {
            ahead::fetch_whole(&self.slots, slot as usize);
        }
        slot.is_some()
    }

    /// Adds a key that is not in the map; what had to go for it.
    pub fn insert(&mut self, key: K, value: V) -> Option<K> {
        let gone = if self.len >= self.capacity { self.evict() } else { None };
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(self.capacity);
            ahead::in_large_pages(&mut self.slots);
            ahead::in_large_pages(&mut self.buckets);
        }
        let bucket = self.bucket(&key);
        let Some(head) = self.buckets.get_mut(bucket) else { return gone };
        let filled = Slot { key, value, next: *head, state: State::Kept };
        if let Some(freed) = self.free.checked_sub(1).and_then(|free| self.slots.get_mut(free as usize)) {
            *head = self.free;
            self.free = freed.next;
            *freed = filled;
        } else if let Ok(link) = u32::try_from(self.slots.len() + 1) {
            self.slots.push(filled);
            *head = link;
        }
        self.len += 1;
        gone
    }

    fn find(&self, key: &K) -> Option<u32> {
        let mut link = *self.buckets.get(self.bucket(key))?;
        while link != 0 {
            let slot = self.slots.get(link as usize - 1)?;
            if slot.key == *key {
                return Some(link - 1);
            }
            link = slot.next;
        }
        None
    }

    fn release(&mut self, slot: u32) -> Option<K> {
        let freed = self.slots.get_mut(slot as usize)?;
        let (key, after) = (freed.key, freed.next);
        freed.state = State::Free;
        freed.next = self.free;
        self.free = slot + 1;
        self.len -= 1;
        let bucket = self.bucket(&key);
        let head = self.buckets.get_mut(bucket)?;
        if *head == slot + 1 {
            *head = after;
        } else {
            let mut link = *head;
            while let Some(before) = (link as usize).checked_sub(1).and_then(|at| self.slots.get_mut(at)) {
                if before.next == slot + 1 {
                    before.next = after;
                    break;
                }
                link = before.next;
            }
        }
        Some(key)
    }

    fn evict(&mut self) -> Option<K> {
        for look in 1..=CLOCK_LOOKS {
            let hand = self.hand;
            self.hand = (hand + 1) % self.slots.len().max(1);
            let slot = self.slots.get_mut(hand)?;
            match slot.state {
                State::Used if look < CLOCK_LOOKS => slot.state = State::Kept,
                State::Used | State::Kept => {
                    self.evictions += 1;
                    return self.release(u32::try_from(hand).ok()?);
                }
                State::Free => {}
            }
        }
        None
    }

    #[expect(clippy::cast_possible_truncation, reason = "fewer bits than a usize has")]
    fn bucket(&self, key: &K) -> usize {
        key.spread() as usize & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> Id {
        // Four share a bucket, so that chains form.
        Id((n / 4) << 32 | n << 56)
    }

    proptest! {
        #[test]
        fn is_a_map(steps in proptest::collection::vec((0..5, 0u64..40), 0..400)) {
            let mut map = ClockMap::new(24);
            let mut model = BTreeMap::new();
            for (at, (step, n)) in steps.into_iter().enumerate() {
                if step == 0 {
                    map.remove(&key(n));
                    model.remove(&key(n));
                } else if step == 1 {
                    prop_assert_eq!(map.get_mut(&key(n)).is_some(), model.contains_key(&key(n)));
                } else if map.peek(&key(n)).is_none() {
                    let full = model.len() == 24;
                    let gone = map.insert(key(n), at);
                    prop_assert_eq!(gone.is_some(), full);
                    if let Some(gone) = gone { prop_assert!(model.remove(&gone).is_some()); }
                    model.insert(key(n), at);
                }
                prop_assert_eq!(map.len(), model.len());
                for n in 0..40 {
                    prop_assert_eq!(map.peek(&key(n)), model.get(&key(n)));
                }
            }
        }
    }

    #[test]
    fn keeps_what_is_used() {
        let mut map = ClockMap::new(8);
        map.insert(key(0), ());
        for n in 1..200 {
            assert!(map.get_mut(&key(0)).is_some(), "evicted at {n}");
            map.insert(key(n), ());
            assert!(map.len() <= 8);
        }
        assert_eq!(map.evictions(), 200 - 8);
    }
}
