//! Groups that have hardly anything in them yet: one per client or credential, by the million.
//!
//! A quiet group is 192 bytes: up to four values with the slice they were last seen in. It becomes a whole group, and
//! takes along what it has seen, when it has a fifth value or more than half of its rule's threshold. So whatever is
//! evicted here is small and far from firing. The table is set-associative: eight groups share a cache line of tags and ages, and
//! each group may stand in two lines. When both are full, a group whose window is empty goes, else the one with the fewest
//! values and, of these, the longest quiet. It doubles up to its bound; every step but that is O(1).

use std::array;

use sensor_ebpf::siphash;

use super::field::Key;
use super::group::GroupKey;
use super::window::SLICES;
use crate::ahead;

/// Groups that share a line of tags.
const WAYS: usize = 8;
/// Groups that a table starts with.
const LEAST: usize = 1_024;
/// Values kept.
pub(super) const VALUES: usize = 4;

/// A value that a quiet group has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    /// The value (of `event_count`: the slice).
    pub value: Key,
    /// The client that brought it first.
    pub client: Key,
    /// Observations with it.
    pub count: u32,
    /// The slice of the last, by its low bits.
    slice: u32,
}

const NOTHING: Sighting = Sighting { value: [0; 16], client: [0; 16], count: 0, slice: 0 };

/// Starts on a cache line, which also holds the first value: most groups have no other.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The rest of the group's hash.
    check: u64,
    first_ns: u64,
    newest: u32,
    used: u32,
    seen: [Sighting; VALUES],
}

const EMPTY: Entry = Entry { check: 0, first_ns: 0, newest: 0, used: 0, seen: [NOTHING; VALUES] };

/// What a group takes along when it is no longer quiet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grown {
    /// When the group was first seen, monotonic nanoseconds.
    pub first_ns: u64,
    entry: Entry,
    now: u64,
}

impl Grown {
    /// What it has seen within its window, with the slices.
    pub fn seen(&self) -> impl Iterator<Item = (Sighting, u64)> + '_ {
        let now = self.now;
        live(&self.entry, low(now)).map(move |seen| (*seen, now - u64::from(low(now).wrapping_sub(seen.slice))))
    }
}

/// What became of a sighting.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "returned by value once, and hardly ever the large one")]
pub(super) enum Took {
    /// It is counted here; `news`: the group has more than before, not the same again.
    Kept {
        /// See above.
        news: bool,
    },
    /// The group is no longer kept here and must be counted as a whole one, this sighting after what it has seen.
    Grown(Grown),
}

/// What finds and judges eight groups without a look at them: one cache line.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
struct Line {
    /// Part of each group's hash; 0 is free.
    tags: [u32; WAYS],
    /// Newest slice (by its low 24 bits), and the number of values.
    ages: [u32; WAYS],
}

const FREE: Line = Line { tags: [0; WAYS], ages: [0; WAYS] };

/// The table.
#[derive(Debug)]
pub(super) struct Quiet {
    lines: Vec<Line>,
    entries: Vec<[Entry; WAYS]>,
    seed: [u64; 2],
    used: usize,
    capacity: usize,
    /// Groups given up within their window because their line was full.
    pub evicted: u64,
}

/// One sighting to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// The value, or `None` for `event_count`.
    pub value: Option<&'a Key>,
    /// Who brought it.
    pub client: &'a Key,
    /// When, monotonic nanoseconds.
    pub at_ns: u64,
    /// The slice of that.
    pub slice: u64,
    /// The newest slice.
    pub now: u64,
    /// Most that a quiet group may count: half of the threshold.
    pub most: u64,
}

