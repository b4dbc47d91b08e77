//! Reads the slow path's records, which are plain structures with bytes behind them.

use sensor_ebpf::wire::{FragmentRecord, HandoverRecord, HeadRecord, RecordHead, SegmentRecord};
use sensor_ebpf::work::Captured;

/// A structure of integers alone, without padding: any bytes are one.
///
/// # Safety
/// Every bit pattern must be a value of the type.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of them; the sizes are asserted where they are defined.
unsafe impl Plain for RecordHead {}
// SAFETY: as above.
unsafe impl Plain for HandoverRecord {}
// SAFETY: as above.
unsafe impl Plain for SegmentRecord {}
// SAFETY: as above.
unsafe impl Plain for FragmentRecord {}
// SAFETY: as above.
unsafe impl Plain for Captured {}

/// The structure at the start of `bytes`, and what follows it.
pub(super) fn read<T: Plain>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (value, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: as many bytes as the type has, read unaligned; any bytes are a value of it.
    Some((unsafe { value.as_ptr().cast::<T>().read_unaligned() }, rest))
}

/// As [`read`], for a structure that is too large for the stack.
pub(super) fn boxed<T: Plain>(bytes: &[u8]) -> Option<Box<T>> {
    let value = bytes.get(..size_of::<T>())?;
    let mut to = Box::<T>::new_uninit();
    // SAFETY: as many bytes as the type has go into a box of that size; any bytes are a value of it.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), to.as_mut_ptr().cast::<u8>(), value.len());
        Some(to.assume_init())
    }
}

/// The bytes of a record that is a head alone.
pub(super) fn head_bytes(record: &RecordHead) -> [u8; size_of::<RecordHead>()] {
    // SAFETY: a structure of integers without padding (its size is asserted), as an array of as many bytes.
    unsafe { std::mem::transmute_copy(record) }
}

/// The bytes of a record.
pub(super) fn bytes(record: &HeadRecord) -> [u8; size_of::<HeadRecord>()] {
    // SAFETY: a structure of integers without padding (its size is asserted), as an array of as many bytes.
    unsafe { std::mem::transmute_copy(record) }
}
