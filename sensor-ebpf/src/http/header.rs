//! Header lines: which header it is, and what is done with its value.

use super::length::gathered;
use super::line::{scan, take};
use super::{
    Env, close_capture, is_list, is_request, list_is_full, list_is_long, list_may_join, open_again, open_capture,
    state_flag, token, token_flag,
};
use crate::flow::phase;
use crate::route::SegmentHash;
use crate::swar::{below, equal, first, keep, literal, lower, splat};
use crate::wire::{self, anomaly, capture as captures, head_flag, place, service_flag};
use crate::work::Work;

const LF: u64 = splat(b'\n');

/// First eight bytes of every header name that means something here; a name that begins otherwise is skipped at once.
#[inline(always)]
fn known_start<E: Env>(work: &Work, env: &E) -> bool {
    let start = work.parser.name[0];
    if is_request(work) {
        if start == literal(b"authoriz")
            || start == literal(b"content-")
            || start == literal(b"x-forwar")
            || start == literal(b"user-age")
            || start == literal(b"forwarde")
            || start == literal(b"transfer")
            || start == literal(b"x-real-i")
        {
            return true;
        }
        env.service(work.service).is_some_and(|service| {
            service.flags & service_flag::HEADERS != 0
                && (service.headers[0].words[0] == start || service.headers[1].words[0] == start)
        })
    } else {
        if start == literal(b"content-")
            || start == literal(b"set-cook")
            || start == literal(b"transfer")
            || start == literal(b"location")
        {
            return true;
        }
        env.service(work.service).is_some_and(|service| {
            service.flags & service_flag::RESPONSE_HEADERS != 0
                && (service.response_headers[0].words[0] == start || service.response_headers[1].words[0] == start)
        })
    }
}

/// Name of a header, two words at a time: nearly all that mean something end in their second.
#[inline(always)]
pub fn name<E: Env>(work: &mut Work, env: &mut E) {
    let mut stopped = name_word(work);
    let colon = stopped && work.byte(0) == b':';
    // Of a name that is of no interest the end is not looked at, however the stream is cut.
    if !colon && work.parser.name_len >= 8 && !known_start(work, env) {
        work.parser.phase = phase::SKIP;
        return;
    }
    if !stopped && work.available() != 0 {
        stopped = name_word(work);
    }
    if !stopped || work.parser.phase != phase::NAME {
        return;
    }
    if work.byte(0) == b':' && work.parser.name_len != 0 {
        work.pos += 1;
        resolve(work, env);
        return;
    }
    // A line without a colon or without a name, or whitespace (RFC 9112 §5.1): servers differ.
    work.parser.anomalies |= anomaly::ODD_HEADER;
    work.parser.phase = phase::NAME_SPACE;
}

/// Gathers a word of a header's name; true at what ends it. A name that is too long is of no interest.
#[inline(always)]
fn name_word(work: &mut Work) -> bool {
    let (word, count, stopped) = take!(work, word => equal(word, splat(b':')) | below(word, splat(0x21)));
    if work.parser.name_len + count > wire::NAME_MAX as u32 {
        work.parser.phase = phase::SKIP;
        return true;
    }
    work.gather(lower(keep(word, count)), count);
    work.pos += count;
    stopped
}

/// Whitespace, or a control character, inside or behind the name of a header.
#[inline(always)]
pub fn name_space(work: &mut Work) {
    let byte = work.byte(0);
    if byte == b'\n' {
        work.pos += 1;
        work.parser.phase = phase::LINE_START;
    } else if byte <= b' ' {
        work.pos += 1;
    } else if byte == b':' && work.parser.name_len != 0 {
        // There are servers that take it: so the name counts.
        work.parser.phase = phase::NAME;
    } else {
        work.parser.phase = phase::SKIP;
    }
}

/// True if the service has credentials in that kind of place.
#[inline(always)]
fn looked_at<E: Env>(work: &Work, env: &E, flag: u32) -> bool {
    env.service(work.service).is_some_and(|service| service.flags & flag != 0)
}

