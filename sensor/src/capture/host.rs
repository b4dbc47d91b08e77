//! The parser on the host: packets of a capture file in, records out, through the very functions that the kernel
//! programs are made of.
//!
//! Owns a flow table and slots of the same bounds as the kernel's maps. `unsafe` here is what the shared parser's
//! environment asks for: copies into its scratch area, and a pointer to the current flow.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ptr::null_mut;

use ahash::AHasher;
use sensor_ebpf::engine::{self, Tables as Lookups};
use sensor_ebpf::flow::{Flow, FlowKey, SlotKey};
use sensor_ebpf::http::{self, Env};
use sensor_ebpf::packet::{self, Address, Packet, SliceHeaders};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    Credential, EdgeKey, EndRecord, HeadRecord, ListenKey, NO_SERVICE, ROUTES_MAX, RouteConfig, RouteState,
    ServiceConfig, Settings, TeeRecord, Totals, direction, kind, service_flag,
};
use sensor_ebpf::work::{Captured, Work};

use super::tables::Tables;

/// Steps of one segment, as in the kernel.
const STEPS_MAX: u32 = 1 << 19;

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

struct Inner {
    tables: Tables,
    all_tcp: bool,
    flows: Map<FlowKey, Box<Flow>>,
    order: VecDeque<FlowKey>,
    flows_max: usize,
    slots: Map<SlotKey, Box<Captured>>,
    slots_max: usize,
    blank: Box<Flow>,
    flow: *mut Flow,
    totals: Totals,
    now: u64,
    frame: Vec<u8>,
    records: Vec<u8>,
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
            flows: Map::default(),
            order: VecDeque::new(),
            flows_max: flows_max.max(1),
            slots: Map::default(),
            slots_max: slots_max.max(1),
            blank: zeroed(),
            flow: null_mut(),
            totals: Totals { counts: [0; Counter::COUNT] },
            now: 0,
            frame: Vec::new(),
            records: Vec::new(),
        };
        Self { inner, work: zeroed() }
    }

    /// Totals, by [`Counter`].
    pub fn totals(&self) -> &[u64; Counter::COUNT] {
        &self.inner.totals.counts
    }

    /// Parses one Ethernet frame seen at `at_ns`; `frame_len` is its length on the wire.
    pub fn ethernet(&mut self, at_ns: u64, frame: &[u8], frame_len: u32) {
        self.frame(at_ns, frame, |headers, out| packet::ethernet(headers, frame_len, out));
    }

    /// Parses a packet whose network layer, of type `ethertype`, begins at `offset`.
    pub fn network(&mut self, at_ns: u64, frame: &[u8], ethertype: u16, offset: u32, frame_len: u32) {
        self.frame(at_ns, frame, |headers, out| packet::network(headers, ethertype, offset, frame_len, out));
    }

    fn frame(
        &mut self,
        at_ns: u64,
        frame: &[u8],
        parse: impl FnOnce(&SliceHeaders<'_>, &mut Packet) -> Result<(), Counter>,
    ) {
        let inner = &mut self.inner;
        inner.now = at_ns;
        inner.flow = null_mut();
        inner.frame.clear();
        inner.frame.extend_from_slice(frame);
        inner.add(Counter::PacketsSeen, 1);
        let disposition = match parse(&SliceHeaders(frame), &mut self.work.packet) {
            Ok(()) => {
                let held = u32::try_from(frame.len()).unwrap_or(u32::MAX);
                let present = self.work.packet.payload_len.min(held.saturating_sub(self.work.packet.payload_at));
                engine::packet(inner, &mut self.work, present)
            }
            Err(counter) => counter as u32,
        };
        if let Some(count) = inner.totals.counts.get_mut(disposition as usize) {
            *count += 1;
        }
    }

    /// Gives every record made since the last call to `take`, in order.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        let mut rest = self.inner.records.as_slice();
        while let Some(size) = rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) {
            let Some((record, after)) = rest.split_at_checked(size).filter(|_| size > 0) else { break };
            take(record);
            rest = after;
        }
        self.inner.records.clear();
    }

    /// Flows in the table.
    pub fn flows(&self) -> usize {
        self.inner.flows.len()
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

    /// Removes a flow and the slots of its unfinished heads. (The kernel's slots are a map that drops the oldest.)
    fn forget(&mut self, key: &FlowKey) {
        let Some(flow) = self.flows.remove(key) else { return };
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
        self.records.extend_from_slice(bytes_of(&record));
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
        let Some(flow) = self.flows.get_mut(key) else { return false };
        self.flow = &raw mut **flow;
        true
    }
    fn insert(&mut self, key: &FlowKey, flow: &Flow) -> bool {
        if !self.flows.contains_key(key) {
            while self.flows.len() >= self.flows_max {
                let Some(oldest) = self.order.pop_front() else { break };
                self.forget(&oldest);
            }
            self.order.push_back(*key);
        }
        self.forget(key);
        self.flows.insert(*key, Box::new(*flow));
        true
    }
    fn delete(&mut self, key: &FlowKey) {
        self.forget(key);
        // Stale keys are dropped in passing, so that the order list stays in proportion to the table.
        if self.order.len() > 2 * self.flows.len() + 1024 {
            let flows = &self.flows;
            self.order.retain(|key| flows.contains_key(key));
        }
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
        let syn_ack = packet.flags & (packet::tcp_flag::SYN | packet::tcp_flag::ACK)
            == packet::tcp_flag::SYN | packet::tcp_flag::ACK;
        let at = packet.payload_at as usize;
        let answer = payload >= 5 && self.frame.get(at..at + 5).is_some_and(|start| start == b"HTTP/");
        let way = if syn_ack || answer { direction::RESPONSE } else { direction::REQUEST };
        Some((way, NO_SERVICE))
    }
}
