//! The resumable HTTP/1 parser: one state machine for kernel, replay and (later) the slow path.
//!
//! Bytes come in through the window of [`Work`]; [`step`] consumes at least one of them, or changes phase, and is called
//! until the segment is done. What must survive to the next segment stands in [`crate::flow::Parser`]. Completed heads
//! and body events go out through [`Env`].
//!
//! A step never waits for a fixed look-ahead: it works with the bytes at hand, so any cut of the same stream passes
//! through the same states at the same bytes.

mod attribute;
mod body;
mod head;
mod header;
mod length;
mod line;
mod proxy;
mod target;
mod token;

use crate::flow::{Flow, phase};
use crate::reason::Counter;
use crate::siphash::Key;
use crate::slow;
use crate::wire::{EdgeKey, RouteConfig, RouteState, ServiceConfig, Settings, anomaly, direction, kind};
use crate::work::{Captured, WINDOW, Work};

pub use head::announce_end;
pub use line::pick_up;

/// What the parser needs of its surroundings: the packet's bytes, the configuration, and places to put results.
pub trait Env {
    /// Copies `len` (1 to `COPY_MAX`) bytes at frame offset `at` to `to`; false if they are not there.
    ///
    /// # Safety
    /// `to` must be valid for writing `COPY_MAX` bytes.
    unsafe fn copy(&mut self, at: u32, to: *mut u8, len: u32) -> bool;
    /// Fills the window with `len` (1 to [`WINDOW`]) bytes at frame offset `at`.
    ///
    /// # Safety
    /// `to` must be valid for writing [`WINDOW`] bytes.
    unsafe fn fill(&mut self, at: u32, to: *mut u8, len: u32) -> bool;
    /// The configuration of a service.
    fn service(&self, service: u32) -> Option<&ServiceConfig>;
    /// The automaton's edge for a segment.
    fn edge(&self, key: &EdgeKey) -> Option<u32>;
    /// A state of the automaton.
    fn state(&self, state: u32) -> Option<&RouteState>;
    /// A route of a service.
    fn route(&self, service: u32, route: u16) -> Option<&RouteConfig>;
    /// What holds for all services.
    fn settings(&self) -> Settings;
    /// The fingerprint key.
    fn key(&self) -> Key;
    /// Adds to a total.
    fn count(&mut self, counter: Counter, by: u64);
    /// The flow that the segment belongs to.
    fn flow(&self) -> *mut Flow;
    /// Puts the finished head on the event ring (time is taken after the reserve), or counts the loss.
    fn emit_head(&mut self, work: &mut Work);
    /// Puts an `END` or `TEE_END` on its ring, or counts the loss.
    fn emit_end(&mut self, work: &mut Work, kind: u8, complete: bool);
    /// Puts the half's state, and its open head's captures, on the byte ring, or counts the loss.
    fn emit_handover(&mut self, work: &mut Work);
    /// Puts `len` (at most `TEE_CHUNK_MAX`) bytes at the position on the byte ring for the slow path, or counts the loss.
    fn emit_segment(&mut self, work: &mut Work, len: u32, last: bool);
    /// Puts `len` (1 to `TEE_CHUNK_MAX`) body bytes at frame offset `at` on the byte ring, or counts the loss.
    fn tee(&mut self, work: &mut Work, at: u32, len: u32);
    /// Calls [`step`] until it says that the segment is done, a bounded number of times; false if the bound was reached.
    fn run(&mut self, work: &mut Work) -> bool;
    /// Brings the captures of an unfinished head back.
    fn slot_load(&mut self, work: &mut Work) -> bool;
    /// Keeps the captures of an unfinished head.
    fn slot_store(&mut self, work: &mut Work) -> bool;
    /// Gives the slot free.
    fn slot_free(&mut self, work: &mut Work);
}