/// The name is complete: decides what its value is for.
#[inline(always)]
fn resolve<E: Env>(work: &mut Work, env: &mut E) {
    let [first, second, third, _] = work.parser.name;
    let length = work.parser.name_len;
    let mut next = phase::SKIP;
    let mut header = 0;
    if is_request(work) {
        match (length, first) {
            (4, w) if w == literal(b"host") => {
                (next, header) = (phase::CAPTURE, captures::HOST as u8 + 1);
                if work.captured.record.captures[captures::HOST].len != 0 {
                    work.parser.anomalies |= anomaly::ODD_HOST;
                }
            }
            (6, w) if w == literal(b"expect") => work.parser.head_flags |= head_flag::EXPECT,
            (6, w) if w == literal(b"cookie") && looked_at(work, env, service_flag::COOKIES) => {
                next = phase::COOKIE_NAME;
            }
            (7, w) if w == literal(b"upgrade") => work.parser.head_flags |= head_flag::UPGRADE,
            (9, w) if w == literal(b"x-real-i") && second == literal(b"p") => {
                (next, header) = (phase::CAPTURE, captures::X_REAL_IP as u8 + 1);
            }
            (9, w) if w == literal(b"forwarde") && second == literal(b"d") => {
                (next, header) = (phase::CAPTURE, captures::FORWARDED as u8 + 1);
            }
            (10, w) if w == literal(b"user-age") && second == literal(b"nt") => next = phase::AGENT,
            (13, w)
                if w == literal(b"authoriz")
                    && second == literal(b"ation")
                    && looked_at(work, env, service_flag::AUTHORIZATION) =>
            {
                next = phase::AUTH_WORD;
                if work.parser.flags & state_flag::AUTHORIZATION != 0 {
                    work.parser.anomalies |= anomaly::MANY_AUTHORIZATIONS;
                }
                work.parser.flags |= state_flag::AUTHORIZATION;
            }
            (15, w) if w == literal(b"x-forwar") && second == literal(b"ded-for") => {
                (next, header) = (phase::CAPTURE, captures::X_FORWARDED_FOR as u8 + 1);
            }
            (16, w) if w == literal(b"content-") && second == literal(b"encoding") => {
                (next, header) = (phase::CAPTURE, captures::CONTENT_ENCODING as u8 + 1);
            }
            (12, w) if w == literal(b"content-") && second == literal(b"type") => {
                (next, header) = (phase::CAPTURE, captures::CONTENT_TYPE as u8 + 1);
            }
            _ => {}
        }
    } else {
        match (length, first) {
            (8, w) if w == literal(b"location") => (next, header) = (phase::CAPTURE, captures::LOCATION as u8 + 1),
            (10, w)
                if w == literal(b"set-cook")
                    && second == literal(b"ie")
                    && looked_at(work, env, service_flag::COOKIES) =>
            {
                next = phase::COOKIE_NAME;
                work.captured.set_cookie = 0;
            }
            (12, w) if w == literal(b"content-") && second == literal(b"type") => {
                (next, header) = (phase::CAPTURE, captures::CONTENT_TYPE as u8 + 1);
            }
            (16, w) if w == literal(b"content-") && second == literal(b"encoding") => {
                (next, header) = (phase::CAPTURE, captures::CONTENT_ENCODING as u8 + 1);
            }
            _ => {}
        }
    }
    if length == 14 && first == literal(b"content-") && second == literal(b"length") {
        (next, header) = (phase::GATHER, gathered::CONTENT_LENGTH);
    }
    if length == 17 && first == literal(b"transfer") && second == literal(b"-encodin") && third == literal(b"g") {
        (next, header) = (phase::GATHER, gathered::TRANSFER_ENCODING);
    }
    if next == phase::SKIP {
        next = custom(work, env);
        header = if next == phase::SKIP { 0 } else { NAMED };
    }
    work.parser.header = header;
    if next == phase::SKIP {
        work.parser.phase = phase::SKIP;
    } else {
        work.parser.next = next;
        work.parser.phase = phase::VALUE_SPACE;
    }
}

/// A header that the configuration names as a credential place.
#[inline(always)]
fn custom<E: Env>(work: &mut Work, env: &mut E) -> u8 {
    let request = is_request(work);
    let wanted = if request { service_flag::HEADERS } else { service_flag::RESPONSE_HEADERS };
    let found = env.service(work.service).and_then(|service| {
        if service.flags & wanted == 0 {
            return None;
        }
        if request { token::named(work, &service.headers) } else { token::named(work, &service.response_headers) }
    });
    match found {
        Some(index) => {
            work.parser.index = index;
            phase::AUTH_WORD
        }
        None => phase::SKIP,
    }
}

