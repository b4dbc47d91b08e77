//! From a packet to the parser: service, flow, sequence numbers, dispositions.
//!
//! Shared by the kernel programs and the host: [`packet`] takes a parsed segment, finds or makes its flow, and gives the
//! new bytes to [`crate::http`]. Every packet gets exactly one disposition, every new stream byte exactly one of
//! parsed, skipped, handed over and gap.

use crate::flow::{Flow, FlowKey, Half, flow_flag, half_flag, phase};
use crate::http::{self, Env, state_flag, token_flag};
use crate::lock;
use crate::packet::{Address, Packet, tcp_flag};
use crate::reason::Counter;
use crate::slow;
use crate::wire::{ListenKey, anomaly, direction, framing, head_flag, kind, place};
use crate::words;
use crate::work::{Work, stage};

/// A segment that begins further than this beyond the next expected byte is out of every window: ignored.
const HOLE_MAX: i32 = 1 << 26;
/// Most bytes of a segment that comes in IP fragments: how many it has, its first one does not say.
const PIECES_MAX: u32 = 65_535;
/// The shortest response that there is: a status line without a reason, and the empty line.
const SHORTEST_RESPONSE: u64 = b"HTTP/1.1 200\r\n\r\n".len() as u64;

/// The tables that [`packet`] needs beside the parser's environment.
pub trait Tables: Env {
    /// True if some service may listen on `port`.
    fn watched(&self, port: u16) -> bool;
    /// [`Tables::watched`] for both ports of a packet: destination, source.
    #[inline(always)]
    fn watched_pair(&self, destination: u16, source: u16) -> (bool, bool) {
        (self.watched(destination), self.watched(source))
    }
    /// The service that listens there.
    fn listen(&self, key: &ListenKey) -> Option<u16>;
    /// True if the address is this host's (replay: always).
    fn is_local(&self, address: &Address) -> bool;
    /// Makes the flow of `key` the current one; false if there is none.
    fn find(&mut self, key: &FlowKey) -> bool;
    /// Makes a fresh flow for `key`, replacing one of the same key, without looking it up; false if it was refused.
    fn insert(&mut self, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes the flow.
    fn delete(&mut self, key: &FlowKey);
    /// Brings to `work.resume` where the slow path left the flow of `work.key`; false if it did not.
    fn resume_at(&mut self, work: &mut Work) -> bool;
    /// The flow was taken back: forgets where.
    fn resume_done(&mut self, work: &mut Work);
    /// True if seen bytes are compared on this device (on the loopback device every packet passes twice).
    fn compares(&self) -> bool;
    /// Monotonic time, nanoseconds.
    fn now(&self) -> u64;
    /// A zeroed flow to fill in before [`Tables::insert`].
    fn blank(&mut self) -> *mut Flow;
    /// For a segment without a flow: which direction it has, and its service.
    #[inline(always)]
    fn place(&self, packet: &Packet, payload: u32) -> Option<(u8, u16)> {
        let _ = payload;
        if let Some(service) = service_of(self, &packet.destination, packet.destination_port) {
            return Some((direction::REQUEST, service));
        }
        service_of(self, &packet.source, packet.source_port).map(|service| (direction::RESPONSE, service))
    }
}

/// The service at an address and port, if that port is watched.
#[inline(always)]
pub fn service_of<T: Tables + ?Sized>(tables: &T, address: &Address, port: u16) -> Option<u16> {
    if !tables.watched(port) {
        return None;
    }
    let mut key = ListenKey { address: bytes(*address), port, reserved: [0; 6] };
    if let Some(service) = tables.listen(&key) {
        return Some(service);
    }
    key.address = [0; 16];
    let service = tables.listen(&key)?;
    tables.is_local(address).then_some(service)
}

#[inline(always)]
const fn bytes(words: Address) -> [u8; 16] {
    (words[0] as u128 | (words[1] as u128) << 64).to_ne_bytes()
}

#[inline(always)]
const fn key_of(packet: &Packet, way: u8) -> FlowKey {
    if way == direction::REQUEST {
        FlowKey {
            client: packet.source,
            server: packet.destination,
            client_port: packet.source_port,
            server_port: packet.destination_port,
            reserved: 0,
        }
    } else {
        FlowKey {
            client: packet.destination,
            server: packet.source,
            client_port: packet.destination_port,
            server_port: packet.source_port,
            reserved: 0,
        }
    }
}

/// Instead of a disposition: the segment goes on to the current flow's half.
const GOES_ON: u32 = u32::MAX;

/// Handles the TCP segment in `work.packet`, of which `present` payload bytes are there; the result is its disposition,
/// an index of [`Counter`].
///
/// What is needed behind the parser's loop stands in `work`, not in registers: so the verifier comes to the loop in one
/// state, whatever way the packet took, and follows the parser once.
#[inline(always)]
pub fn packet<T: Tables>(tables: &mut T, work: &mut Work, present: u32) -> u32 {
    work.present = present;
    work.sequence = work.packet.sequence;
    work.stage = stage::DONE;
    let admitted = admit(tables, work);
    if admitted != GOES_ON {
        return admitted;
    }
    let stage = begin(tables, work);
    if stage >= stage::PARSE && (work.end > 0 || work.parser.phase >= phase::COMPLETIONS) && !tables.flow().is_null() {
        let complete = tables.run(work);
        work.overrun = u32::from(!complete);
    }
    if work.stage != stage::DONE {
        conclude(tables, work);
    }
    work.disposition
}

/// Finds or makes the flow: [`GOES_ON`], or the disposition of a packet that ends here.
#[inline(always)]
fn admit<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    let (to, from) = tables.watched_pair(work.packet.destination_port, work.packet.source_port);
    if !to && !from {
        return Counter::PacketNoService as u32;
    }
    if work.packet.flags & tcp_flag::SYN != 0 {
        return opening(tables, work, to, to && from);
    }
    set_key(work, if to { direction::REQUEST } else { direction::RESPONSE });
    if !tables.find(&work.key) {
        let made = unknown(tables, work, to && from);
        if made != GOES_ON {
            return made;
        }
    }
    if work.present == 0 && work.packet.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::PIECES) == 0 {
        acknowledged(tables, work);
        return Counter::PacketEmpty as u32;
    }
    GOES_ON
}

