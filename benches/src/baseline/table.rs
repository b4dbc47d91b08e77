//! A bounded table of what a detector knows of each address or session.
//!
//! Two generations: what is used moves to the young one; when that is full, it becomes the old one and what was left in the
//! old one is forgotten, which is counted. So what is forgotten was not used for at least as many other keys as half of
//! the bound. The hash has no random seed: the same requests always leave the same table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

type Fixed = BuildHasherDefault<DefaultHasher>;

/// Keys and their states, at most as many as were allowed.
#[derive(Debug)]
pub struct Table<K, V> {
    young: HashMap<K, V, Fixed>,
    old: HashMap<K, V, Fixed>,
    half: usize,
    forgotten: u64,
}

impl<K: Copy + Eq + Hash, V: Default> Table<K, V> {
    /// Keeps at most `kept` states, and at least two.
    pub fn new(kept: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: (kept / 2).max(1), forgotten: 0 }
    }

    /// The state of `key`; a new one if none is known.
    pub fn at(&mut self, key: K) -> &mut V {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            let known = self.old.remove(&key);
            self.forgotten += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
            return self.young.entry(key).or_insert(known.unwrap_or_default());
        }
        let old = &mut self.old;
        self.young.entry(key).or_insert_with(|| old.remove(&key).unwrap_or_default())
    }

    /// States that were forgotten so far.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// States that are kept now.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_keys_outlive_a_flood_and_the_bound_holds() {
        let mut table = Table::<u32, u32>::new(100);
        *table.at(7) = 1;
        for flood in 1000..11_000 {
            assert_eq!(*table.at(flood), 0);
            // Used once in every 25 keys, so always in one of the two generations.
            if flood % 25 == 0 {
                assert_eq!(*table.at(7), 1, "{flood}");
            }
            assert!(table.len() <= 100);
        }
        // 10,001 keys were entered, of which those still kept were not forgotten.
        assert_eq!(table.forgotten() + table.len() as u64, 10_001);
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut table = Table::<u32, u32>::new(100);
        *table.at(7) = 1;
        for flood in 1000..1100 {
            table.at(flood);
        }
        assert_eq!(*table.at(7), 0);
    }
}
