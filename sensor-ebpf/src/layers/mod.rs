//! The long way through layers 2 to 4: tunnels, MPLS, `PPPoE`, and any number of extension headers, one layer a step.
//!
//! [`crate::packet`] takes plain TCP and notes where anything else began; [`begin`] decides whether that is worth
//! following, and each [`step`] takes one layer off. What must survive from step to step stands in [`Walk`], in memory:
//! the kernel runs the steps in one `bpf_loop`, so they are verified once, however deep a packet goes, and the host runs
//! the very same ones.
//!
//! A layer never reaches beyond the one around it: [`Walk::end`] only shrinks, and a layer that states more than that
//! ends the walk. What cannot be followed to TCP counts as what the outermost packet is (`not_ip`, `not_tcp`): that some
//! UDP packet is not the tunnel that its port promises is no news. Only when nothing was tunnelled is it `malformed`.

mod tunnels;

use crate::packet::{Address, DEEP, Headers, PROTOCOL_TCP, Packet, ethertype, ipv4_place, mapped, tcp};
use crate::reason::Counter;

/// Bytes at the start of a layer that a step may look at: no fixed header is longer, and what is longer is skipped.
pub const LOOK: u32 = 64;
/// Most steps of one packet: bounds stacks of labels, tags and extension headers.
pub const STEPS_MAX: u32 = 48;
/// Most IP packets inside another.
pub const LEVELS_MAX: u32 = 4;
/// [`Walk::outcome`]: the packet's TCP segment stands in the [`Packet`].
pub const FOUND: u32 = u32::MAX;

/// Where a walk is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Offset of the next layer from the start of the frame.
    pub at: u32,
    /// First byte that is not of the enclosing layer; at most the frame's length.
    pub end: u32,
    /// What stands at `at`: a kind of `layer`, and in the low half a number of that kind.
    pub layer: u32,
    /// IP headers so far.
    pub headers: u32,
    /// 1 when tunnels are followed.
    pub tunnels: u32,
    /// [`FOUND`], or an index of [`Counter`].
    pub outcome: u32,
}

/// Kinds of layers, in the high half of a word.
mod layer {
    /// What the ethertype in the low half says.
    pub const TYPE: u32 = 0;
    /// What the IP protocol in the low half says.
    pub const PROTOCOL: u32 = 1 << 16;
    /// The same, where extension headers of IPv6 may stand.
    pub const NEXT_HEADER: u32 = 2 << 16;
    /// Ethernet, from the destination address on.
    pub const ETHERNET: u32 = 3 << 16;
    /// IP, whose version its first half byte says.
    pub const IP: u32 = 4 << 16;
    /// Behind an MPLS label stack.
    pub const UNLABELLED: u32 = 5 << 16;
    /// PPP, from the protocol field on, or from the address field of RFC 1662.
    pub const PPP: u32 = 6 << 16;
    /// Behind GRE: ERSPAN with a header.
    pub const ERSPAN: u32 = 7 << 16;
    /// VXLAN (RFC 7348).
    pub const VXLAN: u32 = 8 << 16;
    /// GENEVE (RFC 8926).
    pub const GENEVE: u32 = 9 << 16;
    /// GTP-U (3GPP TS 29.281).
    pub const GTP: u32 = 10 << 16;
    /// The byte that says which extension header of GTP-U follows.
    pub const GTP_NEXT: u32 = 11 << 16;
    /// Teredo (RFC 4380).
    pub const TEREDO: u32 = 12 << 16;
}

const MALFORMED: u32 = Counter::PacketMalformed as u32;
const NOT_TCP: u32 = Counter::PacketNotTcp as u32;

const PROTOCOL_IPV4: u32 = 4;
const PROTOCOL_UDP: u32 = 17;
const PROTOCOL_IPV6: u32 = 41;
const PROTOCOL_GRE: u32 = 47;
const PROTOCOL_ETHERIP: u32 = 97;
const PROTOCOL_MPLS: u32 = 137;

/// True if packets may stand inside this IP protocol.
#[inline(always)]
pub const fn carries(protocol: u32) -> bool {
    matches!(protocol, PROTOCOL_IPV4 | PROTOCOL_UDP | PROTOCOL_IPV6 | PROTOCOL_GRE | PROTOCOL_ETHERIP | PROTOCOL_MPLS)
}

