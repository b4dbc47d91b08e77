//! What of a head is kept: captures, opened at a value's first byte, copied segment by segment, closed at its last.
//!
//! Bytes flow from the frame into the scratch area's captures, bounded value by value; a list of what proxies added keeps
//! its end. Where a capture begins and ends is decided by whoever reads the value.

use super::{Env, token_flag};
use crate::flow::phase;
use crate::wire::anomaly;
use crate::work::{Captured, Work};

/// Forgets all captures.
#[inline(always)]
pub fn clear(captured: &mut Captured) {
    // SAFETY: a record is all integers.
    unsafe { crate::words::clear(&raw mut captured.record) };
    captured.len = 0;
    captured.open_at = 0;
    captured.open = 0;
    captured.query_len = 0;
    captured.query_credential = 0;
    captured.set_cookie = 0;
}

/// Opens the capture `which` (at least 1) again behind what it has: its value goes on, on a folded line.
#[inline(always)]
pub(super) fn open_again(work: &mut Work, which: u32) {
    let index = crate::work::bound::<{ crate::wire::capture::COUNT as u32 - 1 }>(which.wrapping_sub(1)) as usize;
    // SAFETY: masked to the array's length, a power of two.
    let span = unsafe { *work.captured.record.captures.as_ptr().add(index) };
    open_capture(work, which);
    if span.len == 0 {
        return;
    }
    work.captured.open_at = u32::from(span.at);
    if work.captured.room(1, crate::wire::VALUE_CAPTURE_MAX as u32) == 1 {
        let len = work.captured.len;
        // SAFETY: `place` is inside the buffer.
        unsafe { *work.captured.place(len) = b' ' };
        work.captured.len = len + 1;
    }
}

/// Opens a capture at the current position.
#[inline(always)]
pub(super) fn open_capture(work: &mut Work, which: u32) {
    work.captured.open = which;
    work.captured.open_at = work.captured.len;
    work.open_from = work.pos;
}

/// True for captures that are lists of what proxies added, one behind the other: of these the end is kept, because that
/// is what the nearest proxy wrote.
#[inline(always)]
pub(super) const fn is_list(open: u32) -> bool {
    open == crate::wire::capture::X_FORWARDED_FOR as u32 + 1 || open == crate::wire::capture::FORWARDED as u32 + 1
}

/// A list begins, or goes on: all its lines are one list (RFC 9110 §5.3). The end of what there is goes in front of the
/// new line, with a comma between them.
#[inline(always)]
pub(super) fn join_list(work: &mut Work) {
    let which =
        crate::work::bound::<{ crate::wire::capture::COUNT as u32 - 1 }>(work.captured.open.wrapping_sub(1)) as usize;
    // SAFETY: masked to the array's length, a power of two.
    let span = unsafe { work.captured.record.captures.as_mut_ptr().add(which) };
    // SAFETY: as above.
    let (at, len) = unsafe { (u32::from((*span).at), u32::from((*span).len)) };
    if work.captured.len + LIST_ROOM > crate::wire::CAPTURES_MAX as u32 {
        // No room for its end, which is what counts: without it the rest is worth nothing.
        // SAFETY: as above.
        unsafe { (*span).len = 0 };
        work.parser.anomalies |= anomaly::VALUE_CUT;
        work.captured.open = 0;
        work.parser.phase = phase::SKIP;
        return;
    }
    work.parser.phase = phase::CAPTURE;
    if len == 0 {
        return;
    }
    if at + len == work.captured.len {
        work.captured.open_at = at;
    } else {
        let to = work.captured.len;
        // It is no longer than what is copied.
        slide(&mut work.captured, at, to);
        work.captured.len = to + len;
    }
    let end = work.captured.len;
    // SAFETY: `place` leaves `COPY_MAX` bytes.
    unsafe { *work.captured.place(end) = b',' };
    work.captured.len = end + 1;
}

/// Capture bytes that a list may need at once: what is kept of it, a comma, and one segment's part.
const LIST_ROOM: u32 = 2 * KEPT + 8;

/// Bytes of a list that are kept: the last ones.
const KEPT: u32 = crate::wire::VALUE_CAPTURE_MAX as u32;

/// Copies [`KEPT`] capture bytes from `from` to `to`, lower ones first.
#[inline(always)]
fn slide(captured: &mut Captured, from: u32, to: u32) {
    let (from, to) = (captured.place(from).cast_const(), captured.place(to));
    // SAFETY: `place` leaves `COPY_MAX` bytes behind both.
    unsafe { crate::words::slide::<{ KEPT as usize / 8 }>(from, to) };
}