impl Quiet {
    /// At most `capacity` groups; `seed` keeps others from choosing groups that share a line.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let capacity = capacity.next_power_of_two().max(LEAST);
        let lines = LEAST / WAYS;
        let [k0, k1] = seed;
        let mixed = u128::from_le_bytes(siphash::hash128(siphash::Key { k0, k1 }, b"quiet groups"));
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let seed = [mixed as u64, (mixed >> 64) as u64];
        Self { lines: vec![FREE; lines], entries: vec![[EMPTY; WAYS]; lines], seed, used: 0, capacity, evicted: 0 }
    }

    /// Groups kept.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Asks for the memory in which a look for the group of `hash` begins.
    pub fn fetch(&self, hash: u128) {
        self.places(hash).into_iter().for_each(|place| ahead::fetch(&self.lines, place));
    }

    /// Asks for the memory of the group, if it is there; worth it once that memory has come.
    pub fn fetch_entry(&self, hash: u128) {
        for place in self.places(hash) {
            let tags = self.lines.get(place).map_or([0; WAYS], |line| line.tags);
            let way = tags.iter().position(|known| *known == tag(hash));
            if let Some((way, entries)) = way.zip(self.entries.get(place)) {
                ahead::fetch(entries, way);
            }
        }
    }

    /// Counts a sighting in the group of `hash`.
    pub fn take(&mut self, hash: u128, seen: Seen<'_>) -> Took {
        let (place, way, fresh) = self.place(hash, low(seen.now));
        let Some(entry) = self.entries.get_mut(place).and_then(|entries| entries.get_mut(way)) else {
            return Took::Kept { news: false };
        };
        if fresh {
            // Values beyond `used` are never read.
            (entry.check, entry.first_ns, entry.newest, entry.used) = (check(hash), seen.at_ns, low(seen.slice), 0);
        }
        entry.first_ns = entry.first_ns.min(seen.at_ns);
        let before = entry.used;
        let quiet = entry.count(&seen);
        let news = entry.used != before || seen.value.is_none();
        let Some(line) = self.lines.get_mut(place) else { return Took::Kept { news } };
        if quiet {
            let age = entry.newest << 8 | entry.used;
            if let Some(known) = line.ages.get_mut(way).filter(|known| **known != age) {
                *known = age;
            }
            return Took::Kept { news };
        }
        let grown = Grown { first_ns: entry.first_ns, entry: *entry, now: seen.now };
        if let Some(tag) = line.tags.get_mut(way) {
            *tag = 0;
        }
        self.used -= 1;
        Took::Grown(grown)
    }

    /// Gives up groups whose window was empty at `now`, within one line in 24: after a window's slices, all were looked at.
    pub fn sweep(&mut self, now: u64) {
        let share = self.lines.len().div_ceil(24);
        let start = usize::try_from(now % 24).unwrap_or(0) * share;
        for line in self.lines.iter_mut().skip(start).take(share) {
            for (tag, age) in line.tags.iter_mut().zip(line.ages) {
                if *tag != 0 && !within(age, low(now)) {
                    *tag = 0;
                    self.used -= 1;
                }
            }
        }
    }

    /// The place of a group, made if need be (then the flag is set).
    fn place(&mut self, hash: u128, now: u32) -> (usize, usize, bool) {
        let places = self.places(hash);
        for place in places {
            let tags = self.lines.get(place).map_or([0; WAYS], |line| line.tags);
            for (way, _) in (0..).zip(tags).filter(|(_, known)| *known == tag(hash)) {
                let entry = self.entries.get(place).and_then(|entries| entries.get(way));
                if entry.is_some_and(|entry| entry.check == check(hash)) {
                    return (place, way, false);
                }
            }
        }
        let size = self.lines.len() * WAYS;
        if self.used * 8 >= size * 5 && size < self.capacity {
            self.grow();
            return self.place(hash, now);
        }
        let (place, way) = self.free(places).unwrap_or_else(|| self.victim(places, now));
        if let Some(slot) = self.lines.get_mut(place).and_then(|line| line.tags.get_mut(way)) {
            self.used += usize::from(*slot == 0);
            *slot = tag(hash);
        }
        (place, way, true)
    }

    /// A free place in the emptier of two lines.
    fn free(&self, places: [usize; 2]) -> Option<(usize, usize)> {
        let tags = |place: usize| self.lines.get(place).map_or([1; WAYS], |line| line.tags);
        let place = places.into_iter().min_by_key(|place| tags(*place).iter().filter(|tag| **tag != 0).count())?;
        tags(place).iter().position(|tag| *tag == 0).map(|way| (place, way))
    }

    /// The group of two full lines that is worth least.
    fn victim(&mut self, places: [usize; 2], now: u32) -> (usize, usize) {
        let all = places.into_iter().flat_map(|place| {
            let ages = self.lines.get(place).map_or([0; WAYS], |line| line.ages);
            (0..).zip(ages).map(move |(way, age)| (worth(age, now), (place, way)))
        });
        let least = all.min_by_key(|(worth, _)| *worth);
        let ((within, ..), place) = least.unwrap_or_default();
        self.evicted += u64::from(within);
        place
    }

    fn grow(&mut self) {
        let count = self.lines.len() * 2;
        let lines = std::mem::replace(&mut self.lines, filled(FREE, count));
        let entries = std::mem::replace(&mut self.entries, filled([EMPTY; WAYS], count));
        self.used = 0;
        for (line, entries) in lines.iter().zip(&entries) {
            for ((kept, age), entry) in line.tags.iter().zip(line.ages).zip(entries).filter(|((tag, _), _)| **tag != 0)
            {
                // Less than a third full now: there is room but for a chance that no table comes to see.
                let Some((place, way)) = self.free(self.places(whole(*kept, entry.check))) else {
                    self.evicted += 1;
                    continue;
                };
                let line = self.lines.get_mut(place);
                let to = self.entries.get_mut(place).and_then(|entries| entries.get_mut(way));
                if let (Some(line), Some(to)) = (line, to)
                    && let (Some(tag), Some(own)) = (line.tags.get_mut(way), line.ages.get_mut(way))
                {
                    (*tag, *own, *to) = (*kept, age, *entry);
                    self.used += 1;
                }
            }
        }
    }

    /// The two lines that a group may stand in.
    fn places(&self, hash: u128) -> [usize; 2] {
        let mask = self.lines.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the low bits of each half are what is wanted")]
        let places = [check(hash) as usize & mask, (check(hash) >> 32) as usize & mask];
        places
    }

    /// A hash of the group that only the seed's owner can compute.
    pub fn hash(&self, key: &GroupKey) -> u128 {
        let [mut hash, other] = self.seed;
        for value in key.numbers() {
            let (present, value) = value.map_or((0, 0), |value| (1, value));
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            let (high, low) = ((value >> 64) as u64, value as u64);
            hash = folded(hash ^ high ^ present, low ^ other);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the low half")]
        let short = folded(hash ^ other, other | 1) as u32;
        whole(short.max(1), hash)
    }
}

