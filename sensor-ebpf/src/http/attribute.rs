//! Attributes of a `Set-Cookie` that end the cookie's life: `Max-Age` and `Expires`.
//!
//! Their names come from the list of cookies (`token::cookie_name`), behind the cookie itself. The value is gathered up to
//! the next `;` or the line end, and goes into the flags of the credential that [`Captured::set_cookie`] names. All else
//! is skipped.
//!
//! [`Captured::set_cookie`]: crate::work::Captured::set_cookie

use super::line::take;
use super::token_flag;
use crate::flow::phase;
use crate::swar::{below, equal, first, keep, literal, lower, splat};
use crate::wire::{self, credential_flag};
use crate::work::{Work, bound};

/// Values of [`crate::flow::Parser::header`] while an attribute is read.
const MAX_AGE: u8 = 1;
const EXPIRES: u8 = 2;

/// The name of an attribute was gathered; the position is behind its `=`.
#[inline(always)]
pub fn named(work: &mut Work) {
    let name = lower(work.parser.name[0]);
    work.parser.header = match work.parser.name_len {
        7 if name == literal(b"max-age") => MAX_AGE,
        7 if name == literal(b"expires") => EXPIRES,
        _ => 0,
    };
    work.gather_start();
    work.parser.token_flags = 0;
    work.parser.phase = if work.parser.header == 0 { phase::COOKIE_SKIP } else { phase::ATTRIBUTE };
}

/// Value of an attribute, in small letters; whitespace only where more follows, and one space for all.
#[inline(always)]
pub fn value(work: &mut Work) {
    let (word, count, stopped) = take!(work, word => below(word, splat(0x21)) | equal(word, splat(b';')));
    if count > 0 {
        let space = work.parser.token_flags & token_flag::HELD_SPACE != 0 && work.parser.name_len > 0;
        work.parser.token_flags = 0;
        // The ninth byte comes with the next step.
        let count = if space && count == 8 { 7 } else { count };
        let word = lower(keep(word, count));
        let (word, more) = if space { (word << 8 | u64::from(b' '), count + 1) } else { (word, count) };
        if work.parser.name_len + more > wire::NAME_MAX as u32 {
            // Too long to be a date or a number: it says nothing.
            work.parser.phase = phase::COOKIE_SKIP;
            return;
        }
        work.gather(word, more);
        work.pos += count;
    }
    if !stopped {
        return;
    }
    if matches!(work.byte(0), b';' | b'\n') {
        work.parser.phase = phase::ATTRIBUTE_DONE;
    } else {
        work.pos += 1;
        work.parser.token_flags = token_flag::HELD_SPACE;
    }
}

/// The value is complete, and the position at what ended it (RFC 6265 §5.2.1 and §5.2.2): the last of each counts.
#[inline(always)]
pub fn done(work: &mut Work) {
    work.parser.phase = phase::COOKIE_SKIP;
    if work.captured.set_cookie > wire::CREDENTIALS_MAX as u32 {
        return;
    }
    let len = work.parser.name_len;
    let word = work.parser.name[0];
    let start = work.captured.len;
    let at = bound::<{ wire::CREDENTIALS_MAX as u32 - 1 }>(work.captured.set_cookie.wrapping_sub(1)) as usize;
    let place = work.captured.place(start);
    // SAFETY: masked to the array's length.
    let credential = unsafe { &mut *work.captured.credentials.as_mut_ptr().add(at) };
    if work.parser.header == MAX_AGE {
        let sign = word as u8;
        let zeros = len > 0 && len <= 8 && word == keep(splat(b'0'), len);
        if sign == b'-' || zeros {
            credential.flags = credential.flags & !credential_flag::LASTS | credential_flag::DELETED;
        } else if sign.is_ascii_digit() {
            credential.flags = credential.flags & !credential_flag::DELETED | credential_flag::LASTS;
        }
    } else if len > 0 && start + wire::NAME_MAX as u32 <= wire::CAPTURES_MAX as u32 {
        // SAFETY: `place` leaves `COPY_MAX` bytes, of which these are the first 32.
        unsafe {
            place.cast::<u64>().write_unaligned(word.to_le());
            place.add(8).cast::<u64>().write_unaligned(work.parser.name[1].to_le());
            place.add(16).cast::<u64>().write_unaligned(work.parser.name[2].to_le());
            place.add(24).cast::<u64>().write_unaligned(work.parser.name[3].to_le());
        }
        credential.claims = wire::Span { at: start as u16, len: len as u16 };
        credential.flags &= !(credential_flag::CLAIMS | credential_flag::CLAIMS_CUT);
        credential.flags |= credential_flag::EXPIRES;
        work.captured.len = start + len;
    }
}
