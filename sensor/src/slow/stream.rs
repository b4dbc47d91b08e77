//! One half of one connection, put back in order (RFC 9293 §3.4, §3.10.7.4).
//!
//! Segments go in as they come, in-order pieces come out. What arrived first is what is delivered, as in the kernel's
//! parser; what contradicts it later is kept as a *patch*, from which other versions of the same bytes are made, so that
//! both can be judged. To notice contradictions with bytes that were delivered, a stream remembers the first of them
//! since the last [`Stream::mark`].
//!
//! **Memory.** A stream holds at most
//! `2 * limit + longest segment + 3 * history + (`[`PATCHES_MAX`]` + 1) * `[`OVERHEAD`] bytes, as counted by [`Stream::held`]:
//! `limit` bounds what waits behind a hole, every piece counted with [`OVERHEAD`] so that single bytes are not free; the
//! segment that fills the hole is always taken, and may be cut into as many pieces as are held; the history grows by
//! doubling; patches together are at most one history. All of it is wiped when it is dropped.

mod history;

use std::collections::BTreeMap;
use std::mem;

use zeroize::Zeroizing;

use history::History;

/// What a held piece is counted in addition to its bytes: its share of the tree's nodes and of the allocator's.
pub const OVERHEAD: usize = 160;
/// Patches that are kept between two marks; contradictions beyond are counted ([`Counts::unjudged`]).
pub const PATCHES_MAX: usize = 4;
/// Delivered bytes that are remembered from a mark on, if not said otherwise.
pub const HISTORY: usize = 64 << 10;
/// A segment that begins further than this beyond the next byte, or ends further than this behind it, is out of every
/// window.
const WINDOW: i64 = 1 << 26;
/// Positions count from here, so that what lies behind the first byte has one too.
const ORIGIN: u64 = 1 << 40;
/// Ends (FIN) that are remembered. Only one is true; which one shows when the stream gets there.
const ENDS_MAX: usize = 4;

/// What happened to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It begins at the next byte or before, and brought new ones (or the end): [`Stream::next`] has something to give, or
    /// [`Stream::finished`].
    InOrder,
    /// It lies behind a hole, and waits.
    Held,
    /// It brought nothing that was not known.
    Duplicate,
    /// It lies too far from the stream to belong to it.
    OutOfWindow,
    /// It lies behind a hole, and there is no room: bytes of it were not taken. The hole has to be given up
    /// ([`Stream::skip`]); the same segment can be pushed again then.
    Full,
}

/// Bytes in order.
pub struct Piece<'a> {
    /// The bytes: a whole segment, or what of one was new.
    pub bytes: &'a [u8],
    /// When the segment arrived that made them deliverable, nanoseconds. Never less than that of the piece before.
    pub time: u64,
    /// True when other bytes were seen for some of them before they were delivered.
    pub conflict: bool,
}

/// Bytes that are missing in front of those that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// How many.
    pub missing: u32,
    /// Since when the stream has been waiting for them, nanoseconds.
    pub since: u64,
}

/// The bytes since the last mark as they may have been instead.
pub struct Version {
    /// Sequence number of the first one: the mark's.
    pub sequence: u32,
    /// The bytes, as far as they were delivered (and remembered).
    pub bytes: Zeroizing<Vec<u8>>,
}

/// What a stream counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that contradict bytes which were held or remembered.
    pub conflicts: u32,
    /// Contradictions of which no version was made: outside the history, or one too many.
    pub unjudged: u32,
    /// Segments that were seen again when their bytes were not remembered any more: not compared.
    pub uncompared: u32,
}

/// A piece that waits.
struct Held {
    bytes: Zeroizing<Box<[u8]>>,
    time: u64,
    conflict: bool,
}

/// Bytes that contradict those which came first.
struct Patch {
    at: u64,
    bytes: Zeroizing<Vec<u8>>,
    /// Versions with it were given out.
    told: bool,
}

impl Patch {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn to_tell(&self, known: u64) -> bool {
        !self.told && self.end() <= known
    }

