//! Memory that is about to be read, asked for ahead of time.
//!
//! A look into a table of sixty million entries waits for memory, and one after the other they wait longer than all the
//! rest takes. So whoever has several looks to make says first where ([`fetch`]), and the waits overlap. Nothing depends
//! on it: what is fetched in vain costs a little time and changes nothing. Memory in large pages ([`in_large_pages`]) is
//! found sooner.

use std::ops::Range;

/// Bytes of a large page on the machines that this runs on; elsewhere the advice is less apt, never wrong.
const LARGE_PAGE: usize = 2 << 20;
/// How many looks overlap. A core waits for some dozen lines of memory at once; twice as many looks as that, so that what
/// the first ones asked for has come when all have asked (`bench-observe --window`).
pub(crate) const WINDOW: usize = 32;

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

/// Has the memory that `items` has room for come in large pages, where the system lets a program choose (`madvise` in
/// `/sys/kernel/mm/transparent_hugepage/enabled`): a look at a random place then finds its address in the processor's
/// cache of them. For tables that are filled in order or soon full: a page is taken as a whole.
pub(crate) fn in_large_pages<T>(items: &mut Vec<T>) {
    let pages = large_pages(items);
    advise(items, pages, libc::MADV_HUGEPAGE);
}

/// Moves the memory of a table that has filled up into large pages, one at each call, behind the `done` that were moved
/// before; false when there are no more. Takes some hundred microseconds. Where the system cannot (before Linux 6.1), or has
/// no large page left, the memory stays as it is.
pub(crate) fn move_to_large_page<T>(items: &mut Vec<T>, done: &mut usize) -> bool {
    let pages = large_pages(items);
    let start = pages.start + *done * LARGE_PAGE;
    if start >= pages.end {
        return false;
    }
    if *done == 0 {
        advise(items, pages, libc::MADV_HUGEPAGE);
    }
    *done += 1;
    advise(items, start..start + LARGE_PAGE, libc::MADV_COLLAPSE);
    true
}

/// The large pages that stand wholly in the memory of `items`, in bytes behind its start.
fn large_pages<T>(items: &mut Vec<T>) -> Range<usize> {
    let start = items.as_mut_ptr().addr();
    let end = start + items.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(LARGE_PAGE), end - end % LARGE_PAGE);
    first - start..last.max(first) - start
}

/// Advises the system on bytes `within` the memory of `items`, which are whole pages of it.
fn advise<T>(items: &mut Vec<T>, within: Range<usize>, advice: libc::c_int) {
    if within.is_empty() {
        return;
    }
    let start = items.as_mut_ptr().wrapping_byte_add(within.start);
    // SAFETY: `within` is memory that `items` owns, and both kinds of advice are on the size of its pages: they change
    // nothing of what it holds. Where the system knows no such advice it refuses, which is as good.
    unsafe {
        libc::madvise(start.cast(), within.len(), advice);
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
