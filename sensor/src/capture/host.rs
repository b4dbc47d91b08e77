//! The parser on the host: packets of a capture file in, records out, through the very functions that the kernel
//! programs are made of.
//!
//! Owns a flow table and slots of the same bounds as the kernel's maps. What the parser asks of them while it runs stands
//! in `environment`. `unsafe` here is a pointer to the current flow, and scratch areas too large for the stack.

mod environment;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ptr::null_mut;

use ahash::AHasher;
use sensor_ebpf::engine;
use sensor_ebpf::flow::{Flow, FlowKey, HeadPiece, HeadPieceKey, SlotKey};
use sensor_ebpf::http::Env as _;
use sensor_ebpf::layers::{self, FOUND};
use sensor_ebpf::packet::{self, Fragment, Packet, SliceHeaders, tcp_flag};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{FlowId, ResumeEntry, Totals, direction, kind};
use sensor_ebpf::work::{Captured, Work};
use zeroize::{Zeroize as _, Zeroizing};

use super::flows::FlowTable;
use super::fragments::{self, Datagram, Piece, Reassembler};
use super::tables::Tables;
use crate::slow::Resume;

/// Fragmented datagrams that are put together at once, if nothing else is said, and the bytes held for them.
const FRAGMENTS_DEFAULT: usize = 1024;
const FRAGMENT_BYTES: usize = 16 << 20;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<AHasher>>;

/// The parser with its tables.
pub struct HostEngine {
    inner: Inner,
    work: Box<Work>,
}

/// Bytes that the slow path gives to the parser, with what their packet said.
pub(crate) struct Followed<'a> {
    /// The connection.
    pub key: FlowKey,
    /// One of [`direction`].
    pub direction: u8,
    /// The bytes.
    pub bytes: &'a [u8],
    /// True when the half ends behind them.
    pub ending: bool,
    /// What its side acknowledged of the other half's bytes, where that is known.
    pub acknowledged: Option<u32>,
}

impl Followed<'_> {
    fn describe(&self, work: &mut Work) {
        work.key = self.key;
        work.direction = u32::from(self.direction);
        work.present = u32::try_from(self.bytes.len()).unwrap_or(0);
        work.packet.payload_at = 0;
        work.packet.payload_len = work.present;
        work.packet.acknowledgement = self.acknowledged.unwrap_or(0);
        work.packet.flags = if self.acknowledged.is_some() { tcp_flag::ACK } else { 0 };
        work.packet.flags |= if self.ending { tcp_flag::FIN } else { 0 };
    }
}

struct Inner {
    tables: Tables,
    all_tcp: bool,
    flows: FlowTable,
    slots: Map<SlotKey, Box<Captured>>,
    slots_max: usize,
    /// Segments of heads that came in several, the oldest first out.
    pieces: Map<HeadPieceKey, HeadPiece>,
    pieces_in_order: VecDeque<HeadPieceKey>,
    resume: Map<FlowKey, ResumeEntry>,
    blank: Box<Flow>,
    flow: *mut Flow,
    totals: Totals,
    now: u64,
    frame: Vec<u8>,
    records: Vec<u8>,
    fragments: Reassembler,
    /// Ethertype of the datagram that stands in `frame`.
    datagram_type: u16,
}

// SAFETY: `flow` points into a box that `flows` owns, or is null; it is set and used within one call of `packet`, which
// takes the engine by `&mut`.
unsafe impl Send for HostEngine {}

#[expect(clippy::unnecessary_box_returns, reason = "the value is far too large for the stack")]
/// An all-zero value of one of the parser's plain structures, without passing it over the stack.
fn zeroed<T: Copy>() -> Box<T> {
    // SAFETY: used only with the parser's scratch structures, which are all integers.
    unsafe { Box::<T>::new_zeroed().assume_init() }
}

impl HostEngine {
    /// With the compiled configuration; `all_tcp` makes every TCP flow a candidate.
    pub fn new(tables: Tables, all_tcp: bool, flows_max: usize, slots_max: usize) -> Self {
        let inner = Inner {
            tables,
            all_tcp,
            flows: FlowTable::new(flows_max),
            slots: Map::default(),
            slots_max: slots_max.max(1),
            pieces: Map::default(),
            pieces_in_order: VecDeque::new(),
            resume: Map::default(),
            blank: zeroed(),
            flow: null_mut(),
            totals: Totals { counts: [0; Counter::COUNT] },
            now: 0,
            frame: Vec::new(),
            records: Vec::new(),
            fragments: Reassembler::new(FRAGMENTS_DEFAULT, FRAGMENT_BYTES),
            datagram_type: 0,
        };
        Self { inner, work: zeroed() }
    }

    /// With another bound than 1024 on the fragmented datagrams that are put together at once.
    #[must_use]
    pub fn with_fragments(mut self, datagrams: usize) -> Self {
        self.inner.fragments = Reassembler::new(datagrams, FRAGMENT_BYTES);
        self
    }

    /// Totals, by [`Counter`].
    pub fn totals(&self) -> &[u64; Counter::COUNT] {
        &self.inner.totals.counts
    }