/// `count` of `item`, in large pages if they are many.
fn filled<T: Clone>(item: T, count: usize) -> Vec<T> {
    let mut items = Vec::with_capacity(count);
    ahead::in_large_pages(&mut items);
    items.resize(count, item);
    items
}

/// A hash of its two parts.
fn whole(tag: u32, check: u64) -> u128 {
    u128::from(check) << 32 | u128::from(tag)
}

fn tag(hash: u128) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low part")]
    let tag = hash as u32;
    tag
}

fn check(hash: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the high part")]
    let check = (hash >> 32) as u64;
    check
}

/// True when something of a group of that age is within its window.
fn within(age: u32, now: u32) -> bool {
    since(age, now) <= low(SLICES)
}

/// Slices since a group of that age was last seen.
fn since(age: u32, now: u32) -> u32 {
    now.wrapping_sub(age >> 8) & 0x00ff_ffff
}

/// What a group is worth: whether it is within its window, its values, and how recent they are.
fn worth(age: u32, now: u32) -> (bool, u32, u32) {
    let within = within(age, now);
    (within, if within { age & 0xff } else { 0 }, u32::MAX - since(age, now))
}

impl Entry {
    /// Counts a sighting; false when the group is no longer quiet (the sighting is then not in it).
    fn count(&mut self, seen: &Seen<'_>) -> bool {
        let (now, slice) = (low(seen.now), low(seen.slice));
        let value = seen.value.copied().unwrap_or_else(|| u128::from(seen.slice).to_be_bytes());
        let kept = usize::try_from(self.used).unwrap_or(VALUES).min(VALUES);
        let known = self.seen.iter_mut().take(kept).find(|known| known.value == value);
        if let Some(known) = known {
            let gone = now.wrapping_sub(known.slice) > low(SLICES);
            known.count = if gone { 1 } else { known.count.saturating_add(1) };
            if gone || now.wrapping_sub(slice) < now.wrapping_sub(known.slice) {
                known.slice = slice;
            }
        } else {
            if kept == VALUES {
                // Rare: what has left the window makes room.
                let kept: Vec<Sighting> = live(self, now).copied().collect();
                if kept.len() == VALUES {
                    return false;
                }
                self.used = low(kept.len() as u64);
                self.seen = array::from_fn(|index| kept.get(index).copied().unwrap_or(NOTHING));
            }
            let free = usize::try_from(self.used).unwrap_or(VALUES);
            let Some(slot) = self.seen.get_mut(free) else { return false };
            *slot = Sighting { value, client: *seen.client, count: 1, slice };
            self.used += 1;
        }
        if now.wrapping_sub(slice) < now.wrapping_sub(self.newest) {
            self.newest = slice;
        }
        // What counts: values, or (of `event_count`) observations.
        let count = match seen.value {
            Some(_) if u64::from(self.used) <= seen.most => return true,
            Some(_) => live(self, now).count() as u64,
            None => live(self, now).map(|seen| u64::from(seen.count)).sum(),
        };
        if count <= seen.most {
            return true;
        }
        // The caller counts this one itself.
        if let Some(known) = self.seen.iter_mut().find(|known| known.count > 0 && known.value == value) {
            known.count -= 1;
        }
        false
    }
}

/// What of a group is within its window.
fn live(entry: &Entry, now: u32) -> impl Iterator<Item = &Sighting> {
    let used = usize::try_from(entry.used).unwrap_or(VALUES);
    entry.seen.iter().take(used).filter(move |seen| now.wrapping_sub(seen.slice) <= low(SLICES))
}

/// The low bits of a slice: differences of less than 2³² slices stay right.
fn low(slice: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    let low = slice as u32;
    low
}

