//! Tunnels: what their headers say of the packet inside.

use super::{Walk, layer, shrink};
use crate::packet::{Headers, ethertype};

const ERSPAN_II: u16 = 0x88be;
const ERSPAN_III: u16 = 0x22eb;
const PPP_IN_GRE: u16 = 0x880b;

/// RFC 768, and which tunnel the ports mean.
#[inline(always)]
pub(super) fn udp<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    const TEREDO_PORT: u32 = 3544;
    let ports = headers.word(0)?;
    let len = u32::from(headers.half(4)?);
    // 0 is a packet too long for the field (RFC 2675 §4).
    if len != 0 {
        if len < 8 {
            return None;
        }
        shrink(walk, len)?;
    }
    walk.at += 8;
    match ports & 0xffff {
        // The second is what Linux used before the first was assigned, the third is for other things than Ethernet.
        4789 | 8472 | 4790 => Some(layer::VXLAN),
        6081 => Some(layer::GENEVE),
        2152 => Some(layer::GTP),
        6635 => Some(u32::from(ethertype::MPLS)),
        to if to == TEREDO_PORT || ports >> 16 == TEREDO_PORT => Some(layer::TEREDO),
        _ if teredo_peers(headers, len) => Some(u32::from(ethertype::IPV6)),
        _ => None,
    }
}

/// Between Teredo peers any port may stand (RFC 4380 §5.2), and nothing precedes the IPv6 header: a packet that fills
/// the datagram, from or to an address of Teredo's own prefix.
#[inline(always)]
fn teredo_peers<H: Headers>(headers: &H, len: u32) -> bool {
    const PREFIX: u32 = 0x2001_0000;
    const ADDRESSES: u32 = 8 + 8;
    headers.byte(8).is_some_and(|first| first >> 4 == 6)
        && headers.half(12).is_some_and(|inside| u32::from(inside) + 48 == len)
        && (headers.word(ADDRESSES) == Some(PREFIX) || headers.word(ADDRESSES + 16) == Some(PREFIX))
}

/// RFC 2784 and 2890, and version 1 of RFC 2637.
#[inline(always)]
pub(super) fn gre<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    const CHECKSUM: u32 = 0x8000;
    const ROUTING: u32 = 0x4000;
    const KEY: u32 = 0x2000;
    const SEQUENCE: u32 = 0x1000;
    const ACKNOWLEDGEMENT: u32 = 0x0080;
    let first = headers.word(0)?;
    let (flags, kind) = (first >> 16, first as u16);
    if flags & ROUTING != 0 {
        return None;
    }
    let words = |flag: u32| if flags & flag != 0 { 4 } else { 0 };
    let len = 4 + words(CHECKSUM) + words(KEY) + words(SEQUENCE);
    walk.at += len;
    // Not the version decides what follows: some mirrors write 1 where RFC 2637 is not meant.
    match kind {
        PPP_IN_GRE => {
            walk.at += words(ACKNOWLEDGEMENT);
            Some(layer::PPP)
        }
        // Type I has no header, and no sequence number.
        ERSPAN_II if flags & SEQUENCE == 0 => Some(layer::ETHERNET),
        ERSPAN_II | ERSPAN_III => Some(layer::ERSPAN),
        _ => Some(u32::from(kind)),
    }
}

/// draft-foschiano-erspan: types II and III.
#[inline(always)]
pub(super) fn erspan<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    match headers.byte(0)? >> 4 {
        1 => {
            walk.at += 8;
            Some(layer::ETHERNET)
        }
        2 => {
            let last = headers.word(8)?;
            // The lowest bit: eight more bytes that the platform defines.
            walk.at += if last & 1 == 0 { 12 } else { 20 };
            // The frame's type.
            match last >> 10 & 0x1f {
                0 => Some(layer::ETHERNET),
                2 => Some(layer::IP),
                _ => None,
            }
        }
        _ => None,
    }
}

/// RFC 7348 §5. The flag that says that the identifier is valid is not asked for: what stands inside shows it. With
/// the flag of draft-ietf-nvo3-vxlan-gpe, the last byte of the first word says what follows.
#[inline(always)]
pub(super) fn vxlan<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let first = headers.word(0)?;
    walk.at += 8;
    if first >> 24 & 4 == 0 {
        return Some(layer::ETHERNET);
    }
    match first & 0xff {
        1 => Some(u32::from(ethertype::IPV4)),
        2 => Some(u32::from(ethertype::IPV6)),
        3 => Some(layer::ETHERNET),
        5 => Some(u32::from(ethertype::MPLS)),
        _ => None,
    }
}

/// RFC 8926 §3.4.
#[inline(always)]
pub(super) fn geneve<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let first = headers.word(0)?;
    if first >> 30 != 0 {
        return None;
    }
    walk.at += 8 + (first >> 24 & 0x3f) * 4;
    Some(first & 0xffff)
}

/// 3GPP TS 29.281 §5.1: version 1, a user's packet.
#[inline(always)]
pub(super) fn gtp<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    const EXTENSION: u32 = 4;
    let first = headers.word(0)?;
    let flags = first >> 24;
    if flags & 0xf0 != 0x30 || first >> 16 & 0xff != 0xff {
        return None;
    }
    let (start, end) = (walk.at, walk.end);
    walk.at = start + 8;
    if shrink(walk, first & 0xffff).is_none() {
        walk.end = end;
        return None;
    }
    if flags & EXTENSION != 0 {
        walk.at = start + 11;
        return Some(layer::GTP_NEXT);
    }
    // Any of the three flags brings all three optional fields.
    if flags & 7 != 0 {
        walk.at = start + 12;
    }
    Some(layer::IP)
}

/// 3GPP TS 29.281 §5.2.1: the type of the next extension header, then its length in fours, and at its end the type of
/// the one behind it.
#[inline(always)]
pub(super) fn gtp_next<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let first = headers.half(0)?;
    if first >> 8 == 0 {
        walk.at += 1;
        return Some(layer::IP);
    }
    let len = u32::from(first & 0xff) * 4;
    if len == 0 {
        return None;
    }
    walk.at += len;
    Some(layer::GTP_NEXT)
}

/// RFC 4380 §5.1.1: authentication, then the origin, then IPv6.
#[inline(always)]
pub(super) fn teredo<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let first = headers.word(0)?;
    match first >> 16 {
        0 => walk.at += 8,
        1 => walk.at += 13 + (first >> 8 & 0xff) + (first & 0xff),
        _ if first >> 28 == 6 => return Some(u32::from(ethertype::IPV6)),
        _ => return None,
    }
    Some(layer::TEREDO)
}