/// Bits of [`crate::flow::Parser::flags`].
pub mod state_flag {
    /// A credential is complete but for the proof that its line is not folded.
    pub const PENDING_TOKEN: u8 = 1;
    /// `Transfer-Encoding` ends with `chunked`.
    pub const CHUNKED: u8 = 2;
    /// `Transfer-Encoding` was seen.
    pub const CODING: u8 = 4;
    /// The message began at a pick-up: its start line must be complete in one segment.
    pub const PICKED_UP: u8 = 8;
    /// The value (or the list) that the line ended in goes on if the next line is folded: no credential stands open.
    pub const PENDING_VALUE: u8 = 16;
    /// An `Authorization` header was seen in this head.
    pub const AUTHORIZATION: u8 = 32;
    /// Of a half that lost its place: if the next segment begins with a start line, nothing is missing before it.
    pub const IN_TURN: u8 = 32;
    /// The half lost its place and found it again: the next response pairs with the newest request.
    pub const RESYNCHRONISED: u8 = 64;
    /// A version word stood on the request line.
    pub const VERSION_WORD: u8 = 128;
    /// Behind the request line: a captured or gathered value is complete unless the next line is folded.
    pub const PENDING_LINE: u8 = 128;
}

/// Bits of [`crate::flow::Parser::token_flags`].
pub mod token_flag {
    /// A quote was read that belongs to the credential only if more follows.
    pub const HELD_QUOTE: u8 = 1;
    /// Whitespace was read that belongs to the credential only if more follows.
    pub const HELD_SPACE: u8 = 2;
    /// Whitespace stood inside.
    pub const INNER_SPACE: u8 = 4;
    /// A percent escape stood inside.
    pub const PERCENT: u8 = 8;
    /// The claims were cut, or cannot be taken as they stand.
    pub const CLAIMS_CUT: u8 = 16;
    /// The credential began in an earlier segment.
    pub const SPLIT: u8 = 32;
    /// The first or the second of its parts is empty.
    pub const EMPTY_PART: u8 = 64;
    /// A captured value goes on, on a folded line.
    pub const CONTINUED: u8 = 128;
}

/// Bytes that a step may read behind its position.
const LOOK: u32 = 64;

/// One step. True when the segment is done.
#[inline(always)]
pub fn step<E: Env>(work: &mut Work, env: &mut E) -> bool {
    let current = work.parser.phase;
    if current >= phase::COMPLETIONS {
        return complete(work, env, current);
    }
    if work.pos >= work.end {
        return true;
    }
    if current == phase::BODY {
        body::known_length(work, env);
        return false;
    }
    if current == phase::UNTIL_CLOSE {
        body::until_close(work, env);
        return false;
    }
    if current == phase::LOST {
        work.skipped += u64::from(work.end - work.pos);
        work.pos = work.end;
        return true;
    }
    if work.pos + LOOK > work.window_at + work.window_len
        && work.window_at + work.window_len < work.end
        && !refill(work, env)
    {
        give_up(work);
        return false;
    }
    if matches!(
        current,
        phase::AGENT | phase::GATHER | phase::SKIP | phase::LINE_START | phase::NAME | phase::VALUE_SPACE
    ) {
        between_values(work, env, current);
        return false;
    }
    if matches!(current, phase::START | phase::METHOD | phase::TARGET | phase::STATUS) {
        start_line(work, env, current);
        return false;
    }
    if matches!(current, phase::COOKIE_NAME | phase::COOKIE_SKIP) {
        cookies(work, env, current);
        return false;
    }
    match current {
        phase::PATH => target::path(work, env),
        phase::QUERY_NAME => target::query_name(work, env),
        phase::QUERY_SKIP => target::query_skip(work),
        phase::LINE_SKIP => line::line_skip(work),
        phase::LINE_WORD => line::line_word(work),
        phase::FRAGMENT => line::fragment(work),
        phase::QUERY_ESCAPE => target::query_escape(work),
        phase::HEAD_END => head::head_end(work),
        phase::NAME_SPACE => header::name_space(work),
        phase::CAPTURE => header::capture(work),
        phase::AUTH_WORD => token::auth_word(work, env),
        phase::TOKEN => token::token(work),
        phase::TOKEN_SPACE => token::token_space(work),
        phase::PERCENT => token::percent(work),
        phase::ATTRIBUTE => attribute::value(work),
        phase::CHUNK_SIZE => body::chunk_size(work),
        phase::CHUNK_EXT => body::chunk_ext(work),
        phase::CHUNK_END => body::chunk_end(work),
        phase::TRAILER_START => body::trailer_start(work),
        phase::TRAILER_SKIP => body::trailer_skip(work),
        phase::TRAILER_END => body::trailer_end(work),
        phase::PROXY_LINE => proxy::line(work, env),
        phase::PROXY_BINARY => proxy::binary(work, env),
        phase::UNKNOWN_BODY => body::unknown(work),
        _ => give_up(work),
    }
    false
}

