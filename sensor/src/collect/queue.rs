//! Puts records into time order.
//!
//! Records come in any order between rings and processors; they leave in the order of their time stamps once the
//! watermark has passed them. Records of equal time leave in the order in which they came, so a capture with coarse
//! time stamps keeps its order. Buffers are pooled: in steady state nothing is allocated.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;

use super::secret::SecretBuf;

/// Free buffers kept for reuse; beyond that they go back to the allocator.
const POOL_MAX: usize = 8192;

/// The queue was full: the record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The time-ordered queue.
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    pool: Vec<SecretBuf>,
    /// Record bytes held.
    bytes: usize,
    max_bytes: usize,
    arrivals: u64,
}

struct Entry {
    time_ns: u64,
    arrival: u64,
    record: SecretBuf,
}

/// What it holds stays out of whatever prints it.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} records, {} of {} bytes)", self.heap.len(), self.bytes, self.max_bytes)
    }
}

impl Ord for Entry {
    // Reversed: `BinaryHeap` gives the greatest first, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time_ns, other.arrival).cmp(&(self.time_ns, self.arrival))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Queue {
    /// A queue that holds at most `max_bytes` of records.
    pub fn new(max_bytes: usize) -> Self {
        Self { heap: BinaryHeap::new(), pool: Vec::new(), bytes: 0, max_bytes, arrivals: 0 }
    }

    /// Takes a copy of `record`.
    pub fn push(&mut self, time_ns: u64, record: &[u8]) -> Result<(), Full> {
        if self.bytes.saturating_add(record.len()) > self.max_bytes {
            return Err(Full);
        }
        let mut buffer = self.pool.pop().unwrap_or_default();
        buffer.push(record);
        self.bytes += record.len();
        self.heap.push(Entry { time_ns, arrival: self.arrivals, record: buffer });
        self.arrivals += 1;
        Ok(())
    }

    /// True when half of the room is taken.
    pub fn is_half_full(&self) -> bool {
        self.bytes > self.max_bytes / 2
    }

    /// The time of the earliest record.
    pub fn next_time(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.time_ns)
    }

    /// Gives the earliest record.
    pub fn pop(&mut self) -> Option<SecretBuf> {
        let entry = self.heap.pop()?;
        self.bytes -= entry.record.len();
        Some(entry.record)
    }

    /// Every buffer, in use or kept for reuse.
    #[cfg(test)]
    pub fn buffers(&self) -> impl Iterator<Item = &SecretBuf> {
        self.heap.iter().map(|entry| &entry.record).chain(&self.pool)
    }

    /// Takes a buffer back, wiped.
    pub fn recycle(&mut self, mut buffer: SecretBuf) {
        buffer.wipe();
        if self.pool.len() < POOL_MAX {
            self.pool.push(buffer);
        }
    }
}
