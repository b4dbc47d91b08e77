//! What a stream remembers of the bytes that it delivered: the first ones since a mark, up to a bound.

use std::mem;

use zeroize::{Zeroize as _, Zeroizing};

/// Room that is kept over a mark; more is given back.
const ROOM_KEPT: usize = 4096;

/// Delivered bytes from a mark on. A message is judged from its start, so the first bytes are kept, not the last.
pub struct History {
    /// Place of the mark.
    from: u64,
    /// Bytes of `bytes` that lie before the mark.
    dead: usize,
    bytes: Zeroizing<Vec<u8>>,
    most: usize,
}

impl History {
    /// From the place `from` on, at most `most` bytes.
    pub fn new(from: u64, most: usize) -> Self {
        Self { from, dead: 0, bytes: Zeroizing::default(), most }
    }

    /// Place of the first byte.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Place behind the last byte.
    pub fn end(&self) -> u64 {
        self.from + self.bytes().len() as u64
    }

    /// Most bytes.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes allocated.
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes from the mark on.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.dead..).unwrap_or_default()
    }

    /// The bytes between two places, as far as they are remembered.
    pub fn between(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| usize::try_from(at.saturating_sub(self.from)).unwrap_or(usize::MAX);
        self.bytes().get(place(from)..place(to)).unwrap_or_default()
    }

    /// Remembers bytes delivered at `at`, if they follow and as many as there is room for.
    pub fn append(&mut self, at: u64, bytes: &[u8]) {
        let kept = self.bytes().len();
        if at != self.end() || kept >= self.most {
            return;
        }
        let bytes = bytes.get(..bytes.len().min(self.most - kept)).unwrap_or_default();
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.resettle(kept + bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets what lies before `before`.
    pub fn forget(&mut self, before: u64) {
        let known = self.bytes().len();
        let gone = usize::try_from(before.saturating_sub(self.from)).unwrap_or(usize::MAX).min(known);
        self.from = self.from.max(before);
        self.dead += gone;
        let left = known - gone;
        if left == 0 && self.bytes.capacity() <= ROOM_KEPT {
            self.bytes.as_mut_slice().zeroize();
            self.bytes.clear();
            self.dead = 0;
        } else if left <= self.dead {
            self.resettle(left);
        }
    }

    /// Moves what is remembered to a place of its own with room for `room` bytes; the old place is wiped. (A vector that
    /// grows by itself leaves copies behind.)
    fn resettle(&mut self, room: usize) {
        let room = if room == 0 { 0 } else { room.next_power_of_two() };
        let mut fresh = Zeroizing::new(Vec::with_capacity(room));
        fresh.extend_from_slice(self.bytes());
        drop(mem::replace(&mut self.bytes, fresh));
        self.dead = 0;
    }
}