    /// Parses one Ethernet frame seen at `at_ns`; `frame_len` is its length on the wire.
    pub fn ethernet(&mut self, at_ns: u64, frame: &[u8], frame_len: u32) {
        self.frame(at_ns, frame, frame_len, |headers, out| packet::ethernet(headers, frame_len, out));
    }

    /// Parses a packet whose network layer, of type `ethertype`, begins at `offset`.
    pub fn network(&mut self, at_ns: u64, frame: &[u8], ethertype: u16, offset: u32, frame_len: u32) {
        self.frame(at_ns, frame, frame_len, |headers, out| packet::network(headers, ethertype, offset, frame_len, out));
    }

    fn frame(
        &mut self,
        at_ns: u64,
        frame: &[u8],
        frame_len: u32,
        parse: impl FnOnce(&SliceHeaders<'_>, &mut Packet) -> Result<(), Counter>,
    ) {
        let inner = &mut self.inner;
        inner.now = at_ns;
        inner.flow = null_mut();
        inner.frame.clear();
        inner.frame.extend_from_slice(frame);
        inner.add(Counter::PacketsSeen, 1);
        let outcome = inner.layers(&mut self.work, frame_len, parse);
        let mut disposition = inner.unfold(&mut self.work, outcome);
        if disposition == FOUND {
            let held = u32::try_from(inner.frame.len()).unwrap_or(u32::MAX);
            let present = self.work.packet.payload_len.min(held.saturating_sub(self.work.packet.payload_at));
            disposition = engine::packet(inner, &mut self.work, present);
        }
        if let Some(count) = inner.totals.counts.get_mut(disposition as usize) {
            *count += 1;
        }
    }

    /// Adds a piece of a fragment to its datagram; gives the TCP segment, and its payload, of the one that it completes.
    pub(crate) fn piece(&mut self, at_ns: u64, piece: &Piece<'_>) -> Option<(Packet, Zeroizing<Vec<u8>>)> {
        let inner = &mut self.inner;
        inner.now = at_ns;
        let before = inner.fragments.counts();
        let datagram = inner.fragments.push(at_ns, piece);
        if !inner.assembled(&before, datagram) {
            return None;
        }
        let outcome = inner.datagram(&mut self.work);
        let disposition = inner.unfold(&mut self.work, outcome);
        let packet = self.work.packet;
        let rest = inner.frame.get(packet.payload_at as usize..);
        let bytes = rest.and_then(|rest| rest.get(..packet.payload_len as usize)).map(<[u8]>::to_vec);
        inner.frame.zeroize();
        let bytes = Zeroizing::new(bytes.filter(|_| disposition == FOUND)?);
        Some((packet, bytes))
    }

    /// Adds to a total.
    pub(crate) fn add(&mut self, counter: Counter, by: u64) {
        self.inner.add(counter, by);
    }

    /// Gives every record made since the last call to `take`, in order.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        each(&self.inner.records, &mut take);
        self.inner.records.clear();
    }

    /// Gives every record made since the last call, as they stand behind each other; `into` is emptied first. As
    /// [`HostEngine::drain`], for who uses the engine while taking them.
    pub fn take(&mut self, into: &mut Vec<u8>) {
        into.clear();
        std::mem::swap(&mut self.inner.records, into);
    }

    /// The parser goes on with `bytes`, next in order of a half that the slow path follows.
    pub(crate) fn follow(&mut self, at_ns: u64, flow: &mut Flow, segment: &Followed<'_>) {
        let (inner, work) = (&mut self.inner, &mut self.work);
        inner.now = at_ns;
        inner.frame.clear();
        inner.frame.extend_from_slice(segment.bytes);
        inner.flow = &raw mut *flow;
        segment.describe(work);
        // SAFETY: the flow is borrowed for the time of the call.
        unsafe { engine::follow(inner, work) };
        inner.flow = null_mut();
        inner.frame.zeroize();
    }

    /// The slow path gives up waiting for bytes of a half.
    pub(crate) fn gap(&mut self, at_ns: u64, flow: &mut Flow, segment: &Followed<'_>, missing: u32) {
        let (inner, work) = (&mut self.inner, &mut self.work);
        inner.now = at_ns;
        inner.flow = &raw mut *flow;
        segment.describe(work);
        // SAFETY: as above.
        unsafe { engine::gap(inner, work, missing) };
        inner.flow = null_mut();
    }

    /// Says that the connection is over, so that nobody waits for its answers.
    pub(crate) fn close(&mut self, at_ns: u64, flow: &mut Flow, segment: &Followed<'_>) {
        let (inner, work) = (&mut self.inner, &mut self.work);
        inner.now = at_ns;
        inner.flow = &raw mut *flow;
        segment.describe(work);
        inner.emit_end(work, kind::CLOSE, false);
        inner.flow = null_mut();
    }

    /// Keeps the captures of a head that is open in a half.
    pub(crate) fn keep(&mut self, flow: FlowId, direction: u8, captured: Box<Captured>) {
        let key = SlotKey { flow, direction: u64::from(direction) };
        if self.inner.slots.len() < self.inner.slots_max {
            self.inner.slots.insert(key, captured);
        }
    }