/// A SYN or SYN-ACK, to (`to`) a watched port or from one; `both` where both ends are watched. As [`admit`].
///
/// Once a connection; like [`unknown`] and [`begin`] a function of its own in the kernel: what its many ways leave in
/// registers and on the stack is gone behind it, and does not multiply what follows.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn opening<T: Tables>(tables: &mut T, work: &mut Work, to: bool, both: bool) -> u32 {
    if work.packet.flags & tcp_flag::ACK == 0 {
        return opened(tables, work);
    }
    set_key(work, if to { direction::REQUEST } else { direction::RESPONSE });
    let found = tables.find(&work.key) || (both && find_response(tables, work));
    answered(tables, work, found) as u32
}

/// A segment of a flow that is not in the table in the direction that its ports say. As [`admit`].
#[cfg_attr(target_arch = "bpf", inline(never))]
fn unknown<T: Tables>(tables: &mut T, work: &mut Work, both: bool) -> u32 {
    if both && find_response(tables, work) {
        return GOES_ON;
    }
    if work.present == 0 {
        return Counter::PacketNoFlow as u32;
    }
    let Some((way, service)) = tables.place(&work.packet, work.present) else {
        return Counter::PacketNoService as u32;
    };
    if work.packet.flags & tcp_flag::FIN != 0 && way == direction::REQUEST {
        // The last bytes of a connection that is over, sent again because nobody acknowledged them.
        return Counter::PacketNoFlow as u32;
    }
    set_key(work, way);
    if !create(tables, work, service, flow_flag::PICKED_UP) || !tables.find(&work.key) {
        return Counter::PacketFlowTableFull as u32;
    }
    tables.count(Counter::FlowsPickedUp, 1);
    GOES_ON
}

/// Both ports are watched, and it is no request: looks for the flow that it answers.
#[inline(always)]
fn find_response<T: Tables>(tables: &mut T, work: &mut Work) -> bool {
    set_key(work, direction::RESPONSE);
    tables.find(&work.key)
}

/// A segment that only acknowledges. Behind both ends it is the last of its connection: what came before it, sent again,
/// still found its flow.
#[inline(always)]
fn acknowledged<T: Tables>(tables: &mut T, work: &mut Work) {
    let flow = tables.flow();
    // SAFETY: the flow is valid; a number is written whole.
    let flags = unsafe {
        if work.direction == u32::from(direction::RESPONSE) {
            (&raw mut (*flow).request.acknowledged).write_volatile(work.packet.acknowledgement);
        }
        (&raw const (*flow).flags).read_volatile()
    };
    if flags & flow_flag::FIN_BOTH == flow_flag::FIN_BOTH {
        tables.delete(&work.key);
        tables.count(Counter::FlowsDeleted, 1);
    }
}

/// Makes the key for a packet of this direction.
#[inline(always)]
fn set_key(work: &mut Work, way: u8) {
    work.key = key_of(&work.packet, way);
    work.direction = u32::from(way);
}

