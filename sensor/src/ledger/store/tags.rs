//! The tag table: which credentials are in the ledger, at seven bytes each.
//!
//! Keyed ids flow in, small notes about them flow out. The table holds no fingerprint: an id's leading bits choose a
//! region, the next nine a row of it, and forty more are written down as the tag, in order, so that a tag is found by
//! interpolation. "Not there" is exact, because equal credentials have equal ids. "There" is wrong for a credential
//! that shares region, row and tag with another one: a row has [`ROW_TAGS`] tags on average at most, so that errs with
//! probability `59 / 2^40` = 5.4 · 10⁻¹¹ for each look-up.
//!
//! Rows have gaps between them, so that a new tag moves a few kilobytes, not half of its region. When the gaps of a
//! region are used up it grows by a sixty-fourth, in place: the memory of all regions is reserved as address space at the
//! start, and touched as they fill. No doubling, no second copy, no rebuild. Sixty million tags take 401 MiB, 3 MiB of gaps,
//! 4 MiB of rows, and the unfilled rest of a page for each of 2,048 regions; 421 MiB once the table is three quarters full
//! and its memory moves into large pages.

use std::ops::Range;

use crate::ahead;

/// Bits of the id that choose a row of its region.
const ROW_BITS: u32 = 9;
/// Rows of a region.
const ROWS: usize = 1 << ROW_BITS;
/// Bits of the id that are written down. Tests narrow them to see tags meet.
const TAG_BITS: u32 = 40;
/// Most tags of a row on average, and so of all that can be mistaken for one another.
const ROW_TAGS: usize = 59;
/// Bytes of a slot: the tag above, the note below, little-endian.
const SLOT: usize = 7;
const NOTE_BITS: u32 = 16;
/// Fewest and most regions, powers of two. With the fewest an id has 54 bits.
const REGIONS: (usize, usize) = (32, 1 << 15);
/// What a region may hold beyond its share, in standard deviations of a random split.
const SPREAD: usize = 4;
/// A full region grows by this part of itself.
const GROWTH: usize = 64;
/// Bytes that a tag is off from where it would be, as a rule at most.
const NEAR: usize = 28;
/// Eviction looks at about this many tags, or at all: what goes is among the first thousandth, and a flood of logins into a
/// full table costs microseconds each.
const EVICTION_LOOKS: usize = 1 << 10;

/// What a credential is known by in memory: the leading bits of its mixed fingerprint, as many as the table uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// Where the tags of a row stand: the first slot below, their number above. A plain number, so that fresh memory is an
/// empty row.
type Row = u32;

/// A region to be looked into.
#[derive(Clone, Copy)]
struct View<'a> {
    /// Its slots, and a byte behind them, so that eight bytes can be read at each.
    slots: &'a [u8],
    /// Its rows, and an empty one where the last one's room ends.
    rows: &'a [Row],
}

/// A region to be changed.
struct Region<'a> {
    slots: &'a mut [u8],
    rows: &'a mut [Row],
    /// Tags of all rows.
    len: &'a mut usize,
}

/// The table.
#[derive(Debug)]
pub struct Tags {
    /// Of all regions, one behind the other. Reserved as address space, and touched as tags come.
    slots: Vec<u8>,
    rows: Vec<Row>,
    /// Tags of each region.
    lens: Vec<usize>,
    region_bits: u32,
    tag_bits: u32,
    len: usize,
    capacity: usize,
    /// Most slots of a region.
    stride: usize,
    /// Large pages that slots and rows were moved to.
    large: (usize, usize),
}

/// Where an id is, or would be.
struct Place {
    slot: usize,
    found: bool,
}

impl Tags {
    /// Room for `capacity` tags. Takes next to no memory before they come.
    pub fn new(capacity: usize) -> Self {
        Self::with_tags_of(TAG_BITS, capacity)
    }

    fn with_tags_of(tag_bits: u32, capacity: usize) -> Self {
        let capacity = capacity.min(ROW_TAGS * ROWS * REGIONS.1);
        let regions = capacity.div_ceil(ROW_TAGS * ROWS).next_power_of_two().clamp(REGIONS.0, REGIONS.1);
        let share = capacity / regions;
        // A region's rows count in sixteen bits.
        let stride = (share + SPREAD * share.isqrt() + 64).min(capacity.max(1)).min(usize::from(u16::MAX));
        Self {
            slots: vec![0; regions * stride * SLOT + 1],
            rows: vec![0; regions * (ROWS + 1)],
            lens: vec![0; regions],
            region_bits: regions.trailing_zeros(),
            tag_bits,
            len: 0,
            capacity,
            stride,
            large: (0, 0),
        }
    }

