//! The bounded table that estimators keep what they follow in.
//!
//! Sets of eight places, found by a keyed hash: of a table that is half full, one set in fifty has no room for all
//! (Poisson, mean 4). When a set is full, the newcomer takes the place that is worth least, if that is worth no more than
//! itself; else it is turned away. So a flood of newcomers pushes out newcomers, never what has gathered evidence. Both are
//! counted. Nothing is allocated after the start.

use std::net::IpAddr;

use super::time::Tenths;
use crate::ahead;

/// Places of a set: their tags fill a cache line.
const WAYS: usize = 8;

/// The tags of a set.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tags([u64; WAYS]);

/// What a table keeps.
pub(super) trait Kept: Copy + Default {
    /// What it is worth keeping at `now`: evidence, in the estimator's own unit.
    fn worth(&self, now: Tenths) -> f32;
}

/// Hashes for tables. The key makes collisions hard to choose; the same key gives the same run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    k0: u64,
    k1: u64,
}

impl Hasher {
    /// Keyed with `key`, from which two words are drawn.
    pub fn new(key: [u8; 16]) -> Self {
        let number = u128::from_le_bytes(key);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a key")]
        let (low, high) = (number as u64, (number >> 64) as u64);
        Self { k0: fold(low ^ 0x9e37_79b9_7f4a_7c15, high | 1), k1: fold(high ^ 0xd1b5_4a32_d192_ed03, low | 1) | 1 }
    }

    /// The hash of two words; never 0.
    pub fn hash(self, a: u64, b: u64) -> u64 {
        fold(fold(a ^ self.k0, b ^ self.k1) ^ self.k0, self.k1).max(1)
    }

    /// The hash of an address; an IPv4 address and its mapped form are one.
    pub fn address(self, address: IpAddr) -> u64 {
        let (high, low) = words(address);
        self.hash(high, low)
    }

    /// The hash of the network that an address stands in: /24 (IPv4), /48 (IPv6).
    pub fn network(self, address: IpAddr) -> u64 {
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => self.hash(words(address).0 >> 16, 48),
            _ => self.hash(words(address).1 >> 8 & 0xff_ffff, 24),
        }
    }
}

fn words(address: IpAddr) -> (u64, u64) {
    let number = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of an address")]
    let halves = ((number >> 64) as u64, number as u64);
    halves
}

/// Multiplies to 128 bits and folds the halves (the step of wyhash and its kin).
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a product")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

/// What became of entries for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Entries that had to go.
    pub evicted: u64,
    /// Newcomers that were turned away.
    pub refused: u64,
}

impl TableStats {
    /// Both.
    pub fn lost(self) -> u64 {
        self.evicted + self.refused
    }
}

/// The table.
pub(super) struct Table<E> {
    /// The whole hash of each place, which stands for the key; 0: free. Apart from the entries, so that looking for what is
    /// not there touches one cache line.
    tags: Vec<Tags>,
    entries: Vec<[E; WAYS]>,
    pub stats: TableStats,
}

impl<E> std::fmt::Debug for Table<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("sets", &self.tags.len()).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<E: Kept> Table<E> {
    /// A table of at most `capacity` entries (rounded to a power of two, at least one set).
    pub fn new(capacity: usize) -> Self {
        let sets = (capacity / WAYS).max(1);
        let sets = if sets.is_power_of_two() { sets } else { sets.next_power_of_two() / 2 };
        let (tags, entries) = (vec![Tags([0; WAYS]); sets], vec![[E::default(); WAYS]; sets]);
        Self { tags, entries, stats: TableStats::default() }
    }

    fn index(&self, tag: u64) -> usize {
        // The high bits of a folded product are as good as the low ones, which the tag's owner may use.
        usize::try_from(tag >> 20).unwrap_or(0) & (self.tags.len() - 1)
    }

    /// Asks for the memory of the set of `tag`.
    pub fn fetch(&self, tag: u64) {
        let index = self.index(tag);
        ahead::fetch(&self.tags, index);
        ahead::fetch_whole(&self.entries, index);
    }

    fn set(&mut self, tag: u64) -> (&mut [u64], &mut [E]) {
        let index = self.index(tag);
        match (self.tags.get_mut(index), self.entries.get_mut(index)) {
            (Some(Tags(tags)), Some(entries)) => (tags, entries),
            _ => (&mut [], &mut []),
        }
    }

    /// The entry of `tag`.
    pub fn find(&mut self, tag: u64) -> Option<&mut E> {
        self.matching(tag).next()
    }

    /// All entries of `tag`: a key may have several.
    pub fn matching(&mut self, tag: u64) -> impl Iterator<Item = &mut E> {
        let (tags, entries) = self.set(tag);
        tags.iter().zip(entries).filter(move |(known, _)| **known == tag).map(|(_, entry)| entry)
    }

