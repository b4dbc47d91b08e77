//! A token in every place where credentials stand, cut anywhere.
//!
//! What must hold: its fingerprint is the reference hash of its canonical form, worked out here over the whole string; what
//! goes out of a JWT is header and payload, and never a byte of the signature.

use core::hash::Hasher as _;

use sensor_ebpf::wire::{anomaly, credential_flag, place};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::rig::{KEY, Played, Side, check_invariance, play, tables};
use crate::script::{self, Cut, Event};

/// What stands for `S` in a value: capitals, which occur nowhere else in what goes out.
const SIGNATURE: &[u8] = b"QZXJKVWYHGFU";
/// So many bytes of [`SIGNATURE`] in a row are no coincidence (of a fingerprint, say).
const TELLING: usize = 6;

/// The hash of a credential by another implementation.
pub fn reference_hash(canonical: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(KEY);
    hasher.write(canonical);
    hasher.finish128().as_bytes()
}

/// Where a value stands.
struct Form {
    /// Says the line (or, for a query, the whole request line) in front of it.
    before: &'static str,
    after: &'static str,
    place: u8,
    /// Percent escapes are decoded.
    encoded: bool,
    /// Bytes that end the value there.
    ends: &'static [u8],
}

const FORMS: &[Form] = &[
    Form { before: "Authorization: Bearer ", after: "", place: place::AUTHORIZATION, encoded: false, ends: b"" },
    Form { before: "X-Api-Key: ", after: "", place: place::HEADER, encoded: false, ends: b"" },
    Form { before: "Cookie: SESSION=", after: "", place: place::COOKIE, encoded: true, ends: b";" },
    Form { before: "Cookie: a=b; SESSION=", after: "; c=d", place: place::COOKIE, encoded: true, ends: b";" },
    Form { before: "GET /?t=", after: " HTTP/1.1", place: place::QUERY, encoded: true, ends: b"&# \t" },
    Form {
        before: "GET /?x=1&access_token=",
        after: "&y=2 HTTP/1.1",
        place: place::QUERY,
        encoded: true,
        ends: b"&# \t",
    },
    Form { before: "Set-Cookie: SESSION=", after: "; Path=/", place: place::SET_COOKIE, encoded: true, ends: b";" },
    Form { before: "X-New-Token: ", after: "", place: place::RESPONSE_HEADER, encoded: false, ends: b"" },
    Form { before: "Authorization: bearer\r\n ", after: "", place: place::AUTHORIZATION, encoded: false, ends: b"" },
];

/// The first byte chooses the place and how often the line is repeated, the second and third are cuts anywhere in the head;
/// the rest is the value, as a [`script`] in which `S` stands for a signature.
pub fn target(data: &[u8]) {
    let [mode, first, second, rest @ ..] = data else { return };
    let form = &FORMS[usize::from(mode & 15) % FORMS.len()];
    let (value, mut cuts) = value(form, rest);
    let line = [form.before.as_bytes(), &value, form.after.as_bytes()].concat();
    let repeat = if form.place == place::QUERY { 1 } else { 1 + usize::from(mode >> 4) % 10 };
    let mut head = match form.place {
        place::QUERY => Vec::new(),
        place::SET_COOKIE | place::RESPONSE_HEADER => b"HTTP/1.1 200 OK\r\n".to_vec(),
        _ => b"GET /a HTTP/1.1\r\nhost: h\r\n".to_vec(),
    };
    for cut in &mut cuts {
        cut.at += head.len() + form.before.len();
    }
    for _ in 0..repeat {
        head.extend(&line);
        head.extend(b"\r\n");
    }
    head.extend(b"\r\n");
    // Two cuts where the value's own do not reach; further apart than a byte says in a long head.
    for at in [first, second] {
        cuts.push(Cut { at: usize::from(*at) * head.len() / 256, again: 0, late: false });
    }
    cuts.sort_by_key(|cut| cut.at);
    let side =
        if matches!(form.place, place::SET_COOKIE | place::RESPONSE_HEADER) { Side::Server } else { Side::Client };
    let mut events = vec![Event::Say(side, head, cuts)];
    if side == Side::Server {
        events.insert(0, Event::Say(Side::Client, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new()));
    }
    let canonical = canonical(&value, form.encoded);
    let uncut = play(tables(0), &events, false);
    check(form, &canonical, &uncut, true);
    let cut = play(tables(0), &events, true);
    check(form, &canonical, &cut, form.place != place::QUERY);
    check_invariance(&uncut, &cut);
}

