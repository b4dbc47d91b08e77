//! Bodies: skipped by length, by chunk, or until the connection closes; teed where somebody wants them.

use super::line::take;
use super::{Env, give_up, line};
use crate::flow::phase;
use crate::reason::Counter;
use crate::swar::{below, equal, first, hex_digit, splat};
use crate::wire::{TEE_CHUNK_MAX, anomaly, framing, head_flag};
use crate::work::Work;

/// Takes up to `wanted` body bytes at the position.
#[inline(always)]
fn take_body<E: Env>(work: &mut Work, env: &mut E, wanted: u64) -> u32 {
    let left = work.end - work.pos;
    let mut count = if wanted < u64::from(left) { wanted as u32 } else { left };
    if work.parser.head_flags & head_flag::TEE != 0 {
        if count > TEE_CHUNK_MAX as u32 {
            count = TEE_CHUNK_MAX as u32;
        }
        let at = work.base + work.pos;
        env.tee(work, at, count);
    }
    work.pos += count;
    work.skipped += u64::from(count);
    work.parser.body_bytes += u64::from(count);
    count
}

/// Body of known length, or the data of one chunk.
#[inline(always)]
pub fn known_length<E: Env>(work: &mut Work, env: &mut E) {
    let remaining = work.parser.remaining;
    let count = take_body(work, env, remaining);
    work.parser.remaining = remaining - u64::from(count);
    if work.parser.remaining == 0 {
        if work.parser.framing == framing::CHUNKED {
            work.parser.phase = phase::CHUNK_END;
        } else {
            work.parser.phase = phase::MESSAGE_DONE;
        }
    }
}

/// Behind a head whose lengths contradict each other: no length is guessed. What begins there like a start line is read
/// (a server that reads no body sees it), and said to stand behind an odd body; anything else loses the place.
#[inline(always)]
pub fn unknown(work: &mut Work) {
    if line::pick_up(work) {
        work.parser.anomalies |= anomaly::BAD_LENGTH;
        work.parser.phase = phase::MESSAGE_DONE;
    } else {
        give_up(work);
    }
}

/// Body until the connection closes.
#[inline(always)]
pub fn until_close<E: Env>(work: &mut Work, env: &mut E) {
    take_body(work, env, u64::MAX);
}

/// Bits of [`crate::flow::Parser::token_flags`] between chunks.
mod chunk_flag {
    /// The last byte was a CR.
    pub const CR: u8 = 1;
    /// Whitespace stood behind the size.
    pub const SPACE: u8 = 2;
    /// An extension began.
    pub const EXTENSION: u8 = 4;
    /// Inside the quotes of an extension's value.
    pub const QUOTED: u8 = 8;
    /// The last byte inside quotes was a backslash.
    pub const ESCAPED: u8 = 16;
}

/// Bit of [`crate::flow::Parser::name_len`] while a chunk size is read: it did not fit.
const OVERFLOW: u32 = 2;

/// Chunk size (RFC 9112 §7.1), a byte a step.
#[inline(always)]
pub fn chunk_size(work: &mut Work) {
    let byte = work.byte(0);
    let digit = hex_digit(byte);
    if digit < 16 {
        // Digits that do not fit fall out at the upper end, as they do in servers that do not look.
        let fits = work.parser.remaining >> 60 == 0;
        work.parser.name_len |= if fits { 1 } else { OVERFLOW };
        work.parser.remaining = work.parser.remaining << 4 | u64::from(digit);
        work.pos += 1;
        if !fits {
            odd(work, phase::CHUNK_SIZE);
        }
        return;
    }
    work.parser.token_flags = 0;
    if work.parser.name_len == 0 {
        let space = byte == b' ' || byte == b'\t';
        work.pos += u32::from(space);
        odd(work, if space { phase::CHUNK_SIZE } else { phase::GIVE_UP });
    } else if work.parser.remaining >> 63 != 0 || (work.parser.name_len > 1 && work.parser.remaining != 0) {
        // Signed in some servers, cut to what fits in others, and in none the size of anything. (Cut to 0 it may hide a
        // message: that one is read, and said to stand behind an odd body.)
        odd(work, phase::GIVE_UP);
    } else if byte == b'\r' {
        work.pos += 1;
        work.parser.token_flags = chunk_flag::CR;
        work.parser.phase = phase::CHUNK_EXT;
    } else {
        work.parser.phase = phase::CHUNK_EXT;
    }
}

