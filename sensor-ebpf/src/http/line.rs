//! Start lines: request line with its target and route, status line, and the pick-up of a stream in its middle.

use super::{Env, begin, close_capture, flush_capture, give_up, head, is_request, open_capture, proxy, state_flag};
use crate::flow::{flow_flag, phase};
use crate::reason::Counter;
use crate::swar::{below, equal, first, keep, literal, lower, splat};
use crate::wire::{self, anomaly, capture, method as methods};
use crate::work::{Work, bound};

const LF: u64 = splat(b'\n');
const SP: u64 = splat(b' ');
const HASH: u64 = splat(b'#');
/// First byte beyond the control characters among which are the line end and what stands for a space; CR is not.
const SEPARATORS: u64 = splat(0x0d);

/// White space that may stand between the words of a request line (RFC 9112 §3).
#[inline(always)]
pub(super) const fn separates(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}
/// Bytes gathered of a word behind the target.
const WORD_MAX: u32 = 16;
/// First byte beyond space and control characters.
const PRINTABLE: u64 = splat(0x21);

/// Between messages.
#[inline(always)]
pub fn start<E: Env>(work: &mut Work, env: &mut E) {
    let byte = work.byte(0);
    // Empty lines in front of a start line are ignored (RFC 9112 §2.2).
    if byte == b'\r' || byte == b'\n' {
        // Which they were is asked where a header of the PROXY protocol begins with them.
        work.parser.name[0] = work.parser.name[0] << 8 | u64::from(byte);
        work.pos += 1;
        return;
    }
    let position = work.stream + u64::from(work.pos);
    if position == 0 && byte <= 5 && negotiates(work, env, byte) {
        work.parser.phase = phase::LOST;
        return;
    }
    if is_request(work) {
        if !(byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~' | b' ' | b'\t'))
        {
            if byte == 0 && position == proxy::SIGNATURE_AT && proxy::begins_binary(work) && proxy::expected(work, env)
            {
                proxy::begin_binary(work);
            } else if position == work.parser.message_at {
                // At the very beginning, or right behind a header of the PROXY protocol.
                pass(work, env, byte == 0x16);
            } else {
                give_up(work);
            }
            return;
        }
        begin(work);
        open_capture(work, capture::LINE as u32 + 1);
        work.parser.phase = phase::METHOD;
        if byte == b' ' || byte == b'\t' {
            // There are servers that skip it.
            work.parser.anomalies |= anomaly::ODD_LINE;
            work.pos += 1;
            work.open_from = work.pos;
        }
    } else {
        begin(work);
        work.parser.phase = phase::STATUS;
    }
}

/// True for the first byte of SOCKS (RFC 1928, and its predecessor, whose answers begin with 0) where every flow is a
/// candidate: behind the handshake HTTP may follow, at the start of a segment. A declared service does not speak it.
#[inline(always)]
fn negotiates<E: Env>(work: &Work, env: &E, byte: u8) -> bool {
    // SAFETY: as in `pass`.
    let any = unsafe { (*env.flow()).service } == wire::NO_SERVICE;
    any && (byte == 5 || byte == if is_request(work) { 4 } else { 0 })
}

/// The flow is not HTTP/1.
#[inline(always)]
pub(super) fn pass<E: Env>(work: &mut Work, env: &mut E, tls: bool) {
    let flow = env.flow();
    // SAFETY: the environment's flow pointer is valid while its segment is parsed.
    unsafe { crate::lock::set_bits(&raw mut (*flow).flags, flow_flag::PASSED) };
    if tls {
        env.count(Counter::PassedTls, 1);
    }
    work.parser.phase = phase::LOST;
    work.captured.open = 0;
}

/// Reads up to eight bytes at the position: the word, how many of them are there, and where the first of `marks` is.
macro_rules! take {
    ($work:ident, $word:ident => $marks:expr) => {{
        let $word = $work.cursor(0).word::<0>();
        let available = $work.available();
        let valid = if available < 8 { available } else { 8 };
        let marks = $marks;
        let stop = if marks == 0 { 8 } else { first(marks) };
        let count = if stop < valid { stop } else { valid };
        ($word, count, stop < valid)
    }};
}
pub(super) use take;

/// Looks for the first of `marks` among the next 64 bytes at hand: how many bytes lie before it (or are there at all), and
/// whether it was found.
macro_rules! scan {
    ($work:ident, $word:ident => $marks:expr) => {{
        let cursor = $work.cursor(0);
        let available = $work.available();
        let mut at = 0;
        let mut found = false;
        scan!(@ cursor, at, found, $word => $marks, 0 1 2 3 4 5 6 7);
        if at < available { (at, found) } else { (available, false) }
    }};
    (@ $cursor:ident, $at:ident, $found:ident, $word:ident => $marks:expr, $($step:literal)*) => { $(
        if !$found {
            let $word = $cursor.word::<$step>();
            let marks = $marks;
            if marks == 0 {
                $at += 8;
            } else {
                $at += first(marks);
                $found = true;
            }
        }
    )* };
}
pub(super) use scan;

/// Method of a request line.
#[inline(always)]
pub fn method<E: Env>(work: &mut Work, env: &mut E) {
    let (word, count, stopped) = take!(work, word => below(word, PRINTABLE));
    if work.parser.name_len + count > 24 {
        // No method that is known, but a request all the same.
        work.parser.name_len = 24;
    } else {
        work.gather(keep(word, count), count);
    }
    work.pos += count;
    if !stopped {
        return;
    }
    let byte = work.byte(0);
    if byte != b' ' {
        if !separates(byte) || work.parser.name_len == 0 {
            work.parser.anomalies |= anomaly::BAD_LINE;
            give_up(work);
            return;
        }
        // Words may be separated by other white space than one SP (RFC 9112 §3).
        work.parser.anomalies |= anomaly::ODD_LINE;
    }
    work.pos += 1;
    if work.parser.message_at == 0 && proxy::expected(work, env) && proxy::begins(work, env) {
        return;
    }
    work.parser.method = method_id(work);
    work.parser.phase = phase::TARGET;
}

#[inline(always)]
fn method_id(work: &Work) -> u8 {
    const GET: u64 = literal(b"GET");
    const HEAD: u64 = literal(b"HEAD");
    const POST: u64 = literal(b"POST");
    const PUT: u64 = literal(b"PUT");
    const DELETE: u64 = literal(b"DELETE");
    const PATCH: u64 = literal(b"PATCH");
    const OPTIONS: u64 = literal(b"OPTIONS");
    const CONNECT: u64 = literal(b"CONNECT");
    if work.parser.name_len > 8 {
        return methods::OTHER;
    }
    match work.parser.name[0] {
        GET => methods::GET,
        HEAD => methods::HEAD,
        POST => methods::POST,
        PUT => methods::PUT,
        DELETE => methods::DELETE,
        PATCH => methods::PATCH,
        OPTIONS => methods::OPTIONS,
        CONNECT => methods::CONNECT,
        _ => methods::OTHER,
    }
}

/// Rest of the request line: skips to the next space or the line end.
#[inline(always)]
pub fn line_skip(work: &mut Work) {
    let (count, found) = scan!(work, word => below(word, SEPARATORS) | equal(word, SP) | equal(word, HASH));
    work.pos += count;
    if !found {
        return;
    }
    let byte = work.byte(0);
    if byte == b'\n' {
        work.parser.phase = phase::LINE_DONE;
    } else if byte == b'#' {
        work.parser.phase = phase::FRAGMENT_START;
    } else {
        work.pos += 1;
        if byte != b' ' {
            work.parser.anomalies |= anomaly::ODD_LINE;
            if !separates(byte) {
                return;
            }
        }
        work.gather_start();
        work.parser.phase = phase::LINE_WORD;
    }
}

/// No client sends a fragment (RFC 9112 §3.2.1); where one does, a credential may stand in it (RFC 6749 §4.2.2): it is not
/// captured.
#[inline(always)]
pub fn fragment_start<E: Env>(work: &mut Work, env: &mut E) {
    let at = work.pos;
    flush_capture::<_, false>(work, env, at);
    work.parser.phase = phase::FRAGMENT;
}

/// A fragment, up to the next space or the line end.
#[inline(always)]
pub fn fragment(work: &mut Work) {
    let (_, count, stopped) = take!(work, word => below(word, SEPARATORS) | equal(word, SP));
    work.pos += count;
    work.open_from = work.pos;
    if stopped {
        work.parser.phase = phase::LINE_SKIP;
    }
}

/// Gathers of a word behind the target; true at what ends it.
#[inline(always)]
fn gather_word(work: &mut Work) -> bool {
    let (word, count, stopped) = take!(work, word => below(word, SEPARATORS) | equal(word, SP) | equal(word, HASH));
    if work.parser.name_len + count > WORD_MAX {
        // Its beginning stays: a version may be written at any length (`HTTP/1.000…1`), and servers take it.
        work.parser.name_len = WORD_MAX + 1;
        work.parser.phase = phase::LINE_SKIP;
        return false;
    }
    work.gather(keep(word, count), count);
    work.pos += count;
    stopped
}

/// A word behind the target: the version, if it is the last. The CR behind it counts as its ninth byte.
#[inline(always)]
pub fn line_word(work: &mut Work) {
    let mut stopped = gather_word(work);
    if !stopped && work.available() != 0 && work.parser.phase == phase::LINE_WORD {
        stopped = gather_word(work);
    }
    if !stopped {
        return;
    }
    let byte = work.byte(0);
    if byte == b'\n' {
        work.parser.phase = phase::LINE_DONE;
        return;
    }
    work.parser.anomalies |= anomaly::ODD_LINE;
    if !separates(byte) {
        // A fragment, or a control character: what it is the end of is no word of its own.
        work.pos += u32::from(byte != b'#');
        work.parser.phase = phase::LINE_SKIP;
        return;
    }
    work.pos += 1;
    // Spaces at the end of the line leave the last word the last.
    if work.parser.name_len != 0 {
        if let Some(version) = version(work) {
            work.parser.version = version;
            work.parser.flags |= state_flag::VERSION_WORD;
        }
        work.gather_start();
    }
}

/// The version that the gathered word names: `Some(0)` for an HTTP version that is not known, however it goes on.
#[inline(always)]
fn version(work: &Work) -> Option<u8> {
    const HTTP: u64 = literal(b"http/");
    const HTTP_11: u64 = literal(b"http/1.1");
    const HTTP_10: u64 = literal(b"http/1.0");
    // Behind it stands nothing but the CR.
    let len = work.parser.name_len;
    let whole = len == 8 || (len == 9 && work.parser.name[1] == 13);
    match lower(work.parser.name[0]) {
        HTTP_11 if whole => Some(wire::version::HTTP_11),
        HTTP_10 if whole => Some(wire::version::HTTP_10),
        other if len >= 5 && keep(other, 5) == HTTP => Some(0),
        _ => None,
    }
}

/// The position is at the LF of the request line.
#[inline(always)]
pub fn line_done<E: Env>(work: &mut Work, env: &mut E) {
    const HTTP_20: u64 = literal(b"HTTP/2.0");
    let at = work.pos;
    let last_word_is_20 = work.parser.name[0] == HTTP_20 && work.parser.name_len >= 8;
    let blank = work.parser.name_len == 0 || (work.parser.name_len == 1 && work.parser.name[0] == 13);
    // A line with a version word has headers behind it, whatever else stands on it.
    let earlier = (work.parser.flags & state_flag::VERSION_WORD != 0).then_some(work.parser.version);
    let last = version(work);
    // Letters in another case, or digits that say the same or something else: servers differ.
    if last == Some(0) || (last.is_some() && keep(work.parser.name[0], 5) != literal(b"HTTP/")) {
        work.parser.anomalies |= anomaly::ODD_LINE;
    }
    work.parser.flags &= !state_flag::VERSION_WORD;
    close_capture(work, env, at);
    let version = match last.or(earlier) {
        None => version_alone(work),
        some => some,
    };
    copy_query_claims(work, env);
    work.pos += 1;
    // The preface "PRI * HTTP/2.0" is the first that a client sends (RFC 9113 §3.4), and nothing else is.
    let start = work.captured.open_at;
    // SAFETY: the environment's flow pointer is valid while its segment is parsed.
    let first = unsafe { (*env.flow()).requested } == 0;
    let preface = last_word_is_20
        && first
        && work.parser.method == methods::OTHER
        && work.captured.byte(start) == b'P'
        && work.captured.byte(start + 1) == b'R'
        && work.captured.byte(start + 2) == b'I'
        && work.captured.byte(start + 3) == b' ';
    if preface {
        env.count(Counter::PassedH2, 1);
        pass(work, env, false);
        return;
    }
    match version {
        Some(version) => {
            work.parser.version = version;
            work.parser.phase = phase::LINE_START;
        }
        // A simple request of HTTP/0.9 ends with its line; whatever the method, the server answers it.
        None if (work.parser.method == methods::GET || (blank && work.parser.method != methods::OTHER))
            && work.parser.flags & state_flag::PICKED_UP == 0 =>
        {
            work.parser.version = wire::version::HTTP_09;
            work.parser.phase = phase::HEAD_DONE;
        }
        None => {
            work.parser.anomalies |= anomaly::BAD_LINE;
            give_up(work);
        }
    }
}

/// The version of a line without a target (`GET HTTP/1.1`): no server has a resource of that name.
#[inline(always)]
fn version_alone(work: &mut Work) -> Option<u8> {
    let end = work.captured.len;
    if end < work.captured.open_at + 10 {
        return None;
    }
    let version = match work.captured.word(end - 8) {
        w if w == literal(b"HTTP/1.1") => wire::version::HTTP_11,
        w if w == literal(b"HTTP/1.0") => wire::version::HTTP_10,
        _ => return None,
    };
    if !separates(work.captured.byte(end - 9)) {
        return None;
    }
    work.parser.anomalies |= anomaly::ODD_LINE;
    Some(version)
}

/// Claims of a query credential go behind the request line, which had to stay in one piece.
#[inline(always)]
fn copy_query_claims<E: Env>(work: &mut Work, env: &mut E) {
    let wanted = work.captured.query_len;
    let owner = work.captured.query_credential;
    if wanted == 0 || owner == 0 {
        return;
    }
    work.captured.query_len = 0;
    work.captured.open_at = work.captured.len;
    let room = work.captured.room(wanted, wire::CLAIMS_CAPTURE_MAX as u32);
    if room < wanted || room == 0 {
        return;
    }
    let at = work.base + work.captured.query_from;
    let start = work.captured.len;
    let place = work.captured.place(start);
    // SAFETY: as in `flush_capture`.
    if !unsafe { env.copy(at, place, room) } {
        return;
    }
    work.captured.len = start + room;
    let index = bound::<{ wire::CREDENTIALS_MAX as u32 - 1 }>(owner - 1) as usize;
    // SAFETY: masked to the array's length.
    let credential = unsafe { &mut *work.captured.credentials.as_mut_ptr().add(index) };
    credential.claims = wire::Span { at: start as u16, len: room as u16 };
    credential.flags |= wire::credential_flag::CLAIMS;
    credential.flags &= !wire::credential_flag::CLAIMS_CUT;
}

/// Status line: version and code stand in its first twelve bytes (RFC 9112 §4).
#[inline(always)]
pub fn status<E: Env>(work: &mut Work, env: &mut E) {
    const HTTP: u64 = literal(b"http/");
    // Two words, nearly always.
    if !status_word(work) && (work.available() == 0 || !status_word(work)) {
        return;
    }
    let start = lower(work.parser.name[0]);
    if keep(start, 5) != HTTP {
        head::without_status(work, env);
        return;
    }
    work.parser.version = match start {
        v if v == literal(b"http/1.1") => wire::version::HTTP_11,
        v if v == literal(b"http/1.0") => wire::version::HTTP_10,
        _ => 0,
    };
    if work.parser.version == 0 {
        work.parser.anomalies |= anomaly::ODD_LINE;
    }
    let rest = work.parser.name[1];
    let digits = [(rest >> 8) as u8, (rest >> 16) as u8, (rest >> 24) as u8];
    if work.parser.name_len >= 12 && rest as u8 == b' ' && digits.iter().all(u8::is_ascii_digit) {
        work.parser.status =
            u16::from(digits[0] - b'0') * 100 + u16::from(digits[1] - b'0') * 10 + u16::from(digits[2] - b'0');
    } else {
        work.parser.anomalies |= anomaly::BAD_LINE;
    }
    work.parser.phase = phase::SKIP;
}

/// Gathers up to eight bytes of a status line; true when what is looked at of it is there.
#[inline(always)]
fn status_word(work: &mut Work) -> bool {
    const WANTED: u32 = 13;
    let (word, count, stopped) = take!(work, word => equal(word, LF));
    let missing = WANTED - work.parser.name_len;
    let count = if count < missing { count } else { missing };
    work.gather(keep(word, count), count);
    work.pos += count;
    work.parser.name_len >= WANTED || stopped
}

/// At the start of a segment of a half that lost its place: true if the bytes look like a start line.
#[inline(always)]
pub fn pick_up(work: &Work) -> bool {
    let available = work.available();
    if available < 5 {
        return false;
    }
    let word = work.cursor(0).word::<0>();
    if !is_request(work) {
        return keep(word, 5) == literal(b"HTTP/");
    }
    keep(word, 4) == literal(b"GET ")
        || keep(word, 5) == literal(b"POST ")
        || keep(word, 4) == literal(b"PUT ")
        || keep(word, 5) == literal(b"HEAD ")
        || (available >= 8
            && (keep(word, 7) == literal(b"DELETE ")
                || keep(word, 6) == literal(b"PATCH ")
                || word == literal(b"OPTIONS ")
                || word == literal(b"CONNECT ")))
}
