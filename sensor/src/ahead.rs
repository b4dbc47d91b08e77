//! Memory that is about to be read, asked for ahead of time.
//!
//! A look into a table of sixty million entries waits for memory, and one after the other they wait longer than all the
//! rest takes. So whoever has several looks to make says first where ([`fetch`]), and the waits overlap. Nothing depends
//! on it: what is fetched in vain costs a little time and changes nothing.

/// How many looks overlap. A core waits for some dozen lines of memory at once, and each look needs two or three.
pub(crate) const WINDOW: usize = 16;

/// Bytes that memory is fetched by.
const LINE: usize = 64;

/// Asks for the line of memory in which item `index` begins, if there is such an item.
#[inline]
pub(crate) fn fetch<T>(items: &[T], index: usize) {
    if let Some(item) = items.get(index) {
        touch(&raw const *item);
    }
}

/// Asks for every line of memory that item `index` stands in.
#[inline]
pub(crate) fn fetch_whole<T>(items: &[T], index: usize) {
    if let Some(item) = items.get(index) {
        let first = (&raw const *item).cast::<u8>();
        let mut at = 0;
        while at < size_of::<T>() {
            touch(first.wrapping_add(at));
            at += LINE;
        }
        touch(first.wrapping_add(size_of::<T>().saturating_sub(1)));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn touch<T>(at: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint to the processor, which reads nothing that a program could see and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn touch<T>(_: *const T) {}