/// True for the extension headers that are taken off: hop-by-hop, routing, destination options, mobility, host identity,
/// shim, authentication.
#[inline(always)]
const fn extends(next: u32) -> bool {
    matches!(next, 0 | 43 | 51 | 60 | 135 | 139 | 140)
}

/// False for most of what the short way leaves with `outcome` (and its note in `packet`): there is nothing to follow, and
/// [`begin`] need not be asked.
#[inline(always)]
pub const fn leads_on(outcome: u32, packet: &Packet) -> bool {
    const NOT_IP: u32 = Counter::PacketNotIp as u32;
    let note = packet.note();
    match outcome {
        NOT_IP => is_link(note.ethertype),
        NOT_TCP => note.protocol == DEEP || carries(note.protocol),
        MALFORMED => true,
        _ => false,
    }
}

/// Prepares a walk for a packet of which the short way said `outcome` (and left its note in `packet`); false when there
/// is nothing to follow. `tunnels` is asked only where a tunnel may begin.
#[inline(always)]
pub fn begin(
    walk: &mut Walk,
    packet: &Packet,
    outcome: Counter,
    frame_len: u32,
    tunnels: impl FnOnce() -> bool,
) -> bool {
    if !matches!(outcome, Counter::PacketNotIp | Counter::PacketNotTcp) {
        return false;
    }
    let note = packet.note();
    if note.at >= frame_len {
        return false;
    }
    walk.at = note.at;
    walk.end = frame_len;
    walk.layer = u32::from(note.ethertype);
    walk.headers = 0;
    walk.outcome = outcome as u32;
    let (plain, worth) = if outcome == Counter::PacketNotIp {
        (true, is_link(note.ethertype))
    } else {
        (note.protocol == DEEP, note.protocol == DEEP || carries(note.protocol))
    };
    if !worth {
        return false;
    }
    if note.protocol == DEEP {
        walk.outcome = MALFORMED;
    }
    let tunnels = tunnels();
    walk.tunnels = u32::from(tunnels);
    plain || tunnels
}

/// Prepares a walk of the whole frame, from the Ethernet header on.
#[inline(always)]
pub fn begin_frame(walk: &mut Walk, frame_len: u32, tunnels: bool) {
    walk.at = 0;
    walk.end = frame_len;
    walk.layer = layer::ETHERNET;
    walk.headers = 0;
    walk.tunnels = u32::from(tunnels);
    walk.outcome = MALFORMED;
}

/// True for what stands below IP, like a VLAN tag, and is taken off whether tunnels are followed or not.
#[inline(always)]
const fn is_link(kind: u16) -> bool {
    // All of them are at least that.
    if kind < ethertype::VLAN {
        return false;
    }
    matches!(
        kind,
        ethertype::VLAN
            | ethertype::QINQ
            | ethertype::QINQ_OLD
            | ethertype::MPLS
            | ethertype::MPLS_UPSTREAM
            | ethertype::PPPOE_SESSION
    )
}

impl Walk {
    /// Bytes from [`Walk::at`] on that the next step may look at. Not 0 until a step says that the walk is over.
    #[inline(always)]
    pub const fn look(&self) -> u32 {
        let left = self.end.saturating_sub(self.at);
        if left < LOOK { left } else { LOOK }
    }
}

/// Takes one layer off. `headers` begins at [`Walk::at`] and has [`Walk::look`] bytes, or those that are there. True
/// when the walk is over.
#[inline(always)]
pub fn step<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet) -> bool {
    match next(headers, walk, out) {
        Some(layer) => {
            walk.layer = layer;
            walk.at >= walk.end
        }
        None => true,
    }
}

#[inline(always)]
fn next<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet) -> Option<u32> {
    let value = walk.layer & 0xffff;
    match walk.layer & !0xffff {
        layer::TYPE => typed(headers, walk, out, value as u16),
        layer::PROTOCOL => protocol(headers, walk, out, value),
        layer::NEXT_HEADER => next_header(headers, walk, out, value),
        layer::ETHERNET => ethernet(headers, walk),
        layer::IP => Some(u32::from(ip_version(headers)?)),
        layer::UNLABELLED => unlabelled(headers, walk),
        layer::PPP => ppp(headers, walk),
        layer::ERSPAN => tunnels::erspan(headers, walk),
        layer::VXLAN => tunnels::vxlan(headers, walk),
        layer::GENEVE => tunnels::geneve(headers, walk),
        layer::GTP => tunnels::gtp(headers, walk),
        layer::GTP_NEXT => tunnels::gtp_next(headers, walk),
        layer::TEREDO => tunnels::teredo(headers, walk),
        _ => None,
    }
}

