//! The parser's surroundings in the kernel: packet bytes by helper, tables in maps, results on rings.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use core::ptr::{from_ref, null_mut};

use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP, bpf_dynptr};
use aya_ebpf::helpers::generated::{
    bpf_dynptr_write, bpf_ktime_get_ns, bpf_loop, bpf_ringbuf_discard_dynptr, bpf_ringbuf_reserve_dynptr,
    bpf_ringbuf_submit_dynptr, bpf_skb_load_bytes,
};
use aya_ebpf::maps::RingBuf;
use sensor_ebpf::engine::Tables;
use sensor_ebpf::flow::{Flow, FlowKey, HeadPiece, HeadPieceKey, SlotKey};
use sensor_ebpf::http::{self, Env};
use sensor_ebpf::packet::Address;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    CAPTURES_MAX, CREDENTIALS_MAX, Credential, EdgeKey, EndRecord, HandoverRecord, HeadRecord, ListenKey, ROUTES_MAX,
    RecordHead, RouteConfig, RouteState, SegmentRecord, ServiceConfig, Settings, TEE_CHUNK_MAX, TeeRecord, Totals,
    direction, kind,
};
use sensor_ebpf::work::{COPY_MAX, Captured, WINDOW, Work, bound};

use super::{maps, pieces};

/// Steps of one segment: a BIG TCP super-packet of one-byte steps stays below it.
const STEPS_MAX: u32 = 1 << 19;

/// What one program run works with.
#[repr(C)]
pub struct Kernel {
    skb: *mut __sk_buff,
    totals: *mut Totals,
    flow: *mut Flow,
}

impl Kernel {
    /// For the packet `skb`; `None` only if the totals map were missing.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Option<Self> {
        let totals = maps::TOTALS.get_ptr_mut(0)?;
        Some(Self { skb, totals, flow: null_mut() })
    }

    /// Adds to a total of this CPU.
    #[inline(always)]
    pub fn add(&mut self, counter: Counter, by: u64) {
        // SAFETY: the totals pointer is a live map value; only this CPU writes it, and the index is a constant.
        unsafe { *(*self.totals).counts.as_mut_ptr().add(counter as usize) += by };
    }

    /// Adds one to a total that is not known when compiling.
    #[inline(always)]
    pub fn add_variable(&mut self, counter: u32) {
        let index = bound::<127>(counter) as usize;
        if index < Counter::COUNT {
            // SAFETY: checked just above.
            unsafe { *(*self.totals).counts.as_mut_ptr().add(index) += 1 };
        }
    }

    #[inline(always)]
    fn slot_key(&self, work: &Work) -> SlotKey {
        // SAFETY: the flow pointer is a live map value.
        SlotKey { flow: unsafe { (*self.flow).id }, direction: u64::from(work.direction) }
    }

    /// Fills in the common head of a record that is not a head.
    #[inline(always)]
    fn event(&self, work: &Work, kind: u8, size: u32) -> EndRecord {
        let mut record = EndRecord::default();
        record.head.size = size;
        record.head.kind = kind;
        record.head.direction = work.direction as u8;
        // SAFETY: the flow pointer is a live map value.
        unsafe {
            record.head.service = (*self.flow).service;
            record.head.flow = (*self.flow).id;
            record.head.epoch = if work.direction == u32::from(direction::REQUEST) {
                u32::from((*self.flow).request.epoch)
            } else {
                u32::from((*self.flow).response.epoch)
            };
        }
        record.head.txn = work.parser.txn;
        record
    }
}

/// One step of the parser, as `bpf_loop` calls it.
unsafe extern "C" fn step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: the context is the `Kernel` on the caller's stack.
    let kernel = unsafe { &mut *context.cast::<Kernel>() };
    // Looked up here because a pointer handed through the context would lose its bounds.
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: a live map value that only this CPU uses.
    i64::from(http::step(unsafe { &mut *work }, kernel))
}

#[inline(always)]
fn raw(ring: &'static RingBuf) -> *mut c_void {
    from_ref(ring).cast_mut().cast()
}

/// Appends `len` (1 to `MASK` + 1, a power of two) bytes at `from` to the record at `at`.
///
/// # Safety
/// `from` must be valid for reading `MASK` + 1 bytes.
#[inline(always)]
unsafe fn append<const MASK: u32>(record: *mut bpf_dynptr, at: u32, from: *const u8, len: u32) {
    let len = bound::<MASK>(len - 1) + 1;
    // SAFETY: the caller's promise; the helper checks the record's bounds.
    unsafe { bpf_dynptr_write(record, at, from.cast_mut().cast(), len, 0) };
}