    /// The id of a credential whose mixed fingerprint begins with `bits`.
    pub fn id(&self, bits: u64) -> Id {
        let unused = u64::MAX.checked_shr(self.region_bits + ROW_BITS + self.tag_bits).unwrap_or(0);
        Id(bits & !unused)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// Number of regions, for [`Tags::sweep`].
    pub fn regions(&self) -> usize {
        self.lens.len()
    }

    fn view(&self, region: usize) -> Option<View<'_>> {
        let (slots, rows) = self.places(region);
        Some(View { slots: self.slots.get(slots)?, rows: self.rows.get(rows)? })
    }

    fn region(&mut self, region: usize) -> Option<Region<'_>> {
        let (slots, rows) = self.places(region);
        let Self { slots: all_slots, rows: all_rows, lens, .. } = self;
        Some(Region { slots: all_slots.get_mut(slots)?, rows: all_rows.get_mut(rows)?, len: lens.get_mut(region)? })
    }

    /// Where slots and rows of a region stand.
    fn places(&self, region: usize) -> (Range<usize>, Range<usize>) {
        let (slots, rows) = (self.stride * SLOT, ROWS + 1);
        (region * slots..(region + 1) * slots + 1, region * rows..(region + 1) * rows)
    }

    /// Bytes taken by slots and rows.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let begun = (0..self.regions()).filter_map(|region| self.view(region)).filter(|view| view.start(ROWS) > 0);
        begun.map(|view| view.start(ROWS) * SLOT + size_of_val(view.rows)).sum()
    }

    /// Moves a part of the table into large pages, if that is due: once it is three quarters full, all of its memory would
    /// be touched anyway before long.
    pub fn settle(&mut self) {
        if self.len >= self.capacity / 4 * 3 && !ahead::move_to_large_page(&mut self.rows, &mut self.large.1) {
            ahead::move_to_large_page(&mut self.slots, &mut self.large.0);
        }
    }

    /// Asks for the memory that says where the row of `id` is.
    pub fn fetch(&self, id: Id) {
        let (region, row, _) = self.split(id);
        if let Some(view) = self.view(region) {
            ahead::fetch(view.rows, row);
        }
    }

    /// Asks for the memory in which its tag is likely to be; worth it once that memory has come.
    pub fn fetch_tag(&self, id: Id) {
        let (region, row, tag) = self.split(id);
        if let Some(view) = self.view(region) {
            let at = view.guess(row, tag, self.tag_bits) * SLOT;
            // The tag is a few slots before or behind.
            ahead::fetch(view.slots, at.saturating_sub(NEAR));
            ahead::fetch(view.slots, at + NEAR);
        }
    }

    /// The note of `id`.
    pub fn get(&self, id: Id) -> Option<u16> {
        let (region, row, tag) = self.split(id);
        let view = self.view(region)?;
        let place = view.find(row, tag, self.tag_bits);
        place.found.then(|| note(view.read(place.slot)))
    }

    /// Changes the note of `id` to what `change` makes of it; the note as it was.
    pub fn change(&mut self, id: Id, change: impl FnOnce(u16) -> u16) -> Option<u16> {
        let (region, row, tag) = self.split(id);
        let tag_bits = self.tag_bits;
        let mut region = self.region(region)?;
        let place = region.view().find(row, tag, tag_bits);
        if !place.found {
            return None;
        }
        let before = note(region.view().read(place.slot));
        let after = change(before);
        if after != before {
            region.write(place.slot, tag, after);
        }
        Some(before)
    }

    /// Adds an id that is not in the table; false when there is no room ([`Tags::evict`] makes some).
    pub fn insert(&mut self, id: Id, note: u16) -> bool {
        let (region, row, tag) = self.split(id);
        let (stride, tag_bits) = (self.stride, self.tag_bits);
        if self.is_full() {
            return false;
        }
        let Some(mut region) = self.region(region) else { return false };
        if *region.len >= stride || !region.insert(row, tag, tag_bits, note, stride) {
            return false;
        }
        self.len += 1;
        true
    }

    /// How many tags have a note that is `so`.
    pub fn count(&self, so: impl Fn(u16) -> bool) -> usize {
        let views = (0..self.regions()).filter_map(|region| self.view(region));
        views
            .flat_map(|view| (0..ROWS).flat_map(move |row| view.row(row).map(move |slot| note(view.read(slot)))))
            .filter(|note| so(*note))
            .count()
    }

    /// Lets go of the tags of one region that `keep` does not want; `gone` gets their ids and notes.
    pub fn sweep(&mut self, region: usize, keep: impl Fn(u16) -> bool, mut gone: impl FnMut(Id, u16)) {
        let shift = 64 - self.region_bits;
        let (tag_bits, base) = (self.tag_bits, (region as u64) << shift);
        let Some(mut region) = self.region(region) else { return };
        let before = *region.len;
        if before == 0 {
            return;
        }
        for row in 0..ROWS {
            let slots = region.view().row(row);
            let mut to = slots.start;
            for from in slots.clone() {
                let slot = region.view().read(from);
                if keep(note(slot)) {
                    if to < from {
                        region.write(to, slot >> NOTE_BITS, note(slot));
                    }
                    to += 1;
                } else {
                    let below = (row as u64) << (shift - ROW_BITS);
                    gone(Id(base | below | (slot >> NOTE_BITS) << (shift - ROW_BITS - tag_bits)), note(slot));
                }
            }
            region.set_count(row, to - slots.start);
        }
        let gone = before - *region.len;
        self.len -= gone;
    }

    /// Removes the tag that comes first in `order` among some that stand near `id`, to make room there.
    pub fn evict<O: Ord>(&mut self, id: Id, order: impl Fn(u16) -> O) -> Option<(Id, u16)> {
        let (first, first_row, _) = self.split(id);
        let shift = 64 - self.region_bits;
        let mut looks = 0;
        let mut best: Option<(O, usize, usize, usize)> = None;
        let count = self.regions();
        'regions: for at in (first..count).chain(0..first) {
            let len = self.lens.get(at).copied().filter(|len| *len > 0);
            let Some((len, view)) = len.zip(self.view(at)) else { continue };
            for row in (first_row..ROWS).chain(0..first_row) {
                if looks >= EVICTION_LOOKS {
                    break 'regions;
                }
                for slot in view.row(row) {
                    looks += 1;
                    let order = order(note(view.read(slot)));
                    if best.as_ref().is_none_or(|(first, ..)| order < *first) {
                        best = Some((order, at, row, slot));
                    }
                }
            }
            // A region that is full itself has to give the place.
            if at == first && len >= self.stride {
                break;
            }
        }
        let (_, at, row, slot) = best?;
        let tag_bits = self.tag_bits;
        let mut region = self.region(at)?;
        let value = region.view().read(slot);
        region.remove(slot, row);
        self.len -= 1;
        let id = (at as u64) << shift
            | (row as u64) << (shift - ROW_BITS)
            | (value >> NOTE_BITS) << (shift - ROW_BITS - tag_bits);
        Some((Id(id), note(value)))
    }

    /// Region, row and tag.
    #[expect(clippy::cast_possible_truncation, reason = "a few bits each")]
    fn split(&self, id: Id) -> (usize, usize, u64) {
        let region = id.0 >> (64 - self.region_bits);
        let rest = id.0 << self.region_bits;
        (region as usize, (rest >> (64 - ROW_BITS)) as usize, rest << ROW_BITS >> (64 - self.tag_bits))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are the note")]
fn note(slot: u64) -> u16 {
    slot as u16
}

impl View<'_> {
    /// The slots of the tags of a row.
    fn row(&self, row: usize) -> Range<usize> {
        let row = self.rows.get(row).copied().unwrap_or_default();
        let (start, count) = (row & 0xffff, row >> 16);
        start as usize..(start + count) as usize
    }

    fn start(&self, row: usize) -> usize {
        self.row(row).start
    }

    fn read(&self, slot: usize) -> u64 {
        let bytes = self.slots.get(slot * SLOT..slot * SLOT + 8).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes) & (u64::MAX >> 8))
    }

    /// The slot in which `tag` would be if the tags of `row` were spread evenly.
    #[expect(clippy::cast_possible_truncation, reason = "not beyond the row")]
    fn guess(&self, row: usize, tag: u64, tag_bits: u32) -> usize {
        let Range { start, end } = self.row(row);
        let guess = ((tag >> tag_bits.saturating_sub(32)) * (end - start) as u64) >> tag_bits.min(32);
        start + guess as usize
    }

    /// The slot of `tag` in `row`, or that of the first greater one. Tags are random, so their order says where one is
    /// to within a few slots.
    fn find(&self, row: usize, tag: u64, tag_bits: u32) -> Place {
        let Range { start: first, end } = self.row(row);
        let mut slot = self.guess(row, tag, tag_bits);
        while slot > first && self.read(slot - 1) >> NOTE_BITS >= tag {
            slot -= 1;
        }
        while slot < end {
            let here = self.read(slot) >> NOTE_BITS;
            if here >= tag {
                return Place { slot, found: here == tag };
            }
            slot += 1;
        }
        Place { slot, found: false }
    }
}