/// A SYN: a fresh flow, whatever was there before, unless it is the very SYN that the flow there began with, sent or seen
/// again. (Looking a flow up marks it as used; a flood of SYNs finds none, and pushes no live one out.)
#[inline(always)]
fn opened<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    let Some((way, service)) = tables.place(&work.packet, 0) else {
        return Counter::PacketNoService as u32;
    };
    if way != direction::REQUEST {
        // A service that connects out from its own port: not a request to it.
        return Counter::PacketNoService as u32;
    }
    set_key(work, direction::REQUEST);
    let mut found = tables.find(&work.key);
    if !(found && began_with(tables.flow(), work.sequence)) {
        if !create(tables, work, service, flow_flag::OPENED) {
            return Counter::PacketFlowTableFull as u32;
        }
        found = work.present > 0 && tables.find(&work.key);
    }
    // Data in the SYN (TCP Fast Open, RFC 7413).
    if work.present > 0 && found {
        work.sequence = work.sequence.wrapping_add(1);
        return GOES_ON;
    }
    Counter::PacketSyn as u32
}

/// True when the flow's request half began behind a SYN with this sequence number.
#[inline(always)]
fn began_with(flow: *mut Flow, sequence: u32) -> bool {
    // SAFETY: the environment's flow pointer is valid while its packet is handled; the fields may be written meanwhile,
    // each is read whole.
    unsafe {
        let opened = (&raw const (*flow).flags).read_volatile() & flow_flag::OPENED != 0;
        let next = (&raw const (*flow).request.next_sequence).read_volatile();
        let consumed = (&raw const (*flow).request.consumed).read_volatile();
        opened && next.wrapping_sub(consumed as u32) == sequence.wrapping_add(1)
    }
}

/// A SYN-ACK: the response half begins.
#[inline(always)]
fn answered<T: Tables>(tables: &mut T, work: &mut Work, found: bool) -> Counter {
    if !found {
        let Some((way, service)) = tables.place(&work.packet, 0) else { return Counter::PacketNoService };
        if way != direction::RESPONSE {
            return Counter::PacketNoService;
        }
        set_key(work, direction::RESPONSE);
        if !create(tables, work, service, 0) || !tables.find(&work.key) {
            return Counter::PacketFlowTableFull;
        }
    }
    if work.direction == u32::from(direction::RESPONSE) {
        let flow = tables.flow();
        // SAFETY: the environment's flow pointer is valid while its packet is handled.
        unsafe {
            if (*flow).response.flags & half_flag::STARTED == 0 {
                (*flow).response.next_sequence = work.sequence.wrapping_add(1);
                (*flow).response.flags |= half_flag::STARTED;
                // The handshake says where the client's stream begins.
                (&raw mut (*flow).request.acknowledged).write_volatile(work.packet.acknowledgement);
            }
        }
    }
    Counter::PacketSyn
}

/// Makes a flow; it is not looked up.
#[inline(always)]
fn create<T: Tables>(tables: &mut T, work: &mut Work, service: u16, flags: u32) -> bool {
    let blank = tables.blank();
    if blank.is_null() {
        return false;
    }
    let now = tables.now();
    // SAFETY: the environment gives a valid flow that nobody else uses.
    let inserted = unsafe {
        words::clear(blank);
        (*blank).id.created_ns = now;
        (*blank).id.salt = work.key.salt();
        (*blank).service = service;
        (*blank).flags = flags;
        if flags & flow_flag::PICKED_UP != 0 {
            (*blank).request.parser.phase = phase::LOST;
            (*blank).response.parser.phase = phase::LOST;
        }
        if flags & flow_flag::OPENED != 0 {
            (*blank).request.next_sequence = work.sequence.wrapping_add(1);
            (*blank).request.flags = half_flag::STARTED;
        }
        tables.insert(&work.key, &*blank)
    };
    if inserted {
        tables.count(Counter::FlowsCreated, 1);
    }
    inserted
}

/// Payload (or the end) of a half: locks it, and prepares the parser if it is needed.
///
/// A function of its own in the kernel: what its many ways leave in registers and on the stack is gone behind it. Gives
/// [`Work::stage`]: the verifier refuses a function that leaves an address where its result would be.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn begin<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    begun(tables, work);
    work.stage
}