/// True if something of the list that begins was captured before, or there is little room left.
#[inline(always)]
pub(super) const fn list_may_join(captured: &Captured) -> bool {
    let [_, _, x_forwarded_for, forwarded, ..] = &captured.record.captures;
    x_forwarded_for.len | forwarded.len != 0 || captured.len + LIST_ROOM > crate::wire::CAPTURES_MAX as u32
}

/// True if more of the open list was read than is kept.
#[inline(always)]
pub(super) const fn list_is_long(work: &Work) -> bool {
    work.captured.len - work.captured.open_at + work.pos - work.open_from > KEPT
}

/// True if the open list has so many bytes that a segment's part of it might find no room.
#[inline(always)]
pub(super) const fn list_is_full(captured: &Captured) -> bool {
    is_list(captured.open) && captured.len - captured.open_at > KEPT
}

/// Drops the beginning of the open list, so that [`KEPT`] bytes are left. Done before a segment adds to it and when it is
/// complete: so the same bytes are kept however it was cut.
#[inline(always)]
pub(super) fn shrink_list(work: &mut Work) {
    work.parser.anomalies |= anomaly::VALUE_CUT;
    let (start, end) = (work.captured.open_at, work.captured.len);
    slide(&mut work.captured, end - KEPT, start);
    work.captured.len = start + KEPT;
}

/// How many of `wanted` bytes of the open list, up to position `to`, are to be copied: all, or the last of them in place of
/// what there is.
#[inline(always)]
fn end_of_list(work: &mut Work, to: u32, wanted: u32) -> u32 {
    let used = work.captured.len - work.captured.open_at;
    if used + wanted <= 2 * KEPT {
        return wanted;
    }
    // At most `KEPT` bytes are there, so at least as many come.
    work.parser.anomalies |= anomaly::VALUE_CUT;
    let kept = if wanted < KEPT { wanted } else { KEPT };
    work.captured.len = work.captured.open_at;
    work.open_from = to - kept;
    kept
}

/// Copies what the open capture has up to position `to`. `LIST`: it may be a list.
#[inline(always)]
pub fn flush_capture<E: Env, const LIST: bool>(work: &mut Work, env: &mut E, to: u32) {
    let list = LIST && is_list(work.captured.open);
    let most = match work.captured.open {
        _ if list => LIST_ROOM,
        1 => crate::wire::LINE_CAPTURE_MAX as u32,
        crate::work::CLAIMS => crate::wire::CLAIMS_CAPTURE_MAX as u32,
        _ => crate::wire::VALUE_CAPTURE_MAX as u32,
    };
    if to <= work.open_from || work.captured.open == 0 {
        return;
    }
    let mut wanted = to - work.open_from;
    if list {
        wanted = end_of_list(work, to, wanted);
    }
    let room = work.captured.room(wanted, most);
    if room < wanted {
        match work.captured.open {
            1 => work.parser.anomalies |= anomaly::LINE_CUT,
            crate::work::CLAIMS => work.parser.token_flags |= token_flag::CLAIMS_CUT,
            _ => work.parser.anomalies |= anomaly::VALUE_CUT,
        }
    }
    let at = work.base + work.open_from;
    work.open_from = to;
    if room == 0 {
        return;
    }
    let len = work.captured.len;
    let place = work.captured.place(len);
    // SAFETY: `place` leaves `COPY_MAX` bytes, and `room` is at most `CLAIMS_CAPTURE_MAX`.
    if unsafe { env.copy(at, place, room) } {
        work.captured.len = len + room;
    } else {
        work.parser.anomalies |= anomaly::CAPTURES_LOST;
    }
}

/// Completes the open capture at position `to`, without trailing whitespace.
#[inline(always)]
pub(super) fn close_capture<E: Env>(work: &mut Work, env: &mut E, to: u32) {
    flush_capture::<E, false>(work, env, to);
    let start = work.captured.open_at;
    let mut len = work.captured.len - start;
    for _ in 0..2 {
        if len == 0 {
            break;
        }
        let last = work.captured.byte(start + len - 1);
        if last != b'\r' && last != b' ' {
            break;
        }
        len -= 1;
    }
    let which =
        crate::work::bound::<{ crate::wire::capture::COUNT as u32 - 1 }>(work.captured.open.wrapping_sub(1)) as usize;
    let span = crate::wire::Span { at: start as u16, len: len as u16 };
    // SAFETY: masked to the array's length, a power of two.
    unsafe { *work.captured.record.captures.as_mut_ptr().add(which) = span };
    work.captured.len = start + len;
    work.captured.open = 0;
}
