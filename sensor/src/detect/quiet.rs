//! Groups that have hardly anything in them yet: one per client or credential, by the million.
//!
//! A quiet group is 136 bytes: up to three values with the slice they were last seen in. It becomes a whole group, and
//! takes along what it has seen, when it has a fourth value or more than half of its rule's threshold. So whatever is
//! evicted here is small and far from firing. The table is set-associative: eight groups share a cache line of tags, and
//! each group may stand in two lines. When both are full, a group whose window is empty goes, else the one with the fewest
//! values and, of these, the longest quiet. It doubles up to its bound; every step but that is O(1).

use std::array;

use sensor_ebpf::siphash;

use super::field::Key;
use super::group::GroupKey;
use super::window::SLICES;

/// Groups that share a line of tags.
const WAYS: usize = 8;
/// Groups that a table starts with.
const LEAST: usize = 1_024;
/// Values kept.
pub(super) const VALUES: usize = 3;

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

#[derive(Clone, Copy, Debug)]
struct Entry {
    first_ns: u64,
    newest: u32,
    used: u32,
    seen: [Sighting; VALUES],
}

const EMPTY: Entry = Entry { first_ns: 0, newest: 0, used: 0, seen: [NOTHING; VALUES] };

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
pub(super) enum Took {
    /// It is counted here; `news`: the group has more than before, not the same again.
    Kept {
        /// See above.
        news: bool,
    },
    /// The group is no longer kept here and must be counted as a whole one, this sighting after what it has seen.
    Grown(Grown),
}

