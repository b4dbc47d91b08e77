//! One half of a flow, with its lock: where a segment stands in it, and which of its bytes are new.
//!
//! A segment of an admitted flow comes in; its new bytes go to `super::parse`, or are counted where nothing in them is of
//! interest. One that does not begin where the half stands is decided in `super::order`. Behind the parser the half is
//! written back and given free, and the flow goes when both its sides are done.

use super::Tables;
use super::order::{hole, misplaced, out_of_order};
use super::parse::{parsed, prepare};
use super::repeats::remember;
use crate::flow::{Flow, Half, flow_flag, half_flag, phase};
use crate::lock;
use crate::packet::tcp_flag;
use crate::reason::Counter;
use crate::slow;
use crate::wire::{direction, head_flag, kind};
use crate::work::{Work, stage};

/// A segment that begins further than this beyond the next expected byte is out of every window: ignored.
const HOLE_MAX: i32 = 1 << 26;

/// Payload (or the end) of a half: locks it, and prepares the parser if it is needed.
///
/// A function of its own in the kernel: what its many ways leave in registers and on the stack is gone behind it. Gives
/// [`Work::stage`]: the verifier refuses a function that leaves an address where its result would be.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn begin<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
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
pub(super) fn conclude<T: Tables>(tables: &mut T, work: &mut Work) {
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
            remember(tables, work);
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
pub(super) fn half_of(flow: *mut Flow, way: u32) -> *mut Half {
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
pub(super) fn take<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, new: u32, passed: bool) {
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
