//! Targets of request lines: the path through the route automaton, and the query, in whose parameters credentials stand.

use super::line::{separates, take};
use super::{Env, flush_capture, give_up, token, token_flag};
use crate::flow::phase;
use crate::route::SegmentHash;
use crate::swar::{below, equal, first, hex_digit, keep, splat};
use crate::wire::{self, EdgeKey, ROUTE_NOT_CANONICAL, anomaly, method as methods, place, service_flag};
use crate::work::{Work, bound};

const HASH: u64 = splat(b'#');
/// First byte beyond space and control characters.
const PRINTABLE: u64 = splat(0x21);

/// First byte of the target.
#[inline(always)]
pub fn target<E: Env>(work: &mut Work, env: &mut E) {
    let byte = work.byte(0);
    if byte <= b' ' {
        if !separates(byte) {
            work.parser.anomalies |= anomaly::BAD_LINE;
            give_up(work);
            return;
        }
        work.pos += 1;
        work.parser.anomalies |= anomaly::ODD_LINE;
        // More than one space: what follows may be the version of a line without a target.
        work.parser.name_len = 0;
        return;
    }
    work.parser.route_state = env.service(work.service).map_or(0, |service| service.route_root);
    if byte == b'/' {
        work.pos += 1;
    } else {
        // Absolute-form, authority-form, asterisk-form: user space classifies.
        work.parser.route = ROUTE_NOT_CANONICAL;
    }
    if byte == b'H' && work.parser.name_len == 0 {
        work.gather_start();
        work.parser.phase = phase::LINE_WORD;
        return;
    }
    segment_start(work);
    work.parser.phase = phase::PATH;
}

#[inline(always)]
fn segment_start(work: &mut Work) {
    set_segment(work, SegmentHash::new());
}

#[inline(always)]
fn set_segment(work: &mut Work, segment: SegmentHash) {
    let (hash, tail, len) = segment.parts();
    work.parser.name[0] = hash;
    work.parser.name[1] = tail;
    work.parser.name_len = len;
}

/// A word of the path, into the hash of its segment; true at what ends that.
#[inline(always)]
fn path_word(work: &mut Work) -> bool {
    let (word, count, stopped) = take!(work, word =>
        equal(word, splat(b'/')) | equal(word, splat(b'?')) | equal(word, splat(b'#')) | below(word, PRINTABLE));
    let part = keep(word, count);
    // A dot segment, an escape, a path parameter or a backslash: the server's normal form is another.
    if (work.parser.name_len == 0 && count > 0 && part as u8 == b'.')
        || equal(part, splat(b'%')) | equal(part, splat(b';')) | equal(part, splat(b'\\')) != 0
    {
        work.parser.route = ROUTE_NOT_CANONICAL;
    }
    let mut segment = SegmentHash::from_parts(work.parser.name[0], work.parser.name[1], work.parser.name_len);
    segment.absorb(part, count);
    set_segment(work, segment);
    work.pos += count;
    stopped
}

/// Path of the target, two words at a time: most segments end in their second.
#[inline(always)]
pub fn path<E: Env>(work: &mut Work, env: &mut E) {
    let mut stopped = path_word(work);
    if !stopped && work.available() != 0 {
        stopped = path_word(work);
    }
    if !stopped {
        return;
    }
    let byte = work.byte(0);
    if byte == b'/' {
        work.pos += 1;
        if work.parser.name_len == 0 {
            work.parser.route = ROUTE_NOT_CANONICAL;
        }
        walk(work, env);
        segment_start(work);
        return;
    }
    if byte == b'#' {
        // No client sends a fragment (RFC 9112 §3.2): some servers cut it off, others do not.
        work.parser.route = ROUTE_NOT_CANONICAL;
    }
    accept(work, env);
    work.gather_start();
    if byte == b'?' && env.service(work.service).is_some_and(|service| service.flags & service_flag::QUERY != 0) {
        work.pos += 1;
        work.parser.phase = phase::QUERY_NAME;
    } else if byte == b'\n' {
        work.parser.phase = phase::LINE_DONE;
    } else if byte == b' ' {
        work.pos += 1;
        work.parser.phase = phase::LINE_WORD;
    } else {
        // What stands there is read by the next phase, which begins a word behind it.
        work.parser.phase = phase::LINE_SKIP;
    }
}

