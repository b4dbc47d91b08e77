//! Bodies: skipped by length, by chunk, or until the connection closes; teed where somebody wants them.

use super::{Env, give_up};
use crate::flow::phase;
use crate::swar::hex_digit;
use crate::wire::{TEE_CHUNK_MAX, framing, head_flag};
use crate::work::Work;

/// Takes `count` body bytes at the position.
#[inline(always)]
fn take<E: Env>(work: &mut Work, env: &mut E, wanted: u64) -> u32 {
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
    let count = take(work, env, remaining);
    work.parser.remaining = remaining - u64::from(count);
    if work.parser.remaining == 0 {
        if work.parser.framing == framing::CHUNKED {
            work.parser.phase = phase::CHUNK_END;
        } else {
            work.parser.phase = phase::MESSAGE_DONE;
        }
    }
}

/// Body until the connection closes.
#[inline(always)]
pub fn until_close<E: Env>(work: &mut Work, env: &mut E) {
    take(work, env, u64::MAX);
}

/// Chunk size (RFC 9112 §7.1), a byte a step. Digits that do not fit fall out at the upper end, as they do in servers that
/// do not look; what is then still absurd is no chunk.
#[inline(always)]
pub fn chunk_size(work: &mut Work) {
    let byte = work.byte(0);
    let digit = hex_digit(byte);
    if digit < 16 {
        work.parser.name_len = 1;
        work.parser.remaining = work.parser.remaining << 4 | u64::from(digit);
        work.pos += 1;
        return;
    }
    if (work.parser.name_len == 0 && byte != b' ' && byte != b'\t') || work.parser.remaining >> 60 != 0 {
        give_up(work);
        return;
    }
    work.pos += 1;
    if byte == b'\n' { size_known(work) } else { work.parser.phase = phase::CHUNK_EXT }
}

/// Rest of the chunk size line.
#[inline(always)]
pub fn chunk_ext(work: &mut Work) {
    if work.byte(0) == b'\n' {
        if work.parser.name_len == 0 {
            give_up(work);
            return;
        }
        size_known(work);
    }
    work.pos += 1;
}

#[inline(always)]
fn size_known(work: &mut Work) {
    work.parser.phase = if work.parser.remaining == 0 { phase::TRAILER_START } else { phase::BODY };
}

/// Line end behind chunk data.
#[inline(always)]
pub fn chunk_end(work: &mut Work) {
    let byte = work.byte(0);
    if byte == b'\r' {
        work.pos += 1;
        return;
    }
    if byte == b'\n' {
        work.pos += 1;
    }
    work.gather_start();
    work.parser.remaining = 0;
    work.parser.phase = phase::CHUNK_SIZE;
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
    if work.byte(0) == b'\n' {
        work.parser.phase = phase::TRAILER_START;
    }
    work.pos += 1;
}
