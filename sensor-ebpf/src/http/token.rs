//! Credentials: fingerprinted while they stream past, never copied.
//!
//! The fingerprint is over the credential without scheme word, outer whitespace and outer quotes, after
//! percent-decoding where the place is percent-encoded (cookies, query). It is final only when the next line's first
//! byte excludes a folded line, or a delimiter of the place ended it. Of a value shaped like a JWT, header and payload
//! are captured; they leave the kernel only once a third, non-empty part was seen.

use super::line::take;
use super::{Env, flush_capture, is_request, open_capture, state_flag, token_flag};
use crate::flow::phase;
use crate::siphash::to_bytes;
use crate::swar::{below, count as marks_in, equal, equal_exact, first, hex_digit, keep, literal, lower, splat};
use crate::wire::{Credential, Name, Span, anomaly, credential_flag, place, scheme};
use crate::work::{CLAIMS, CLAIMS_DONE, NO_COOKIE, Work};

pub(super) const LF: u64 = splat(b'\n');
const DOT: u64 = splat(b'.');
/// A first word this long is no scheme word.
const SCHEME_MAX: u32 = 16;

/// Which of `names` the gathered name is.
#[inline(always)]
pub fn named<const N: usize>(work: &Work, names: &[Name; N]) -> Option<u8> {
    let mut found = None;
    for (index, name) in names.iter().enumerate() {
        if name.len == work.parser.name_len
            && name.len != 0
            && name.words[0] == work.parser.name[0]
            && name.words[1] == work.parser.name[1]
            && name.words[2] == work.parser.name[2]
            && name.words[3] == work.parser.name[3]
        {
            found = Some(index as u8);
        }
    }
    found
}

/// Begins a credential at the current position.
#[inline(always)]
pub fn begin_token<E: Env>(work: &mut Work, env: &mut E, kind: u8) {
    reset(work, env, kind);
    if kind != place::AUTHORIZATION {
        work.parser.scheme = scheme::BARE;
    }
    // The request line stays open around a query credential; its claims are copied when the line is done.
    if kind == place::QUERY {
        work.captured.query_from = work.pos;
        work.captured.query_len = 0;
    } else {
        open_capture(work, CLAIMS);
    }
    work.parser.phase = phase::TOKEN;
}

#[inline(always)]
fn reset<E: Env>(work: &mut Work, env: &mut E, kind: u8) {
    work.parser.next = kind;
    let key = env.key();
    work.parser.sip.start(key);
    work.parser.dots = 0;
    work.parser.second_dot = 0;
    work.parser.token_flags = 0;
}

/// First word of an `Authorization` value.
#[inline(always)]
pub fn auth_word<E: Env>(work: &mut Work, env: &mut E) {
    let (word, count, stopped) = take!(work, word => below(word, splat(0x23)));
    let room = SCHEME_MAX - work.parser.name_len;
    let (count, stopped) = if count > room { (room, false) } else { (count, stopped) };
    work.gather(keep(word, count), count);
    work.pos += count;
    // The same whether the word's last byte came with the space behind it or in the segment before.
    if stopped
        && work.parser.name_len < SCHEME_MAX
        && matches!(work.byte(0), b' ' | b'\t' | b'\r' | b'\n')
        && scheme_ends(work)
    {
        work.captured.len = work.captured.open_at;
        work.captured.open = 0;
        if work.parser.header != super::header::NAMED {
            work.parser.header = super::header::AUTHORIZATION;
        }
        work.parser.next = phase::TOKEN;
        work.parser.phase = phase::VALUE_SPACE;
        return;
    }
    if !stopped && work.parser.name_len < SCHEME_MAX {
        return;
    }
    // A bare credential: what was gathered is its beginning.
    let [low, high, ..] = work.parser.name;
    let len = work.parser.name_len;
    reset(work, env, super::header::place_of_value(work));
    work.parser.phase = phase::TOKEN;
    let taken = if len < 8 { len } else { 8 };
    absorb(work, keep(low, taken), taken, len);
    let rest = len - taken;
    if rest > 0 {
        absorb(work, high, rest, rest);
    }
}

/// Sets the scheme to the gathered word; false if it is a credential without a scheme, which a line end makes of any
/// word that is not well known.
#[inline(always)]
fn scheme_ends(work: &mut Work) -> bool {
    let scheme = scheme_of(work);
    if work.parser.header == super::header::NAMED {
        // Such a header is no `Authorization`: any other word belongs to the value.
        return matches!(scheme, scheme::BEARER | scheme::BASIC | scheme::TOKEN | scheme::JWT | scheme::DPOP);
    }
    if scheme == scheme::OTHER && matches!(work.byte(0), b'\r' | b'\n') {
        return false;
    }
    work.parser.scheme = scheme;
    true
}