/// Whitespace in front of a value (RFC 9110 §5.6.3).
#[inline(always)]
pub fn value_space<E: Env>(work: &mut Work, env: &mut E) {
    let mut byte = work.byte(0);
    if byte == b' ' || byte == b'\t' || byte == b'\r' {
        work.pos += 1;
        // Nearly always exactly one.
        if work.available() == 0 {
            return;
        }
        byte = work.byte(0);
        if byte == b' ' || byte == b'\t' || byte == b'\r' {
            return;
        }
    }
    let next = work.parser.next;
    if byte == b'\n' {
        // The value may begin on a folded line.
        work.pos += 1;
        work.parser.flags |= state_flag::PENDING_VALUE;
        work.parser.phase = phase::LINE_START;
        return;
    }
    let continued = work.parser.token_flags & token_flag::CONTINUED != 0;
    work.parser.phase = next;
    work.parser.token_flags = 0;
    work.gather_start();
    match next {
        phase::CAPTURE if continued => open_again(work, u32::from(work.parser.header)),
        phase::CAPTURE => {
            open_capture(work, u32::from(work.parser.header));
            if is_list(work.captured.open) && list_may_join(&work.captured) {
                work.parser.phase = phase::LIST_JOIN;
            }
        }
        phase::GATHER => work.parser.scheme = 0,
        phase::AUTH_WORD => {
            work.parser.scheme = wire::scheme::BARE;
            open_capture(work, crate::work::CLAIMS);
        }
        phase::TOKEN => {
            let kind = place_of_value(work);
            token::begin_token(work, env, kind);
        }
        phase::AGENT => {
            let (hash, tail, len) = SegmentHash::new().parts();
            work.parser.name[0] = hash;
            work.parser.name[1] = tail;
            work.parser.name_len = len;
        }
        _ => {}
    }
}

/// Value of [`crate::flow::Parser::header`] while whitespace behind a scheme word is skipped.
pub const AUTHORIZATION: u8 = 100;
/// Value of [`crate::flow::Parser::header`] while the value of a header that the configuration names is read.
pub const NAMED: u8 = 101;

/// The place of the credential that a header's value is.
#[inline(always)]
pub fn place_of_value(work: &Work) -> u8 {
    match (is_request(work), work.parser.header) {
        (true, NAMED) => place::HEADER,
        (true, _) => place::AUTHORIZATION,
        (false, _) => place::RESPONSE_HEADER,
    }
}

/// Rest of a line that is of no interest.
#[inline(always)]
pub fn skip(work: &mut Work) {
    let (count, found) = scan!(work, word => equal(word, LF));
    work.pos += count;
    if found {
        work.pos += 1;
        work.parser.phase = phase::LINE_START;
    }
}

/// Value that is captured.
#[inline(always)]
pub fn capture(work: &mut Work) {
    if list_is_full(&work.captured) {
        work.parser.phase = phase::LIST_SHRINK;
        return;
    }
    // Of a redirect only the path: its query or fragment may be a credential (RFC 6749 §4.2.2).
    let (query, fragment) =
        if work.captured.open == captures::LOCATION as u32 + 1 { (splat(b'?'), splat(b'#')) } else { (LF, LF) };
    let (count, found) = scan!(work, word => equal(word, LF) | equal(word, query) | equal(word, fragment));
    work.pos += count;
    if is_list(work.captured.open) && work.open_from != work.pos && (list_is_long(work) || work.pos >= work.end) {
        work.parser.phase = phase::LIST_FLUSH;
    } else if found {
        work.parser.phase = phase::CAPTURE_DONE;
    }
}

/// The position is at the LF of a captured value, or where its capture is to end.
#[inline(always)]
pub fn capture_done<E: Env>(work: &mut Work, env: &mut E) {
    let at = work.pos;
    close_capture(work, env, at);
    if work.byte(0) == b'\n' {
        work.pos += 1;
        work.parser.next = phase::CAPTURE;
        work.parser.flags |= state_flag::PENDING_LINE;
        work.parser.phase = phase::LINE_START;
    } else {
        work.parser.phase = phase::SKIP;
    }
}

/// `User-Agent`: only its hash is kept.
#[inline(always)]
pub fn agent(work: &mut Work) {
    let mut hash = SegmentHash::from_parts(work.parser.name[0], work.parser.name[1], work.parser.name_len);
    let mut at = 0;
    let mut stopped = false;
    if work.available() >= 64 && hash.is_aligned() {
        let cursor = work.cursor(0);
        let mut special = false;
        macro_rules! absorb {
            ($($step:literal)*) => { $(
                if !special {
                    let word = cursor.word::<$step>();
                    if below(word, splat(0x0e)) == 0 {
                        hash.absorb_word(word);
                        at += 8;
                    } else {
                        special = true;
                    }
                }
            )* };
        }
        absorb!(0 1 2 3 4 5 6 7);
        // Read by every word but the last.
        let _ = special;
    }
    if at == 0 {
        let (word, count, end) = take!(work, word => below(word, splat(0x0e)));
        hash.absorb(keep(word, count), count);
        at = count;
        stopped = end;
    }
    let (state, tail, len) = hash.parts();
    work.parser.name[0] = state;
    work.parser.name[1] = tail;
    work.parser.name_len = len;
    work.pos += at;
    if stopped {
        // 0 means that there was none.
        work.captured.record.user_agent = hash.finish() | 1;
        work.parser.phase = phase::SKIP;
    }
}