/// The table.
#[derive(Debug)]
pub(super) struct Quiet {
    /// Eight tags a line; 0 is free.
    tags: Vec<[u64; WAYS]>,
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
        Self { tags: vec![[0; WAYS]; lines], entries: vec![[EMPTY; WAYS]; lines], seed, used: 0, capacity, evicted: 0 }
    }

    /// Groups kept.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Counts a sighting in the group `key`.
    pub fn take(&mut self, key: &GroupKey, seen: Seen<'_>) -> Took {
        let tag = self.tag(key);
        let (line, way, fresh) = self.place(tag, low(seen.now));
        let Some(entry) = self.entries.get_mut(line).and_then(|entries| entries.get_mut(way)) else {
            return Took::Kept { news: false };
        };
        if fresh {
            *entry = Entry { first_ns: seen.at_ns, ..EMPTY };
        }
        entry.first_ns = entry.first_ns.min(seen.at_ns);
        let before = entry.used;
        if entry.count(&seen) {
            return Took::Kept { news: entry.used != before || seen.value.is_none() };
        }
        let grown = Grown { first_ns: entry.first_ns, entry: *entry, now: seen.now };
        entry.used = 0;
        if let Some(tag) = self.tags.get_mut(line).and_then(|tags| tags.get_mut(way)) {
            *tag = 0;
            self.used -= 1;
        }
        Took::Grown(grown)
    }

    /// Gives up groups whose window was empty at `now`, within one line in 24: after a window's slices, all were looked at.
    pub fn sweep(&mut self, now: u64) {
        let lines = self.tags.len();
        let share = lines.div_ceil(24);
        let start = usize::try_from(now % 24).unwrap_or(0) * share;
        for line in start..(start + share).min(lines) {
            let (Some(tags), Some(entries)) = (self.tags.get_mut(line), self.entries.get(line)) else { continue };
            for (tag, entry) in tags.iter_mut().zip(entries) {
                if *tag != 0 && is_over(entry, low(now)) {
                    *tag = 0;
                    self.used -= 1;
                }
            }
        }
    }

    /// The place of `tag`, made if need be (then the flag is set).
    fn place(&mut self, tag: u64, now: u32) -> (usize, usize, bool) {
        let lines = self.lines(tag);
        for line in lines {
            if let Some(way) = self.way(line, tag) {
                return (line, way, false);
            }
        }
        let size = self.tags.len() * WAYS;
        if self.used * 8 >= size * 5 && size < self.capacity {
            self.grow();
            return self.place(tag, now);
        }
        let (line, way) = self.free(lines).unwrap_or_else(|| self.victim(lines, now));
        if let Some(slot) = self.tags.get_mut(line).and_then(|tags| tags.get_mut(way)) {
            self.used += usize::from(*slot == 0);
            *slot = tag;
        }
        (line, way, true)
    }

    fn way(&self, line: usize, tag: u64) -> Option<usize> {
        self.tags.get(line)?.iter().position(|known| *known == tag)
    }

    /// A free place in the emptier of two lines.
    fn free(&self, lines: [usize; 2]) -> Option<(usize, usize)> {
        let taken =
            |line: &usize| self.tags.get(*line).map_or(WAYS, |tags| tags.iter().filter(|tag| **tag != 0).count());
        let line = lines.into_iter().min_by_key(taken)?;
        self.way(line, 0).map(|way| (line, way))
    }

    /// The group of two full lines that is worth least.
    fn victim(&mut self, lines: [usize; 2], now: u32) -> (usize, usize) {
        let all = lines.into_iter().flat_map(|line| {
            let entries = self.entries.get(line).into_iter().flatten();
            (0..).zip(entries).map(move |(way, entry)| (worth(entry, now), (line, way)))
        });
        let least = all.min_by_key(|(worth, _)| *worth);
        let ((within, ..), place) = least.unwrap_or_default();
        self.evicted += u64::from(within);
        place
    }

    fn grow(&mut self) {
        let lines = self.tags.len() * 2;
        let tags = std::mem::replace(&mut self.tags, vec![[0; WAYS]; lines]);
        let entries = std::mem::replace(&mut self.entries, vec![[EMPTY; WAYS]; lines]);
        self.used = 0;
        for (tag, entry) in tags.iter().flatten().zip(entries.iter().flatten()).filter(|(tag, _)| **tag != 0) {
            // Less than a third full now: there is room but for a chance that no table comes to see.
            let Some((line, way)) = self.free(self.lines(*tag)) else {
                self.evicted += 1;
                continue;
            };
            let slot = self.tags.get_mut(line).and_then(|tags| tags.get_mut(way));
            let place = self.entries.get_mut(line).and_then(|entries| entries.get_mut(way));
            if let (Some(slot), Some(place)) = (slot, place) {
                (*slot, *place) = (*tag, *entry);
                self.used += 1;
            }
        }
    }

    /// The two lines that a tag may stand in.
    fn lines(&self, tag: u64) -> [usize; 2] {
        let mask = self.tags.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the low bits of each half are what is wanted")]
        let lines = [tag as usize & mask, (tag >> 32) as usize & mask];
        lines
    }

    /// A hash of the group that only the seed's owner can compute; never 0.
    fn tag(&self, key: &GroupKey) -> u64 {
        let [mut tag, other] = self.seed;
        for value in key.0 {
            let (present, value) = value.map_or((0, 0), |value| (1, u128::from_be_bytes(value)));
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            let (high, low) = ((value >> 64) as u64, value as u64);
            tag = folded(tag ^ high ^ present, low ^ other);
        }
        folded(tag, other | 1).max(1)
    }
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
        if self.used == 1 || now.wrapping_sub(slice) < now.wrapping_sub(self.newest) {
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

/// What a group is worth: whether it is within its window, its values, and how recent they are.
fn worth(entry: &Entry, now: u32) -> (bool, usize, u32) {
    let within = !is_over(entry, now);
    (within, if within { live(entry, now).count() } else { 0 }, u32::MAX - now.wrapping_sub(entry.newest))
}

fn is_over(entry: &Entry, now: u32) -> bool {
    now.wrapping_sub(entry.newest) > low(SLICES)
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

const _: () = assert!(size_of::<Entry>() <= 136, "what the module says");

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> GroupKey {
        GroupKey([Some(u128::from(number).to_be_bytes()), None, None, None])
    }

    fn value(number: u64) -> Key {
        u128::from(number).to_be_bytes()
    }

    const CLIENT: Key = [7; 16];

    fn see(quiet: &mut Quiet, group: u64, number: u64, now: u64) -> Option<Vec<(u128, u32, u64)>> {
        let seen = Seen { value: Some(&value(number)), client: &CLIENT, at_ns: now * 10, slice: now, now, most: 100 };
        let Took::Grown(grown) = quiet.take(&key(group), seen) else { return None };
        Some(grown.seen().map(|(seen, slice)| (u128::from_be_bytes(seen.value), seen.count, slice)).collect())
    }

    #[test]
    fn a_fourth_value_within_the_window_makes_a_whole_group() {
        let mut quiet = Quiet::new(1_024, [3, 5]);
        for (number, now) in [(1, 100), (2, 101), (1, 102), (3, 110)] {
            assert!(see(&mut quiet, 9, number, now).is_none());
        }
        assert_eq!(quiet.len(), 1);
        assert_eq!(see(&mut quiet, 9, 4, 124), Some(vec![(1, 2, 102), (2, 1, 101), (3, 1, 110)]));
        assert_eq!(quiet.len(), 0, "it is kept elsewhere now");
        // With the first two out of the window, five values in all never make one.
        for (number, now) in [(1, 200), (2, 201), (3, 225), (4, 226), (5, 227)] {
            assert!(see(&mut quiet, 9, number, now).is_none(), "{number}");
        }
    }

    #[test]
    fn events_count_by_slice_and_exactly() {
        let mut quiet = Quiet::new(1_024, [3, 5]);
        let mut at = |now, most| {
            let seen = Seen { value: None, client: &CLIENT, at_ns: now, slice: now, now, most };
            match quiet.take(&key(1), seen) {
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
    fn a_flood_evicts_what_is_smallest_and_is_bounded() {
        let mut quiet = Quiet::new(4_096, [11, 13]);
        for number in 0..3 {
            see(&mut quiet, 1, number, 10);
        }
        for group in 2..200_000 {
            assert!(see(&mut quiet, group, 0, 10 + group / 20_000).is_none());
        }
        assert!(quiet.len() <= 4_096 && quiet.evicted > 190_000, "{} {}", quiet.len(), quiet.evicted);
        assert!(see(&mut quiet, 1, 3, 20).is_some(), "the one with three values is still there");
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
            assert!(see(&mut quiet, group, 4, 31).is_some(), "{group}");
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