#[inline(always)]
fn scheme_of(work: &Work) -> u8 {
    let start = lower(work.parser.name[0]);
    match (work.parser.name_len, start) {
        (6, w) if w == literal(b"bearer") => scheme::BEARER,
        (5, w) if w == literal(b"basic") => scheme::BASIC,
        (6, w) if w == literal(b"digest") => scheme::DIGEST,
        (4, w) if w == literal(b"ntlm") => scheme::NTLM,
        (9, w) if w == literal(b"negotiat") && lower(work.parser.name[1]) == u64::from(b'e') => scheme::NEGOTIATE,
        (5, w) if w == literal(b"token") => scheme::TOKEN,
        (3, w) if w == literal(b"jwt") => scheme::JWT,
        (4, w) if w == literal(b"dpop") => scheme::DPOP,
        _ => scheme::OTHER,
    }
}

/// Takes the low `count` bytes of `word`, which stand `back` bytes before the current position, into the credential.
#[inline(always)]
fn absorb(work: &mut Work, word: u64, count: u32, back: u32) {
    let dots = keep(equal_exact(word, DOT), count);
    if dots != 0 {
        see_dots(work, dots, back);
    }
    work.parser.sip.absorb(word, count);
}

/// Counts dots and, at the second, completes the claims.
#[inline(always)]
fn see_dots(work: &mut Work, dots: u64, back: u32) {
    let before = work.parser.dots;
    let seen = u32::from(before) + marks_in(dots);
    work.parser.dots = if seen > 255 { 255 } else { seen as u8 };
    if before == 0 {
        work.parser.first_dot = work.parser.sip.len() + first(dots);
    }
    let second = match before {
        0 if seen >= 2 => first(dots & (dots - 1)),
        1 => first(dots),
        _ => return,
    };
    work.parser.second_dot = work.parser.sip.len() + second;
    if work.parser.first_dot == 0 || work.parser.second_dot - work.parser.first_dot < 2 {
        work.parser.token_flags |= token_flag::EMPTY_PART;
    }
    if work.parser.next == place::QUERY {
        // Only when it stands in this segment as a whole and undecoded.
        let end = work.pos + second - back;
        if work.parser.token_flags & (token_flag::SPLIT | token_flag::PERCENT | token_flag::INNER_SPACE) == 0 {
            work.captured.query_len = end - work.captured.query_from;
        }
        return;
    }
    if work.captured.open == CLAIMS {
        // Where the second dot stands before this segment, its bytes were copied when that segment ended.
        work.claims_to = (work.pos + second).saturating_sub(back);
        work.parser.phase = phase::CLAIMS_DONE;
    }
}

/// A JWT's header and payload are complete: copied, up to the second dot.
#[inline(always)]
pub fn claims_done<E: Env>(work: &mut Work, env: &mut E) {
    let to = work.claims_to;
    flush_capture::<_, false>(work, env, to);
    work.captured.open = CLAIMS_DONE;
    work.parser.phase = phase::TOKEN;
}

/// What was held back belongs to the credential after all.
#[inline(always)]
fn release_held(work: &mut Work) {
    let held = work.parser.token_flags;
    if held & token_flag::HELD_QUOTE != 0 {
        work.parser.sip.absorb(u64::from(b'"'), 1);
    }
    if held & token_flag::HELD_SPACE != 0 {
        work.parser.sip.absorb(u64::from(b' '), 1);
        work.parser.token_flags |= token_flag::INNER_SPACE | token_flag::CLAIMS_CUT;
    }
    work.parser.token_flags &= !(token_flag::HELD_QUOTE | token_flag::HELD_SPACE);
}

/// A credential's bytes.
#[inline(always)]
pub fn token(work: &mut Work) {
    let kind = work.parser.next;
    // Everything up to the quote is looked at closely; in percent-encoded places also '#' to '&'.
    let (limit, delimiter) = match kind {
        place::COOKIE | place::SET_COOKIE => (splat(0x27), splat(b';')),
        place::QUERY => (splat(0x27), LF),
        _ => (splat(0x23), LF),
    };
    if work.parser.token_flags & (token_flag::HELD_QUOTE | token_flag::HELD_SPACE) == 0
        && work.parser.sip.is_aligned()
        && work.available() >= 64
        && plain_words(work, limit, delimiter)
    {
        return;
    }
    let (word, count, stopped) = take!(work, word => below(word, limit) | equal(word, delimiter));
    if count > 0 {
        release_held(work);
        absorb(work, keep(word, count), count, 0);
        work.pos += count;
        if work.parser.phase != phase::TOKEN {
            return;
        }
    }
    if stopped {
        special(work, kind);
    }
}

