//! The parser on the host: packets of a capture file in, records out, through the very functions that the kernel
//! programs are made of.
//!
//! Owns a flow table and slots of the same bounds as the kernel's maps. `unsafe` here is what the shared parser's
//! environment asks for: copies into its scratch area, and a pointer to the current flow.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ptr::null_mut;

use ahash::AHasher;
use sensor_ebpf::engine::{self, Tables as Lookups};
use sensor_ebpf::flow::{Flow, FlowKey, SlotKey};
use sensor_ebpf::http::{self, Env};
use sensor_ebpf::layers::{self, FOUND};
use sensor_ebpf::packet::{self, Address, Fragment, Packet, SliceHeaders, tcp_flag};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    Credential, EdgeKey, EndRecord, FlowId, HandoverRecord, HeadRecord, ListenKey, NO_SERVICE, ROUTES_MAX, ResumeEntry,
    RouteConfig, RouteState, SegmentRecord, ServiceConfig, Settings, TeeRecord, Totals, direction, kind, service_flag,
};
use sensor_ebpf::work::{Captured, Work};

use zeroize::{Zeroize as _, Zeroizing};

use super::flows::FlowTable;
use super::fragments::{self, Datagram, Piece, Reassembler};
use super::tables::Tables;
use crate::slow::Resume;

/// Steps of one segment, as in the kernel.
const STEPS_MAX: u32 = 1 << 19;

/// Fragmented datagrams that are put together at once, if nothing else is said, and the bytes held for them.
const FRAGMENTS_DEFAULT: usize = 1024;
const FRAGMENT_BYTES: usize = 16 << 20;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<AHasher>>;

/// Which direction a segment without a flow has when every flow is a candidate.
const ANY_SERVICE: ServiceConfig = ServiceConfig {
    flags: service_flag::AUTHORIZATION | service_flag::PROXY,
    route_root: 0,
    cookies: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 4],
    headers: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
    response_headers: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
    query: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
};

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

/// The bytes of a record structure.
fn bytes_of<T: Copy>(record: &T) -> &[u8] {
    // SAFETY: the wire structures are integers without padding (their sizes are asserted where they are defined).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }
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

    fn slot_key(&self, work: &Work) -> SlotKey {
        // SAFETY: the current flow is valid while its packet is handled.
        SlotKey { flow: unsafe { (*self.flow).id }, direction: u64::from(work.direction) }
    }

    fn event(&self, work: &Work, kind: u8, size: usize) -> EndRecord {
        let mut record = EndRecord::default();
        record.head.size = u32::try_from(size).unwrap_or(0);
        record.head.kind = kind;
        record.head.direction = u8::from(work.direction != u32::from(direction::REQUEST));
        // SAFETY: as above.
        unsafe {
            record.head.service = (*self.flow).service;
            record.head.flow = (*self.flow).id;
            let request = work.direction == u32::from(direction::REQUEST);
            record.head.epoch =
                u32::from(if request { (*self.flow).request.epoch } else { (*self.flow).response.epoch });
        }
        record.head.txn = work.parser.txn;
        record.head.time_ns = self.now;
        record
    }

    fn copy_frame(&self, at: u32, to: *mut u8, len: u32) -> bool {
        let at = at as usize;
        let Some(from) = at.checked_add(len as usize).and_then(|end| self.frame.get(at..end)) else { return false };
        // SAFETY: the parser gives room for at least `len` bytes (its bounds are asserted where the scratch is defined).
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        true
    }
}

