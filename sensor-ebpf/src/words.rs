//! Copying and clearing whole structures, eight bytes a time.
//!
//! The compiler turns an assignment of a large structure into a call of `memcpy` or `memset`, which on the BPF target are
//! loops over bytes: slow to run and slower to verify. These stay loops over words.

/// Sets `to` to zero.
///
/// # Safety
/// `to` must be valid for writing; all-zero must be a value of `T`, whose size and alignment are multiples of eight.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let words = to.cast::<u64>();
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: inside `T`; volatile so that the loop is not made a `memset` again.
        unsafe { words.add(index).write_volatile(0) };
    }
}

/// Copies `from` to `to`.
///
/// # Safety
/// Both must be valid, and must not overlap; the size and alignment of `T` are multiples of eight.
#[inline(always)]
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: inside both; volatile as in `clear`.
        unsafe { to.add(index).write_volatile(from.add(index).read()) };
    }
}