/// Takes whole words as long as nothing in them asks for a closer look; false if the first one does.
#[inline(always)]
fn plain_words(work: &mut Work, limit: u64, delimiter: u64) -> bool {
    let cursor = work.cursor(0);
    let mut taken = 0;
    let mut stopped = false;
    macro_rules! absorb_plain {
        ($($step:literal)*) => { $(
            if !stopped {
                let word = cursor.word::<$step>();
                if (below(word, limit) | equal(word, delimiter) | equal(word, DOT)) == 0 {
                    work.parser.sip.absorb_word(word);
                    taken += 8;
                } else {
                    stopped = true;
                }
            }
        )* };
    }
    absorb_plain!(0 1 2 3 4 5 6 7);
    // Read by every word but the last.
    let _ = stopped;
    work.pos += taken;
    taken != 0
}

/// The byte at the position is not plain.
#[inline(always)]
fn special(work: &mut Work, kind: u8) {
    let byte = work.byte(0);
    let encoded = matches!(kind, place::COOKIE | place::SET_COOKIE | place::QUERY);
    match byte {
        // The next phase looks at the same byte.
        0..=b' ' | b'&' | b'#' if kind == place::QUERY => done(work, phase::QUERY_SKIP),
        b'\r' if !work.parser.sip.is_empty() && work.at_line_end() => {
            // As `token_space` does in two steps.
            work.parser.token_flags |= token_flag::HELD_SPACE;
            work.pos += 2;
            line_end(work);
        }
        0..=b' ' => work.parser.phase = phase::TOKEN_SPACE,
        b'"' => {
            work.pos += 1;
            if work.parser.sip.is_empty() && work.parser.token_flags & token_flag::HELD_QUOTE == 0 {
                // An opening quote is not part of the credential.
                if work.captured.open == CLAIMS {
                    work.open_from = work.pos;
                } else if kind == place::QUERY {
                    work.captured.query_from = work.pos;
                }
            } else {
                release_held(work);
                work.parser.token_flags |= token_flag::HELD_QUOTE;
            }
        }
        b'%' if encoded => {
            release_held(work);
            work.pos += 1;
            work.gather_start();
            work.parser.token_flags |= token_flag::PERCENT | token_flag::CLAIMS_CUT;
            work.parser.phase = phase::PERCENT;
        }
        b';' if kind == place::COOKIE => done(work, phase::COOKIE_SKIP),
        b';' if kind == place::SET_COOKIE => done(work, phase::COOKIE_SKIP),
        other => {
            release_held(work);
            work.parser.sip.absorb(u64::from(other), 1);
            work.pos += 1;
        }
    }
}

/// The credential ends at the position; `after` goes on there.
#[inline(always)]
fn done(work: &mut Work, after: u8) {
    work.after = u32::from(after);
    work.parser.phase = phase::TOKEN_DONE;
}

/// Whitespace behind a credential, or a delimiter, or a line end.
#[inline(always)]
pub fn token_space(work: &mut Work) {
    let kind = work.parser.next;
    match work.byte(0) {
        b'\n' => {
            work.pos += 1;
            line_end(work);
        }
        0..=b' ' => {
            work.pos += 1;
            if !work.parser.sip.is_empty() {
                work.parser.token_flags |= token_flag::HELD_SPACE;
            } else if work.captured.open == CLAIMS {
                work.open_from = work.pos;
            }
        }
        b';' if kind == place::COOKIE => done(work, phase::COOKIE_SKIP),
        b';' if kind == place::SET_COOKIE => done(work, phase::COOKIE_SKIP),
        // More of the credential: what was held back is released when its bytes are taken.
        _ => work.parser.phase = phase::TOKEN,
    }
}

/// Behind the LF of a credential's line: it is complete unless the next line is folded.
#[inline(always)]
fn line_end(work: &mut Work) {
    work.parser.flags |= state_flag::PENDING_TOKEN;
    work.parser.phase = phase::LINE_START;
}

