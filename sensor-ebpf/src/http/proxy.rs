//! The PROXY protocol header (`HAProxy`'s specification, versions 1 and 2) in front of the first request.
//!
//! Read only for services that declare it, and only at the very beginning of a flow. The address that the header names
//! goes into the flow, for the records of its heads; whether it is believed is user space's to decide. What is no
//! header is HTTP as ever; what begins as a header and goes wrong is no HTTP at all.
//!
//! A byte a step: a header comes once a connection and is short; what follows the addresses is skipped in one.

use super::Env;
use super::line::pass;
use crate::flow::phase;
use crate::reason::Counter;
use crate::swar::{hex_digit, literal};
use crate::wire::{NO_SERVICE, service_flag};
use crate::work::Work;

/// Longest line of version 1, line end included.
const LINE_MAX: u32 = 107;
/// What version 2 begins with, behind the first four bytes, which a parser of HTTP takes for empty lines.
const SIGNATURE: u64 = literal(b"\0\r\nQUIT\n");
/// Where the empty lines end and [`SIGNATURE`] begins.
pub const SIGNATURE_AT: u64 = 4;
/// Bytes of version 2's fixed part.
const FIXED: u32 = 16;
/// Words of version 1 behind `PROXY`, as they are gathered: the last byte lowest.
const TCP4: u64 = 0x5443_5034;
const TCP6: u64 = 0x5443_5036;
const UNKNOWN: u64 = 0x55_4e4b_4e4f_574e;

/// What of the line is being read ([`crate::flow::Parser::next`]).
mod field {
    pub const FAMILY: u8 = 0;
    pub const SOURCE: u8 = 1;
    pub const DESTINATION: u8 = 2;
    pub const SOURCE_PORT: u8 = 3;
    pub const DESTINATION_PORT: u8 = 4;
    /// The rest of an `UNKNOWN` line.
    pub const REST: u8 = 5;
    /// The LF.
    pub const END: u8 = 6;
}

/// Kind of the addresses ([`crate::flow::Parser::method`]).
mod family {
    /// None that is of use.
    pub const NONE: u8 = 0;
    pub const V4: u8 = 4;
    pub const V6: u8 = 6;
}

/// What stood before the next byte of an IPv6 address ([`crate::flow::Parser::version`]).
mod colon {
    pub const NONE: u8 = 0;
    /// One, behind a group.
    pub const ONE: u8 = 1;
    /// One at the very beginning: another must follow.
    pub const LEADING: u8 = 2;
    /// Two.
    pub const TWO: u8 = 3;
}

/// True if flows of the service begin with a header.
#[inline(always)]
pub fn expected<E: Env>(work: &Work, env: &E) -> bool {
    env.service(work.service).is_some_and(|service| service.flags & service_flag::PROXY != 0)
}

/// The first word of the flow is complete: true if it begins a header of version 1.
#[inline(always)]
pub fn begins<E: Env>(work: &mut Work, env: &mut E) -> bool {
    if work.parser.name_len == 5 && work.parser.name[0] == literal(b"PROXY") {
        start(work, 6, phase::PROXY_LINE);
        return true;
    }
    if work.service != u32::from(NO_SERVICE) && work.parser.flags & super::state_flag::PICKED_UP == 0 {
        env.count(Counter::ProxyMissing, 1);
    }
    false
}

/// True when the four bytes in front of the NUL are those of the signature, and not other empty lines.
#[inline(always)]
pub fn begins_binary(work: &Work) -> bool {
    work.parser.name[0] as u32 == u32::from_be_bytes(*b"\r\n\r\n")
}

/// The empty lines at the beginning are followed by what begins a header of version 2.
#[inline(always)]
pub fn begin_binary(work: &mut Work) {
    start(work, SIGNATURE_AT as u32, phase::PROXY_BINARY);
}

#[inline(always)]
fn start(work: &mut Work, at: u32, next: u8) {
    work.captured.open = 0;
    work.gather_start();
    work.parser.name_len = at;
    work.parser.next = field::FAMILY;
    work.parser.method = family::NONE;
    work.parser.remaining = 0;
    work.parser.body_bytes = 0;
    address_start(work);
    work.parser.phase = next;
}

