//! Names of cookies, in `Cookie` and `Set-Cookie`: which of them are credentials.
//!
//! A line's bytes come in; the value of a cookie that the service names goes on in [`super::token`], an attribute behind it
//! in [`super::attribute`], anything else is passed over.

use super::line::{scan, take};
use super::token::{LF, begin_token, named};
use super::{Env, is_request, state_flag};
use crate::flow::phase;
use crate::swar::{below, equal, first, keep, splat};
use crate::wire::{self, place};
use crate::work::Work;

/// Name of a cookie (RFC 6265 §4.1.1, read as liberally as servers do).
#[inline(always)]
pub fn cookie_name<E: Env>(work: &mut Work, env: &mut E) {
    if work.parser.name_len == 0 && matches!(work.byte(0), b' ' | b'\t' | b'\r') {
        work.pos += 1;
        // Nearly always exactly one.
        if work.available() == 0 || matches!(work.byte(0), b' ' | b'\t' | b'\r') {
            return;
        }
    }
    let (word, count, stopped) =
        take!(work, word => equal(word, splat(b'=')) | equal(word, splat(b';')) | below(word, splat(0x21)));
    if work.parser.name_len + count > wire::NAME_MAX as u32 {
        work.parser.phase = phase::COOKIE_SKIP;
        return;
    }
    work.gather(keep(word, count), count);
    work.pos += count;
    if !stopped {
        return;
    }
    let set_cookie = !is_request(work);
    match work.byte(0) {
        b'=' if work.captured.set_cookie != 0 => {
            work.pos += 1;
            super::attribute::named(work);
        }
        b'=' => {
            work.pos += 1;
            match env.service(work.service).and_then(|service| named(work, &service.cookies)) {
                Some(index) => {
                    work.parser.index = index;
                    begin_token(work, env, if set_cookie { place::SET_COOKIE } else { place::COOKIE });
                }
                None if set_cookie => work.parser.phase = phase::SKIP,
                None => work.parser.phase = phase::COOKIE_SKIP,
            }
        }
        b';' if !set_cookie || work.captured.set_cookie != 0 => {
            work.pos += 1;
            work.gather_start();
        }
        b'\n' => {
            work.pos += 1;
            list_pending(work, phase::COOKIE_NAME);
        }
        _ if set_cookie && work.captured.set_cookie == 0 => work.parser.phase = phase::SKIP,
        _ => work.parser.phase = phase::COOKIE_SKIP,
    }
}

/// The line ended inside a list of cookies, which a folded line would continue with `next`.
#[inline(always)]
fn list_pending(work: &mut Work, next: u8) {
    work.parser.next = next;
    work.parser.flags |= state_flag::PENDING_VALUE;
    work.parser.phase = phase::LINE_START;
}

/// Value of a cookie that is no credential.
#[inline(always)]
pub fn cookie_skip(work: &mut Work) {
    let (count, found) = scan!(work, word => equal(word, LF) | equal(word, splat(b';')));
    work.pos += count;
    if !found {
        return;
    }
    let byte = work.byte(0);
    work.pos += 1;
    if byte == b';' {
        work.gather_start();
        work.parser.phase = phase::COOKIE_NAME;
    } else {
        list_pending(work, phase::COOKIE_SKIP);
    }
}
