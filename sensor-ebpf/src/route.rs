//! Path segments as the route automaton sees them.
//!
//! The kernel walks one map lookup a segment; the host compiles the automaton with the same hash. A collision can only
//! misplace a path among the routes the kernel treats specially (teeing); user space classifies every captured target
//! again by comparing strings.

/// Hash of a path segment in progress; kept in the parser's name words while a path is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHash {
    hash: u64,
    tail: u64,
    len: u32,
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(FACTOR);
    mixed ^ mixed >> 32
}

impl SegmentHash {
    /// An empty segment.
    pub const fn new() -> Self {
        Self { hash: SEED, tail: 0, len: 0 }
    }

    /// From its parts.
    #[inline(always)]
    pub const fn from_parts(hash: u64, tail: u64, len: u32) -> Self {
        Self { hash, tail, len }
    }

    /// Its parts: hash, tail, length.
    #[inline(always)]
    pub const fn parts(self) -> (u64, u64, u32) {
        (self.hash, self.tail, self.len)
    }

    /// Takes the low `count` (0 to 8) bytes of `word`; the others must be zero.
    #[inline(always)]
    pub const fn absorb(&mut self, word: u64, count: u32) {
        let held = self.len & 7;
        self.tail |= word << (8 * held);
        self.len = self.len.wrapping_add(count);
        if held + count >= 8 {
            self.hash = mix(self.hash, self.tail);
            self.tail = if held == 0 { 0 } else { word >> (8 * (8 - held)) };
        }
    }

    /// True when the next eight bytes can be taken with [`SegmentHash::absorb_word`].
    #[inline(always)]
    pub const fn is_aligned(self) -> bool {
        self.len & 7 == 0
    }

    /// Takes eight bytes; only when [`SegmentHash::is_aligned`].
    #[inline(always)]
    pub const fn absorb_word(&mut self, word: u64) {
        self.hash = mix(self.hash, word);
        self.len = self.len.wrapping_add(8);
    }

    /// The hash of what was taken.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        mix(mix(self.hash, self.tail), self.len as u64)
    }
}

impl Default for SegmentHash {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash of a whole segment.
pub fn segment_hash(segment: &[u8]) -> u64 {
    let mut hash = SegmentHash::new();
    for chunk in segment.chunks(8) {
        let word = chunk.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 8 bytes")]
        hash.absorb(word, chunk.len() as u32);
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A segment hashed in pieces of any size, by words where it can be, has the hash of the whole.
        #[test]
        fn in_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..70), cuts in proptest::collection::vec(1usize..9, 1..20)) {
            let mut hash = SegmentHash::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                let word = piece.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
                let (state, tail, len) = hash.parts();
                hash = SegmentHash::from_parts(state, tail, len);
                if piece.len() == 8 && hash.is_aligned() {
                    hash.absorb_word(word);
                } else {
                    hash.absorb(word, u32::try_from(piece.len()).unwrap());
                }
                rest = after;
            }
            prop_assert_eq!(hash.finish(), segment_hash(&bytes));
        }

        #[test]
        fn differs(one in proptest::collection::vec(any::<u8>(), 0..20), other in proptest::collection::vec(any::<u8>(), 0..20)) {
            let zeros: Vec<u8> = one.iter().copied().chain([0]).collect();
            prop_assert_ne!(segment_hash(&one), segment_hash(&zeros));
            prop_assert_eq!(segment_hash(&one) == segment_hash(&other), one == other);
        }
    }
}