/// One segment through the automaton.
#[inline(always)]
fn walk<E: Env>(work: &mut Work, env: &mut E) {
    let state = work.parser.route_state;
    if state == 0 {
        return;
    }
    let segment = SegmentHash::from_parts(work.parser.name[0], work.parser.name[1], work.parser.name_len);
    let key = EdgeKey { state, reserved: 0, segment: segment.finish() };
    work.parser.route_state = match env.edge(&key) {
        Some(next) => next,
        // A slash at the end changes nothing where no template has one ("/" alone is such a template).
        None if work.parser.name_len == 0 => state,
        None => env.state(state).map_or(0, |state| state.wildcard),
    };
}

/// The path is complete.
#[inline(always)]
fn accept<E: Env>(work: &mut Work, env: &mut E) {
    if work.parser.route == ROUTE_NOT_CANONICAL {
        return;
    }
    walk(work, env);
    let index = bound::<15>(u32::from(work.parser.method)) as usize;
    if work.parser.route_state == 0 || index >= methods::COUNT {
        return;
    }
    if let Some(state) = env.state(work.parser.route_state) {
        // SAFETY: checked against the array's length just above.
        work.parser.route = unsafe { *state.accept.as_ptr().add(index) };
    }
}

/// Name of a query parameter.
#[inline(always)]
pub fn query_name<E: Env>(work: &mut Work, env: &mut E) {
    let (word, count, stopped) = take!(work, word =>
        equal(word, splat(b'=')) | equal(word, splat(b'&')) | equal(word, splat(b';')) | equal(word, splat(b'%'))
            | equal(word, HASH) | below(word, PRINTABLE));
    if work.parser.name_len + count > wire::NAME_MAX as u32 {
        work.parser.phase = phase::QUERY_SKIP;
        return;
    }
    work.gather(keep(word, count), count);
    work.pos += count;
    if !stopped {
        return;
    }
    let byte = work.byte(0);
    // There are servers that take `;` for `&`.
    if byte == b'&' || byte == b';' {
        work.pos += 1;
        work.gather_start();
    } else if byte == b'%' {
        work.pos += 1;
        work.parser.token_flags = 0;
        work.parser.phase = phase::QUERY_ESCAPE;
    } else if byte == b'=' {
        work.pos += 1;
        match env.service(work.service).and_then(|service| token::named(work, &service.query)) {
            Some(index) => {
                let at = work.pos;
                flush_capture::<_, false>(work, env, at);
                work.parser.index = index;
                token::begin_token(work, env, place::QUERY);
            }
            None => work.parser.phase = phase::QUERY_SKIP,
        }
    } else {
        work.parser.phase = phase::LINE_SKIP;
        work.gather_start();
    }
}

/// The two digits of a percent escape in the name of a query parameter, which is compared decoded; a lone `%` stays.
#[inline(always)]
pub fn query_escape(work: &mut Work) {
    if work.parser.name_len + 2 > wire::NAME_MAX as u32 {
        work.parser.phase = phase::QUERY_SKIP;
        return;
    }
    let byte = work.byte(0);
    let digit = hex_digit(byte);
    let held = work.parser.token_flags & token_flag::HELD_QUOTE != 0;
    if digit == 16 {
        let lone = if held { u64::from(work.parser.scheme) << 8 } else { 0 };
        work.gather(lone | u64::from(b'%'), 1 + u32::from(held));
        work.parser.phase = phase::QUERY_NAME;
        return;
    }
    work.pos += 1;
    if held {
        let decoded = (work.parser.index & 0xf) << 4 | digit;
        work.gather(u64::from(decoded), 1);
        work.parser.phase = phase::QUERY_NAME;
    } else {
        work.parser.token_flags = token_flag::HELD_QUOTE;
        work.parser.scheme = byte;
        work.parser.index = digit;
    }
}

/// Value of a query parameter that is no credential.
#[inline(always)]
pub fn query_skip(work: &mut Work) {
    let (_, count, stopped) = take!(work, word =>
        equal(word, splat(b'&')) | equal(word, splat(b';')) | equal(word, HASH) | below(word, PRINTABLE));
    work.pos += count;
    if !stopped {
        return;
    }
    work.gather_start();
    if matches!(work.byte(0), b'&' | b';') {
        work.pos += 1;
        work.parser.phase = phase::QUERY_NAME;
    } else {
        work.parser.phase = phase::LINE_SKIP;
    }
}