#[inline(always)]
fn begun<T: Tables>(tables: &mut T, work: &mut Work) {
    let half = half_of(tables.flow(), work.direction);
    // SAFETY: `half` points into the valid flow; its lock word is only touched through `lock`.
    if !unsafe { lock::acquire(&raw mut (*half).lock) } {
        busy(tables, work);
        work.disposition = Counter::PacketBusy as u32;
        return;
    }
    // SAFETY: the lock is held: nobody else writes this half.
    if unsafe { inside_body(tables, work, &mut *half) } {
        // SAFETY: as above.
        unsafe { lock::release(&raw mut (*half).lock) };
        work.disposition = Counter::PacketData as u32;
        return;
    }
    work.stage = stage::LOCKED;
    // SAFETY: the lock is held: nobody else writes this half.
    let disposition = unsafe { locked(tables, work, &mut *half) };
    // Out of order, it was decided there.
    if !matches!(disposition, Counter::PacketSlow) {
        work.disposition = disposition as u32;
    }
    if work.packet.flags & tcp_flag::SYN != 0 {
        work.disposition = Counter::PacketSyn as u32;
    }
}

/// The bulk of all bytes: a segment in order that lies inside a body which nobody looks at. True if it was that: then it
/// is done.
#[inline(always)]
fn inside_body<T: Tables>(tables: &mut T, work: &Work, half: &mut Half) -> bool {
    const ODD: u32 = tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST | tcp_flag::PIECES;
    let new = work.present;
    if half.parser.phase != phase::BODY
        || half.next_sequence != work.sequence
        || half.parser.remaining <= u64::from(new)
        || half.parser.head_flags & (head_flag::TEE | head_flag::EXPECT) != 0
        || work.packet.flags & ODD != 0
    {
        return false;
    }
    let flow = tables.flow();
    // SAFETY: the flow is valid; a flag set meanwhile by the other half is seen at the next segment.
    if unsafe { (&raw const (*flow).flags).read_volatile() } & (flow_flag::SLOW | flow_flag::PASSED) != 0 {
        return false;
    }
    half.next_sequence = half.next_sequence.wrapping_add(new);
    tables.count(Counter::BytesNew, u64::from(new));
    pass_over(tables, half, new);
    true
}

/// Bytes of a body that are only counted.
#[inline(always)]
fn pass_over<T: Tables>(tables: &mut T, half: &mut Half, new: u32) {
    half.parser.remaining = half.parser.remaining.wrapping_sub(u64::from(new));
    half.parser.body_bytes += u64::from(new);
    half.consumed += u64::from(new);
    tables.count(Counter::BytesSkipped, u64::from(new));
}

/// Behind the parser: writes the half back, gives it free, and closes the flow if this was its end.
#[inline(always)]
fn conclude<T: Tables>(tables: &mut T, work: &mut Work) {
    // Never null behind `begin`; the verifier, which knows nothing of `stage`, wants to see it.
    if tables.flow().is_null() {
        return;
    }
    let half = half_of(tables.flow(), work.direction);
    if work.stage == stage::BUSY {
        return;
    }
    // SAFETY: the lock is held: nobody else writes this half.
    unsafe {
        if work.stage == stage::PARSE {
            parsed(tables, work, &mut *half);
        } else if work.stage == stage::SLOW {
            slow::handed_over(tables, work, &mut *half);
        }
    }
    // SAFETY: as in `begin`.
    unsafe { lock::release(&raw mut (*half).lock) };
    if work.packet.flags & (tcp_flag::FIN | tcp_flag::RST) != 0 && work.in_order != 0 {
        closed(tables, work);
    }
}

/// The half stays busy on another CPU: the segment goes to the slow path, which waits for the half's state.
#[inline(always)]
fn busy<T: Tables>(tables: &mut T, work: &mut Work) {
    let flow = tables.flow();
    // SAFETY: the flow is valid; these bits are written through `lock` only.
    unsafe {
        if (&raw const (*flow).flags).read_volatile() & flow_flag::PASSED != 0 {
            return;
        }
        lock::set_bits(&raw mut (*flow).flags, flow_flag::SLOW);
    }
    // Where the half is is not known.
    work.in_order = 0;
    slow::send(work, kind::SEGMENT, phase::HANDED);
    work.stage = stage::BUSY;
}

#[inline(always)]
fn half_of(flow: *mut Flow, way: u32) -> *mut Half {
    // SAFETY: the flow is valid; only addresses are taken.
    unsafe { if way == u32::from(direction::REQUEST) { &raw mut (*flow).request } else { &raw mut (*flow).response } }
}