/// IEEE 802.3: a type, or a length with an LLC header behind it.
#[inline(always)]
fn ethernet<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let kind = headers.half(12)?;
    if kind >= 0x600 {
        walk.at += 14;
        return Some(u32::from(kind));
    }
    let llc = headers.word(14)?;
    if llc >> 8 == 0x0006_0603 {
        walk.at += 17;
        return Some(u32::from(ethertype::IPV4));
    }
    if llc != 0xaaaa_0300 {
        return None;
    }
    walk.at += 22;
    headers.half(20).map(u32::from)
}

/// What an ethertype says.
#[inline(always)]
fn typed<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet, kind: u16) -> Option<u32> {
    match kind {
        ethertype::IPV4 => ipv4(headers, walk, out),
        ethertype::IPV6 => ipv6(headers, walk, out),
        ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD => {
            walk.at += 4;
            headers.half(2).map(u32::from)
        }
        // RFC 3032 §2.1: the lowest bit of the third byte ends the stack.
        ethertype::MPLS | ethertype::MPLS_UPSTREAM => {
            let last = headers.word(0)? & 0x100 != 0;
            walk.at += 4;
            if last { Some(layer::UNLABELLED) } else { Some(u32::from(kind)) }
        }
        ethertype::PPPOE_SESSION => pppoe(headers, walk),
        ethertype::BRIDGED => Some(layer::ETHERNET),
        _ => None,
    }
}

/// The ethertype by the version in the first half byte.
#[inline(always)]
fn ip_version<H: Headers>(headers: &H) -> Option<u16> {
    match headers.byte(0)? >> 4 {
        4 => Some(ethertype::IPV4),
        6 => Some(ethertype::IPV6),
        _ => None,
    }
}

/// Behind a label stack nothing says what follows: IP by its version, else Ethernet, with the control word of RFC 4385
/// where its first half byte is 0.
#[inline(always)]
fn unlabelled<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    match headers.byte(0)? >> 4 {
        4 => Some(u32::from(ethertype::IPV4)),
        6 => Some(u32::from(ethertype::IPV6)),
        0 if walk.tunnels != 0 => {
            walk.at += 4;
            Some(layer::ETHERNET)
        }
        _ => None,
    }
}

/// RFC 2516 §4.
#[inline(always)]
fn pppoe<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    // Version 1, type 1, code 0.
    if headers.half(0)? != 0x1100 {
        return None;
    }
    let len = u32::from(headers.half(4)?);
    walk.at += 6;
    shrink(walk, len)?;
    Some(layer::PPP)
}

/// The layer at [`Walk::at`] says that it has `len` bytes.
#[inline(always)]
const fn shrink(walk: &mut Walk, len: u32) -> Option<()> {
    let end = walk.at + len;
    if end > walk.end {
        return None;
    }
    walk.end = end;
    Some(())
}

/// RFC 1661 §2: one byte when the field was compressed, else two.
#[inline(always)]
fn ppp<H: Headers>(headers: &H, walk: &mut Walk) -> Option<u32> {
    let first = headers.half(0)?;
    if first == 0xff03 {
        // RFC 1662 §3.1: address and control.
        walk.at += 2;
        return Some(layer::PPP);
    }
    let kind = if first & 0x100 != 0 {
        walk.at += 1;
        first >> 8
    } else {
        walk.at += 2;
        first
    };
    let kind = match kind {
        0x21 => ethertype::IPV4,
        0x57 => ethertype::IPV6,
        0x281 => ethertype::MPLS,
        0x283 => ethertype::MPLS_UPSTREAM,
        _ => return None,
    };
    Some(u32::from(kind))
}

/// Counts an IP header; `None` when there are too many, or this one would be inside a tunnel and none is followed.
#[inline(always)]
const fn enter(walk: &mut Walk) -> Option<()> {
    if walk.headers > LEVELS_MAX || (walk.headers > 0 && walk.tunnels == 0) {
        return None;
    }
    walk.headers += 1;
    Some(())
}