/// Forgets the address and number that were gathered.
#[inline(always)]
fn address_start(work: &mut Work) {
    work.parser.index = 0;
    work.parser.dots = 0;
    work.parser.scheme = 0;
    work.parser.token_flags = 0;
    work.parser.version = colon::NONE;
    work.parser.status = 0;
    work.parser.route_state = 0;
    number_start(work);
}

#[inline(always)]
fn number_start(work: &mut Work) {
    work.parser.first_dot = 0;
    work.parser.second_dot = 0;
    work.parser.status = 0;
}

/// A byte of version 1.
#[inline(always)]
pub fn line<E: Env>(work: &mut Work, env: &mut E) {
    let byte = work.byte(0);
    work.pos += 1;
    work.parser.name_len += 1;
    let good = work.parser.name_len <= LINE_MAX
        && match work.parser.next {
            field::FAMILY => family_byte(work, byte),
            field::SOURCE => source_byte(work, env, byte),
            field::DESTINATION => destination_byte(work, byte),
            field::SOURCE_PORT | field::DESTINATION_PORT => port_byte(work, env, byte),
            field::REST => {
                if byte == b'\r' {
                    work.parser.next = field::END;
                }
                byte != b'\n'
            }
            _ => {
                if byte == b'\n' {
                    work.parser.phase = phase::PROXY_DONE;
                }
                byte == b'\n'
            }
        };
    if !good {
        work.parser.phase = phase::PROXY_BAD;
    }
}

#[inline(always)]
fn family_byte(work: &mut Work, byte: u8) -> bool {
    let word = work.parser.body_bytes;
    if byte == b'\r' || byte == b' ' {
        work.parser.next = if byte == b'\r' { field::END } else { field::REST };
        if word == UNKNOWN {
            return true;
        }
        work.parser.next = field::SOURCE;
        work.parser.method = if word == TCP4 { family::V4 } else { family::V6 };
        return byte == b' ' && (word == TCP4 || word == TCP6);
    }
    work.parser.body_bytes = word << 8 | u64::from(byte);
    word >> 48 == 0
}

#[inline(always)]
fn source_byte<E: Env>(work: &mut Work, env: &mut E, byte: u8) -> bool {
    if byte != b' ' {
        return address_byte(work, byte);
    }
    let good = if work.parser.method == family::V4 { finish_v4(work) } else { finish_v6(work) };
    if good {
        keep_address(work, env);
    }
    address_start(work);
    work.parser.next = field::DESTINATION;
    good
}

/// The destination is the service, which is known: only its letters are looked at.
#[inline(always)]
fn destination_byte(work: &mut Work, byte: u8) -> bool {
    if byte == b' ' {
        work.parser.next = field::SOURCE_PORT;
        return true;
    }
    hex_digit(byte) < 16 || byte == b':' || byte == b'.'
}

#[inline(always)]
fn port_byte<E: Env>(work: &mut Work, env: &mut E, byte: u8) -> bool {
    let source = work.parser.next == field::SOURCE_PORT;
    if byte == if source { b' ' } else { b'\r' } {
        let (port, digits) = (work.parser.first_dot, work.parser.second_dot);
        if source {
            keep_port(env, port);
        }
        number_start(work);
        work.parser.next = if source { field::DESTINATION_PORT } else { field::END };
        return digits > 0 && port <= 0xffff;
    }
    digit(work, byte, 5)
}

/// One more decimal digit, of at most `most`.
#[inline(always)]
fn digit(work: &mut Work, byte: u8, most: u32) -> bool {
    let value = byte.wrapping_sub(b'0');
    if value > 9 || work.parser.second_dot >= most {
        return false;
    }
    work.parser.first_dot = work.parser.first_dot * 10 + u32::from(value);
    work.parser.second_dot += 1;
    true
}

