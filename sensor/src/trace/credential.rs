//! From a raw credential to what the parser reports of it: its canonical form's fingerprint, its shape, its claims.
//!
//! The same form as the parser's (`sensor_ebpf::http`), for values that are at hand as a whole; a test compares the two.

use sensor_ebpf::siphash::{Key, hash128};
use sensor_ebpf::wire::{CLAIMS_CAPTURE_MAX, Credential, credential_flag as flag, place, scheme};
use zeroize::Zeroize as _;

use crate::collect::Shown;

/// `header.payload` of a signed JWT.
pub fn claims_of(token: &[u8]) -> Option<&[u8]> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let signed = parts.next().is_none() && ![header, payload, signature].iter().any(|part| part.is_empty());
    token.get(..token.len() - signature.len() - 1).filter(|_| signed)
}

/// What the parser reports of a credential whose canonical form is `token` (no outer whitespace or quotes, decoded).
pub fn fingerprinted(key: Key, place: u8, index: u8, token: &[u8]) -> Credential {
    let dots = token.split(|byte| *byte == b'.').count() - 1;
    let flags = match claims_of(token) {
        Some(claims) if claims.len() <= CLAIMS_CAPTURE_MAX => flag::THREE_PARTS | flag::CLAIMS,
        Some(_) => flag::THREE_PARTS | flag::CLAIMS_CUT,
        None if unsigned(token) => flag::EMPTY_SIGNATURE,
        None => 0,
    };
    Credential {
        fingerprint: hash128(key, token),
        len: u32::try_from(token.len()).unwrap_or(u32::MAX),
        place,
        index,
        scheme: if place == place::AUTHORIZATION { scheme::BEARER } else { scheme::BARE },
        dots: u8::try_from(dots).unwrap_or(u8::MAX),
        flags,
        ..Credential::default()
    }
}

/// Three parts, of which only the third is empty.
fn unsigned(token: &[u8]) -> bool {
    let Some((front, b"")) = token.iter().rposition(|byte| *byte == b'.').and_then(|at| {
        let (front, dot) = token.split_at_checked(at)?;
        Some((front, dot.get(1..)?))
    }) else {
        return false;
    };
    let mut parts = front.split(|byte| *byte == b'.');
    let full = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty());
    full(parts.next()) && full(parts.next()) && parts.next().is_none()
}

/// Canonical forms, one at a time. What was held is wiped.
#[derive(Default)]
pub(super) struct Canonical {
    plain: Vec<u8>,
}

impl Canonical {
    /// What the parser reports of `value` at `place`; `None` for an empty value. `claims` gets the text of its claims,
    /// its span being the range of what was appended.
    pub fn shown<'a>(&mut self, key: Key, at: (u8, u8), value: &'a [u8]) -> Option<Shown<'a>> {
        let encoded = matches!(at.0, place::COOKIE | place::SET_COOKIE | place::QUERY);
        let value = unquoted(value);
        let odd = value.iter().any(|byte| *byte <= b' ' || (encoded && *byte == b'%'));
        if value.is_empty() {
            return None;
        }
        if !odd {
            let credential = fingerprinted(key, at.0, at.1, value);
            let claims = if credential.flags & flag::CLAIMS != 0 { claims_of(value) } else { None };
            return Some(Shown { credential, claims: claims.unwrap_or_default() });
        }
        let (spaced, percent) = self.decode(value, encoded);
        let mut credential = fingerprinted(key, at.0, at.1, &self.plain);
        self.plain.zeroize();
        // Claims are captured only where the value stands as it is.
        if credential.flags & flag::CLAIMS != 0 {
            credential.flags ^= flag::CLAIMS | flag::CLAIMS_CUT;
        }
        credential.flags |= if spaced { flag::INNER_SPACE } else { 0 };
        credential.flags |= if percent { flag::PERCENT } else { 0 };
        Some(Shown { credential, claims: &[] })
    }

    /// Resolves percent-encoding, and makes each run of whitespace one space; says whether there was any of each.
    fn decode(&mut self, value: &[u8], encoded: bool) -> (bool, bool) {
        let (mut spaced, mut percent, mut in_space) = (false, false, false);
        let mut rest = value;
        self.plain.reserve(value.len());
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte <= b' ' {
                if !in_space {
                    self.plain.push(b' ');
                }
                (spaced, in_space) = (true, true);
                continue;
            }
            in_space = false;
            let pair = if *byte == b'%' && encoded { pair(after) } else { None };
            percent |= *byte == b'%' && encoded;
            match pair {
                Some((decoded, beyond)) => {
                    self.plain.push(decoded);
                    rest = beyond;
                }
                None => self.plain.push(*byte),
            }
        }
        (spaced, percent)
    }
}

fn pair(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some((u8::try_from(high? << 4 | low?).ok()?, rest))
}

/// Without outer whitespace and quotes.
fn unquoted(value: &[u8]) -> &[u8] {
    let space = |byte: &u8| *byte <= b' ';
    let trim = |mut text: &'_ [u8]| -> (usize, usize) {
        let front = text.iter().take_while(|byte| space(byte)).count();
        text = text.get(front..).unwrap_or_default();
        (front, text.iter().rposition(|byte| !space(byte)).map_or(0, |last| last + 1))
    };
    let (front, len) = trim(value);
    let mut text = value.get(front..front + len).unwrap_or_default();
    text = text.strip_prefix(b"\"").unwrap_or(text);
    text.strip_suffix(b"\"").unwrap_or(text)
}

/// An `Authorization` value, or that of a named header, taken apart into scheme and credential.
pub(super) fn with_scheme(value: &[u8], named: bool) -> (u8, &[u8]) {
    let value = value.trim_ascii();
    let Some(at) = value.iter().position(u8::is_ascii_whitespace) else { return (scheme::BARE, value) };
    let (word, rest) = value.split_at_checked(at).unwrap_or((value, &[]));
    let known = [
        (&b"bearer"[..], scheme::BEARER),
        (b"basic", scheme::BASIC),
        (b"digest", scheme::DIGEST),
        (b"ntlm", scheme::NTLM),
        (b"negotiate", scheme::NEGOTIATE),
        (b"token", scheme::TOKEN),
        (b"jwt", scheme::JWT),
        (b"dpop", scheme::DPOP),
    ];
    let found = known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, scheme)| *scheme);
    let handed = matches!(found, Some(scheme::BEARER | scheme::BASIC | scheme::TOKEN | scheme::JWT | scheme::DPOP));
    match found {
        _ if named && !handed => (scheme::BARE, value),
        // A first word of 16 bytes or more is no scheme word.
        None if word.len() >= 16 => (scheme::BARE, value),
        found => (found.unwrap_or(scheme::OTHER), rest),
    }
}
