//! Segments that do not begin where their half stands: bytes that are missing, seen before, or from elsewhere.
//!
//! The segment and its half come in, locked. Out goes who goes on with it, the slow path, the fast path or nobody, and
//! what the half's state is behind bytes that will never be seen.

use super::Tables;
use super::parse::starts_a_message;
use super::repeats::is_known;
use crate::flow::{Half, flow_flag, half_flag, phase};
use crate::http::state_flag;
use crate::lock;
use crate::packet::tcp_flag;
use crate::reason::Counter;
use crate::slow;
use crate::wire::{framing, head_flag, kind};
use crate::work::{Work, stage};

/// Most bytes of a segment that comes in IP fragments: how many it has, its first one does not say.
const PIECES_MAX: u32 = 65_535;
/// The shortest response that there is: a status line without a reason, and the empty line.
const SHORTEST_RESPONSE: u64 = b"HTTP/1.1 200\r\n\r\n".len() as u64;

/// A segment of a flow that the slow path follows, or one that does not begin where its half stands. Its disposition is
/// `u32::MAX` if the fast path goes on with it.
///
/// Cold, and a function of its own in the kernel, so that its ways do not multiply those around it.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn out_of_order<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, flags: u32, ahead: i32) -> u32 {
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
            if !is_known(tables, work, half) {
                slow::send(work, kind::AGAIN, phase::HANDED);
                work.stage = stage::AGAIN;
            }
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
pub(super) fn misplaced<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, flags: u32) -> bool {
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
pub(super) fn hole<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half, missing: u32, passed: bool) {
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
