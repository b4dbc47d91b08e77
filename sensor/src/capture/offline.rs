//! Capture without a kernel: packets in, records out, fast path and slow path together.
//!
//! What `replay` and tests run. The engine plays the kernel's part and hands flows over as the kernel does; the slow path
//! is the daemon's own.

use sensor_ebpf::reason::Counter;

use super::host::{self, HostEngine};
use super::tables::Tables;
use crate::slow::{Limits, SlowCounts, SlowPath};

/// Both paths. (No `Debug`: they hold raw bytes.)
pub struct Offline {
    engine: HostEngine,
    slow: SlowPath,
    latest: u64,
    records: Vec<u8>,
}

impl Offline {
    /// With the compiled configuration and the bounds of the kernel's tables; `all_tcp` makes every TCP flow a candidate.
    pub fn new(tables: Tables, all_tcp: bool, flows_max: usize, slots_max: usize, limits: Limits) -> Self {
        let slow = SlowPath::new(&tables, limits);
        let engine = HostEngine::new(tables, all_tcp, flows_max, slots_max);
        Self { engine, slow, latest: 0, records: Vec::new() }
    }

    /// Puts IP fragments together, at most so many packets at once.
    #[must_use]
    pub fn with_fragments(mut self, datagrams: usize) -> Self {
        self.engine = self.engine.with_fragments(datagrams);
        self
    }

    /// Parses one Ethernet frame seen at `at_ns`; `frame_len` is its length on the wire.
    pub fn ethernet(&mut self, at_ns: u64, frame: &[u8], frame_len: u32) {
        self.latest = self.latest.max(at_ns);
        self.engine.ethernet(at_ns, frame, frame_len);
    }

    /// Parses a packet whose network layer, of type `ethertype`, begins at `offset`.
    pub fn network(&mut self, at_ns: u64, frame: &[u8], ethertype: u16, offset: u32, frame_len: u32) {
        self.latest = self.latest.max(at_ns);
        self.engine.network(at_ns, frame, ethertype, offset, frame_len);
    }

    /// Gives every record made since the last call to `take`, in order. Call it behind every few packets: a flow comes
    /// back from the slow path only where its records were read.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        self.engine.take(&mut self.records);
        let (slow, engine) = (&mut self.slow, &mut self.engine);
        host::each(&self.records, |record| slow.record(record, engine, &mut take));
        slow.tick(self.latest, engine, &mut take);
    }

    /// As [`Offline::drain`], and nothing that is missing is waited for any longer.
    pub fn settle(&mut self, mut take: impl FnMut(&[u8])) {
        self.drain(&mut take);
        self.slow.settle(self.latest, &mut self.engine, &mut take);
    }

    /// The capture is over: as [`Offline::settle`], and the slow path forgets its flows.
    pub fn finish(&mut self, mut take: impl FnMut(&[u8])) {
        self.drain(&mut take);
        self.slow.finish(self.latest, &mut self.engine, &mut take);
    }

    /// Totals of both paths, by [`Counter`].
    pub fn totals(&self) -> [u64; Counter::COUNT] {
        self.slow.with_fast(self.engine.totals())
    }

    /// What the slow path counted.
    pub fn slow(&self) -> SlowCounts {
        self.slow.counts()
    }

    /// Totals of the slow path's parser, by [`Counter`].
    pub fn slow_totals(&self) -> &[u64; Counter::COUNT] {
        self.slow.totals()
    }

    /// Flows in the fast path's table.
    pub fn flows(&self) -> usize {
        self.engine.flows()
    }
}