impl Env for Kernel {
    #[inline(always)]
    unsafe fn copy(&mut self, at: u32, to: *mut u8, len: u32) -> bool {
        let len = bound::<{ COPY_MAX as u32 - 1 }>(len - 1) + 1;
        // SAFETY: the caller gives `COPY_MAX` bytes.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to.cast(), len) == 0 }
    }

    #[inline(always)]
    unsafe fn fill(&mut self, at: u32, to: *mut u8, len: u32) -> bool {
        let len = bound::<{ WINDOW as u32 - 1 }>(len - 1) + 1;
        // SAFETY: the caller gives `WINDOW` bytes.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to.cast(), len) == 0 }
    }

    #[inline(always)]
    fn service(&self, service: u32) -> Option<&ServiceConfig> {
        maps::SERVICES.get(service)
    }

    #[inline(always)]
    fn edge(&self, key: &EdgeKey) -> Option<u32> {
        // SAFETY: the value is copied at once; user space writes it before attaching.
        unsafe { maps::EDGES.get(key) }.copied()
    }

    #[inline(always)]
    fn state(&self, state: u32) -> Option<&RouteState> {
        maps::STATES.get(state)
    }

    #[inline(always)]
    fn route(&self, service: u32, route: u16) -> Option<&RouteConfig> {
        if usize::from(route) >= ROUTES_MAX {
            return None;
        }
        maps::ROUTES.get(service * ROUTES_MAX as u32 + u32::from(route))
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        maps::SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn key(&self) -> Key {
        maps::KEY.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter, by: u64) {
        self.add(counter, by);
    }

    #[inline(always)]
    fn flow(&self) -> *mut Flow {
        self.flow
    }

    #[inline(always)]
    fn emit_head(&mut self, work: &mut Work) {
        let credentials = u32::from(work.captured.record.credentials) & 15;
        let captures = work.captured.len;
        let head = size_of::<HeadRecord>() as u32;
        let list = credentials * size_of::<Credential>() as u32;
        let size = head + list + captures;
        work.captured.record.head.size = size;
        let mut record = MaybeUninit::<bpf_dynptr>::uninit();
        let record = record.as_mut_ptr();
        // SAFETY: the helpers check the reservation; it is submitted or discarded on every path.
        unsafe {
            if bpf_ringbuf_reserve_dynptr(raw(&maps::EVENTS), size, 0, record) != 0 {
                bpf_ringbuf_discard_dynptr(record, 0);
                self.add(Counter::LostEventRing, 1);
                return;
            }
            work.captured.record.head.time_ns = bpf_ktime_get_ns();
            bpf_dynptr_write(record, 0, (&raw mut work.captured.record).cast(), head, 0);
            if list > 0 {
                const MAX: u32 = (CREDENTIALS_MAX * size_of::<Credential>()) as u32;
                append::<{ MAX - 1 }>(record, head, work.captured.credentials.as_ptr().cast(), list);
            }
            if captures > 0 {
                append::<{ CAPTURES_MAX as u32 - 1 }>(record, head + list, work.captured.bytes.as_ptr(), captures);
            }
            bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
        }
        self.add(Counter::RecordsEmitted, 1);
    }

    #[inline(always)]
    fn emit_end(&mut self, work: &mut Work, kind: u8, complete: bool) {
        let size = size_of::<EndRecord>() as u32;
        let mut event = self.event(work, kind, size);
        event.body_bytes = work.parser.body_bytes;
        event.complete = u32::from(complete);
        event.anomalies = work.parser.anomalies;
        let mut record = MaybeUninit::<bpf_dynptr>::uninit();
        let record = record.as_mut_ptr();
        // SAFETY: as in `emit_head`.
        unsafe {
            // Each ring's pointer must be a constant at its call.
            let refused = if kind == kind::TEE_END || kind == kind::RESUMED {
                bpf_ringbuf_reserve_dynptr(raw(&maps::BYTES), size, 0, record)
            } else {
                bpf_ringbuf_reserve_dynptr(raw(&maps::EVENTS), size, 0, record)
            };
            if refused != 0 {
                bpf_ringbuf_discard_dynptr(record, 0);
                self.add(Counter::LostEnd, 1);
                return;
            }
            event.head.time_ns = bpf_ktime_get_ns();
            bpf_dynptr_write(record, 0, (&raw mut event).cast(), size, 0);
            bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
        }
    }

    #[inline(always)]
    fn emit_handover(&mut self, work: &mut Work) {
        let flow = self.flow;
        // The slow path's records begin with a head and the connection.
        let fixed = size_of::<HandoverRecord>() as u32;
        let captured = if work.slow_captured != 0 { size_of::<Captured>() as u32 } else { 0 };
        let mut event = self.event(work, kind::HANDOVER, fixed + captured);
        let mut tail = u64::from(work.slow_captured);
        let mut record = MaybeUninit::<bpf_dynptr>::uninit();
        let record = record.as_mut_ptr();
        // SAFETY: as in `emit_head`.
        unsafe {
            let refused = if captured == 0 {
                bpf_ringbuf_reserve_dynptr(raw(&maps::BYTES), fixed, 0, record)
            } else {
                bpf_ringbuf_reserve_dynptr(raw(&maps::BYTES), fixed + size_of::<Captured>() as u32, 0, record)
            };
            if refused != 0 || flow.is_null() {
                bpf_ringbuf_discard_dynptr(record, 0);
                self.add(Counter::LostSegment, 1);
                return;
            }
            event.head.time_ns = bpf_ktime_get_ns();
            let head = size_of::<RecordHead>() as u32;
            let key = size_of::<FlowKey>() as u32;
            bpf_dynptr_write(record, 0, (&raw mut event).cast(), head, 0);
            bpf_dynptr_write(record, head, (&raw mut work.key).cast(), key, 0);
            bpf_dynptr_write(record, head + key, flow.cast(), size_of::<Flow>() as u32, 0);
            bpf_dynptr_write(record, fixed - 8, (&raw mut tail).cast(), 8, 0);
            if captured != 0 {
                let from = (&raw mut work.captured).cast();
                bpf_dynptr_write(record, fixed, from, size_of::<Captured>() as u32, 0);
            }
            bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
        }
    }

    #[inline(always)]
    fn emit_segment(&mut self, work: &mut Work, len: u32, last: bool) {
        let head = size_of::<SegmentRecord>() as u32;
        let mut event = self.event(work, work.slow_kind as u8, head + len);
        event.head.offset = u64::from(work.slow_waiting);
        let mut segment = work.segment(len, last);
        let at = work.base + work.pos;
        // SAFETY: the window has room.
        let copied = len == 0 || unsafe { self.fill(at, work.window.as_mut_ptr(), len) };
        let mut record = MaybeUninit::<bpf_dynptr>::uninit();
        let record = record.as_mut_ptr();
        // SAFETY: as in `emit_head`.
        unsafe {
            if bpf_ringbuf_reserve_dynptr(raw(&maps::BYTES), head + len, 0, record) != 0 || !copied {
                bpf_ringbuf_discard_dynptr(record, 0);
                self.add(Counter::LostSegment, 1);
                return;
            }
            event.head.time_ns = bpf_ktime_get_ns();
            let common = size_of::<RecordHead>() as u32;
            let key = size_of::<FlowKey>() as u32;
            bpf_dynptr_write(record, 0, (&raw mut event).cast(), common, 0);
            bpf_dynptr_write(record, common, (&raw mut work.key).cast(), key, 0);
            bpf_dynptr_write(record, common + key, (&raw mut segment).cast(), size_of::<[u32; 4]>() as u32, 0);
            if len > 0 {
                append::<{ TEE_CHUNK_MAX as u32 - 1 }>(record, head, work.window.as_ptr(), len);
            }
            bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
        }
    }

    #[inline(always)]
    fn tee(&mut self, work: &mut Work, at: u32, len: u32) {
        let head = size_of::<TeeRecord>() as u32;
        let size = head + len;
        let mut event = self.event(work, kind::TEE, size);
        event.head.offset = work.parser.body_bytes;
        // A tee record ends where an END has its length: the low word of that is the tee's own length field.
        event.body_bytes = u64::from(len);
        // SAFETY: the window has room, and is filled anew before the parser looks at it again.
        let copied = unsafe {
            let to = work.window.as_mut_ptr();
            work.window_len = 0;
            work.window_at = work.pos;
            self.fill(at, to, len)
        };
        let mut record = MaybeUninit::<bpf_dynptr>::uninit();
        let record = record.as_mut_ptr();
        // SAFETY: as in `emit_head`.
        unsafe {
            if bpf_ringbuf_reserve_dynptr(raw(&maps::BYTES), size, 0, record) != 0 || !copied {
                bpf_ringbuf_discard_dynptr(record, 0);
                self.add(Counter::LostByteRing, 1);
                self.add(Counter::LostByteRingBytes, u64::from(len));
                return;
            }
            event.head.time_ns = bpf_ktime_get_ns();
            bpf_dynptr_write(record, 0, (&raw mut event).cast(), head, 0);
            append::<{ TEE_CHUNK_MAX as u32 - 1 }>(record, head, work.window.as_ptr(), len);
            bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
        }
    }

    #[inline(always)]
    fn run(&mut self, _work: &mut Work) -> bool {
        let context: *mut Self = self;
        // SAFETY: the context outlives the loop; the callback takes nothing else.
        let steps = unsafe { bpf_loop(STEPS_MAX, step as *mut c_void, context.cast(), 0) };
        steps < i64::from(STEPS_MAX)
    }

    #[inline(always)]
    fn slot_load(&mut self, work: &mut Work) -> bool {
        let key = self.slot_key(work);
        // SAFETY: the value is copied at once.
        let Some(slot) = maps::SLOTS.get_ptr(&key) else { return false };
        unsafe {
            aya_ebpf::helpers::generated::bpf_probe_read_kernel(
                (&raw mut work.captured).cast(),
                size_of::<Captured>() as u32,
                slot.cast(),
            ) == 0
        }
    }

    #[inline(always)]
    fn slot_store(&mut self, work: &mut Work) -> bool {
        let key = self.slot_key(work);
        maps::SLOTS.insert(&key, &work.captured, 0).is_ok()
    }

    #[inline(always)]
    fn slot_free(&mut self, work: &mut Work) {
        let key = self.slot_key(work);
        let _ = maps::SLOTS.remove(&key);
    }
}

/// The port's bit.
#[inline(always)]
fn has(ports: &maps::Ports, port: u16) -> bool {
    let word = usize::from(port >> 6) & 1023;
    // SAFETY: masked to the array's length.
    let bits = unsafe { *ports.words.as_ptr().add(word) };
    bits >> (port & 63) & 1 != 0
}

impl Tables for Kernel {
    #[inline(always)]
    fn watched(&self, port: u16) -> bool {
        maps::PORTS.get(0).is_some_and(|ports| has(ports, port))
    }