/// The two digits of a percent escape (RFC 3986 §2.1); a lone `%` stays as it is.
#[inline(always)]
pub fn percent(work: &mut Work) {
    let byte = work.byte(0);
    let digit = hex_digit(byte);
    let held = work.parser.name_len;
    if digit == 16 {
        work.parser.sip.absorb(u64::from(b'%'), 1);
        if held == 1 {
            work.parser.sip.absorb(work.parser.name[1] & 0xff, 1);
        }
        work.parser.phase = phase::TOKEN;
        return;
    }
    work.pos += 1;
    if held == 0 {
        work.parser.name[0] = u64::from(digit);
        work.parser.name[1] = u64::from(byte);
        work.parser.name_len = 1;
    } else {
        let decoded = (work.parser.name[0] & 0xf) << 4 | u64::from(digit);
        work.parser.sip.absorb(decoded, 1);
        work.parser.phase = phase::TOKEN;
    }
}

/// The credential is complete: its fingerprint goes into the record, and the parser goes on.
#[inline(always)]
pub fn token_done<E: Env>(work: &mut Work, env: &mut E) {
    work.parser.phase = work.after as u8;
    finish(work, env);
    work.gather_start();
}

#[inline(always)]
fn finish<E: Env>(work: &mut Work, env: &mut E) {
    let _ = env;
    let kind = work.parser.next;
    let len = work.parser.sip.len();
    let three = work.parser.dots == 2 && work.parser.token_flags & token_flag::EMPTY_PART == 0;
    let signed = three && len > work.parser.second_dot + 1;
    let open = work.captured.open;
    let captured = open == CLAIMS || open == CLAIMS_DONE;
    let start = work.captured.open_at;
    if captured {
        // Only header and payload of a signed token stay in the record, and nothing behind the second dot.
        let most = start + work.parser.second_dot;
        if !signed
            || open != CLAIMS_DONE
            || work.captured.len < most
            || work.parser.token_flags & token_flag::CLAIMS_CUT != 0
        {
            work.captured.len = start;
        } else {
            work.captured.len = most;
        }
        work.captured.open = 0;
    }
    if kind == place::SET_COOKIE {
        work.captured.set_cookie = NO_COOKIE;
    }
    if kind == place::QUERY {
        // Nothing of the value stays in the line, not even the quotes of an empty one.
        work.open_from = work.pos;
    }
    if len == 0 {
        return;
    }
    let claims = work.captured.len - start;
    let token_flags = work.parser.token_flags;
    let mut flags = 0;
    if signed {
        flags |= credential_flag::THREE_PARTS;
        flags |= if captured && claims > 0 { credential_flag::CLAIMS } else { credential_flag::CLAIMS_CUT };
    } else if three {
        flags |= credential_flag::EMPTY_SIGNATURE;
    }
    if token_flags & token_flag::INNER_SPACE != 0 {
        flags |= credential_flag::INNER_SPACE;
    }
    if token_flags & token_flag::PERCENT != 0 {
        flags |= credential_flag::PERCENT;
    }
    let fingerprint = work.parser.sip.finish();
    let (index, scheme, dots) = (work.parser.index, work.parser.scheme, work.parser.dots);
    let cut_at = if kind == place::QUERY { work.captured.len - work.captured.open_at } else { 0 };
    let span = if captured && signed { Span { at: start as u16, len: claims as u16 } } else { Span::default() };
    let found = Credential {
        fingerprint: to_bytes(fingerprint),
        len,
        claims: span,
        place: kind,
        index: if kind == place::AUTHORIZATION { 0 } else { index },
        scheme: if kind == place::AUTHORIZATION { scheme } else { scheme::BARE },
        dots,
        cut_at: cut_at as u16,
        flags,
    };
    // Whoever repeats one credential must not get others out of sight with it, nor with values that say nothing.
    let says_nothing =
        scheme::has_no_stable_token(found.scheme) && (!three || flags & credential_flag::INNER_SPACE != 0);
    let again =
        work.captured.record.credentials != 0 && is_request(work) && work.captured.repeats(&found, !says_nothing);
    let free = if again { None } else { work.captured.credential() };
    let Some(credential) = free else {
        if !again {
            work.parser.anomalies |= anomaly::MORE_CREDENTIALS;
        }
        // Claims without their credential are of no use, least of all to another one.
        work.captured.query_len = 0;
        if captured {
            work.captured.len = start;
        }
        return;
    };
    *credential = found;
    if kind == place::SET_COOKIE {
        work.captured.set_cookie = u32::from(work.captured.record.credentials);
    }
    if kind == place::QUERY {
        if signed && work.captured.query_len != 0 && token_flags & token_flag::CLAIMS_CUT == 0 {
            work.captured.query_credential = u32::from(work.captured.record.credentials);
        } else {
            work.captured.query_len = 0;
        }
    }
}