/// A byte of an address as text. What its groups say so far stands in `name` (the two upper words before a `::`, the
/// two lower ones behind it), how many there are in `index` and `dots`, whether there was a `::` in `scheme`; the octets of
/// an IPv4 part in `route_state` and `token_flags`; the number that is being read in `first_dot` (as decimal, where it
/// is one) and `status` (as hexadecimal), its digits in `second_dot`.
#[inline(always)]
fn address_byte(work: &mut Work, byte: u8) -> bool {
    let v6 = work.parser.method == family::V6;
    if byte == b'.' {
        return octet(work) && work.parser.token_flags <= 3;
    }
    if !v6 {
        return digit(work, byte, 3);
    }
    if byte == b':' {
        return colon_byte(work);
    }
    let value = hex_digit(byte);
    if value > 15 || work.parser.second_dot >= 4 || work.parser.version == colon::LEADING {
        return false;
    }
    // No octet has a letter: a value beyond any says so, however it goes on.
    let decimal = if value > 9 { 1 << 16 } else { u32::from(value) };
    work.parser.first_dot = work.parser.first_dot.wrapping_mul(10).wrapping_add(decimal);
    work.parser.status = work.parser.status << 4 | u16::from(value);
    work.parser.second_dot += 1;
    true
}

#[inline(always)]
fn colon_byte(work: &mut Work) -> bool {
    if work.parser.token_flags > 0 {
        return false;
    }
    if work.parser.second_dot > 0 {
        let value = u64::from(work.parser.status);
        work.parser.version = colon::ONE;
        return group(work, value);
    }
    match work.parser.version {
        colon::NONE => {
            work.parser.version = colon::LEADING;
            true
        }
        colon::ONE | colon::LEADING if work.parser.scheme == 0 => {
            work.parser.scheme = 1;
            work.parser.version = colon::TWO;
            true
        }
        _ => false,
    }
}

/// A group of an IPv6 address is complete.
#[inline(always)]
fn group(work: &mut Work, value: u64) -> bool {
    number_start(work);
    if work.parser.index + work.parser.dots >= 8 {
        return false;
    }
    let [high, low, tail_high, tail_low] = work.parser.name;
    if work.parser.scheme == 0 {
        work.parser.name[0] = high << 16 | low >> 48;
        work.parser.name[1] = low << 16 | value;
        work.parser.index += 1;
    } else {
        work.parser.name[2] = tail_high << 16 | tail_low >> 48;
        work.parser.name[3] = tail_low << 16 | value;
        work.parser.dots += 1;
    }
    true
}

/// An octet of an IPv4 address is complete.
#[inline(always)]
fn octet(work: &mut Work) -> bool {
    let (value, digits) = (work.parser.first_dot, work.parser.second_dot);
    number_start(work);
    work.parser.route_state = work.parser.route_state << 8 | value & 0xff;
    work.parser.token_flags += 1;
    digits > 0 && digits <= 3 && value <= 255 && work.parser.token_flags <= 4
}

#[inline(always)]
fn finish_v4(work: &mut Work) -> bool {
    let good = octet(work) && work.parser.token_flags == 4;
    work.parser.name[0] = 0;
    work.parser.name[1] = 0xffff_0000_0000 | u64::from(work.parser.route_state);
    good
}

#[inline(always)]
fn finish_v6(work: &mut Work) -> bool {
    let good = if work.parser.token_flags > 0 {
        let last = octet(work) && work.parser.token_flags == 4;
        let quad = u64::from(work.parser.route_state);
        // One after the other: both count a group.
        let upper = group(work, quad >> 16);
        let lower = group(work, quad & 0xffff);
        last && upper && lower
    } else if work.parser.second_dot > 0 {
        let value = u64::from(work.parser.status);
        group(work, value)
    } else {
        work.parser.version == colon::TWO
    };
    let (groups, gap) = (work.parser.index, work.parser.scheme != 0);
    let all = groups + work.parser.dots;
    for shifted in 0..8 {
        // To the upper end, where the groups before the gap stand.
        if shifted + groups < 8 {
            let [high, low, _, _] = work.parser.name;
            work.parser.name[0] = high << 16 | low >> 48;
            work.parser.name[1] = low << 16;
        }
    }
    work.parser.name[0] |= work.parser.name[2];
    work.parser.name[1] |= work.parser.name[3];
    good && (all == 8) != gap
}