    // One lookup for both.
    #[inline(always)]
    fn watched_pair(&self, destination: u16, source: u16) -> (bool, bool) {
        maps::PORTS.get(0).map_or((false, false), |ports| (has(ports, destination), has(ports, source)))
    }

    #[inline(always)]
    fn listen(&self, key: &ListenKey) -> Option<u16> {
        // SAFETY: the value is copied at once.
        unsafe { maps::LISTENS.get(key) }.map(|service| *service as u16)
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        maps::LOCALS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn find(&mut self, key: &FlowKey) -> bool {
        match maps::FLOWS.get_ptr_mut(key) {
            Some(flow) => {
                self.flow = flow;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn insert(&mut self, key: &FlowKey, flow: &Flow) -> bool {
        maps::FLOWS.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn delete(&mut self, key: &FlowKey) {
        let _ = maps::FLOWS.remove(key);
    }

    #[inline(always)]
    fn resume_at(&mut self, work: &mut Work) -> bool {
        let Some(entry) = maps::RESUME.get_ptr(&work.key) else { return false };
        // SAFETY: a live map value; user space writes it whole, and what was read is compared before it is believed.
        unsafe { sensor_ebpf::words::copy(entry, &raw mut work.resume) };
        true
    }

    #[inline(always)]
    fn resume_done(&mut self, work: &mut Work) {
        let _ = maps::RESUME.remove(&work.key);
    }

    #[inline(always)]
    fn digest(&mut self, work: &Work) -> u64 {
        pieces::digest(self.skb, self.key(), work)
    }

    #[inline(always)]
    fn keep_piece(&mut self, key: &HeadPieceKey, piece: &HeadPiece) {
        let _ = maps::PIECES.insert(key, piece, 0);
    }

    #[inline(always)]
    fn has_piece(&self, key: &HeadPieceKey, piece: &HeadPiece) -> bool {
        // SAFETY: a live map value, compared at once; should it be written meanwhile, the segment is compared elsewhere.
        unsafe { maps::PIECES.get(key) }.is_some_and(|known| {
            known.sequence == piece.sequence && known.len == piece.len && known.digest == piece.digest
        })
    }

    #[inline(always)]
    fn compares(&self) -> bool {
        /// `lo` is the first device of every network namespace.
        const LOOPBACK: u32 = 1;
        // SAFETY: the context of the program.
        unsafe { (*self.skb).ifindex != LOOPBACK }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn blank(&mut self) -> *mut Flow {
        maps::BLANK.get_ptr_mut(0).unwrap_or(null_mut())
    }
}
