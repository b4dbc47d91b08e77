//! In front of the parser and behind it: a half's state goes into the scratch area, and back.
//!
//! Everything that must survive a segment passes here: the parser's state, the captures of a head that goes on in the next
//! segment, and a place that was lost and is looked for again.

use super::Tables;
use crate::flow::{Half, half_flag, phase};
use crate::http::{self, state_flag, token_flag};
use crate::reason::Counter;
use crate::wire::{anomaly, head_flag, place};
use crate::words;
use crate::work::{Work, stage};

/// Makes the scratch area ready for the parser.
#[inline(always)]
pub(super) fn prepare<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) {
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
    work.goes_on = u32::from(http::in_head(work.parser.phase));
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
pub(super) fn parsed<T: Tables>(tables: &mut T, work: &mut Work, half: &mut Half) {
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
pub(super) fn starts_a_message<T: Tables>(tables: &mut T, work: &mut Work) -> bool {
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
