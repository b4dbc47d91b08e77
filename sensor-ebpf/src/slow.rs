//! The border between the fast path and the slow path.
//!
//! The fast path follows a flow as long as its bytes come in order. Where they do not, it hands the flow over: the state
//! of each half goes out by value once, at that half's next segment, and then the segments themselves, whole and however
//! they come. The slow path goes on from there with the same functions, and when it stands between messages it says where
//! the fast path may take the flow back. Bytes below that place are the slow path's, bytes from there on the fast path's:
//! no byte is read by both, and none by neither.
//!
//! Decisions flow in from [`crate::engine`]; records flow out through [`Env`].

use crate::engine::Tables;
use crate::flow::{Flow, Half, flow_flag, half_flag, phase};
use crate::http::{self, Env};
use crate::lock;
use crate::packet::tcp_flag;
use crate::reason::Counter;
use crate::wire::{TEE_CHUNK_MAX, direction, framing, kind};
use crate::work::{Work, stage};

/// True when bytes are missing that the fast path cannot do without: those that end inside a body of known length, with
/// the segment behind them, change nothing that is looked at.
#[inline(always)]
pub fn needs_them(half: &Half, missing: u32, present: u32, teed: bool) -> bool {
    let parser = &half.parser;
    if parser.phase == phase::LOST {
        return false;
    }
    if parser.phase == phase::UNTIL_CLOSE {
        return teed;
    }
    let within = parser.phase == phase::BODY && parser.remaining >= u64::from(missing) + u64::from(present);
    !within || teed
}

/// Sends the segment, and before it the half's state if this is its first, to the slow path. The half is locked.
#[inline(always)]
pub fn hand_over<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) -> Counter {
    let sequence = work.sequence;
    let end = sequence.wrapping_add(work.present);
    work.slow_next = half.next_sequence;
    let beyond = end.wrapping_sub(half.next_sequence) as i32;
    // A reset behind a FIN stands one further, and has no bytes.
    if beyond > 0 && (work.present > 0 || work.packet.flags & tcp_flag::FIN != 0) {
        work.slow_next = end;
        tables.count(Counter::BytesNew, beyond as u64);
        tables.count(Counter::BytesHandedOver, beyond as u64);
    }
    if half.flags & half_flag::SLOW == 0 {
        half.flags |= half_flag::SLOW;
        half.epoch = half.epoch.wrapping_add(1);
        work.slow_captured = u32::from(half.flags & half_flag::SLOT != 0 && tables.slot_load(work));
        tables.count(Counter::HalvesHandedOver, 1);
        send(work, kind::SEGMENT, phase::HANDOVER);
    } else {
        if work.packet.flags & tcp_flag::PIECES != 0 {
            // The slow path may just offer the half where these bytes begin, which it does not know of yet: it has to
            // offer it anew.
            half.epoch = half.epoch.wrapping_add(1);
        }
        send(work, kind::SEGMENT, phase::HANDED);
    }
    work.stage = stage::SLOW;
    Counter::PacketSlow
}

/// Makes the scratch area ready to send the segment as records of `kind`.
#[inline(always)]
pub fn send(work: &mut Work, sent: u8, from: u8) {
    work.slow_kind = u32::from(sent);
    if sent != kind::AGAIN {
        work.slow_waiting = 0;
    }
    work.base = work.packet.payload_at;
    work.pos = 0;
    work.end = work.present;
    work.window_at = 0;
    work.window_len = 0;
    work.overrun = 0;
    work.parser.phase = from;
}

/// Behind the sending, with the half's lock held.
#[inline(always)]
pub fn handed_over<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) {
    // Where the half began is told from both: a SYN that is seen again is known by it.
    half.consumed += u64::from(work.slow_next.wrapping_sub(half.next_sequence));
    half.next_sequence = work.slow_next;
    if half.flags & half_flag::SLOT != 0 {
        half.flags &= !half_flag::SLOT;
        tables.slot_free(work);
    }
    if work.overrun != 0 {
        tables.count(Counter::StepBudget, 1);
    }
}

/// One piece of the segment. True when it was the last.
#[inline(always)]
pub fn piece<E: Env>(work: &mut Work, env: &mut E) -> bool {
    let left = work.end - work.pos;
    let len = if left < TEE_CHUNK_MAX as u32 { left } else { TEE_CHUNK_MAX as u32 };
    env.emit_segment(work, len, len == left);
    work.pos += len;
    work.pos >= work.end
}