/// RFC 791.
#[inline(always)]
fn ipv4<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet) -> Option<u32> {
    enter(walk)?;
    let first = headers.word(0)?;
    let header_len = (first >> 24 & 0xf) * 4;
    let total = first & 0xffff;
    if first >> 28 != 4 || header_len < 20 || (total != 0 && total < header_len) {
        return None;
    }
    let fragment = headers.word(4)?;
    let protocol = headers.word(8)? >> 16 & 0xff;
    addresses(out, mapped(headers.raw4(12)?), mapped(headers.raw4(16)?));
    // BIG TCP: a length of 0 leaves it to the layer around.
    if total != 0 {
        shrink(walk, total)?;
    }
    walk.at += header_len;
    if fragment & 0x3fff != 0 {
        return keep_fragment(walk, out, protocol, fragment >> 16, ipv4_place(fragment), false);
    }
    Some(layer::PROTOCOL | protocol)
}

/// RFC 8200 §3.
#[inline(always)]
fn ipv6<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet) -> Option<u32> {
    enter(walk)?;
    if headers.byte(0)? >> 4 != 6 {
        return None;
    }
    let len = u32::from(headers.half(4)?);
    let next = headers.byte(6)?;
    let source = [headers.raw8(8)?, headers.raw8(16)?];
    addresses(out, source, [headers.raw8(24)?, headers.raw8(32)?]);
    walk.at += 40;
    if len != 0 {
        shrink(walk, len)?;
    }
    Some(layer::NEXT_HEADER | u32::from(next))
}

#[inline(always)]
const fn addresses(out: &mut Packet, source: Address, destination: Address) {
    out.source = source;
    out.destination = destination;
}

/// Ends the walk at a fragment, if what it is a part of can lead to TCP.
#[inline(always)]
const fn keep_fragment(
    walk: &mut Walk,
    out: &mut Packet,
    protocol: u32,
    identification: u32,
    place: u32,
    extensions: bool,
) -> Option<u32> {
    let followed = protocol == PROTOCOL_TCP as u32
        || (extensions && extends(protocol))
        || (walk.tunnels != 0 && carries(protocol));
    if followed && walk.at <= walk.end {
        out.keep_fragment(protocol as u8, identification, place, walk.at, walk.end);
        walk.outcome = Counter::PacketFragment as u32;
    } else if walk.headers == 1 {
        walk.outcome = NOT_TCP;
    }
    None
}

/// RFC 8200 §4.
#[inline(always)]
fn next_header<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet, next: u32) -> Option<u32> {
    if next == 44 {
        let place = headers.word(0)?;
        let inside = place >> 24;
        walk.at += 8;
        // An atomic fragment (RFC 6946) is whole.
        if place & 0xfff9 != 0 {
            return keep_fragment(walk, out, inside, headers.word(4)?, place & 0xfff9, true);
        }
        return Some(layer::NEXT_HEADER | inside);
    }
    if !extends(next) {
        return protocol(headers, walk, out, next);
    }
    let first = headers.half(0)?;
    let units = u32::from(first & 0xff);
    // Authentication (RFC 4302) counts in fours beyond the first eight bytes, all others in eights.
    walk.at += if next == 51 { (units + 2) * 4 } else { (units + 1) * 8 };
    Some(layer::NEXT_HEADER | u32::from(first >> 8))
}

/// What an IP protocol number says.
#[inline(always)]
fn protocol<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet, protocol: u32) -> Option<u32> {
    if protocol == u32::from(PROTOCOL_TCP) {
        return segment(headers, walk, out);
    }
    if walk.headers == 1 {
        walk.outcome = NOT_TCP;
    }
    if walk.tunnels == 0 {
        return None;
    }
    match protocol {
        PROTOCOL_IPV4 => Some(u32::from(ethertype::IPV4)),
        PROTOCOL_IPV6 => Some(u32::from(ethertype::IPV6)),
        PROTOCOL_UDP => tunnels::udp(headers, walk),
        PROTOCOL_GRE => tunnels::gre(headers, walk),
        PROTOCOL_MPLS => Some(u32::from(ethertype::MPLS)),
        // RFC 3378: version 3.
        PROTOCOL_ETHERIP if headers.half(0)? == 0x3000 => {
            walk.at += 2;
            Some(layer::ETHERNET)
        }
        _ => None,
    }
}

/// The end of the walk: TCP.
#[inline(always)]
fn segment<H: Headers>(headers: &H, walk: &mut Walk, out: &mut Packet) -> Option<u32> {
    let len = walk.end - walk.at;
    let (source, destination) = (out.source, out.destination);
    if tcp(headers, 0, len, len, source, destination, out).is_ok() {
        out.payload_at += walk.at;
        walk.outcome = FOUND;
    } else if walk.headers == 1 {
        walk.outcome = MALFORMED;
    }
    None
}