    /// Forgets the captures of a flow's open heads.
    pub(crate) fn drop_kept(&mut self, flow: FlowId) {
        for direction in [direction::REQUEST, direction::RESPONSE] {
            self.inner.slots.remove(&SlotKey { flow, direction: u64::from(direction) });
        }
    }

    /// Flows in the table.
    pub fn flows(&self) -> usize {
        self.inner.flows.len()
    }
}

impl Resume for HostEngine {
    fn put(&mut self, key: &FlowKey, entry: &ResumeEntry) {
        self.inner.resume.insert(*key, *entry);
    }
    fn remove(&mut self, key: &FlowKey) {
        self.inner.resume.remove(key);
    }
}

/// Gives the records that stand behind each other in `bytes` to `take`, one by one.
pub fn each(bytes: &[u8], mut take: impl FnMut(&[u8])) {
    let mut rest = bytes;
    while let Some(size) = rest.first_chunk::<4>().map(|size| u32::from_le_bytes(*size) as usize) {
        let Some((record, after)) = rest.split_at_checked(size).filter(|_| size > 0) else { break };
        take(record);
        rest = after;
    }
}

impl Inner {
    fn add(&mut self, counter: Counter, by: u64) {
        if let Some(count) = self.totals.counts.get_mut(counter as usize) {
            *count += by;
        }
    }

    /// Layers 2 to 4 of the current frame: [`FOUND`], or the counter that says why there is no TCP segment.
    fn layers(
        &self,
        work: &mut Work,
        frame_len: u32,
        parse: impl FnOnce(&SliceHeaders<'_>, &mut Packet) -> Result<(), Counter>,
    ) -> u32 {
        let Err(outcome) = parse(&SliceHeaders(&self.frame), &mut work.packet) else { return FOUND };
        let tunnels = self.tables.settings.tunnels != 0;
        if !layers::begin(&mut work.walk, &work.packet, outcome, frame_len, || tunnels) {
            return outcome as u32;
        }
        for _ in 0..layers::STEPS_MAX {
            let rest = self.frame.get(work.walk.at as usize..).unwrap_or_default();
            let look = rest.get(..work.walk.look() as usize).unwrap_or(rest);
            if layers::step(&SliceHeaders(look), &mut work.walk, &mut work.packet) {
                break;
            }
        }
        work.walk.outcome
    }

    /// Puts datagrams together as long as one is whole: a fragmented packet of a tunnel may hold a fragment again, which
    /// is shorter: no more often than tunnels nest. Takes and gives what [`Self::layers`] gives.
    fn unfold(&mut self, work: &mut Work, outcome: u32) -> u32 {
        let mut outcome = outcome;
        for _ in 0..=layers::LEVELS_MAX {
            if outcome != Counter::PacketFragment as u32 || !self.reassemble(&work.packet.fragment()) {
                break;
            }
            outcome = self.datagram(work);
        }
        outcome
    }

    /// [`Self::layers`] of the datagram that stands in the frame's place.
    fn datagram(&self, work: &mut Work) -> u32 {
        let (len, kind) = (u32::try_from(self.frame.len()).unwrap_or(u32::MAX), self.datagram_type);
        self.layers(work, len, |headers, out| packet::network(headers, kind, 0, len, out))
    }

    /// Adds a fragment of the current frame; true if its datagram is whole now, and stands in the frame's place.
    fn reassemble(&mut self, fragment: &Fragment) -> bool {
        let (at, len) = (fragment.payload_at as usize, fragment.payload_len as usize);
        let piece = self.frame.get(at..).and_then(|rest| rest.get(..len)).map(|bytes| Piece {
            source: fragment.source,
            destination: fragment.destination,
            protocol: fragment.protocol,
            identification: fragment.identification,
            at: fragment.at,
            more: fragment.more,
            bytes,
        });
        // The capture cut it: it fits nowhere.
        let Some(piece) = piece else {
            self.add(Counter::FragmentsDropped, 1);
            return false;
        };
        let before = self.fragments.counts();
        let datagram = self.fragments.push(self.now, &piece);
        self.assembled(&before, datagram)
    }

    /// Behind the adding of a piece: counts, and puts the datagram that is whole now in the frame's place; true if one is.
    fn assembled(&mut self, before: &fragments::Counts, datagram: Option<Datagram>) -> bool {
        let counts = self.fragments.counts();
        self.add(Counter::FragmentsReassembled, counts.reassembled - before.reassembled);
        self.add(Counter::FragmentsConflicting, counts.conflicting - before.conflicting);
        self.add(Counter::FragmentsDropped, counts.dropped - before.dropped);
        let Some(datagram) = datagram else { return false };
        self.frame.clear();
        self.datagram_type = datagram.packet(&mut self.frame);
        true
    }

    /// A flow is gone: the slots of its unfinished heads go too. (The kernel's slots are a map that drops the oldest.)
    fn gone(&mut self, flow: Option<Box<Flow>>) {
        let Some(flow) = flow else { return };
        for direction in [direction::REQUEST, direction::RESPONSE] {
            self.slots.remove(&SlotKey { flow: flow.id, direction: u64::from(direction) });
        }
    }
}
