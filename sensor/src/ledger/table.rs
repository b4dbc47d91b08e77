//! Bounded maps from a credential to something, without stalls.
//!
//! Owns [`Table`] (chained hash map over a slab: no rehash, no tombstones, every operation touches a handful of slots)
//! and [`ClockMap`] (the same, evicting the least recently used when full). Fingerprints are keyed hashes that an
//! attacker cannot steer, so their own bits choose the bucket.

use crate::observation::{Fingerprint, ServiceId};

/// Slots that an eviction looks at before it takes the next one whatever its use: bounds the stall.
const CLOCK_LOOKS: usize = 64;
/// Fewest and most buckets.
const BUCKETS: (usize, usize) = (16, 1 << 30);

/// A credential of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub service: ServiceId,
    pub fingerprint: Fingerprint,
}

impl Key {
    /// Two independent 64-bit halves of the key.
    pub fn halves(&self) -> (u64, u64) {
        let wide = u128::from_le_bytes(self.fingerprint.0);
        let salt = u64::from(self.service.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken on purpose")]
        let (low, high) = (wide as u64, (wide >> 64) as u64);
        (low ^ salt, high ^ salt.rotate_left(32))
    }
}

/// Links are slot numbers plus one, so that zeroed memory is an empty table (and costs no page until used).
#[derive(Debug)]
struct Slot<V> {
    key: Key,
    next: u32,
    value: Option<V>,
}

/// A map of at most `capacity` entries whose slot numbers stay valid until the entry is removed.
#[derive(Debug)]
pub struct Table<V> {
    buckets: Vec<u32>,
    slots: Vec<Slot<V>>,
    free: u32,
    len: usize,
    capacity: usize,
}

impl<V> Table<V> {
    /// Room for `capacity` entries (memory is taken as they come).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(BUCKETS.1);
        let buckets = vec![0; capacity.next_power_of_two().clamp(BUCKETS.0, BUCKETS.1)];
        Self { buckets, slots: Vec::new(), free: 0, len: 0, capacity }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// Slot number of `key`.
    pub fn find(&self, key: &Key) -> Option<u32> {
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

    pub fn get(&self, slot: u32) -> Option<&V> {
        self.slots.get(slot as usize)?.value.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut V> {
        self.slots.get_mut(slot as usize)?.value.as_mut()
    }

    /// Adds a key that is not in the table; `None` when full.
    pub fn insert(&mut self, key: Key, value: V) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let bucket = self.bucket(&key);
        let head = self.buckets.get_mut(bucket)?;
        let filled = Slot { key, next: *head, value: Some(value) };
        let slot = if self.free == 0 {
            let slot = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(filled);
            slot
        } else {
            let slot = self.free - 1;
            let freed = self.slots.get_mut(slot as usize)?;
            self.free = freed.next;
            *freed = filled;
            slot
        };
        *head = slot + 1;
        self.len += 1;
        Some(slot)
    }

    /// Removes the entry of a slot.
    pub fn remove(&mut self, slot: u32) -> Option<(Key, V)> {
        let removed = self.slots.get_mut(slot as usize)?;
        let value = removed.value.take()?;
        let (key, after) = (removed.key, removed.next);
        removed.next = self.free;
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
        Some((key, value))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask keeps fewer bits than a usize has")]
    fn bucket(&self, key: &Key) -> usize {
        key.halves().0 as usize & (self.buckets.len() - 1)
    }
}

/// A map that forgets the least recently used (approximately: one bit, second chance) when full, and counts it.
#[derive(Debug)]
pub struct ClockMap<V> {
    table: Table<(bool, V)>,
    hand: usize,
    evictions: u64,
}

impl<V> ClockMap<V> {
    /// Room for `capacity` entries, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { table: Table::new(capacity.max(1)), hand: 0, evictions: 0 }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Entries forgotten to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The value of `key`, which counts as a use.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        let slot = self.table.find(key)?;
        let (used, value) = self.table.get_mut(slot)?;
        *used = true;
        Some(value)
    }

    /// The value of `key`, without counting as a use.
    pub fn peek(&self, key: &Key) -> Option<&V> {
        self.table.get(self.table.find(key)?).map(|(_, value)| value)
    }

    /// Adds a key that is not in the map.
    pub fn insert(&mut self, key: Key, value: V) -> Option<&mut V> {
        if self.table.is_full() {
            self.evict();
        }
        let slot = self.table.insert(key, (false, value))?;
        self.table.get_mut(slot).map(|(_, value)| value)
    }

    fn evict(&mut self) {
        let capacity = self.table.capacity;
        for look in 1..=CLOCK_LOOKS {
            let slot = u32::try_from(self.hand).unwrap_or(0);
            self.hand = (self.hand + 1) % capacity;
            if let Some((used, _)) = self.table.get_mut(slot) {
                if *used && look < CLOCK_LOOKS {
                    *used = false;
                } else {
                    self.table.remove(slot);
                    self.evictions += 1;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Key {
        // The low half is the same for all of four keys, so that chains form.
        let mut bytes = [n / 4; 16];
        bytes[15] = n;
        Key { service: ServiceId(0), fingerprint: Fingerprint(bytes) }
    }

    proptest! {
        #[test]
        fn table_is_a_map(steps in proptest::collection::vec((any::<bool>(), 0u8..40), 0..400)) {
            let mut table = Table::new(24);
            let mut model = BTreeMap::new();
            for (at, (add, n)) in steps.into_iter().enumerate() {
                match table.find(&key(n)) {
                    Some(slot) if !add => {
                        prop_assert_eq!(table.remove(slot).map(|(_, value)| value), model.remove(&n));
                    }
                    None if add => {
                        let full = model.len() == 24;
                        prop_assert_eq!(table.insert(key(n), at).is_none(), full);
                        if !full { model.insert(n, at); }
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
                for n in 0..40 {
                    prop_assert_eq!(table.find(&key(n)).and_then(|slot| table.get(slot)), model.get(&n));
                }
            }
        }
    }

    #[test]
    fn clock_keeps_what_is_used() {
        let mut map = ClockMap::new(8);
        map.insert(key(0), ());
        for n in 1..200 {
            assert!(map.get_mut(&key(0)).is_some(), "evicted at {n}");
            map.insert(key(n), ());
            assert!(map.len() <= 8);
        }
        assert_eq!(map.evictions(), 200 - 8);
    }

    #[test]
    fn the_service_is_part_of_the_key() {
        let mut table = Table::new(4);
        table.insert(key(1), ());
        assert!(table.find(&Key { service: ServiceId(1), ..key(1) }).is_none());
    }
}
