//! Reads that are no step of any walk, by the neighbourhood that they fall into: what tells a walk from chance.
//!
//! A neighbourhood is the region of 2,048 identifiers that one is in, and the two beside it. Who walks makes steps there and
//! little else; reads at random, at whatever rate, fall beside a front ten times and more for each time that they hit it.

use serde::{Deserialize, Serialize};

/// Identifiers of a region, as a power of two.
const WIDTH: u32 = 11;
/// Groups of eight regions counted of a lane, as a power of two.
const GROUPS: u32 = 12;
/// Regions counted of one reader.
const OWN: usize = 12;

/// Of all readers of a lane: 32,768 counts. Groups are found by a hash; two that share counts make walks there harder to
/// see, and never easier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Regions {
    #[serde(with = "sparse")]
    apart: Box<[[u32; 8]]>,
    /// Reads of the lane.
    pub reads: u32,
}

impl Default for Regions {
    fn default() -> Self {
        Self { apart: vec![[0; 8]; 1 << GROUPS].into_boxed_slice(), reads: 0 }
    }
}

impl Regions {
    fn place(region: u64) -> (usize, usize) {
        // Fibonacci hashing (Knuth), of groups: neighbours mostly stand together.
        let group = (region >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - GROUPS);
        (usize::try_from(group).unwrap_or(0), usize::try_from(region & 7).unwrap_or(0))
    }

    fn of(&self, region: u64) -> u32 {
        let (group, place) = Self::place(region);
        self.apart.get(group).and_then(|group| group.get(place)).copied().unwrap_or(0)
    }

    /// Reads beside all walks so far, in the neighbourhood of `id`.
    pub fn apart(&self, id: u64) -> u32 {
        let region = id >> WIDTH;
        let around = [region.wrapping_sub(1), region, region.wrapping_add(1)];
        around.iter().fold(0, |sum, region| sum.wrapping_add(self.of(*region)))
    }

    /// A read of `id` was no step.
    pub fn count(&mut self, id: u64) {
        let (group, place) = Self::place(id >> WIDTH);
        if let Some(count) = self.apart.get_mut(group).and_then(|group| group.get_mut(place)) {
            *count = count.wrapping_add(1);
        }
    }
}

/// Of one reader: the regions in which most of its reads are beside its walks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct OwnRegions {
    numbers: [u32; OWN],
    apart: [u32; OWN],
}

impl OwnRegions {
    #[expect(clippy::cast_possible_truncation, reason = "low bits tell the regions of one reader apart")]
    fn number(id: u64) -> u32 {
        (id >> WIDTH) as u32
    }

    /// Reads beside the reader's walks in the neighbourhood of `id`, since it is counted.
    pub fn apart(&self, id: u64) -> u32 {
        let number = Self::number(id);
        let near = |known: u32| number.wrapping_sub(known).wrapping_add(1) <= 2;
        let counts = self.numbers.iter().zip(&self.apart).map(|(known, apart)| if near(*known) { *apart } else { 0 });
        counts.fold(0, u32::saturating_add)
    }

    /// A read of `id` was no step: its region takes the place of the one with the fewest such reads, if it has none.
    pub fn count(&mut self, id: u64) {
        let number = Self::number(id);
        let mut places = self.numbers.iter_mut().zip(&mut self.apart);
        if let Some((_, apart)) = places.find(|(known, apart)| **known == number && **apart > 0) {
            *apart = apart.saturating_add(1);
            return;
        }
        // Among equals it depends on the number which, so that none stays for being the first.
        let turn = |place: usize| (place + usize::try_from(number).unwrap_or(0)) % OWN;
        let places = self.numbers.iter_mut().zip(&mut self.apart).enumerate();
        if let Some((_, least)) = places.min_by_key(|(place, (_, apart))| (**apart, turn(*place))) {
            (*least.0, *least.1) = (number, 1);
        }
    }
}

/// Only the groups in which something was counted are written.
mod sparse {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::GROUPS;

    pub fn serialize<S: Serializer>(apart: &[[u32; 8]], to: S) -> Result<S::Ok, S::Error> {
        let counted = (0u32..).zip(apart).filter(|(_, group)| **group != [0; 8]);
        to.collect_seq(counted.collect::<Vec<_>>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[[u32; 8]]>, D::Error> {
        let mut apart = vec![[0; 8]; 1 << GROUPS].into_boxed_slice();
        for (place, counted) in Vec::<(u32, [u32; 8])>::deserialize(from)? {
            if let Some(group) = usize::try_from(place).ok().and_then(|place| apart.get_mut(place)) {
                *group = counted;
            }
        }
        Ok(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_beside_is_counted_where_it_falls() {
        let (mut lane, mut own) = (Regions::default(), OwnRegions::default());
        for id in [5_000, 5_001, 8_191, 8_192, 1 << 40] {
            lane.count(id);
            own.count(id);
        }
        for (id, apart) in [(4_096, 3), (6_144, 4), (8_200, 2), (2_000, 0), (1 << 40, 1), (u64::MAX, 0)] {
            assert_eq!((lane.apart(id), own.apart(id)), (apart, apart), "{id}");
        }
        // The busiest regions of a reader stay.
        (0..1_000).for_each(|n| own.count(1_000_000 + n * 10_000));
        assert_eq!((own.apart(5_000), own.apart(1_000_000)), (2, 0));
    }
}