/// Takes the flow back if the slow path left it where this segment begins: true if the segment is the fast path's. The
/// request half is locked.
///
/// Only a request begins anew: a response half moves when its request half does.
#[inline(always)]
pub fn resume<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) -> bool {
    if half.flags & half_flag::SLOW == 0 || !tables.resume_at(work) {
        return false;
    }
    let flow = tables.flow();
    // SAFETY: the flow is valid; its id does not change while it is in the table.
    let same = unsafe {
        (*flow).id.created_ns == work.resume.flow.created_ns
            && (*flow).id.salt == work.resume.flow.salt
            && u32::from(half.epoch) == work.resume.epoch
    };
    if !same {
        return false;
    }
    if work.resume.passed != 0 {
        // SAFETY: as above; these bits are written through `lock` only.
        unsafe {
            lock::set_bits(&raw mut (*flow).flags, flow_flag::PASSED);
            lock::clear_bits(&raw mut (*flow).flags, flow_flag::SLOW);
            // What the slow path saw answered is not unanswered when the connection closes.
            (&raw mut (*flow).requested).write_volatile(work.resume.requested);
            (&raw mut (*flow).answered).write_volatile(work.resume.answered);
        }
        half.flags &= !half_flag::SLOW;
        tables.resume_done(work);
        return true;
    }
    if work.direction != u32::from(direction::REQUEST)
        || work.sequence != half.next_sequence
        || half.next_sequence != work.resume.request_sequence
    {
        return false;
    }
    // SAFETY: as above.
    let response = unsafe { &raw mut (*flow).response };
    // SAFETY: as in the engine.
    if !unsafe { lock::try_acquire(&raw mut (*response).lock) } {
        return false;
    }
    // SAFETY: the lock is held.
    let taken = unsafe { take_back(flow, &mut *response, work) };
    // SAFETY: as above.
    unsafe { lock::release(&raw mut (*response).lock) };
    if taken {
        half.flags &= !half_flag::SLOW;
        half.consumed = work.resume.request_consumed;
        between_messages(half);
        half.parser.phase = phase::RESUMED;
        tables.resume_done(work);
        tables.count(Counter::FlowsResumed, 1);
    }
    taken
}

/// The response half and what both share, with both locks held.
///
/// # Safety
/// `flow` must be valid.
#[inline(always)]
unsafe fn take_back(flow: *mut Flow, response: &mut Half, work: &Work) -> bool {
    if response.flags & half_flag::SLOW == 0 || response.next_sequence != work.resume.response_sequence {
        return false;
    }
    response.flags &= !half_flag::SLOW;
    response.consumed = work.resume.response_consumed;
    between_messages(response);
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*flow).requested).write_volatile(work.resume.requested);
        (&raw mut (*flow).answered).write_volatile(work.resume.requested);
        lock::clear_bits(&raw mut (*flow).flags, flow_flag::SLOW);
    }
    true
}

/// Puts a half's parser between two messages.
#[inline(always)]
pub fn between_messages(half: &mut Half) {
    half.parser.phase = phase::START;
    half.parser.flags = 0;
    half.parser.head_flags = 0;
    half.parser.framing = framing::NONE;
}

/// True when a segment of seen bytes, of a request that nothing answered yet, is to be compared: the server may have read
/// this version and not the first.
#[inline(always)]
pub fn worth_comparing<T: Tables>(tables: &T, work: &mut Work, half: &Half) -> bool {
    if work.direction != u32::from(direction::REQUEST)
        || work.packet.flags & (tcp_flag::RST | tcp_flag::SYN) != 0
        || !tables.compares()
    {
        return false;
    }
    let flow = tables.flow();
    // SAFETY: the flow is valid; the response half may write `answered` meanwhile, which is read whole.
    let unanswered = unsafe {
        let answered = (&raw const (*flow).answered).read_volatile();
        (&raw const (*flow).requested).read_volatile().wrapping_sub(answered)
    };
    let open = http::in_head(half.parser.phase);
    let waiting = unanswered.wrapping_add(u32::from(open));
    if half.parser.phase == phase::LOST || waiting == 0 {
        return false;
    }
    work.slow_waiting = waiting;
    // The message's first byte, and the first one behind its head, stand that far behind the next one.
    let back = half.consumed.wrapping_sub(half.parser.message_at);
    let body = if open { 0 } else { half.parser.body_bytes };
    if back > 1 << 20 || body >= back {
        return false;
    }
    // SAFETY: as above; only the request half writes `requested`.
    work.parser.txn = if open { unsafe { (*flow).requested } } else { half.parser.txn };
    work.slow_from = half.next_sequence.wrapping_sub(back as u32);
    let head_end = half.next_sequence.wrapping_sub(body as u32);
    let end = work.sequence.wrapping_add(work.present);
    // SAFETY: as above.
    let acknowledged = unsafe { (&raw const (*flow).request.acknowledged).read_volatile() };
    // The server has these bytes: it will not read them again.
    if acknowledged != 0 && (end.wrapping_sub(acknowledged) as i32) <= 0 {
        return false;
    }
    // Of earlier requests only that they wait is known, not where they began.
    let reaches = waiting > 1 || (end.wrapping_sub(work.slow_from) as i32) > 0;
    reaches && (head_end.wrapping_sub(work.sequence) as i32) > 0
}
