//! Layers 2 to 4: from a frame to addresses, ports, sequence number and the place of the payload.
//!
//! Reads headers through [`Headers`] (direct packet access in the kernel, a slice on the host) and returns either a
//! [`Packet`] or the one counter that says why it is not of interest. Payload length comes from the IP header, never
//! from the frame's length, which has padding (RFC 894); only when the IP length is 0 (BIG TCP) does the frame's
//! length decide.

use crate::reason::Counter;
use crate::work::bound;

/// Bounds-checked access to the start of a frame.
pub trait Headers {
    /// Two bytes at `at`, as they stand in memory.
    fn raw2(&self, at: u32) -> Option<u16>;
    /// Four bytes at `at`, as they stand in memory.
    fn raw4(&self, at: u32) -> Option<u32>;
    /// Eight bytes at `at`, as they stand in memory.
    fn raw8(&self, at: u32) -> Option<u64>;

    /// The byte at `at`. Two are read: the compiler turns a check for one into a form that gives the verifier no range,
    /// and no header ends with a byte that is read here.
    #[inline(always)]
    fn byte(&self, at: u32) -> Option<u8> {
        self.half(at).map(|half| (half >> 8) as u8)
    }
    /// Two bytes at `at`, big-endian.
    #[inline(always)]
    fn half(&self, at: u32) -> Option<u16> {
        self.raw2(at).map(u16::from_be)
    }
    /// Four bytes at `at`, big-endian.
    #[inline(always)]
    fn word(&self, at: u32) -> Option<u32> {
        self.raw4(at).map(u32::from_be)
    }
    /// Eight bytes at `at`, big-endian: one check for what would be two.
    #[inline(always)]
    fn pair(&self, at: u32) -> Option<(u32, u32)> {
        self.raw8(at).map(|raw| {
            let both = u64::from_be(raw);
            ((both >> 32) as u32, both as u32)
        })
    }
}

/// TCP header flags.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u32 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u32 = 2;
    /// Reset.
    pub const RST: u32 = 4;
    /// The acknowledgement field is valid.
    pub const ACK: u32 = 16;
    /// Not of the header: the segment comes in IP fragments. Its first one was seen, its payload goes to user space.
    /// Stands alone: the other flags count when all of the segment came.
    pub const PIECES: u32 = 1 << 9;
}

/// An address in memory order: IPv6, or IPv4 mapped into it.
pub type Address = [u64; 2];

/// A piece of an IP datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol of the datagram's payload; for IPv6 perhaps an extension header.
    pub protocol: u8,
    /// The datagram's identification.
    pub identification: u32,
    /// Offset of the piece in the datagram's payload, bytes.
    pub at: u32,
    /// True unless the piece ends the datagram.
    pub more: bool,
    /// Offset of the piece's bytes from the start of the frame.
    pub payload_at: u32,
    /// Bytes that the IP header states; they are within the frame.
    pub payload_len: u32,
}

/// Where [`crate::layers`] goes on when the short way ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// What stands at `at`.
    pub ethertype: u16,
    /// For IP: the protocol that is not TCP, or [`DEEP`].
    pub protocol: u32,
    /// Offset from the start of the frame.
    pub at: u32,
}

/// [`Note::protocol`]: more extension headers than the short way takes off.
pub const DEEP: u32 = 256;

/// What is needed of a TCP segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first payload byte (of the SYN, if it has one).
    pub sequence: u32,
    /// Next byte that the sender expects of the other half; of meaning only with [`tcp_flag::ACK`].
    pub acknowledgement: u32,
    /// Bits of [`tcp_flag`].
    pub flags: u32,
    /// Offset of the payload from the start of the frame.
    pub payload_at: u32,
    /// Payload bytes that the IP header states.
    pub payload_len: u32,
}

impl Packet {
    /// What was found of a fragment. Of meaning only behind [`Counter::PacketFragment`].
    #[inline(always)]
    pub const fn fragment(&self) -> Fragment {
        Fragment {
            source: self.source,
            destination: self.destination,
            protocol: self.flags as u8,
            identification: self.sequence,
            at: self.acknowledgement & !7,
            more: self.acknowledgement & 1 != 0,
            payload_at: self.payload_at,
            payload_len: self.payload_len,
        }
    }

    /// Where to go on. Of meaning only behind [`Counter::PacketNotIp`] and [`Counter::PacketNotTcp`].
    #[inline(always)]
    pub const fn note(&self) -> Note {
        Note { ethertype: self.source_port, protocol: self.flags, at: self.payload_at }
    }

    #[inline(always)]
    const fn leave(&mut self, ethertype: u16, protocol: u32, at: u32) {
        self.source_port = ethertype;
        self.flags = protocol;
        self.payload_at = at;
    }

    /// Keeps a fragment whose payload lies between `at` and `end`. `place` has the offset in bytes and, in its lowest
    /// bit, whether more follow.
    #[inline(always)]
    pub(crate) const fn keep_fragment(&mut self, protocol: u8, identification: u32, place: u32, at: u32, end: u32) {
        self.flags = protocol as u32;
        self.sequence = identification;
        self.acknowledgement = place;
        self.payload_at = at;
        self.payload_len = end - at;
    }
}