/// The first words of a message, as far as the bytes at hand go: as [`between_values`].
#[inline(always)]
fn start_line<E: Env>(work: &mut Work, env: &mut E, current: u8) {
    let mut current = current;
    if current == phase::START {
        line::start(work, env);
        current = work.parser.phase;
        if work.available() == 0 {
            return;
        }
    }
    if current == phase::STATUS {
        line::status(work, env);
        return;
    }
    if current == phase::METHOD {
        line::method(work, env);
        current = work.parser.phase;
        if work.available() == 0 {
            return;
        }
    }
    if current == phase::TARGET {
        target::target(work, env);
    }
}

/// From the rest of one line to the value of the next, in one step as far as the bytes at hand go: these phases follow
/// one another at every header, and a step of its own would cost each more than what it does.
#[inline(always)]
fn between_values<E: Env>(work: &mut Work, env: &mut E, current: u8) {
    let mut current = current;
    if current == phase::GATHER {
        length::gather(work);
        current = work.parser.phase;
        if current != phase::LINE_START || work.available() == 0 {
            return;
        }
    }
    if current == phase::AGENT {
        header::agent(work);
        current = work.parser.phase;
        if current != phase::SKIP || work.available() == 0 {
            return;
        }
    }
    if current == phase::SKIP {
        header::skip(work);
        current = work.parser.phase;
        if current != phase::LINE_START || work.available() == 0 {
            return;
        }
    }
    if current == phase::LINE_START {
        head::line_start(work);
        current = work.parser.phase;
        if current != phase::NAME {
            return;
        }
    }
    if current == phase::NAME {
        header::name(work, env);
        current = work.parser.phase;
        if current != phase::VALUE_SPACE || work.available() == 0 {
            return;
        }
    }
    header::value_space(work, env);
}

/// The rest of one cookie and the name of the next: as [`between_values`].
#[inline(always)]
fn cookies<E: Env>(work: &mut Work, env: &mut E, current: u8) {
    if current == phase::COOKIE_SKIP {
        token::cookie_skip(work);
        if work.parser.phase != phase::COOKIE_NAME || work.available() == 0 {
            return;
        }
    }
    token::cookie_name(work, env);
}

/// A completion: consumes nothing. True when the segment is done.
#[inline(always)]
fn complete<E: Env>(work: &mut Work, env: &mut E, current: u8) -> bool {
    match current {
        phase::LINE_DONE => line::line_done(work, env),
        phase::CAPTURE_DONE => header::capture_done(work, env),
        phase::CLAIMS_DONE => token::claims_done(work, env),
        phase::TOKEN_DONE => token::token_done(work, env),
        phase::HEAD_DONE => head::head_done(work, env),
        phase::MESSAGE_DONE => head::message_done(work, env),
        phase::LIST_JOIN => join_list(work),
        phase::LIST_SHRINK => {
            shrink_list(work);
            work.parser.phase = phase::CAPTURE;
        }
        phase::LIST_FLUSH => {
            let to = work.pos;
            flush_capture::<_, true>(work, env, to);
            work.parser.phase = phase::CAPTURE;
        }
        phase::PROXY_DONE => proxy::done(work),
        phase::PROXY_BAD => proxy::bad(work, env),
        phase::HANDOVER => {
            env.emit_handover(work);
            work.parser.phase = phase::HANDED;
        }
        phase::HANDED => return slow::piece(work, env),
        phase::RESUMED => {
            env.emit_end(work, kind::RESUMED, true);
            work.parser.phase = phase::START;
        }
        phase::GATHER_DONE => length::gather_done(work),
        phase::LENGTH_LIST => length::length_list(work),
        phase::ATTRIBUTE_DONE => attribute::done(work),
        phase::FRAGMENT_START => line::fragment_start(work, env),
        phase::ODD_CHUNK => body::odd_chunk(work, env),
        _ => {
            // Of a head that leaves no record.
            head::count_anomalies(work, env);
            lost(work, env);
        }
    }
    false
}

