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
mod captures;
mod cookie;
mod head;
mod header;
mod length;
mod line;
mod pairing;
mod proxy;
mod target;
mod token;

use crate::flow::{Flow, phase};
use crate::reason::Counter;
use crate::siphash::Key;
use crate::slow;
use crate::wire::{EdgeKey, RouteConfig, RouteState, ServiceConfig, Settings, anomaly, direction, kind};
use crate::work::{WINDOW, Work};

pub use captures::{clear, flush_capture};
pub use head::announce_end;
pub use line::pick_up;

use captures::{
    close_capture, is_list, join_list, list_is_full, list_is_long, list_may_join, open_again, open_capture, shrink_list,
};

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
        cookie::cookie_skip(work);
        if work.parser.phase != phase::COOKIE_NAME || work.available() == 0 {
            return;
        }
    }
    cookie::cookie_name(work, env);
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

/// True for the half that the client sends.
#[inline(always)]
const fn is_request(work: &Work) -> bool {
    work.direction == direction::REQUEST as u32
}