/// The value with its cuts, without what would end it where it stands, and without capitals but for the signature's.
fn value(form: &Form, bytes: &[u8]) -> (Vec<u8>, Vec<Cut>) {
    let (mut value, mut cuts) = (Vec::new(), Vec::new());
    for event in script::read(Side::Client, bytes) {
        let Event::Say(_, said, places) = event else { continue };
        let mut places = places.into_iter().peekable();
        for (at, byte) in said.into_iter().enumerate() {
            while let Some(cut) = places.next_if(|cut| cut.at <= at) {
                cuts.push(Cut { at: value.len(), again: cut.again.min(value.len()), late: cut.late });
            }
            match byte {
                b'S' => value.extend(SIGNATURE),
                b'\r' | b'\n' => value.push(b'.'),
                end if form.ends.contains(&end) || (form.place == place::QUERY && end < b'!') => value.push(b'.'),
                other => value.push(other.to_ascii_lowercase()),
            }
        }
    }
    (value, cuts)
}

/// The canonical form, the plain way: outer whitespace, opening and closing quote off, runs of whitespace one space, then
/// the escapes. Control characters count as whitespace: no server takes them in a credential.
fn canonical(value: &[u8], encoded: bool) -> Vec<u8> {
    let space = |byte: &u8| *byte <= b' ';
    let mut value = value;
    while let Some((_, rest)) = value.split_first().filter(|(byte, _)| space(byte) || **byte == b'"') {
        value = rest;
    }
    while let Some((_, rest)) = value.split_last().filter(|(byte, _)| space(byte)) {
        value = rest;
    }
    value = value.strip_suffix(b"\"").unwrap_or(value);
    let mut text: Vec<u8> = Vec::new();
    for byte in value {
        let byte = if space(byte) { b' ' } else { *byte };
        if byte != b' ' || text.last() != Some(&b' ') {
            text.push(byte);
        }
    }
    if !encoded {
        return text;
    }
    let digit =
        |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16)).and_then(|one| u8::try_from(one).ok());
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// Header and payload of what is shaped like a signed JWT.
fn claims(canonical: &[u8]) -> Option<&[u8]> {
    let parts: Vec<&[u8]> = canonical.split(|byte| *byte == b'.').collect();
    let [header, payload, signature] = parts.as_slice() else { return None };
    let whole = !header.is_empty() && !payload.is_empty() && !signature.is_empty();
    whole.then(|| &canonical[..header.len() + 1 + payload.len()])
}

fn check(form: &Form, canonical: &[u8], played: &Played, whole: bool) {
    let head = played.output.heads.last().expect("a head");
    let found: Vec<_> = head.credentials.iter().filter(|(one, _)| one.place == form.place).collect();
    assert_eq!(found.is_empty(), canonical.is_empty(), "a credential where the value is empty, or none: {head:?}");
    let claims = claims(canonical);
    for (one, captured) in found {
        assert_eq!(
            one.fingerprint,
            reference_hash(canonical),
            "fingerprint of {:?}",
            String::from_utf8_lossy(canonical)
        );
        assert_eq!(one.len as usize, canonical.len(), "length");
        // (An escaped dot is no dot to the parser.)
        if one.flags & credential_flag::PERCENT == 0 {
            let three = one.flags & credential_flag::THREE_PARTS != 0;
            assert_eq!(three, claims.is_some(), "three parts: {one:?}");
        }
        assert!(captured.is_none() || captured.as_deref() == claims, "claims: {captured:?} of {claims:?}");
        let plain = credential_flag::INNER_SPACE | credential_flag::PERCENT;
        let room = claims.is_some_and(|claims| claims.len() <= 300) && !head.odd(anomaly::MORE_CREDENTIALS);
        if whole && room && one.flags & plain == 0 {
            assert!(captured.is_some(), "the claims are missing: {one:?}");
        }
    }
    // Unless it is part of header or payload, the signature is nowhere in what goes out.
    let told = |window: &[u8]| claims.is_some_and(|claims| claims.windows(TELLING).any(|part| part == window));
    for part in SIGNATURE.windows(TELLING).filter(|part| !told(part)) {
        assert!(!played.output.raw.windows(TELLING).any(|window| window == part), "a signature goes out: {head:?}");
    }
}
