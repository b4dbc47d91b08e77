//! Values that say where a body ends: gathered up to their line end, folded lines included, and understood.

use super::line::take;
use super::state_flag;
use crate::flow::phase;
use crate::swar::{below, decimal, first, keep, literal, lower, splat};
use crate::wire::{self, NO_LENGTH, anomaly, framing};
use crate::work::{Work, bound};

/// Headers whose short value is gathered ([`crate::flow::Parser::header`]).
pub mod gathered {
    /// `Content-Length`
    pub const CONTENT_LENGTH: u8 = 1;
    /// `Transfer-Encoding`
    pub const TRANSFER_ENCODING: u8 = 2;
}

/// Short value, gathered in small letters up to its line end. Whitespace only where more follows, and one space for all;
/// another control character stays in the value, which so is none that means anything.
#[inline(always)]
pub fn gather(work: &mut Work) {
    let (word, count, stopped) = take!(work, word => below(word, splat(0x21)));
    // What stands between the words so far and the next.
    let between = work.parser.scheme;
    if count == 0 {
        if stopped {
            between_words(work, between);
        }
        return;
    }
    // What there is room for depends on the bytes so far alone, never on how they were cut into segments.
    let space = u32::from(between != 0);
    let room = wire::NAME_MAX as u32 - work.parser.name_len;
    if room <= space {
        too_long(work);
        return;
    }
    if work.parser.header == gathered::CONTENT_LENGTH && work.parser.name_len == 0 && word as u8 == b'0' && between == 0
    {
        // As many of them as there are.
        work.parser.token_flags = LEADING_ZERO;
        work.pos += 1;
        plain_end(work);
        return;
    }
    // What has no room behind a space in this word, or in the name, comes with the next step.
    let most = if room < 8 { room } else { 8 } - space;
    let count = if count < most { count } else { most };
    let word = keep(lower(word), count);
    work.parser.scheme = 0;
    let word = if space == 0 { word } else { word << 8 | u64::from(between) };
    work.gather(word, count + space);
    work.pos += count;
    plain_end(work);
}

/// Right behind a gathered word, nearly always, the line ends: CR LF in one step, where both are at hand.
#[inline(always)]
fn plain_end(work: &mut Work) {
    if work.at_line_end() {
        work.pos += 2;
        line_end(work);
    }
}

/// Behind the LF of a gathered value: complete unless the next line is folded.
#[inline(always)]
fn line_end(work: &mut Work) {
    work.parser.flags |= state_flag::PENDING_LINE;
    work.parser.next = phase::GATHER;
    work.parser.phase = phase::LINE_START;
}

/// [`crate::flow::Parser::token_flags`]: the length began with zeros, which are not gathered.
const LEADING_ZERO: u8 = 1;
/// What stands for a control character between gathered words.
const CONTROL: u8 = 1;

/// The byte at the position stands between gathered words, or ends the line.
#[inline(always)]
fn between_words(work: &mut Work, between: u8) {
    let byte = work.byte(0);
    work.pos += 1;
    let empty = work.parser.name_len == 0 && work.parser.token_flags & LEADING_ZERO == 0;
    match byte {
        b'\n' => {
            if between == b'\r' || between == b' ' {
                work.parser.scheme = 0;
            }
            line_end(work);
        }
        _ if between == CONTROL => {}
        b' ' | b'\t' if empty => {}
        b' ' | b'\t' if between == b'\r' => work.parser.scheme = CONTROL,
        b' ' | b'\t' => work.parser.scheme = b' ',
        b'\r' if between != b'\r' => work.parser.scheme = b'\r',
        _ => work.parser.scheme = CONTROL,
    }
}

/// The line of a gathered value is folded: its whitespace stands between words.
#[inline(always)]
pub fn fold_gathered(work: &mut Work) {
    let empty = work.parser.name_len == 0 && work.parser.token_flags & LEADING_ZERO == 0;
    if !empty && work.parser.scheme == 0 {
        work.parser.scheme = b' ';
    }
}

/// More than can be gathered.
#[inline(always)]
fn too_long(work: &mut Work) {
    if work.parser.header == gathered::CONTENT_LENGTH {
        bad_length(work);
        work.parser.phase = phase::SKIP;
        return;
    }
    // Its end says most: the beginning goes.
    work.parser.anomalies |= anomaly::ODD_CODING;
    let [.., third, fourth] = work.parser.name;
    let len = work.parser.name_len;
    work.gather_start();
    work.parser.name[0] = third;
    work.parser.name[1] = fourth;
    work.parser.name_len = len - 16;
}

/// A gathered value is complete.
#[inline(always)]
pub fn gather_done(work: &mut Work) {
    work.parser.phase = phase::LINE_START;
    if work.parser.header == gathered::CONTENT_LENGTH { content_length(work) } else { transfer_encoding(work) }
}

/// The gathered byte at `at` (below 32).
#[inline(always)]
fn gathered_byte(work: &Work, at: u32) -> u8 {
    let word = bound::<3>(at >> 3) as usize;
    // SAFETY: masked to the four words.
    (unsafe { *work.parser.name.as_ptr().add(word) } >> (8 * (at & 7))) as u8
}