/// Ethertypes.
pub mod ethertype {
    /// RFC 894.
    pub const IPV4: u16 = 0x0800;
    /// RFC 2464.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad.
    pub const QINQ: u16 = 0x88a8;
    /// What stood for [`QINQ`] before it was assigned.
    pub const QINQ_OLD: u16 = 0x9100;
    /// RFC 3032, unicast.
    pub const MPLS: u16 = 0x8847;
    /// RFC 5332: multicast, or a label that the sender assigned.
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// RFC 2516.
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Ethernet in something else (RFC 7637 and others).
    pub const BRIDGED: u16 = 0x6558;
}

/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// VLAN tags that are skipped (QinQ has two; a third is seen behind some carriers).
const VLAN_TAGS_MAX: u32 = 3;
/// IPv6 extension headers that are skipped.
const EXTENSIONS_MAX: u32 = 4;
/// Bytes within which the TCP header of an IPv6 packet must begin; half of a power of two that still bounds it.
const HEADERS_MAX: u32 = 1024;

/// An IPv4 address, as it stands in memory, mapped into IPv6 (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).
#[inline(always)]
pub const fn mapped(v4: u32) -> Address {
    [0, 0xffff_0000 | (v4 as u64) << 32]
}

/// Parses an Ethernet frame of `frame_len` bytes into `out`, which is left as it was, or in part written, on an error.
///
/// (An out parameter, in map memory in the kernel: a `Result` of a packet would leave registers undefined on the error
/// path, and the verifier would follow every way through the headers to the end of the program.)
#[inline(always)]
pub fn ethernet<H: Headers>(headers: &H, frame_len: u32, out: &mut Packet) -> Result<(), Counter> {
    let kind = headers.half(12).ok_or(Counter::PacketMalformed)?;
    network(headers, kind, 14, frame_len, out)
}

/// Parses from the network layer: `kind` (of [`ethertype`]) says what stands at `at`.
#[inline(always)]
pub fn network<H: Headers>(headers: &H, kind: u16, at: u32, frame_len: u32, out: &mut Packet) -> Result<(), Counter> {
    let mut kind = kind;
    let mut at = at;
    for _ in 0..VLAN_TAGS_MAX {
        if kind != ethertype::VLAN && kind != ethertype::QINQ && kind != ethertype::QINQ_OLD {
            break;
        }
        kind = headers.half(at + 2).ok_or(Counter::PacketMalformed)?;
        at = forget(out, at + 4);
    }
    match kind {
        ethertype::IPV4 => ipv4(headers, at, frame_len, out),
        ethertype::IPV6 => ipv6(headers, at, frame_len, out),
        // Nearly always ARP, behind which is nothing: its ethertype says that, and the rest of the note is not looked at.
        _ if kind < ethertype::VLAN => {
            out.source_port = kind;
            Err(Counter::PacketNotIp)
        }
        _ => {
            out.leave(kind, 0, at);
            Err(Counter::PacketNotIp)
        }
    }
}

/// `at`, sent through memory and bounded anew: the verifier then takes the ways by which it came to be for one, instead
/// of following each to the end.
#[inline(always)]
fn forget(out: &mut Packet, at: u32) -> u32 {
    let scratch = &raw mut out.payload_at;
    // SAFETY: a valid field; volatile so that the value really leaves the register.
    let at = unsafe {
        scratch.write_volatile(at);
        scratch.read_volatile()
    };
    bound::<{ HEADERS_MAX * 2 - 1 }>(at)
}

/// RFC 791.
#[inline(always)]
fn ipv4<H: Headers>(headers: &H, at: u32, frame_len: u32, out: &mut Packet) -> Result<(), Counter> {
    let (first, fragment) = headers.pair(at).ok_or(Counter::PacketMalformed)?;
    let header_len = (first >> 24 & 0xf) * 4;
    if first >> 28 != 4 || header_len < 20 {
        return Err(Counter::PacketMalformed);
    }
    let second = headers.word(at + 8).ok_or(Counter::PacketMalformed)?;
    let protocol = second >> 16 & 0xff;
    if protocol != u32::from(PROTOCOL_TCP) {
        out.leave(ethertype::IPV4, protocol, at);
        return Err(Counter::PacketNotTcp);
    }
    // In memory order, the first of them low.
    let both = u64::from_le(headers.raw8(at + 12).ok_or(Counter::PacketMalformed)?);
    let (source, destination) = (mapped(u32::from_le(both as u32)), mapped(u32::from_le((both >> 32) as u32)));
    let total = first & 0xffff;
    let end = if total == 0 { frame_len } else { at + total };
    // More-fragments bit or a fragment offset.
    if fragment & 0x3fff != 0 {
        let at = at + header_len;
        if at > end || end > frame_len {
            return Err(Counter::PacketMalformed);
        }
        out.source = source;
        out.destination = destination;
        out.keep_fragment(PROTOCOL_TCP, fragment >> 16, ipv4_place(fragment), at, end);
        return Err(Counter::PacketFragment);
    }
    tcp(headers, at + header_len, end, frame_len, source, destination, out)
}