/// With the half's lock held.
#[inline(always)]
fn locked<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) -> Counter {
    let (sequence, present) = (work.sequence, work.present);
    if half.flags & half_flag::STARTED == 0 {
        half.flags |= half_flag::STARTED;
        half.next_sequence = sequence;
    }
    let mut ahead = sequence.wrapping_sub(half.next_sequence) as i32;
    // An end counts only where the stream is: a reset or FIN from anywhere else is not the peer's.
    // (A reset behind a FIN stands one further: the FIN has a number of its own.)
    work.in_order = u32::from(ahead == 0 || ahead == 1);
    let flow = tables.flow();
    // SAFETY: the flow is valid; a flag set meanwhile by the other half is seen at the next segment.
    let mut flags = unsafe { (&raw const (*flow).flags).read_volatile() };
    let pieces = work.packet.flags & tcp_flag::PIECES;
    let fin_ahead = ahead > 0 && work.packet.flags & tcp_flag::FIN != 0;
    let foreign_reset = work.packet.flags & tcp_flag::RST != 0 && work.in_order == 0;
    if present == 0 && ahead != 0 && (flags & flow_flag::SLOW == 0 || foreign_reset) && !fin_ahead && pieces == 0 {
        return Counter::PacketEmpty;
    }
    if !(0..=HOLE_MAX).contains(&ahead) && misplaced(tables, work, half, flags) {
        half.next_sequence = sequence;
        ahead = 0;
        work.in_order = 1;
    }
    if ahead > HOLE_MAX {
        return Counter::PacketHole;
    }
    if flags & (flow_flag::SLOW | flow_flag::PASSED) == flow_flag::SLOW
        || (ahead as u32 | pieces != 0 && flags & flow_flag::PASSED == 0)
    {
        work.disposition = out_of_order(tables, work, half, flags, ahead);
        if work.disposition != u32::MAX {
            return Counter::PacketSlow;
        }
        // SAFETY: as above.
        flags = unsafe { (&raw const (*flow).flags).read_volatile() };
    }
    let mut skip = 0;
    if ahead < 0 {
        skip = ahead.unsigned_abs();
        // Bytes sent again with the end behind them: the end is new.
        if skip > present || (skip == present && work.packet.flags & tcp_flag::FIN == 0) {
            return Counter::PacketDuplicate;
        }
        work.in_order = 1;
    } else if ahead > 0 {
        hole(tables, work, half, ahead as u32, flags & flow_flag::PASSED != 0);
    }
    let new = present - skip;
    work.base = work.packet.payload_at + skip;
    let passed = flags & flow_flag::PASSED != 0;
    take(tables, work, half, new, passed);
    match (passed, ahead > 0, new) {
        (false, true, _) => Counter::PacketHole,
        (_, _, 0) if skip > 0 => Counter::PacketDuplicate,
        (_, _, 0) => Counter::PacketEmpty,
        (true, _, _) => Counter::PacketPassed,
        _ => Counter::PacketData,
    }
}

/// The next `new` bytes of a half, which stand at `work.base`: skipped where nothing in them is of interest, else made
/// ready for the parser.
#[inline(always)]
fn take<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, new: u32, passed: bool) {
    half.next_sequence = half.next_sequence.wrapping_add(new);
    tables.count(Counter::BytesNew, u64::from(new));
    if passed {
        half.consumed += u64::from(new);
        tables.count(Counter::BytesSkipped, u64::from(new));
        return;
    }
    let ending = work.packet.flags & (tcp_flag::FIN | tcp_flag::RST) != 0;
    // The parser looks at bodies that are teed, and at the first bytes of one that may not come.
    let teed = half.parser.head_flags & (head_flag::TEE | head_flag::EXPECT) != 0;
    let body = (half.parser.phase == phase::BODY && half.parser.remaining > u64::from(new))
        || half.parser.phase == phase::UNTIL_CLOSE;
    if body && !teed && !ending {
        pass_over(tables, half, new);
    } else {
        work.end = new;
        work.ending = u32::from(ending);
        prepare(tables, work, half);
    }
}

/// Bytes of a half that the slow path follows: `work.present` of them, next in order, at the start of the frame. The
/// current flow, `work.key`, `work.direction` and `work.packet` are set.
///
/// # Safety
/// The current flow is valid and nobody else uses it.
pub unsafe fn follow<T: Tables>(tables: &mut T, work: &mut Work) {
    let flow = tables.flow();
    let half = half_of(flow, work.direction);
    work.stage = stage::LOCKED;
    work.base = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let passed = (*flow).flags & flow_flag::PASSED != 0;
        take(tables, work, &mut *half, work.present, passed);
        if work.stage == stage::PARSE && (work.end > 0 || work.parser.phase >= phase::COMPLETIONS) {
            let complete = tables.run(work);
            work.overrun = u32::from(!complete);
        }
        if work.stage == stage::PARSE {
            parsed(tables, work, &mut *half);
        }
    }
}