impl Region<'_> {
    fn view(&self) -> View<'_> {
        View { slots: self.slots, rows: self.rows }
    }

    #[expect(clippy::cast_possible_truncation, reason = "no row is longer than its region, whose slots count in u16")]
    fn set_count(&mut self, row: usize, count: usize) {
        let before = self.view().row(row).len();
        if let Some(row) = self.rows.get_mut(row) {
            *self.len = *self.len + count - before;
            *row = *row & 0xffff | (count as u32) << 16;
        }
    }

    fn write(&mut self, slot: usize, tag: u64, note: u16) {
        let value = (tag << NOTE_BITS | u64::from(note)).to_le_bytes();
        if let (Some(to), Some(from)) = (self.slots.get_mut(slot * SLOT..(slot + 1) * SLOT), value.get(..SLOT)) {
            to.copy_from_slice(from);
        }
    }

    /// Adds a tag that is not there; false if there is no room for it.
    fn insert(&mut self, row: usize, tag: u64, tag_bits: u32, note: u16, stride: usize) -> bool {
        if *self.len >= self.view().start(ROWS) {
            self.grow(stride);
        }
        if self.view().row(row).end >= self.view().start(row + 1) && !self.make_gap(row) {
            return false;
        }
        let slots = self.view().row(row);
        let Place { slot, .. } = self.view().find(row, tag, tag_bits);
        self.slots.copy_within(slot * SLOT..slots.end * SLOT, (slot + 1) * SLOT);
        self.write(slot, tag, note);
        self.set_count(row, slots.len() + 1);
        true
    }

    /// Gives a full region room for a sixty-fourth more, and every row its share of the gaps.
    #[expect(clippy::cast_possible_truncation, reason = "the stride fits sixteen bits")]
    fn grow(&mut self, stride: usize) {
        let len = *self.len;
        let room = (len + len / GROWTH + 16).min(stride);
        let gaps = room - len;
        // It was full, so every row moves back, and the last one first.
        for row in (0..ROWS).rev() {
            let slots = self.view().row(row);
            let start = slots.start + gaps * row / ROWS;
            self.slots.copy_within(slots.start * SLOT..slots.end * SLOT, start * SLOT);
            if let Some(row) = self.rows.get_mut(row) {
                *row = *row & !0xffff | start as u32;
            }
        }
        if let Some(end) = self.rows.last_mut() {
            *end = room as u32;
        }
    }

    /// Moves the nearest gap to the end of a row; false if there is none.
    fn make_gap(&mut self, row: usize) -> bool {
        let view = self.view();
        let has_gap = |row: usize| view.row(row).end < view.start(row + 1);
        let mut after = (row + 1..ROWS).find(|row| has_gap(*row));
        let mut before = (0..row).rev().find(|row| has_gap(*row));
        if let (Some(next), Some(last)) = (after, before) {
            if next - row <= row - last { before = None } else { after = None }
        }
        if let Some(gap) = after {
            let (from, to) = (view.start(row + 1), view.row(gap).end);
            self.slots.copy_within(from * SLOT..to * SLOT, (from + 1) * SLOT);
            self.rows.iter_mut().take(gap + 1).skip(row + 1).for_each(|row| *row += 1);
        } else if let Some(gap) = before {
            let (from, to) = (view.start(gap + 1), view.row(row).end);
            self.slots.copy_within(from * SLOT..to * SLOT, (from - 1) * SLOT);
            self.rows.iter_mut().take(row + 1).skip(gap + 1).for_each(|row| *row -= 1);
        }
        after.is_some() || before.is_some()
    }

    fn remove(&mut self, slot: usize, row: usize) {
        let slots = self.view().row(row);
        self.slots.copy_within((slot + 1) * SLOT..slots.end * SLOT, slot * SLOT);
        self.set_count(row, slots.len() - 1);
    }
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
