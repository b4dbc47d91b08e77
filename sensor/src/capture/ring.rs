//! Reading a BPF ring buffer up to a position.
//!
//! Why not the library's reader: the watermark (DESIGN §4, "Order") needs the producer's position, read before anything
//! is consumed. The layout is the kernel's (`kernel/bpf/ringbuf.c`): a page with the consumer's position, a page with the
//! producer's, then the data, mapped twice in a row so that no record wraps. Records flow out as byte slices.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// The record is reserved, not yet submitted.
const BUSY: u32 = 1 << 31;
/// The record was given up by its producer.
const DISCARDED: u32 = 1 << 30;
/// Bytes in front of each record.
const HEADER: usize = 8;

/// One mapped ring.
pub struct Ring {
    consumer: NonNull<u8>,
    producer: NonNull<u8>,
    page: usize,
    size: usize,
    position: u64,
}

// SAFETY: the mappings belong to this value alone and are not tied to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of `size` bytes behind `fd`.
    pub fn map(fd: impl AsFd, size: usize) -> io::Result<Self> {
        let page = page_size()?;
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let one = NonZeroUsize::new(page).ok_or_else(wrong)?;
        let rest = size.checked_mul(2).and_then(|twice| twice.checked_add(page)).and_then(NonZeroUsize::new);
        let rest = rest.ok_or_else(wrong)?;
        let offset = i64::try_from(page).map_err(|_| wrong())?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let consumer =
            unsafe { mmap(None, one, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &fd, 0) }?;
        // SAFETY: as above.
        let producer = unsafe { mmap(None, rest, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &fd, offset) };
        let producer = match producer {
            Ok(place) => place,
            Err(error) => {
                // SAFETY: the mapping made just above, given up.
                let _ = unsafe { munmap(consumer, page) };
                return Err(error.into());
            }
        };
        // The rings are excluded from core images: of what they hold, the byte ring has raw bodies (DESIGN invariant 2).
        // SAFETY: the mapping made just above; the advice changes no contents.
        unsafe { madvise(producer, rest.get(), MmapAdvise::MADV_DONTDUMP) }?;
        let mut ring = Self { consumer: consumer.cast(), producer: producer.cast(), page, size, position: 0 };
        ring.position = ring.consumer_position().load(Ordering::Acquire);
        Ok(ring)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of a mapped page; the kernel reads them, nobody else writes them.
        unsafe { AtomicU64::from_ptr(self.consumer.as_ptr().cast()) }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "the start of a page")]
    /// Where the producer is: everything reserved so far lies below.
    pub fn produced(&self) -> u64 {
        // SAFETY: the first eight bytes of a mapped page; only read here.
        unsafe { (*self.producer.as_ptr().cast::<AtomicU64>()).load(Ordering::Acquire) }
    }

    /// Bytes reserved and not yet read.
    pub fn unread(&self) -> u64 {
        self.produced().saturating_sub(self.position)
    }

    #[expect(clippy::cast_ptr_alignment, reason = "the kernel aligns records to eight bytes")]
    /// Gives every record below the position `until` (from [`Ring::produced`]) to `take`, in ring order.
    pub fn read(&mut self, until: u64, mut take: impl FnMut(&[u8])) {
        while self.position < until {
            let offset = usize::try_from(self.position).unwrap_or(0) & (self.size - 1);
            // SAFETY: inside the data area, which is mapped twice behind the producer's page; headers are aligned to 8.
            let start = unsafe { self.producer.as_ptr().add(self.page + offset) };
            // SAFETY: as above; the kernel writes this word.
            let length = unsafe { &*start.cast::<AtomicU32>() };
            let mut header = length.load(Ordering::Acquire);
            // A program that runs right now: done in microseconds.
            while header & BUSY != 0 {
                std::thread::yield_now();
                header = length.load(Ordering::Acquire);
            }
            let size = (header & !(BUSY | DISCARDED)) as usize;
            if header & DISCARDED == 0 && size <= self.size {
                // SAFETY: a submitted record does not change until the consumer's position passes it, and does not wrap
                // in the double mapping.
                take(unsafe { std::slice::from_raw_parts(start.add(HEADER), size) });
            }
            self.position += (size + HEADER).next_multiple_of(8) as u64;
            self.consumer_position().store(self.position, Ordering::Release);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mappings made in `map`, given up with the only value that uses them.
        unsafe {
            let _ = munmap(self.consumer.cast(), self.page);
            let _ = munmap(self.producer.cast(), self.page + 2 * self.size);
        }
    }
}

fn page_size() -> io::Result<usize> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
