//! Copying and clearing whole structures, eight bytes a time.
//!
//! The compiler turns an assignment of a large structure into a call of `memcpy` or `memset`, which on the BPF target are
//! loops over bytes: slow to run and slower to verify. These are rows of words, without a loop.

/// Most words of a structure.
const WORDS_MAX: usize = 64;

/// Runs the block for each word's index, unrolled: a counted loop would cost the verifier more than the row does.
macro_rules! each_word {
    ($type:ty, $index:ident => $block:block) => {
        each_word!(@ $type, $index, $block,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63)
    };
    (@ $type:ty, $index:ident, $block:block, $($number:literal)*) => { $(
        if $number < size_of::<$type>() / 8 {
            let $index = $number;
            $block
        }
    )* };
}

/// Sets `to` to zero.
///
/// # Safety
/// `to` must be valid for writing; all-zero must be a value of `T`, whose size and alignment are multiples of eight.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() <= 8 * WORDS_MAX && align_of::<T>() == 8) };
    let words = to.cast::<u64>();
    each_word!(T, index => {
        // SAFETY: inside `T`; volatile so that the row is not made a `memset` again.
        unsafe { words.add(index).write_volatile(0) };
    });
}

/// Copies `from` to `to`.
///
/// # Safety
/// Both must be valid, and must not overlap; the size and alignment of `T` are multiples of eight.
#[inline(always)]
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() <= 8 * WORDS_MAX && align_of::<T>() == 8) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    each_word!(T, index => {
        // SAFETY: inside both; volatile as in `clear`.
        unsafe { to.add(index).write_volatile(from.add(index).read()) };
    });
}

/// Copies `WORDS` words from `from` to `to`, lower ones first, at any alignment: so `to` may lie before `from` and overlap
/// it.
///
/// # Safety
/// `from` must be valid for reading and `to` for writing `8 * WORDS` bytes.
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "read and written unaligned")]
pub unsafe fn slide<const WORDS: usize>(from: *const u8, to: *mut u8) {
    const { assert!(WORDS <= WORDS_MAX) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    each_word!([u64; WORDS], index => {
        // SAFETY: inside both.
        unsafe { to.add(index).write_unaligned(from.add(index).read_unaligned()) };
    });
}