/// `Content-Length` (RFC 9110 §8.6): digits, or a list of the same number.
#[inline(always)]
fn content_length(work: &mut Work) {
    let len = work.parser.name_len;
    let zeros = work.parser.token_flags & LEADING_ZERO != 0;
    let trailing = work.parser.scheme != 0;
    if len == 0 && !zeros && !trailing {
        // Servers refuse it, or read it as if it were not there.
        work.parser.anomalies |= anomaly::BAD_LENGTH;
        return;
    }
    if trailing {
        bad_length(work);
    } else if let Some(value) = decimal(work.parser.name[0], len) {
        length_is(work, value);
    } else {
        // A long one, or a list, or no number.
        work.parser.first_dot = 0;
        work.parser.second_dot = u32::from(zeros);
        work.parser.phase = phase::LENGTH_LIST;
    }
}

/// The only length of its head, of few digits, is taken at once: then true, and nothing is left to be done for it.
#[inline(always)]
pub fn plain(work: &mut Work) -> bool {
    let len = work.parser.name_len;
    if work.parser.header != gathered::CONTENT_LENGTH || work.parser.remaining != NO_LENGTH || work.parser.scheme != 0 {
        return false;
    }
    if len == 0 && work.parser.token_flags & LEADING_ZERO == 0 {
        return false;
    }
    let Some(value) = decimal(work.parser.name[0], len) else { return false };
    work.parser.remaining = value;
    true
}

/// A list of lengths (RFC 9110 §5.3): a byte of it. Two different ones are flagged, never guessed.
#[inline(always)]
pub fn length_list(work: &mut Work) {
    const BEFORE: u32 = 0;
    const DIGITS: u32 = 1;
    const BEHIND: u32 = 2;
    let at = work.parser.first_dot;
    let len = work.parser.name_len;
    let byte = if at < len { gathered_byte(work, at) } else { b',' };
    let digit = byte.wrapping_sub(b'0');
    let state = work.parser.second_dot;
    let value = work.parser.body_bytes;
    work.parser.first_dot = at + 1;
    if digit <= 9 && state != BEHIND && value < 1_000_000_000_000_000_000 {
        work.parser.body_bytes = value * 10 + u64::from(digit);
        work.parser.second_dot = DIGITS;
    } else if byte == b' ' {
        work.parser.second_dot = if state == BEFORE { BEFORE } else { BEHIND };
    } else if byte == b',' && state != BEFORE {
        length_is(work, value);
        work.parser.body_bytes = 0;
        work.parser.second_dot = BEFORE;
    } else {
        bad_length(work);
        work.parser.first_dot = len + 1;
    }
    if work.parser.first_dot > len {
        work.parser.body_bytes = 0;
        work.parser.phase = phase::LINE_START;
    }
}

/// One value of `Content-Length`.
#[inline(always)]
fn length_is(work: &mut Work, value: u64) {
    let known = work.parser.remaining;
    work.parser.remaining = value;
    if known != NO_LENGTH && known != value {
        bad_length(work);
    }
}

/// What the body's length is cannot be said.
#[inline(always)]
fn bad_length(work: &mut Work) {
    work.parser.anomalies |= anomaly::BAD_LENGTH;
    work.parser.framing = framing::UNKNOWN;
}

/// RFC 9112 §6.1: the body is chunked when that is the last coding.
#[inline(always)]
fn transfer_encoding(work: &mut Work) {
    const CHUNKED: u64 = literal(b"chunked");
    let again = work.parser.flags & state_flag::CODING != 0;
    work.parser.flags |= state_flag::CODING;
    let len = work.parser.name_len;
    let [start, ..] = work.parser.name;
    let trailing = work.parser.scheme != 0;
    if len == 7 && start == CHUNKED && !again && !trailing {
        work.parser.flags |= state_flag::CHUNKED;
        return;
    }
    let known = keep(start, 5) == literal(b"gzip,")
        || start == literal(b"deflate,")
        || start == literal(b"compress")
        || keep(start, 7) == literal(b"x-gzip,");
    if again || trailing || !known {
        work.parser.anomalies |= anomaly::ODD_CODING;
    }
    if len < 7 || trailing {
        return;
    }
    let from = len - 7;
    let word = bound::<3>(from >> 3) as usize;
    let shift = 8 * (from & 7);
    // SAFETY: both indexes are masked to the four words.
    let mut last = unsafe { *work.parser.name.as_ptr().add(word) } >> shift;
    if shift > 8 {
        // SAFETY: as above.
        last |= unsafe { *work.parser.name.as_ptr().add((word + 1) & 3) } << (64 - shift);
    }
    if keep(last, 7) == CHUNKED && (from == 0 || matches!(gathered_byte(work, from - 1), b',' | b' ')) {
        work.parser.flags |= state_flag::CHUNKED;
        return;
    }
    work.parser.anomalies |= anomaly::ODD_CODING;
    // Not the last coding: an error, of which servers make chunked if they make anything.
    if keep(start, 7) == CHUNKED && matches!(gathered_byte(work, 7), b',' | b' ' | b';') {
        work.parser.flags |= state_flag::CHUNKED;
    }
}