/// The slow path gives up waiting for `missing` bytes of a half that it follows.
///
/// # Safety
/// As for [`follow`].
pub unsafe fn gap<T: Tables>(tables: &mut T, work: &mut Work, missing: u32) {
    let flow = tables.flow();
    let half = half_of(flow, work.direction);
    // SAFETY: the caller's promise.
    unsafe { hole(tables, work, &mut *half, missing, (*flow).flags & flow_flag::PASSED != 0) };
}

/// A segment of a flow that the slow path follows, or one that does not begin where its half stands. Its disposition is
/// `u32::MAX` if the fast path goes on with it.
///
/// Cold, and a function of its own in the kernel, so that its ways do not multiply those around it.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn out_of_order<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, flags: u32, ahead: i32) -> u32 {
    match way(tables, work, half, flags, ahead) {
        Way::Done(counter) => counter as u32,
        Way::Slow => slow::hand_over(tables, work, half) as u32,
        Way::Fast => u32::MAX,
    }
}

/// Who goes on with a segment.
enum Way {
    /// Nobody: it is counted.
    Done(Counter),
    /// The slow path.
    Slow,
    /// The fast path.
    Fast,
}

#[inline(always)]
fn way<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, flags: u32, ahead: i32) -> Way {
    let pieces = work.packet.flags & tcp_flag::PIECES != 0;
    if flags & flow_flag::SLOW != 0 {
        return if !pieces && slow::resume(tables, work, half) { Way::Fast } else { Way::Slow };
    }
    let teed = half.parser.head_flags & head_flag::TEE != 0;
    if pieces {
        let missing = if ahead > 0 { ahead as u32 } else { 0 };
        if !slow::needs_them(half, missing, PIECES_MAX, teed) {
            return Way::Done(Counter::PacketFragment);
        }
    } else if ahead > 0 {
        if !slow::needs_them(half, ahead as u32, work.present, teed) {
            return Way::Fast;
        }
    } else {
        let fin = work.packet.flags & tcp_flag::FIN != 0;
        let back = ahead.unsigned_abs();
        // Bytes sent again with the end behind them: the end is new.
        let known = back > work.present || (back == work.present && !fin);
        let compare = slow::worth_comparing(tables, work, half);
        if known && compare {
            tables.count(Counter::SegmentsCompared, 1);
            slow::send(work, kind::AGAIN, phase::HANDED);
            work.stage = stage::AGAIN;
        }
        if known {
            return Way::Done(Counter::PacketDuplicate);
        }
        if !compare {
            return Way::Fast;
        }
    }
    // SAFETY: the flow is valid; these bits are written through `lock` only.
    unsafe { lock::set_bits(&raw mut (*tables.flow()).flags, flow_flag::SLOW) };
    Way::Slow
}

/// True when the half stands at a place where the stream is not (a forged SYN took it there, or a forged segment far
/// ahead), and the segment stands where it is: where the server says, which never acknowledged what was read; or, as long
/// as the server said nothing, where a start line begins the segment.
#[inline(always)]
fn misplaced<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, flags: u32) -> bool {
    if flags & (flow_flag::PASSED | flow_flag::SLOW) != 0 || work.present == 0 {
        return false;
    }
    let confirmed = half.acknowledged;
    let told = flags & flow_flag::OPENED != 0 && confirmed != 0;
    if told && work.sequence == confirmed && u64::from(half.next_sequence.wrapping_sub(confirmed)) > half.consumed {
        slow::between_messages(half);
        return true;
    }
    let fresh = !told && half.consumed == 0 && half.parser.phase == phase::START;
    if half.parser.phase != phase::LOST && !fresh {
        return false;
    }
    work.base = work.packet.payload_at;
    work.end = work.present;
    starts_a_message(tables, work)
}