/// Rest of the chunk size line.
#[inline(always)]
pub fn chunk_ext(work: &mut Work) {
    let flags = work.parser.token_flags;
    if flags == chunk_flag::EXTENSION {
        let (_, count, stopped) = take!(work, word => below(word, splat(0x0e)) | equal(word, splat(b'"')));
        work.pos += count;
        if !stopped {
            return;
        }
    }
    let byte = work.byte(0);
    work.pos += 1;
    if byte == b'\n' {
        work.parser.token_flags = 0;
        let next = if work.parser.remaining == 0 { phase::TRAILER_START } else { phase::BODY };
        // Only CR LF is a line end here, and quotes do not reach over it.
        let spaces = flags & (chunk_flag::SPACE | chunk_flag::EXTENSION) == chunk_flag::SPACE;
        if flags & chunk_flag::CR == 0 || flags & chunk_flag::QUOTED != 0 || spaces {
            odd(work, next);
        } else {
            work.parser.phase = next;
        }
        return;
    }
    if flags & chunk_flag::CR != 0 {
        // A CR in the middle.
        work.parser.token_flags = flags & !chunk_flag::CR;
        odd(work, if flags & chunk_flag::EXTENSION != 0 { phase::CHUNK_EXT } else { phase::GIVE_UP });
        return;
    }
    let quoted = flags & chunk_flag::QUOTED != 0;
    let plain = flags & !chunk_flag::ESCAPED;
    work.parser.token_flags = match byte {
        b'\r' => plain | chunk_flag::CR,
        _ if flags & chunk_flag::ESCAPED != 0 => plain,
        b'\\' if quoted => plain | chunk_flag::ESCAPED,
        b'"' if flags & chunk_flag::EXTENSION != 0 => plain ^ chunk_flag::QUOTED,
        b';' => plain | chunk_flag::EXTENSION,
        b' ' | b'\t' => plain | chunk_flag::SPACE,
        _ => {
            if flags & chunk_flag::EXTENSION == 0 {
                // `0x10`, `5 5`: some read on, others stop at the first digits.
                odd(work, phase::GIVE_UP);
            }
            plain
        }
    };
}

/// The chunk is read differently by servers: said and counted once a message, then on with `next`.
#[inline(always)]
fn odd(work: &mut Work, next: u8) {
    if work.parser.anomalies & anomaly::ODD_CHUNK != 0 {
        work.parser.phase = next;
        return;
    }
    work.parser.anomalies |= anomaly::ODD_CHUNK;
    work.after = u32::from(next);
    work.parser.phase = phase::ODD_CHUNK;
}

/// The first odd chunk of its message.
#[inline(always)]
pub fn odd_chunk<E: Env>(work: &mut Work, env: &mut E) {
    env.count(Counter::AnomalyOddChunk, 1);
    work.parser.phase = work.after as u8;
}

/// Line end behind chunk data.
#[inline(always)]
pub fn chunk_end(work: &mut Work) {
    let byte = work.byte(0);
    let cr = work.parser.token_flags & chunk_flag::CR != 0;
    if byte == b'\r' && !cr {
        work.pos += 1;
        work.parser.token_flags = chunk_flag::CR;
        return;
    }
    work.gather_start();
    work.parser.remaining = 0;
    work.parser.token_flags = 0;
    if byte == b'\n' {
        work.pos += 1;
        if cr {
            work.parser.phase = phase::CHUNK_SIZE;
            return;
        }
    }
    // A line end that is none, or half of one: servers that need none read on here.
    odd(work, phase::CHUNK_SIZE);
}

/// First byte of a trailer line, or of the empty line that ends the message.
#[inline(always)]
pub fn trailer_start(work: &mut Work) {
    match work.byte(0) {
        b'\r' => {
            work.pos += 1;
            work.parser.phase = phase::TRAILER_END;
        }
        b'\n' => {
            work.pos += 1;
            work.parser.phase = phase::MESSAGE_DONE;
        }
        _ => work.parser.phase = phase::TRAILER_SKIP,
    }
}

/// The LF of the empty line behind trailers.
#[inline(always)]
pub fn trailer_end(work: &mut Work) {
    if work.byte(0) == b'\n' {
        work.pos += 1;
        work.parser.phase = phase::MESSAGE_DONE;
    } else {
        work.parser.phase = phase::TRAILER_SKIP;
    }
}

/// Rest of a trailer line.
#[inline(always)]
pub fn trailer_skip(work: &mut Work) {
    let (_, count, stopped) = take!(work, word => equal(word, splat(b'\n')));
    work.pos += count;
    if stopped {
        work.pos += 1;
        work.parser.phase = phase::TRAILER_START;
    }
}