impl Env for Inner {
    unsafe fn copy(&mut self, at: u32, to: *mut u8, len: u32) -> bool {
        self.copy_frame(at, to, len)
    }
    unsafe fn fill(&mut self, at: u32, to: *mut u8, len: u32) -> bool {
        self.copy_frame(at, to, len)
    }
    fn service(&self, service: u32) -> Option<&ServiceConfig> {
        if service == u32::from(NO_SERVICE) {
            return Some(&ANY_SERVICE);
        }
        self.tables.services.get(service as usize)
    }
    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        self.tables.edges.get(key).copied()
    }
    fn state(&self, state: u32) -> Option<&RouteState> {
        self.tables.states.get(state as usize)
    }
    fn route(&self, service: u32, route: u16) -> Option<&RouteConfig> {
        if usize::from(route) >= ROUTES_MAX {
            return None;
        }
        let place = service.checked_mul(u32::try_from(ROUTES_MAX).ok()?)?.checked_add(u32::from(route))?;
        self.tables.routes.get(&place)
    }
    fn settings(&self) -> Settings {
        self.tables.settings
    }
    fn key(&self) -> Key {
        self.tables.key
    }
    fn count(&mut self, counter: Counter, by: u64) {
        self.add(counter, by);
    }
    fn flow(&self) -> *mut Flow {
        self.flow
    }
    fn emit_head(&mut self, work: &mut Work) {
        let credentials = usize::from(work.captured.record.credentials).min(work.captured.credentials.len());
        let captures = work.captured.len as usize;
        let size = size_of::<HeadRecord>() + credentials * size_of::<Credential>() + captures;
        work.captured.record.head.size = u32::try_from(size).unwrap_or(0);
        work.captured.record.head.time_ns = self.now;
        self.records.extend_from_slice(bytes_of(&work.captured.record));
        for credential in work.captured.credentials.iter().take(credentials) {
            self.records.extend_from_slice(bytes_of(credential));
        }
        self.records.extend(work.captured.bytes.iter().take(captures));
        self.add(Counter::RecordsEmitted, 1);
    }
    fn emit_end(&mut self, work: &mut Work, kind: u8, complete: bool) {
        let mut record = self.event(work, kind, size_of::<EndRecord>());
        record.body_bytes = work.parser.body_bytes;
        record.complete = u32::from(complete);
        record.anomalies = work.parser.anomalies;
        self.records.extend_from_slice(bytes_of(&record));
    }
    fn emit_handover(&mut self, work: &mut Work) {
        let captured = if work.slow_captured == 0 { 0 } else { size_of::<Captured>() };
        let event = self.event(work, kind::HANDOVER, size_of::<HandoverRecord>() + captured);
        // SAFETY: the current flow is valid while its packet is handled.
        let flow = unsafe { *self.flow };
        let record =
            HandoverRecord { head: event.head, key: work.key, flow, captured: work.slow_captured, reserved: 0 };
        self.records.extend_from_slice(bytes_of(&record));
        if captured != 0 {
            self.records.extend_from_slice(bytes_of(&work.captured));
        }
    }
    fn emit_segment(&mut self, work: &mut Work, len: u32, last: bool) {
        let at = (work.base + work.pos) as usize;
        let Some(bytes) = at.checked_add(len as usize).and_then(|end| self.frame.get(at..end)) else { return };
        let [sequence, acknowledged, flags, len] = work.segment(len, last);
        let kind = u8::try_from(work.slow_kind).unwrap_or(0);
        let mut event = self.event(work, kind, size_of::<SegmentRecord>() + bytes.len());
        event.head.offset = u64::from(work.slow_waiting);
        let record = SegmentRecord { head: event.head, key: work.key, sequence, acknowledged, flags, len };
        self.records.extend_from_slice(bytes_of(&record));
        self.records.extend_from_slice(bytes);
    }
    fn tee(&mut self, work: &mut Work, at: u32, len: u32) {
        let end = self.event(work, kind::TEE, size_of::<TeeRecord>() + len as usize);
        let mut record = TeeRecord { head: end.head, len, reserved: 0 };
        record.head.offset = work.parser.body_bytes;
        let at = at as usize;
        let Some(bytes) = at.checked_add(len as usize).and_then(|end| self.frame.get(at..end)) else { return };
        self.records.extend_from_slice(bytes_of(&record));
        self.records.extend_from_slice(bytes);
    }
    fn run(&mut self, work: &mut Work) -> bool {
        (0..STEPS_MAX).any(|_| http::step(work, self))
    }
    fn slot_load(&mut self, work: &mut Work) -> bool {
        let Some(slot) = self.slots.get(&self.slot_key(work)) else { return false };
        work.captured = **slot;
        true
    }
    fn slot_store(&mut self, work: &mut Work) -> bool {
        let key = self.slot_key(work);
        if self.slots.len() >= self.slots_max && !self.slots.contains_key(&key) {
            return false;
        }
        let mut slot = zeroed::<Captured>();
        *slot = work.captured;
        self.slots.insert(key, slot);
        true
    }
    fn slot_free(&mut self, work: &mut Work) {
        let key = self.slot_key(work);
        self.slots.remove(&key);
    }
}

impl Lookups for Inner {
    fn watched(&self, port: u16) -> bool {
        self.all_tcp || self.tables.ports.binary_search(&port).is_ok()
    }
    fn listen(&self, key: &ListenKey) -> Option<u16> {
        self.tables.listens.get(key).copied()
    }
    fn is_local(&self, _address: &Address) -> bool {
        // A capture file does not say whose host it is.
        true
    }
    fn find(&mut self, key: &FlowKey) -> bool {
        let Some(flow) = self.flows.find(key) else { return false };
        self.flow = flow;
        true
    }
    fn insert(&mut self, key: &FlowKey, flow: &Flow) -> bool {
        let gone = self.flows.insert(key, flow);
        self.gone(gone);
        true
    }
    fn delete(&mut self, key: &FlowKey) {
        let gone = self.flows.remove(key);
        self.gone(gone);
    }
    fn resume_at(&mut self, work: &mut Work) -> bool {
        let Some(entry) = self.resume.get(&work.key) else { return false };
        work.resume = *entry;
        true
    }
    fn resume_done(&mut self, work: &mut Work) {
        self.resume.remove(&work.key);
    }
    fn compares(&self) -> bool {
        true
    }
    fn now(&self) -> u64 {
        self.now
    }
    fn blank(&mut self) -> *mut Flow {
        &raw mut *self.blank
    }
    fn place(&self, packet: &Packet, payload: u32) -> Option<(u8, u16)> {
        if let Some(service) = engine::service_of(self, &packet.destination, packet.destination_port) {
            return Some((direction::REQUEST, service));
        }
        if let Some(service) = engine::service_of(self, &packet.source, packet.source_port) {
            return Some((direction::RESPONSE, service));
        }
        if !self.all_tcp {
            return None;
        }
        let syn_ack = packet.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK;
        let at = packet.payload_at as usize;
        let answer = payload >= 5 && self.frame.get(at..at + 5).is_some_and(|start| start == b"HTTP/");
        let way = if syn_ack || answer { direction::RESPONSE } else { direction::REQUEST };
        Some((way, NO_SERVICE))
    }
}
