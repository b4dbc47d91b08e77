//! SipHash-2-4 with 128-bit output, resumable at any byte.
//!
//! Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with the 128-bit finalisation of the reference
//! implementation. Credentials are fingerprinted with it while they stream past, so the state is small (it stands in
//! the flow entry) and takes words with a byte count, not slices.

/// A 128-bit key as two little-endian words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// First eight bytes.
    pub k0: u64,
    /// Last eight bytes.
    pub k1: u64,
}

impl Key {
    /// The key whose bytes are `bytes`.
    pub const fn from_bytes(bytes: &[u8; 16]) -> Self {
        let wide = u128::from_le_bytes(*bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken on purpose")]
        Self { k0: wide as u64, k1: (wide >> 64) as u64 }
    }
}

/// A hash in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SipState {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    /// Bytes not yet compressed, in the low end.
    tail: u64,
    /// Bytes taken so far.
    len: u32,
    reserved: u32,
}

impl SipState {
    /// An empty hash under `key`.
    #[inline(always)]
    pub fn start(&mut self, key: Key) {
        self.v0 = key.k0 ^ 0x736f_6d65_7073_6575;
        self.v1 = key.k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee;
        self.v2 = key.k0 ^ 0x6c79_6765_6e65_7261;
        self.v3 = key.k1 ^ 0x7465_6462_7974_6573;
        self.tail = 0;
        self.len = 0;
        self.reserved = 0;
    }

    /// Bytes taken so far.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True when nothing was taken yet.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when the next eight bytes can be taken with [`SipState::absorb_word`].
    #[inline(always)]
    pub fn is_aligned(&self) -> bool {
        self.len & 7 == 0
    }

    /// Takes eight bytes; only when [`SipState::is_aligned`].
    #[inline(always)]
    pub fn absorb_word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
        self.len = self.len.wrapping_add(8);
    }

    /// Takes the low `count` (0 to 8) bytes of `word`; the others must be zero.
    #[inline(always)]
    pub fn absorb(&mut self, word: u64, count: u32) {
        let held = self.len & 7;
        self.tail |= word << (8 * held);
        self.len = self.len.wrapping_add(count);
        if held + count >= 8 {
            let full = self.tail;
            self.v3 ^= full;
            self.round();
            self.round();
            self.v0 ^= full;
            self.tail = if held == 0 { 0 } else { word >> (8 * (8 - held)) };
        }
    }

    /// The 128-bit output, as two little-endian words. The state itself stays as it was.
    #[inline(always)]
    pub fn finish(&self) -> (u64, u64) {
        let mut state = *self;
        let last = state.tail | u64::from(state.len & 0xff) << 56;
        state.v3 ^= last;
        state.round();
        state.round();
        state.v0 ^= last;
        state.v2 ^= 0xee;
        state.round();
        state.round();
        state.round();
        state.round();
        let first = state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
        state.v1 ^= 0xdd;
        state.round();
        state.round();
        state.round();
        state.round();
        (first, state.v0 ^ state.v1 ^ state.v2 ^ state.v3)
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// The hash of `bytes` under `key`, 16 bytes as on the wire of every record.
pub fn hash128(key: Key, bytes: &[u8]) -> [u8; 16] {
    let mut state = SipState::default();
    state.start(key);
    for chunk in bytes.chunks(8) {
        let word = chunk.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 8 bytes")]
        state.absorb(word, chunk.len() as u32);
    }
    to_bytes(state.finish())
}

/// The bytes of a finished hash.
#[inline(always)]
pub fn to_bytes(words: (u64, u64)) -> [u8; 16] {
    (u128::from(words.0) | u128::from(words.1) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128 as _, SipHasher24};

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_siphasher(key in any::<[u8; 16]>(), bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(1usize..9, 1..64)) {
            let mut oracle = SipHasher24::new_with_key(&key);
            oracle.write(&bytes);
            let want = oracle.finish128().as_bytes();
            prop_assert_eq!(hash128(Key::from_bytes(&key), &bytes), want);

            // Fed in pieces of any size, as a credential split over segments is.
            let mut state = SipState::default();
            state.start(Key::from_bytes(&key));
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                let word = piece.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
                state.absorb(word, u32::try_from(piece.len()).unwrap());
                rest = after;
            }
            prop_assert_eq!(to_bytes(state.finish()), want);
        }
    }
}