/// The place of an IPv4 fragment as [`Packet::keep_fragment`] wants it, from its header's second word.
#[inline(always)]
pub(crate) const fn ipv4_place(word: u32) -> u32 {
    (word & 0x1fff) << 3 | word >> 13 & 1
}

/// RFC 8200, with the extension headers of its §4.
#[inline(always)]
fn ipv6<H: Headers>(headers: &H, at: u32, frame_len: u32, out: &mut Packet) -> Result<(), Counter> {
    let (first, second) = headers.pair(at).ok_or(Counter::PacketMalformed)?;
    if first >> 28 != 6 {
        return Err(Counter::PacketMalformed);
    }
    let payload = second >> 16;
    let mut next = (second >> 8) as u8;
    let source =
        [headers.raw8(at + 8).ok_or(Counter::PacketMalformed)?, headers.raw8(at + 16).ok_or(Counter::PacketMalformed)?];
    let destination = [
        headers.raw8(at + 24).ok_or(Counter::PacketMalformed)?,
        headers.raw8(at + 32).ok_or(Counter::PacketMalformed)?,
    ];
    let end = if payload == 0 { frame_len } else { at + 40 + payload };
    let start = at;
    let mut at = at + 40;
    for _ in 0..EXTENSIONS_MAX {
        if next == PROTOCOL_TCP {
            break;
        }
        let length = match next {
            // Hop-by-hop, routing, destination options, mobility: in units of 8 beyond the first 8.
            0 | 43 | 60 | 135 => (u32::from(headers.byte(at + 1).ok_or(Counter::PacketMalformed)?) + 1) * 8,
            // Authentication (RFC 4302): in units of 4 beyond the first 8.
            51 => (u32::from(headers.byte(at + 1).ok_or(Counter::PacketMalformed)?) + 2) * 4,
            // Fragment: an atomic one (RFC 6946) is whole.
            44 => {
                let place = u32::from(headers.half(at + 2).ok_or(Counter::PacketMalformed)?);
                if place & 0xfff9 != 0 {
                    let inside = headers.byte(at).ok_or(Counter::PacketMalformed)?;
                    let identification = headers.word(at + 4).ok_or(Counter::PacketMalformed)?;
                    if inside != PROTOCOL_TCP {
                        // An extension header, or a tunnel's protocol: the long way decides.
                        out.leave(ethertype::IPV6, DEEP, start);
                        return Err(Counter::PacketNotTcp);
                    }
                    if at + 8 > end || end > frame_len {
                        return Err(Counter::PacketMalformed);
                    }
                    out.source = source;
                    out.destination = destination;
                    out.keep_fragment(inside, identification, place, at + 8, end);
                    return Err(Counter::PacketFragment);
                }
                8
            }
            _ => {
                out.leave(ethertype::IPV6, u32::from(next), start);
                return Err(Counter::PacketNotTcp);
            }
        };
        next = headers.byte(at).ok_or(Counter::PacketMalformed)?;
        at += length;
        if at > HEADERS_MAX {
            out.leave(ethertype::IPV6, DEEP, start);
            return Err(Counter::PacketNotTcp);
        }
        at = forget(out, at);
    }
    if next != PROTOCOL_TCP {
        out.leave(ethertype::IPV6, DEEP, start);
        return Err(Counter::PacketNotTcp);
    }
    tcp(headers, at, end, frame_len, source, destination, out)
}

/// RFC 9293 §3.1.
#[inline(always)]
pub(crate) fn tcp<H: Headers>(
    headers: &H,
    at: u32,
    end: u32,
    frame_len: u32,
    source: Address,
    destination: Address,
    out: &mut Packet,
) -> Result<(), Counter> {
    let (ports, sequence) = headers.pair(at).ok_or(Counter::PacketMalformed)?;
    let (acknowledgement, offset_flags) = headers.pair(at + 8).ok_or(Counter::PacketMalformed)?;
    let header_len = (offset_flags >> 28) * 4;
    let payload_at = at + header_len;
    // A packet that is longer than its frame is dropped by whoever receives it: its bytes are not of the stream.
    if header_len < 20 || payload_at > end || end > frame_len {
        return Err(Counter::PacketMalformed);
    }
    out.source = source;
    out.destination = destination;
    out.source_port = (ports >> 16) as u16;
    out.destination_port = ports as u16;
    out.sequence = sequence;
    out.acknowledgement = acknowledgement;
    out.flags = offset_flags >> 16 & 0xff;
    out.payload_at = payload_at;
    out.payload_len = end - payload_at;
    Ok(())
}

/// Headers in memory.
pub struct SliceHeaders<'a>(pub &'a [u8]);

impl SliceHeaders<'_> {
    fn array<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let at = at as usize;
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

impl Headers for SliceHeaders<'_> {
    fn raw2(&self, at: u32) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }
    fn raw4(&self, at: u32) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }
    fn raw8(&self, at: u32) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }
}