    fn covers(&self, other: &Self) -> bool {
        self.at <= other.at && other.end() <= self.end()
    }
}

/// One half of a connection.
pub struct Stream {
    /// Sequence number at `position`.
    next: u32,
    /// Place of the next byte to be delivered.
    position: u64,
    limit: usize,
    /// What waits, by place; never overlapping, never before `position`.
    pieces: BTreeMap<u64, Held>,
    /// What `pieces` is counted.
    waiting: usize,
    /// When the stream began to wait.
    blocked: u64,
    /// When the last delivered piece became deliverable.
    ready: u64,
    /// Places at which the stream may end.
    ends: Vec<u64>,
    history: History,
    patches: Vec<Patch>,
    counts: Counts,
    doubt: Option<Doubt>,
}

/// Bytes that may have been others, and of which no version can be made: places of the first one, and behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    from: u64,
    to: u64,
}

/// The first and the last difference found between a segment and what is known, as offsets in the segment.
#[derive(Default)]
struct Difference(Option<(usize, usize)>);

impl Difference {
    /// Compares `known` with the segment's bytes from `at` on; true if they differ.
    fn look(&mut self, segment: &[u8], at: usize, known: &[u8]) -> bool {
        let Some(other) = segment.get(at..) else { return false };
        let len = other.len().min(known.len());
        let (other, known) = (other.get(..len).unwrap_or_default(), known.get(..len).unwrap_or_default());
        if other == known {
            return false;
        }
        let differs = |pair: (&u8, &u8)| pair.0 != pair.1;
        let first = other.iter().zip(known).position(differs).unwrap_or(0);
        let last = other.iter().zip(known).rposition(differs).unwrap_or(first);
        let from = self.0.map_or(at + first, |(from, _)| from);
        self.0 = Some((from, at + last));
        true
    }
}

impl Stream {
    /// Starts at `next`, the sequence number of the next byte in order; `limit` is the most that waits behind a hole,
    /// bytes.
    pub fn new(next: u32, limit: usize) -> Self {
        Self {
            next,
            position: ORIGIN,
            limit,
            pieces: BTreeMap::new(),
            waiting: 0,
            blocked: 0,
            ready: 0,
            ends: Vec::new(),
            history: History::new(ORIGIN, HISTORY),
            patches: Vec::new(),
            counts: Counts::default(),
            doubt: None,
        }
    }

    /// Remembers `bytes` delivered bytes from a mark on, instead of [`HISTORY`]; with 0, contradictions of delivered bytes
    /// are not noticed.
    #[must_use]
    pub fn remembering(mut self, bytes: usize) -> Self {
        self.history = History::new(self.position, bytes);
        self
    }

    /// One segment, in any order, overlapping or not. `fin` says that the stream ends behind it. `now` in nanoseconds.
    pub fn push(&mut self, sequence: u32, bytes: &[u8], fin: bool, now: u64) -> Pushed {
        let ahead = i64::from(sequence.wrapping_sub(self.next).cast_signed());
        let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        if ahead > WINDOW || ahead.saturating_add(len) < -WINDOW {
            return Pushed::OutOfWindow;
        }
        let Some(at) = self.position.checked_add_signed(ahead) else { return Pushed::OutOfWindow };
        let end = at + bytes.len() as u64;
        let new_end = fin && self.ends_at(end);
        let mut difference = Difference::default();
        self.compare_delivered(at, bytes, &mut difference);
        let in_order = at <= self.position;
        // What fills the hole in front is taken in any case, unless the one before was not even fetched.
        let wanted = in_order && !self.pieces.contains_key(&self.position);
        let taken = self.insert(at, bytes, now, wanted, &mut difference);
        if let Some((first, last)) = difference.0 {
            self.counts.conflicts = self.counts.conflicts.saturating_add(1);
            self.patch(at + first as u64, bytes.get(first..=last).unwrap_or_default());
        }
        match taken {
            Taken::Refused => Pushed::Full,
            Taken::Nothing if !new_end => Pushed::Duplicate,
            _ if in_order => Pushed::InOrder,
            _ => Pushed::Held,
        }
    }