#[inline(always)]
fn refill<E: Env>(work: &mut Work, env: &mut E) -> bool {
    let left = work.end - work.pos;
    let len = if left < WINDOW as u32 { left } else { WINDOW as u32 };
    work.window_at = work.pos;
    work.window_len = len;
    let at = work.base + work.pos;
    // SAFETY: the window has at least `WINDOW` bytes.
    unsafe { env.fill(at, work.window.as_mut_ptr(), len) }
}

/// True while the half is inside a head (its captures must survive the segment).
#[inline(always)]
pub const fn in_head(current: u8) -> bool {
    current >= phase::METHOD && current <= phase::HEAD_END
}

/// True while the half is inside a request line.
#[inline(always)]
pub const fn in_request_line(current: u8) -> bool {
    current >= phase::METHOD && current <= phase::LINE_WORD
}

/// The next step calls [`lost`], which so is compiled once for all steps.
#[inline(always)]
fn give_up(work: &mut Work) {
    work.parser.phase = phase::GIVE_UP;
}

/// Gives up the place in the stream: nothing more of this half is understood until a start line begins a segment.
#[inline(always)]
pub fn lost<E: Env>(work: &mut Work, env: &mut E) {
    env.count(Counter::Desynchronised, 1);
    work.parser.phase = phase::LOST;
    work.parser.flags = state_flag::RESYNCHRONISED;
    work.captured.open = 0;
}

/// Makes ready for a new message at the current position.
#[inline(always)]
fn begin(work: &mut Work) {
    let keep = work.parser.flags & (state_flag::PICKED_UP | state_flag::RESYNCHRONISED);
    work.parser.flags = keep;
    // What a body showed belongs to the head behind it too: that it begins here is one reading.
    work.parser.anomalies = if work.parser.anomalies & (anomaly::ODD_CHUNK | anomaly::BAD_LENGTH) != 0 {
        anomaly::AFTER_ODD_BODY
    } else {
        0
    };
    work.gather_start();
    work.parser.remaining = crate::wire::NO_LENGTH;
    work.parser.body_bytes = 0;
    work.parser.message_at = work.stream + u64::from(work.pos);
    work.parser.status = 0;
    work.parser.route = crate::wire::NO_ROUTE;
    work.parser.method = 0;
    work.parser.version = 0;
    work.parser.framing = 0;
    work.parser.head_flags = 0;
    clear(&mut work.captured);
}

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

/// True for the half that the client sends.
#[inline(always)]
const fn is_request(work: &Work) -> bool {
    work.direction == direction::REQUEST as u32
}

/// Opens the capture `which` (at least 1) again behind what it has: its value goes on, on a folded line.
#[inline(always)]
fn open_again(work: &mut Work, which: u32) {
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
fn open_capture(work: &mut Work, which: u32) {
    work.captured.open = which;
    work.captured.open_at = work.captured.len;
    work.open_from = work.pos;
}

/// True for captures that are lists of what proxies added, one behind the other: of these the end is kept, because that
/// is what the nearest proxy wrote.
#[inline(always)]
const fn is_list(open: u32) -> bool {
    open == crate::wire::capture::X_FORWARDED_FOR as u32 + 1 || open == crate::wire::capture::FORWARDED as u32 + 1
}

/// A list begins, or goes on: all its lines are one list (RFC 9110 §5.3). The end of what there is goes in front of the
/// new line, with a comma between them.
#[inline(always)]
fn join_list(work: &mut Work) {
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
const fn list_may_join(captured: &Captured) -> bool {
    let [_, _, x_forwarded_for, forwarded, ..] = &captured.record.captures;
    x_forwarded_for.len | forwarded.len != 0 || captured.len + LIST_ROOM > crate::wire::CAPTURES_MAX as u32
}

/// True if more of the open list was read than is kept.
#[inline(always)]
const fn list_is_long(work: &Work) -> bool {
    work.captured.len - work.captured.open_at + work.pos - work.open_from > KEPT
}

/// True if the open list has so many bytes that a segment's part of it might find no room.
#[inline(always)]
const fn list_is_full(captured: &Captured) -> bool {
    is_list(captured.open) && captured.len - captured.open_at > KEPT
}

/// Drops the beginning of the open list, so that [`KEPT`] bytes are left. Done before a segment adds to it and when it is
/// complete: so the same bytes are kept however it was cut.
#[inline(always)]
fn shrink_list(work: &mut Work) {
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
fn close_capture<E: Env>(work: &mut Work, env: &mut E, to: u32) {
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