/// Bytes that were never seen: inside a body of known length they change nothing but the count.
#[inline(always)]
fn hole<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, missing: u32, passed: bool) {
    let missing_bytes = u64::from(missing);
    tables.count(Counter::BytesNew, missing_bytes);
    tables.count(Counter::BytesGap, missing_bytes);
    half.next_sequence = half.next_sequence.wrapping_add(missing);
    half.consumed += missing_bytes;
    let flow = tables.flow();
    // SAFETY: the flow is valid; a flag set meanwhile is seen at the next segment.
    if unsafe { (&raw const (*flow).flags).read_volatile() } & flow_flag::PASSED != 0 {
        return;
    }
    let within = (half.parser.phase == phase::BODY && half.parser.remaining >= missing_bytes)
        || half.parser.phase == phase::UNTIL_CLOSE;
    if within {
        half.parser.remaining = half.parser.remaining.wrapping_sub(missing_bytes);
        half.parser.body_bytes += missing_bytes;
        if half.parser.remaining == 0 && half.parser.phase == phase::BODY {
            // Missing to its very end: what follows begins where the parser expects it.
            let chunked = half.parser.framing == framing::CHUNKED;
            half.parser.phase = if chunked { phase::CHUNK_END } else { phase::MESSAGE_DONE };
        }
        return;
    }
    // Who left HTTP has no place in it to lose.
    if passed || half.parser.phase == phase::LOST {
        return;
    }
    tables.count(Counter::Desynchronised, 1);
    if half.flags & half_flag::SLOT != 0 {
        half.flags &= !half_flag::SLOT;
        tables.slot_free(work);
    }
    // No whole response hides in what is missing behind the body, so the next one answers the request whose turn it is.
    let body = half.parser.phase == phase::BODY && missing_bytes - half.parser.remaining < SHORTEST_RESPONSE;
    // Its head flags stay: if somebody waits for the end of its body, `parsed` says that it was cut short.
    half.parser.flags = if body { state_flag::IN_TURN } else { state_flag::RESYNCHRONISED };
    half.parser.phase = phase::LOST;
}

/// Makes the scratch area ready for the parser.
#[inline(always)]
fn prepare<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) {
    // SAFETY: both are valid, and apart.
    unsafe { words::copy(&raw const half.parser, &raw mut work.parser) };
    work.stage = stage::PARSE;
    work.stream = half.consumed;
    work.pos = 0;
    work.window_at = 0;
    work.window_len = 0;
    work.open_from = 0;
    work.skipped = 0;
    work.overrun = 0;
    {
        let flow = tables.flow();
        // SAFETY: the flow is valid.
        work.service = u32::from(unsafe { (*flow).service });
    }
    if half.flags & half_flag::SLOT != 0 {
        half.flags &= !half_flag::SLOT;
        if !tables.slot_load(work) {
            tables.count(Counter::HeadSlotLost, 1);
            http::clear(&mut work.captured);
            work.parser.anomalies |= anomaly::CAPTURES_LOST;
        }
        tables.slot_free(work);
    } else if http::in_head(work.parser.phase) {
        // It got no slot: the head goes on with nothing, not with what another flow left in the scratch area.
        http::clear(&mut work.captured);
    }
    work.captured.query_len = 0;
    if work.end > 0 && (work.parser.phase == phase::LOST || work.parser.head_flags & head_flag::EXPECT != 0) {
        look_for_start(tables, work);
    }
}

/// The parser is through with the segment.
#[inline(always)]
fn parsed<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) {
    if work.overrun != 0 {
        tables.count(Counter::StepBudget, 1);
        http::lost(work, tables);
        work.skipped += u64::from(work.end - work.pos);
    }
    let consumed = half.consumed + u64::from(work.end);
    tables.count(Counter::BytesParsed, u64::from(work.end).wrapping_sub(work.skipped));
    tables.count(Counter::BytesSkipped, work.skipped);
    end_of_body(tables, work);
    if http::in_head(work.parser.phase) {
        suspend(tables, work, half, consumed);
    }
    // SAFETY: both are valid, and apart.
    unsafe { words::copy(&raw const work.parser, &raw mut half.parser) };
    half.consumed = consumed;
}

/// A half that lost its place looks whether the segment begins with a start line; so does one whose client waited for
/// `100 Continue` and was answered otherwise: it may keep its body to itself (RFC 9110 §10.1.1).
#[inline(always)]
fn look_for_start<T: Tables>(tables: &mut T, work: &mut Work) {
    let current = work.parser.phase;
    let expecting = current != phase::LOST;
    if expecting {
        if current != phase::BODY && current != phase::CHUNK_SIZE {
            return;
        }
        work.parser.head_flags &= !head_flag::EXPECT;
        let flow = tables.flow();
        // SAFETY: the flow is valid; the other half may write the number meanwhile, it is read whole.
        let answered = unsafe { (&raw const (*flow).answered).read_volatile() };
        if work.parser.body_bytes != 0 || answered.wrapping_sub(work.parser.txn) as i32 <= 0 {
            return;
        }
    }
    let found = starts_a_message(tables, work);
    if expecting {
        if found {
            work.parser.phase = phase::MESSAGE_DONE;
        }
        return;
    }
    let in_turn = found && work.parser.flags & state_flag::IN_TURN != 0;
    work.parser.flags = if in_turn { 0 } else { state_flag::RESYNCHRONISED };
    if !found {
        return;
    }
    work.parser.phase = phase::START;
    work.parser.flags |= state_flag::PICKED_UP;
    tables.count(Counter::Resynchronised, 1);
}