    /// The next piece in order: gives it to `take` and returns true; false if a hole, or nothing, is next.
    pub fn next(&mut self, take: impl FnOnce(Piece<'_>)) -> bool {
        let Some(entry) = self.pieces.first_entry().filter(|entry| *entry.key() == self.position) else { return false };
        let piece = entry.remove();
        let len = piece.bytes.len();
        self.waiting = self.waiting.saturating_sub(len + OVERHEAD);
        self.ready = self.ready.max(piece.time);
        self.blocked = self.ready;
        self.history.append(self.position, &piece.bytes);
        self.advance(len as u64);
        take(Piece { bytes: &piece.bytes, time: self.ready, conflict: piece.conflict });
        true
    }

    /// The hole in front of the first held segment; none while [`Stream::next`] has something to give, or nothing is held.
    pub fn hole(&self) -> Option<Hole> {
        let first = *self.pieces.first_key_value()?.0;
        let missing = u32::try_from(first.saturating_sub(self.position)).ok().filter(|missing| *missing > 0)?;
        Some(Hole { missing, since: self.blocked })
    }

    /// Gives the hole up, and returns its length (0 if there is none). What was remembered is forgotten: no message
    /// reaches over a hole.
    pub fn skip(&mut self) -> u32 {
        let Some(hole) = self.hole() else { return 0 };
        self.advance(u64::from(hole.missing));
        self.mark();
        hole.missing
    }

    /// Forgets what was delivered so far: retransmissions of it are not compared any more.
    pub fn mark(&mut self) {
        self.forget(self.position);
    }

    /// Forgets what was delivered before `sequence`, the first byte of the oldest message that still matters. Does
    /// nothing when that does not lie between the last mark and the next byte.
    pub fn mark_at(&mut self, sequence: u32) {
        let back = u64::from(self.next.wrapping_sub(sequence));
        if let Some(at) = self.position.checked_sub(back).filter(|at| *at >= self.history.from()) {
            self.forget(at);
        }
    }

    /// True when [`Stream::conflicts`] has versions to give.
    pub fn conflicted(&self) -> bool {
        self.conflicted_before(self.next)
    }

    /// True when [`Stream::conflicts_before`] has.
    pub fn conflicted_before(&self, sequence: u32) -> bool {
        let until = self.place(sequence);
        self.patches.iter().any(|patch| patch.to_tell(until))
    }

    /// The other versions of the bytes since the mark that contradictions make possible: every combination of the patches
    /// whose bytes were delivered, the later one where two overlap; each combination once. A version reaches as far as was
    /// delivered: call this when the head is complete, at the end, and before [`Stream::mark`].
    pub fn conflicts(&mut self) -> impl Iterator<Item = Version> + '_ {
        self.conflicts_before(self.next)
    }