    /// Puts `entry` in, unless all in its set are worth more; gives it back to be changed further.
    pub fn insert(&mut self, tag: u64, entry: E, now: Tenths) -> Option<&mut E> {
        let worth = entry.worth(now);
        let (tags, entries) = self.set(tag);
        let weights = tags.iter().zip(entries.iter());
        let weights = weights.map(|(tag, entry)| if *tag == 0 { f32::NEG_INFINITY } else { entry.worth(now) });
        let (index, least) = weights.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        if least > worth {
            self.stats.refused += 1;
            return None;
        }
        self.stats.evicted += u64::from(least > f32::NEG_INFINITY);
        let (tags, entries) = self.set(tag);
        *tags.get_mut(index)? = tag;
        let place = entries.get_mut(index)?;
        *place = entry;
        Some(place)
    }

    /// Takes out the first entry of `tag` that `which` picks.
    pub fn take(&mut self, tag: u64, which: impl Fn(&E) -> bool) -> Option<E> {
        let (tags, entries) = self.set(tag);
        let (tag, entry) = tags.iter_mut().zip(entries).find(|(known, entry)| **known == tag && which(entry))?;
        *tag = 0;
        Some(*entry)
    }

    /// What is worth writing down, with its tag.
    pub fn kept(&self, which: impl Fn(&E) -> bool) -> Vec<(u64, E)> {
        let places = self.places().filter(|(_, entry)| which(entry));
        places.map(|(tag, entry)| (*tag, *entry)).collect()
    }

    /// Takes up what was written down, instead of what it has.
    pub fn resume(&mut self, kept: &[(u64, E)], now: Tenths) {
        self.clear();
        for (tag, entry) in kept.iter().filter(|(tag, _)| *tag != 0) {
            self.insert(*tag, *entry, now);
        }
    }

    /// Entries kept, by counting them.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Every entry kept.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.places().map(|(_, entry)| entry)
    }

    /// Those that are taken.
    fn places(&self) -> impl Iterator<Item = (&u64, &E)> {
        let tags = self.tags.iter().flat_map(|Tags(set)| set);
        tags.zip(self.entries.iter().flatten()).filter(|(tag, _)| **tag != 0)
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.tags.fill(Tags([0; WAYS]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Default, Debug, PartialEq)]
    struct Worth(f32);

    impl Kept for Worth {
        fn worth(&self, _now: Tenths) -> f32 {
            self.0
        }
    }

    fn hasher() -> Hasher {
        Hasher::new([7; 16])
    }

    #[test]
    fn newcomers_push_out_newcomers_only() {
        let mut table: Table<Worth> = Table::new(64);
        let kept: Vec<u64> = (0..16).map(|n| hasher().hash(n, 1)).collect();
        for tag in &kept {
            table.insert(*tag, Worth(3.0), 0);
        }
        for n in 0..100_000 {
            table.insert(hasher().hash(n, 2), Worth(1.0), 0);
        }
        assert!(kept.iter().all(|tag| table.find(*tag) == Some(&mut Worth(3.0))));
        assert_eq!(table.len(), 64);
        assert!(table.stats.evicted > 90_000);
    }

    #[test]
    fn a_third_full_keeps_next_to_all() {
        let mut table: Table<Worth> = Table::new(1 << 14);
        for n in 0..5_000 {
            table.insert(hasher().hash(n, 3), Worth(1.0), 0);
        }
        // Sets have 2.44 on average: 2.6 are expected to have no place (Poisson); in sets of four it would be 42.
        assert!(table.stats.lost() <= 12, "{:?}", table.stats);
    }

    #[test]
    fn what_is_full_of_worth_turns_away() {
        let mut table: Table<Worth> = Table::new(8);
        for n in 0..8u8 {
            table.insert(hasher().hash(u64::from(n), 1), Worth(f32::from(n) + 5.0), 0);
        }
        assert_eq!(table.insert(hasher().hash(9, 9), Worth(1.0), 0), None);
        assert_eq!(table.stats, TableStats { evicted: 0, refused: 1 });
        assert!(table.insert(hasher().hash(9, 9), Worth(6.0), 0).is_some());
        assert_eq!(table.find(hasher().hash(0, 1)), None, "the least worth went");
    }

    #[test]
    fn addresses_and_networks() {
        let hash = hasher();
        let v4: IpAddr = "198.51.100.7".parse().unwrap();
        assert_eq!(hash.address(v4), hash.address("::ffff:198.51.100.7".parse().unwrap()));
        assert_eq!(hash.network(v4), hash.network("::ffff:198.51.100.200".parse().unwrap()));
        assert_ne!(hash.network(v4), hash.network("198.51.101.7".parse().unwrap()));
        let v6: IpAddr = "2001:db8:1::1".parse().unwrap();
        assert_eq!(hash.network(v6), hash.network("2001:db8:1:ffff::2".parse().unwrap()));
        assert_ne!(hash.network(v6), hash.network("2001:db8:2::1".parse().unwrap()));
    }
}