/// Both halves of a product, mixed.
fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let folded = (product >> 64) as u64 ^ product as u64;
    folded
}

const _: () = assert!(size_of::<Entry>() == 192 && size_of::<Line>() == 64, "what the module says");

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> GroupKey {
        GroupKey::new([Some(u128::from(number).to_be_bytes())])
    }

    fn value(number: u64) -> Key {
        u128::from(number).to_be_bytes()
    }

    const CLIENT: Key = [7; 16];

    fn see(quiet: &mut Quiet, group: u64, number: u64, now: u64) -> Option<Vec<(u128, u32, u64)>> {
        let seen = Seen { value: Some(&value(number)), client: &CLIENT, at_ns: now * 10, slice: now, now, most: 100 };
        let Took::Grown(grown) = quiet.take(quiet.hash(&key(group)), seen) else { return None };
        Some(grown.seen().map(|(seen, slice)| (u128::from_be_bytes(seen.value), seen.count, slice)).collect())
    }

    #[test]
    fn a_fifth_value_within_the_window_makes_a_whole_group() {
        let mut quiet = Quiet::new(1_024, [3, 5]);
        for (number, now) in [(1, 100), (2, 101), (1, 102), (3, 110), (5, 111)] {
            assert!(see(&mut quiet, 9, number, now).is_none());
        }
        assert_eq!(quiet.len(), 1);
        assert_eq!(see(&mut quiet, 9, 4, 124), Some(vec![(1, 2, 102), (2, 1, 101), (3, 1, 110), (5, 1, 111)]));
        assert_eq!(quiet.len(), 0, "it is kept elsewhere now");
        // With the first two out of the window, six values in all never make one.
        for (number, now) in [(1, 200), (2, 201), (3, 225), (4, 226), (5, 227), (6, 228)] {
            assert!(see(&mut quiet, 9, number, now).is_none(), "{number}");
        }
    }

    #[test]
    fn events_count_by_slice_and_exactly() {
        let mut quiet = Quiet::new(1_024, [3, 5]);
        let mut at = |now, most| {
            let seen = Seen { value: None, client: &CLIENT, at_ns: now, slice: now, now, most };
            match quiet.take(quiet.hash(&key(1)), seen) {
                Took::Grown(grown) => Some(grown.seen().map(|(seen, _)| seen.count).sum::<u32>()),
                Took::Kept { .. } => None,
            }
        };
        for now in [50, 50, 51, 52, 52] {
            assert_eq!(at(now, 5), None);
        }
        assert_eq!(at(52, 5), Some(5), "the sixth is the caller's");
        assert_eq!((at(100, 1), at(125, 1)), (None, None), "the window slid");
        assert_eq!(at(126, 1), Some(1));
    }

    #[test]
    fn a_late_sighting_makes_no_group_older() {
        let mut quiet = Quiet::new(1_024, [3, 5]);
        let mut at = |slice, now| {
            let seen = Seen { value: Some(&value(1)), client: &CLIENT, at_ns: slice, slice, now, most: 100 };
            quiet.take(quiet.hash(&key(9)), seen);
        };
        at(81, 81);
        at(69, 87);
        (94..106).for_each(|now| quiet.sweep(now));
        assert_eq!(quiet.len(), 1, "it was seen in slice 81");
        (106..130).for_each(|now| quiet.sweep(now));
        assert_eq!(quiet.len(), 0);
    }

    #[test]
    fn a_flood_evicts_what_is_smallest_and_is_bounded() {
        let mut quiet = Quiet::new(4_096, [11, 13]);
        for number in 0..4 {
            see(&mut quiet, 1, number, 10);
        }
        for group in 2..200_000 {
            assert!(see(&mut quiet, group, 0, 10 + group / 20_000).is_none());
        }
        assert!(quiet.len() <= 4_096 && quiet.evicted > 190_000, "{} {}", quiet.len(), quiet.evicted);
        assert!(see(&mut quiet, 1, 4, 20).is_some(), "the one with four values is still there");
    }

    #[test]
    fn growing_keeps_every_group_and_sweeping_empties() {
        let mut quiet = Quiet::new(1 << 16, [17, 19]);
        for group in 0..20_000 {
            see(&mut quiet, group, 1, 30);
        }
        assert_eq!((quiet.len(), quiet.evicted), (20_000, 0));
        for group in 0..20_000 {
            see(&mut quiet, group, 2, 31);
            see(&mut quiet, group, 3, 31);
            see(&mut quiet, group, 4, 31);
            assert!(see(&mut quiet, group, 5, 31).is_some(), "{group}");
        }
        for group in 0..5_000 {
            see(&mut quiet, group, 1, 40);
        }
        for now in 65..89 {
            quiet.sweep(now);
        }
        assert_eq!(quiet.len(), 0);
    }
}