    /// [`Stream::conflicts`] of what contradictions say of bytes before `sequence` alone: those behind it wait, because
    /// the message that begins there is not complete.
    pub fn conflicts_before(&mut self, sequence: u32) -> impl Iterator<Item = Version> + '_ {
        let known = self.place(sequence);
        let ready = move |patch: &Patch| patch.end() <= known;
        let fresh: Vec<bool> = self.patches.iter().map(|patch| patch.to_tell(known)).collect();
        for patch in self.patches.iter_mut().filter(|patch| patch.end() <= known) {
            patch.told = true;
        }
        let this = &*self;
        let sequence = this.next.wrapping_sub(low_bits(this.position - this.history.from()));
        (1_u32..1 << this.patches.len()).filter_map(move |set| {
            let chosen = || this.patches.iter().enumerate().filter(move |(index, _)| set >> index & 1 == 1);
            let any_fresh = chosen().any(|(index, _)| fresh.get(index).copied().unwrap_or(false));
            let hidden =
                chosen().any(|(index, patch)| chosen().any(|(later, other)| later > index && other.covers(patch)));
            if !any_fresh || hidden || !chosen().all(|(_, patch)| ready(patch)) {
                return None;
            }
            let mut bytes = Zeroizing::new(this.history.bytes().to_vec());
            for (_, patch) in chosen() {
                let from = usize::try_from(patch.at.saturating_sub(this.history.from())).ok()?;
                bytes.get_mut(from..from + patch.bytes.len())?.copy_from_slice(&patch.bytes);
            }
            Some(Version { sequence, bytes })
        })
    }

    /// What was counted since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        mem::take(&mut self.counts)
    }

    /// True when bytes in front of the place `before` may have been others, and no version can tell: outside the history,
    /// or one contradiction too many. Says so once; doubt about bytes that were not delivered yet is kept.
    pub fn doubted(&mut self, before: u64) -> bool {
        let Some(doubt) = self.doubt else { return false };
        let told = doubt.from < before;
        let from = doubt.from.max(self.position);
        self.doubt = (from < doubt.to).then_some(Doubt { from, ..doubt });
        told
    }

    /// Place of the next byte in order, for [`Stream::doubted`].
    pub fn position(&self) -> u64 {
        self.position
    }

    /// When the last piece that was given became deliverable, nanoseconds.
    pub fn ready(&self) -> u64 {
        self.ready
    }

    /// Sequence number of the next byte in order.
    pub fn next_sequence(&self) -> u32 {
        self.next
    }

    /// Memory in use, bytes: what waits, what is remembered, and patches.
    pub fn held(&self) -> usize {
        let patches: usize = self.patches.iter().map(|patch| patch.bytes.len() + OVERHEAD).sum();
        self.waiting + self.history.room() + patches
    }

    /// True when everything up to a FIN was delivered, and nothing is known beyond.
    pub fn finished(&self) -> bool {
        self.ends.contains(&self.position) && !self.pieces.contains_key(&self.position)
    }

    /// True when the end is known to lie ahead, nothing is held in between, and bytes are missing up to there.
    pub fn lacks_its_end(&self) -> bool {
        self.pieces.is_empty() && self.ends.iter().any(|end| *end > self.position) && !self.finished()
    }

    fn advance(&mut self, by: u64) {
        self.position += by;
        self.next = self.next.wrapping_add(low_bits(by));
        let position = self.position;
        self.ends.retain(|end| *end >= position);
    }

    /// Notes a FIN; true if it is new. Of too many the farthest goes: the stream may never get there.
    fn ends_at(&mut self, end: u64) -> bool {
        if end < self.position || self.ends.contains(&end) {
            return false;
        }
        self.ends.push(end);
        self.ends.sort_unstable();
        self.ends.truncate(ENDS_MAX);
        self.ends.contains(&end)
    }

    fn forget(&mut self, before: u64) {
        self.history.forget(before);
        self.doubt = self.doubt.filter(|doubt| doubt.to > before);
        let lost = self.patches.extract_if(.., |patch| patch.at < before).filter(|patch| !patch.told).count();
        self.counts.unjudged = self.counts.unjudged.saturating_add(u32::try_from(lost).unwrap_or(u32::MAX));
    }

    /// Notes bytes of which no version can be made; what lies before the mark matters to nobody.
    fn doubt(&mut self, from: u64, to: u64) {
        let from = from.max(self.history.from());
        if self.history.most() == 0 || from >= to {
            return;
        }
        let known = self.doubt.unwrap_or(Doubt { from, to });
        self.doubt = Some(Doubt { from: known.from.min(from), to: known.to.max(to) });
    }

    /// The place of a delivered byte, as far as is remembered.
    fn place(&self, sequence: u32) -> u64 {
        let back = u64::from(self.next.wrapping_sub(sequence));
        self.position.saturating_sub(back).min(self.history.end())
    }

    /// Compares the segment with what was delivered.
    fn compare_delivered(&mut self, at: u64, bytes: &[u8], difference: &mut Difference) {
        let end = (at + bytes.len() as u64).min(self.position);
        if bytes.is_empty() || at >= end {
            return;
        }
        let (from, to) = (at.max(self.history.from()), end.min(self.history.end()));
        if from > at || to < end {
            self.counts.uncompared = self.counts.uncompared.saturating_add(1);
        }
        self.doubt(at.max(self.history.end()), end);
        if from < to {
            difference.look(bytes, offset(at, from), self.history.between(from, to));
        }
    }

    /// Takes what of the segment is new, and compares the rest of what lies ahead with what is held.
    fn insert(&mut self, at: u64, bytes: &[u8], now: u64, wanted: bool, difference: &mut Difference) -> Taken {
        let end = at + bytes.len() as u64;
        let mut cursor = at.max(self.position);
        let mut taken = Taken::Nothing;
        while cursor < end {
            let before = self.pieces.range_mut(..=cursor).next_back();
            if let Some((start, piece)) = before.filter(|(start, piece)| **start + piece.bytes.len() as u64 > cursor) {
                let known = piece.bytes.get(offset(*start, cursor)..).unwrap_or_default();
                let after = *start + piece.bytes.len() as u64;
                piece.conflict |= difference.look(bytes, offset(at, cursor), known);
                cursor = after;
                continue;
            }
            let stop = self.pieces.range(cursor..).next().map_or(end, |(start, _)| (*start).min(end));
            let new = bytes.get(offset(at, cursor)..offset(at, stop)).unwrap_or_default();
            if wanted || self.waiting + new.len() + OVERHEAD <= self.limit {
                self.hold(cursor, new, now);
                taken = if matches!(taken, Taken::Refused) { taken } else { Taken::Some };
            } else {
                taken = Taken::Refused;
            }
            cursor = stop;
        }
        taken
    }

    fn hold(&mut self, at: u64, bytes: &[u8], now: u64) {
        if self.pieces.is_empty() {
            self.blocked = now;
        }
        self.waiting += bytes.len() + OVERHEAD;
        self.pieces.insert(at, Held { bytes: Zeroizing::new(bytes.into()), time: now, conflict: false });
    }

    /// Keeps bytes that contradict what came first.
    fn patch(&mut self, at: u64, bytes: &[u8]) {
        if self.patches.iter().any(|patch| patch.at == at && patch.bytes.as_slice() == bytes) {
            return;
        }
        let (total, end) = (self.patches.iter().map(|patch| patch.bytes.len()).sum::<usize>(), at + bytes.len() as u64);
        // Beyond what is remembered there is nothing to make a version of.
        self.doubt(at.max(self.history.from() + self.history.most() as u64), end);
        if total + bytes.len() > self.history.most() {
            self.counts.unjudged = self.counts.unjudged.saturating_add(1);
            self.doubt(at, end);
            return;
        }
        if self.patches.len() < PATCHES_MAX {
            self.patches.push(Patch { at, bytes: Zeroizing::new(bytes.to_vec()), told: false });
            return;
        }
        // No room for one more: it joins one that it touches, so that a head sent again byte by byte is still seen whole.
        let joins = |patch: &&mut Patch| !patch.told && (patch.end() == at || end == patch.at);
        let Some(patch) = self.patches.iter_mut().find(joins) else {
            self.counts.unjudged = self.counts.unjudged.saturating_add(1);
            self.doubt(at, end);
            return;
        };
        let behind = patch.end() == at;
        let (first, second) = if behind { (patch.bytes.as_slice(), bytes) } else { (bytes, patch.bytes.as_slice()) };
        let joined = Zeroizing::new([first, second].concat());
        patch.at = if behind { patch.at } else { at };
        patch.bytes = joined;
    }
}

/// What [`Stream::insert`] did.
#[derive(Clone, Copy)]
enum Taken {
    Nothing,
    Some,
    Refused,
}

/// How far `to` lies behind `from`.
fn offset(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "sequence numbers are positions modulo 2^32")]
const fn low_bits(count: u64) -> u32 {
    count as u32
}

#[cfg(test)]
mod tests;
