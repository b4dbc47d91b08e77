//! What the parser asks of its surroundings, on the host: the frame's bytes, the compiled configuration, flows and slots in
//! memory, and a buffer for records.
//!
//! The counterpart of `sensor-ebpf/src/kernel/env.rs`. `unsafe` here is what the parser's environment asks for: copies into
//! its scratch area, and reading the current flow by its pointer.

use sensor_ebpf::engine::{self, Tables as Lookups, repeats};
use sensor_ebpf::flow::{Flow, FlowKey, HeadPiece, HeadPieceKey, SlotKey};
use sensor_ebpf::http::{self, Env};
use sensor_ebpf::packet::{Address, Packet, tcp_flag};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::{Key, SipState};
use sensor_ebpf::wire::{
    Credential, EdgeKey, EndRecord, HandoverRecord, HeadRecord, ListenKey, NO_SERVICE, ROUTES_MAX, RouteConfig,
    RouteState, SegmentRecord, ServiceConfig, Settings, TeeRecord, direction, kind, service_flag,
};
use sensor_ebpf::work::{Captured, Work};

use super::{Inner, zeroed};

/// Steps of one segment, as in the kernel.
const STEPS_MAX: u32 = 1 << 19;

/// The service of a flow that belongs to none, when every flow is a candidate.
const ANY_SERVICE: ServiceConfig = ServiceConfig {
    flags: service_flag::AUTHORIZATION | service_flag::PROXY,
    route_root: 0,
    cookies: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 4],
    headers: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
    response_headers: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
    query: [sensor_ebpf::wire::Name { words: [0; 4], len: 0, reserved: 0 }; 2],
};

/// The bytes of a record structure.
fn bytes_of<T: Copy>(record: &T) -> &[u8] {
    // SAFETY: the wire structures are integers without padding (their sizes are asserted where they are defined).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }
}

impl Inner {
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
    fn digest(&mut self, work: &Work) -> u64 {
        let (at, len) = (work.packet.payload_at as usize, work.present as usize);
        let Some(bytes) = self.frame.get(at..).and_then(|rest| rest.get(..len)) else { return 0 };
        let mut state = SipState::default();
        state.start(self.tables.key);
        for step in bytes.chunks(repeats::STEP as usize) {
            let mut words = [0; repeats::STEP as usize / 8];
            for (word, bytes) in words.iter_mut().zip(step.chunks(8)) {
                let bytes = bytes.iter().rev();
                *word = bytes.fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
            }
            for word in words {
                state.absorb_word(word);
            }
        }
        repeats::digest(&state, work.present)
    }
    fn keep_piece(&mut self, key: &HeadPieceKey, piece: &HeadPiece) {
        if self.pieces.insert(*key, *piece).is_none() {
            self.pieces_in_order.push_back(*key);
        }
        if self.pieces.len() > self.slots_max
            && let Some(oldest) = self.pieces_in_order.pop_front()
        {
            self.pieces.remove(&oldest);
        }
    }
    fn has_piece(&self, key: &HeadPieceKey, piece: &HeadPiece) -> bool {
        self.pieces.get(key) == Some(piece)
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