/// True when the segment's new bytes (at least one) begin like a start line.
#[inline(always)]
fn starts_a_message<T: Tables>(tables: &mut T, work: &mut Work) -> bool {
    let len = if work.end < 16 { work.end } else { 16 };
    let at = work.base;
    work.pos = 0;
    work.window_at = 0;
    // SAFETY: the window has `WINDOW` bytes.
    if !unsafe { tables.fill(at, work.window.as_mut_ptr(), len) } {
        return false;
    }
    work.window_len = len;
    let found = http::pick_up(work);
    // The first step fills the window anew.
    work.window_len = 0;
    found
}

/// The head goes on in the next segment: its captures are kept.
#[inline(always)]
fn suspend<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, consumed: u64) {
    let too_long = consumed.wrapping_sub(work.parser.message_at) > u64::from(tables.settings().head_bytes);
    // After a pick-up only a start line that is complete in its segment counts.
    let unproven = work.parser.flags & state_flag::PICKED_UP != 0 && http::in_request_line(work.parser.phase);
    if too_long || unproven {
        if too_long {
            tables.count(Counter::HeadTooLong, 1);
        }
        http::lost(work, tables);
        return;
    }
    let in_token = matches!(work.parser.phase, phase::TOKEN | phase::TOKEN_SPACE | phase::PERCENT);
    if in_token {
        work.parser.token_flags |= token_flag::SPLIT;
    }
    // A query credential interrupts the request line: its own bytes are not captured.
    let interrupted = (in_token && work.parser.next == place::QUERY) || work.parser.phase == phase::FRAGMENT;
    let end = work.pos;
    if work.captured.open != 0 && work.captured.open != crate::work::CLAIMS_DONE && !interrupted {
        http::flush_capture::<_, false>(work, tables, end);
    }
    if tables.slot_store(work) {
        half.flags |= half_flag::SLOT;
    } else {
        tables.count(Counter::HeadSlotLost, 1);
        work.parser.anomalies |= anomaly::CAPTURES_LOST;
        work.captured.open = 0;
    }
}

/// A body that is over although its framing does not say so: by FIN or RST (one that lasts until then is complete, any
/// other is cut short), or because its half lost its place.
#[inline(always)]
fn end_of_body<T: Tables>(tables: &mut T, work: &mut Work) {
    let current = work.parser.phase;
    let lost = current == phase::LOST && work.parser.head_flags != 0;
    let in_body = current == phase::BODY
        || current == phase::UNTIL_CLOSE
        || (phase::CHUNK_SIZE..=phase::UNKNOWN_BODY).contains(&current);
    if lost || (in_body && work.ending != 0) {
        http::announce_end(work, tables, current == phase::UNTIL_CLOSE);
        if !lost {
            work.parser.phase = phase::START;
        }
    }
}

/// Book-keeping behind FIN and RST; removes the flow when both sides are done.
#[inline(always)]
fn closed<T: Tables>(tables: &mut T, work: &mut Work) {
    let flags = work.packet.flags;
    let flow = tables.flow();
    let slow = work.stage == stage::SLOW;
    // SAFETY: the flow is valid; its flags are written through `lock` only.
    unsafe {
        if flags & tcp_flag::FIN != 0 {
            let fin = if work.direction == u32::from(direction::REQUEST) {
                flow_flag::FIN_REQUEST
            } else {
                flow_flag::FIN_RESPONSE
            };
            lock::set_bits(&raw mut (*flow).flags, fin);
        }
        let known = (&raw const (*flow).flags).read_volatile();
        if flags & tcp_flag::RST == 0 && known & flow_flag::FIN_BOTH != flow_flag::FIN_BOTH {
            return;
        }
        // Of a flow on the slow path, only that knows what was answered.
        if !slow && known & flow_flag::CLOSED == 0 && (*flow).requested != (*flow).answered {
            lock::set_bits(&raw mut (*flow).flags, flow_flag::CLOSED);
            tables.emit_end(work, kind::CLOSE, false);
        }
        // Whether a reset of a flow on the slow path stands where the stream does is not known here.
        if flags & tcp_flag::RST == 0 || slow {
            return;
        }
    }
    tables.delete(&work.key);
    tables.count(Counter::FlowsDeleted, 1);
}
