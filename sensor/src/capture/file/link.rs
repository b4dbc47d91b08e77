//! Link layers: from the first captured byte to the network layer.

use sensor_ebpf::packet::ethertype;

/// Ethertype of IPv4.
const IPV4: u16 = ethertype::IPV4;
/// Ethertype of IPv6.
const IPV6: u16 = ethertype::IPV6;
/// Below this, the field behind an Ethernet address is a length (IEEE 802.3 §3.2.6).
const FIRST_ETHERTYPE: u16 = 0x0600;

macro_rules! links {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(, $number:literal)+;)*) => {
        /// A link layer that is read (`LINKTYPE_` numbers of the tcpdump registry).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Link { $($(#[$doc])* $variant,)* }

        impl Link {
            /// All link layers that are read.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The link layer with this number, if it is read.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($($number)|+ => Some(Self::$variant),)* _ => None }
            }

            /// What people call it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

links! {
    /// BSD loopback: the address family in the byte order of the capturing host.
    Null = "BSD loopback", 0;
    /// Ethernet, also with IEEE 802.2 LLC/SNAP.
    Ethernet = "Ethernet", 1;
    /// IEEE 802.5 token ring.
    TokenRing = "token ring", 6;
    /// Serial line IP behind the 16 bytes of its BSD header.
    Slip = "SLIP", 8;
    /// PPP, with or without HDLC-like framing.
    Ppp = "PPP", 9, 50;
    /// FDDI.
    Fddi = "FDDI", 10;
    /// IP without a link layer, either version (the number differs between systems).
    Raw = "raw IP", 12, 14, 101;
    /// `PPPoE` without the Ethernet header.
    PppEther = "PPPoE", 51;
    /// LLC-encapsulated ATM (RFC 2684).
    AtmLlc = "ATM with LLC", 100;
    /// Cisco HDLC.
    CiscoHdlc = "Cisco HDLC", 104;
    /// IEEE 802.11.
    Wifi = "IEEE 802.11", 105;
    /// Frame Relay (RFC 2427).
    FrameRelay = "Frame Relay", 107;
    /// OpenBSD loopback: the address family in network byte order.
    Loop = "OpenBSD loopback", 108;
    /// `OpenBSD` `IPsec`: a 12-byte header with the address family.
    Enc = "OpenBSD enc", 109;
    /// Linux cooked capture (`tcpdump -i any`, older).
    LinuxSll = "Linux cooked v1", 113;
    /// BSD packet filter log.
    Pflog = "pflog", 117;
    /// IEEE 802.11 behind a radiotap header.
    Radiotap = "radiotap", 127;
    /// IP over IEEE 1394 as macOS writes it.
    AppleFirewire = "IP over IEEE 1394", 138;
    /// PPP behind a byte for the direction.
    PppDirection = "PPP with direction", 166, 204;
    /// Cisco HDLC behind a byte for the direction.
    HdlcDirection = "Cisco HDLC with direction", 205;
    /// Frame Relay behind a byte for the direction.
    FrameRelayDirection = "Frame Relay with direction", 206;
    /// MPLS without a link layer.
    Mpls = "MPLS", 219;
    /// IPv4 without a link layer.
    Ipv4 = "raw IPv4", 228;
    /// IPv6 without a link layer.
    Ipv6 = "raw IPv6", 229;
    /// Linux netfilter log.
    Nflog = "NFLOG", 239;
    /// Ethernet behind the four bytes of `netANALYZER`.
    NetAnalyzer = "netANALYZER", 240;
    /// What macOS puts before any other link layer.
    Pktap = "macOS PKTAP", 149, 258;
    /// Ethernet with its preamble (mPacket, IEEE 802.3br).
    Mpacket = "Ethernet mPacket", 274;
    /// Linux cooked capture v2 (`tcpdump -i any`).
    LinuxSll2 = "Linux cooked v2", 276;
}

impl Link {
    /// The names of all link layers that are read, for error messages.
    pub(super) fn readable() -> String {
        Self::ALL.iter().map(|link| link.name()).collect::<Vec<_>>().join(", ")
    }
}

/// Where the network layer begins: its ethertype and the offset of the first byte behind the field that says so.
///
/// For Ethernet the outer ethertype as it stands: VLAN tags are the packet parser's to take off. `None` when `data` is
/// too short, or says of itself that it is neither IPv4 nor IPv6 in a way that ethertypes cannot express.
pub fn network_offset(link: Link, data: &[u8]) -> Option<(u16, usize)> {
    match link {
        Link::Ethernet => ethertype_or_llc(data, 12),
        Link::LinuxSll => match be16(data, 14)? {
            // Protocol 4 of the cooked header: what follows is an LLC header.
            4 => llc(data, 16),
            protocol => Some((protocol, 16)),
        },
        Link::LinuxSll2 => match (be16(data, 0)?, data.len()) {
            (_, ..20) => None,
            (4, _) => llc(data, 20),
            (protocol, _) => Some((protocol, 20)),
        },
        Link::Raw | Link::Ipv4 | Link::Ipv6 => ip(data, 0),
        Link::Null | Link::Loop => Some((loopback_family(data)?, 4)),
        Link::Enc => Some((loopback_family(data)?, 12)).filter(|(_, at)| *at <= data.len()),
        Link::Pflog => ip(data, usize::from(*data.first()?).next_multiple_of(4)),
        Link::Slip => ip(data, 16),
        Link::Mpls => Some((ethertype::MPLS, 0)),
        Link::PppEther => Some((ethertype::PPPOE_SESSION, 0)),
        Link::Fddi => llc(data, 13),
        Link::TokenRing => llc(data, 14 + source_route(data)?),
        Link::AtmLlc => llc(data, 0),
        Link::AppleFirewire => Some((be16(data, 16)?, 18)),
        Link::NetAnalyzer => ethertype_or_llc(data, 4 + 12),
        Link::Mpacket => ethertype_or_llc(data, 8 + 12),
        Link::Wifi => wifi(data),
        Link::Radiotap => behind(data, usize::from(le16(data, 2)?), Link::Wifi),
        Link::Pktap => pktap(data),
        Link::FrameRelay => frame_relay(data),
        Link::PppDirection => behind(data, 1, Link::Ppp),
        Link::HdlcDirection => behind(data, 1, Link::CiscoHdlc),
        Link::FrameRelayDirection => behind(data, 1, Link::FrameRelay),
        Link::CiscoHdlc => Some((be16(data, 2)?, 4)),
        Link::Ppp => ppp(data),
        Link::Nflog => nflog(data, u16::from_le_bytes).or_else(|| nflog(data, u16::from_be_bytes)),
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn le16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn le32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The network layer of what begins at `at`.
fn behind(data: &[u8], at: usize, link: Link) -> Option<(u16, usize)> {
    let (kind, offset) = network_offset(link, data.get(at..)?)?;
    Some((kind, at + offset))
}

/// An IP header at `at`.
fn ip(data: &[u8], at: usize) -> Option<(u16, usize)> {
    Some((ip_version(data, at)?, at))
}

/// Ethertype by the version nibble of an IP header.
fn ip_version(data: &[u8], at: usize) -> Option<u16> {
    match data.get(at)? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// The type field at `at`, or what an LLC header behind it says when it is a length.
fn ethertype_or_llc(data: &[u8], at: usize) -> Option<(u16, usize)> {
    let ethertype = be16(data, at)?;
    if ethertype < FIRST_ETHERTYPE
        && let Some(found) = llc(data, at + 2)
    {
        return Some(found);
    }
    Some((ethertype, at + 2))
}

/// IEEE 802.2 LLC with SNAP (RFC 1042), or with the service access point of IP.
fn llc(data: &[u8], at: usize) -> Option<(u16, usize)> {
    match data.get(at..)? {
        [0xaa, 0xaa, 0x03, 0, 0, 0, high, low, ..] => Some((u16::from_be_bytes([*high, *low]), at + 8)),
        // RFC 2684 §5.2: Ethernet, bridged, behind two bytes of padding; with its checksum and without.
        [0xaa, 0xaa, 0x03, 0, 0x80, 0xc2, 0, 1 | 7, ..] => ethertype_or_llc(data, at + 10 + 12),
        [0x06, 0x06, 0x03, ..] => Some((IPV4, at + 3)),
        _ => None,
    }
}

/// Bytes of routing information behind a token ring's addresses: the highest bit of the source says that there is some.
fn source_route(data: &[u8]) -> Option<usize> {
    if data.get(8)? & 0x80 == 0 { Some(0) } else { data.get(14).map(|first| usize::from(first & 0x1f)) }
}

/// IEEE 802.11 data frames that are not encrypted. Aggregates, which few captures hold, are not taken apart.
fn wifi(data: &[u8]) -> Option<(u16, usize)> {
    let [kind, flags] = *data.first_chunk()?;
    let data_frame = kind & 0x0c == 8;
    let (empty, quality) = (kind & 0x40 != 0, kind & 0x80 != 0);
    let (protected, between_stations) = (flags & 0x40 != 0, flags & 3 == 3);
    if !data_frame || empty || protected {
        return None;
    }
    let mut at = if between_stations { 30 } else { 24 };
    if quality {
        if data.get(at)? & 0x80 != 0 {
            return None;
        }
        at += if flags & 0x80 == 0 { 2 } else { 6 };
    }
    llc(data, at)
}

/// Apple's header: its length, a type (1 for a packet), and the link layer of what follows, which is not itself.
fn pktap(data: &[u8]) -> Option<(u16, usize)> {
    const PACKET: u32 = 1;
    let (len, kind) = (usize::try_from(le32(data, 0)?).ok()?, le32(data, 4)?);
    let link = Link::from_number(u16::try_from(le32(data, 8)?).ok()?)?;
    if kind != PACKET || len < 12 || link == Link::Pktap {
        return None;
    }
    behind(data, len, link)
}

/// RFC 2427: an address of two to four bytes, unnumbered information, perhaps padding, and what follows.
fn frame_relay(data: &[u8]) -> Option<(u16, usize)> {
    // The lowest bit ends the address.
    let at = data.iter().take(4).position(|byte| byte & 1 == 1)? + 1;
    // Cisco's own form has an ethertype here; control 3 is no start of one that is known.
    if *data.get(at)? != 3 {
        return Some((be16(data, at)?, at + 2));
    }
    let at = at + 1 + usize::from(*data.get(at + 1)? == 0);
    match data.get(at..)? {
        [0xcc, ..] => Some((IPV4, at + 1)),
        [0x8e, ..] => Some((IPV6, at + 1)),
        [0x80, 0, 0, 0, high, low, ..] => Some((u16::from_be_bytes([*high, *low]), at + 6)),
        [0x80, 0, 0x80, 0xc2, 0, 1 | 7, ..] => ethertype_or_llc(data, at + 6 + 12),
        _ => None,
    }
}

/// Address family of a loopback header. The number of `AF_INET6` differs between systems, and files are read on other
/// hosts than wrote them, so both byte orders are taken (no family has a number above 255).
fn loopback_family(data: &[u8]) -> Option<u16> {
    let ([0, 0, 0, family] | [family, 0, 0, 0]) = *data.first_chunk()? else { return None };
    match family {
        2 => Some(IPV4),
        // Linux 10, Windows 23, NetBSD and OpenBSD 24, FreeBSD 28, macOS 30.
        10 | 23 | 24 | 28 | 30 => Some(IPV6),
        _ => None,
    }
}

/// PPP (RFC 1661), with the address and control bytes of RFC 1662 or without, with a one-byte protocol or a full one;
/// Cisco HDLC where the address says so.
fn ppp(data: &[u8]) -> Option<(u16, usize)> {
    let at = match data {
        [0xff, 0x03, ..] => 2,
        [0x0f | 0x8f, 0, ..] => return network_offset(Link::CiscoHdlc, data),
        _ => 0,
    };
    let first = *data.get(at)?;
    // The low bit of a protocol's first byte is 0 unless the field was compressed to one byte (RFC 1661 §6.5).
    let (protocol, len) = if first & 1 == 1 { (u16::from(first), 1) } else { (be16(data, at)?, 2) };
    match protocol {
        0x21 => Some((IPV4, at + len)),
        0x57 => Some((IPV6, at + len)),
        _ => None,
    }
}

/// Netfilter log: a 4-byte header, then type-length-value entries in the byte order of the capturing host, of which
/// one is the packet.
fn nflog(data: &[u8], number: fn([u8; 2]) -> u16) -> Option<(u16, usize)> {
    const PAYLOAD: u16 = 9;
    const HEADER: usize = 4;
    let mut at = HEADER;
    loop {
        let [len, kind] = data.get(at..)?.first_chunk::<4>()?.as_chunks::<2>().0.try_into().ok()?;
        let len = usize::from(number(len));
        if len < HEADER || at + len > data.len() {
            return None;
        }
        if number(kind) == PAYLOAD {
            return Some((ip_version(data, at + HEADER)?, at + HEADER));
        }
        at += len.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn link_layers_lead_to_the_network_layer() {
        let ether = |tail: &[u8]| [&[0; 12], tail].concat();
        let sll2 = |protocol: &[u8]| [protocol, &[0; 18]].concat();
        let nflog = |tlvs: &[u8]| [&[2, 0, 0, 1], tlvs].concat();
        let cases = [
            (Link::Ethernet, ether(&[8, 0, 0x45]), Some((0x0800, 14))),
            (Link::Ethernet, ether(&[0x81, 0, 0, 5, 8, 0]), Some((0x8100, 14))),
            (Link::Ethernet, ether(&[0, 40, 0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd, 0x60]), Some((0x86dd, 22))),
            (Link::Ethernet, ether(&[0, 40, 6, 6, 3, 0x45]), Some((0x0800, 17))),
            (Link::Ethernet, ether(&[0, 40, 0x42, 0x42, 3]), Some((40, 14))),
            (Link::Ethernet, vec![0; 13], None),
            (Link::LinuxSll, [&[0; 14], &[0x86, 0xdd][..]].concat(), Some((0x86dd, 16))),
            (Link::LinuxSll, [&[0; 14], &[0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..]].concat(), Some((0x0800, 24))),
            (Link::LinuxSll, vec![0; 15], None),
            (Link::LinuxSll2, sll2(&[8, 0]), Some((0x0800, 20))),
            (Link::LinuxSll2, sll2(&[8, 0])[..19].to_vec(), None),
            (Link::Null, vec![2, 0, 0, 0, 0x45], Some((0x0800, 4))),
            (Link::Null, vec![0, 0, 0, 2, 0x45], Some((0x0800, 4))),
            (Link::Loop, vec![0, 0, 0, 24, 0x60], Some((0x86dd, 4))),
            (Link::Loop, vec![30, 0, 0, 0, 0x60], Some((0x86dd, 4))),
            (Link::Null, vec![7, 0, 0, 0], None),
            (Link::Null, vec![2, 0, 0], None),
            (Link::Raw, vec![0x45], Some((0x0800, 0))),
            (Link::Ipv4, vec![0x46], Some((0x0800, 0))),
            (Link::Ipv6, vec![0x60], Some((0x86dd, 0))),
            (Link::Raw, vec![0x50], None),
            (Link::Raw, vec![], None),
            (Link::CiscoHdlc, vec![0x0f, 0, 8, 0, 0x45], Some((0x0800, 4))),
            (Link::Ppp, vec![0xff, 3, 0, 0x21, 0x45], Some((0x0800, 4))),
            (Link::Ppp, vec![0, 0x57, 0x60], Some((0x86dd, 2))),
            (Link::Ppp, vec![0x21, 0x45], Some((0x0800, 1))),
            (Link::Ppp, vec![0x0f, 0, 0x86, 0xdd, 0x60], Some((0x86dd, 4))),
            (Link::Ppp, vec![0xc0, 0x21, 1], None),
            (Link::Nflog, nflog(&[5, 0, 10, 0, 1, 0, 0, 0, 8, 0, 9, 0, 0x45, 0, 0, 0]), Some((0x0800, 16))),
            (Link::Nflog, nflog(&[0, 5, 0, 10, 1, 0, 0, 0, 0, 8, 0, 9, 0x60, 0, 0, 0]), Some((0x86dd, 16))),
            (Link::PppEther, vec![0x11, 0, 0, 1], Some((0x8864, 0))),
            (Link::Mpls, vec![0, 0, 1, 64], Some((0x8847, 0))),
            (Link::Enc, [&[2, 0, 0, 0], &[0; 8][..], &[0x45]].concat(), Some((0x0800, 12))),
            (Link::Enc, vec![2, 0, 0, 0], None),
            (Link::Pflog, [&[61], &[0; 63][..], &[0x60]].concat(), Some((0x86dd, 64))),
            (Link::Slip, [&[0; 16][..], &[0x45]].concat(), Some((0x0800, 16))),
            (Link::Fddi, [&[0; 13][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Some((0x0800, 21))),
            (Link::TokenRing, [&[0; 14][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Some((0x0800, 22))),
            (
                Link::TokenRing,
                [&[0; 8][..], &[0x80, 0, 0, 0, 0, 0, 0xc4, 1, 2, 3, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(),
                Some((0x0800, 26)),
            ),
            (Link::AtmLlc, vec![0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd], Some((0x86dd, 8))),
            (
                Link::AtmLlc,
                [&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7, 0, 0][..], &ether(&[8, 0])].concat(),
                Some((0x0800, 24)),
            ),
            (Link::AppleFirewire, [&[0; 16][..], &[8, 0]].concat(), Some((0x0800, 18))),
            (Link::NetAnalyzer, [&[0; 4][..], &ether(&[8, 0])].concat(), Some((0x0800, 18))),
            (Link::Mpacket, [&[0; 8][..], &ether(&[8, 0])].concat(), Some((0x0800, 22))),
            (Link::Wifi, [&[8, 1], &[0; 22][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Some((0x0800, 32))),
            (Link::Wifi, [&[0x88, 3], &[0; 30][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Some((0x0800, 40))),
            (Link::Wifi, [&[0x88, 0x81], &[0; 28][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), Some((0x0800, 38))),
            (Link::Wifi, [&[8, 0x41], &[0; 22][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(), None),
            (Link::Wifi, [&[0x80, 0], &[0; 40][..]].concat(), None),
            (
                Link::Radiotap,
                [&[0, 0, 9, 0, 0, 0, 0, 0, 0, 8, 1], &[0; 22][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat(),
                Some((0x0800, 41)),
            ),
            (Link::Pktap, [&[12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..], &ether(&[8, 0])].concat(), Some((0x0800, 26))),
            (Link::Pktap, vec![0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0], None),
            (Link::FrameRelay, vec![0x18, 0x41, 3, 0xcc, 0x45], Some((0x0800, 4))),
            (Link::FrameRelay, vec![0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 0x86, 0xdd], Some((0x86dd, 10))),
            (Link::FrameRelay, vec![0x18, 0x41, 8, 0, 0x45], Some((0x0800, 4))),
            (Link::FrameRelay, vec![0, 0, 0, 0, 0, 1], None),
            (Link::PppDirection, vec![1, 0xff, 3, 0, 0x21, 0x45], Some((0x0800, 5))),
            (Link::HdlcDirection, vec![0, 0x0f, 0, 8, 0, 0x45], Some((0x0800, 5))),
            (Link::FrameRelayDirection, vec![0, 0x18, 0x41, 3, 0xcc, 0x45], Some((0x0800, 5))),
            (Link::Nflog, nflog(&[0, 0, 10, 0]), None),
            (Link::Nflog, nflog(&[8, 0, 10, 0, 1, 0, 0, 0]), None),
        ];
        for (link, data, expected) in cases {
            assert_eq!(network_offset(link, &data), expected, "{link:?} {data:02x?}");
        }
    }

    proptest! {
        #[test]
        fn network_offsets_stay_in_the_packet(
            link in proptest::sample::select(Link::ALL),
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..12_u8], 0..64),
        ) {
            if let Some((_, offset)) = network_offset(link, &bytes) {
                prop_assert!(offset <= bytes.len());
            }
        }
    }
}