/// A byte of version 2, or all that follows its addresses.
#[inline(always)]
pub fn binary<E: Env>(work: &mut Work, env: &mut E) {
    let at = work.parser.name_len;
    let wanted = match work.parser.method {
        family::V4 => FIXED + 10,
        family::V6 => FIXED + 34,
        _ => FIXED,
    };
    let mut good = true;
    if at >= wanted {
        // The rest of the addresses, and what follows them (TLVs).
        let left = u64::from(work.end - work.pos);
        let count = if work.parser.remaining < left { work.parser.remaining } else { left };
        work.pos += count as u32;
        work.parser.remaining -= count;
    } else {
        let byte = work.byte(0);
        work.pos += 1;
        work.parser.name_len = at + 1;
        if at < FIXED {
            good = fixed_byte(work, at, byte);
        } else {
            work.parser.remaining = work.parser.remaining.wrapping_sub(1);
            binary_address(work, env, at - FIXED, byte);
        }
    }
    if !good {
        work.parser.phase = phase::PROXY_BAD;
    } else if work.parser.name_len >= FIXED && work.parser.remaining == 0 {
        work.parser.phase = phase::PROXY_DONE;
    }
}

#[inline(always)]
fn fixed_byte(work: &mut Work, at: u32, byte: u8) -> bool {
    match at {
        // Only PROXY (1) says something; LOCAL (0) is the proxy's own, a health check.
        12 => {
            work.parser.next = byte & 15;
            byte == 0x20 || byte == 0x21
        }
        13 => {
            let proxied = work.parser.next == 1;
            work.parser.method = match byte {
                0x11 if proxied => family::V4,
                0x21 if proxied => family::V6,
                _ => family::NONE,
            };
            !proxied || matches!(byte, 0 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32)
        }
        14 => {
            work.parser.remaining = u64::from(byte) << 8;
            true
        }
        15 => {
            work.parser.remaining |= u64::from(byte);
            let least = match work.parser.method {
                family::V4 => 12,
                family::V6 => 36,
                _ => 0,
            };
            work.parser.remaining >= least
        }
        _ => byte == (SIGNATURE >> (8 * ((at - SIGNATURE_AT as u32) & 7))) as u8,
    }
}

/// The byte at `at` of the addresses: source, destination, source port, destination port.
#[inline(always)]
fn binary_address<E: Env>(work: &mut Work, env: &mut E, at: u32, byte: u8) {
    let length = if work.parser.method == family::V4 { 4 } else { 16 };
    if at < length {
        let [high, low, _, _] = work.parser.name;
        work.parser.name[0] = high << 8 | low >> 56;
        work.parser.name[1] = low << 8 | u64::from(byte);
        if at + 1 == length {
            if length == 4 {
                work.parser.name[1] |= 0xffff_0000_0000;
            }
            keep_address(work, env);
        }
    } else if at >= 2 * length {
        work.parser.first_dot = (work.parser.first_dot & 0xff) << 8 | u32::from(byte);
        let port = work.parser.first_dot;
        keep_port(env, port);
    }
}

#[inline(always)]
fn keep_address<E: Env>(work: &Work, env: &E) {
    let flow = env.flow();
    // SAFETY: the environment's flow pointer is valid while its segment is parsed; only the request half, whose lock is
    // held, writes this.
    unsafe {
        (*flow).proxied[0] = work.parser.name[0].to_be();
        (*flow).proxied[1] = work.parser.name[1].to_be();
    }
}

#[inline(always)]
fn keep_port<E: Env>(env: &E, port: u32) {
    let flow = env.flow();
    // SAFETY: as above.
    unsafe { (*flow).proxied_port = port as u16 };
}

/// The header is complete: what follows is the beginning of the stream.
#[inline(always)]
pub fn done(work: &mut Work) {
    work.parser.message_at = work.stream + u64::from(work.pos);
    work.parser.head_flags = 0;
    work.parser.anomalies = 0;
    work.parser.phase = phase::START;
}

/// It is no header after all, and so no HTTP either.
#[inline(always)]
pub fn bad<E: Env>(work: &mut Work, env: &mut E) {
    let flow = env.flow();
    // SAFETY: as above.
    unsafe {
        (*flow).proxied[0] = 0;
        (*flow).proxied[1] = 0;
        (*flow).proxied_port = 0;
    }
    env.count(Counter::ProxyMalformed, 1);
    pass(work, env, false);
}
