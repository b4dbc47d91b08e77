//! Link layers: from the first captured byte to the network layer.

/// Ethertype of IPv4.
const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
const IPV6: u16 = 0x86dd;
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
    /// PPP, with or without HDLC-like framing.
    Ppp = "PPP", 9, 50;
    /// IP without a link layer, either version (the number differs between systems).
    Raw = "raw IP", 12, 14, 101;
    /// Cisco HDLC.
    CiscoHdlc = "Cisco HDLC", 104;
    /// OpenBSD loopback: the address family in network byte order.
    Loop = "OpenBSD loopback", 108;
    /// Linux cooked capture (`tcpdump -i any`, older).
    LinuxSll = "Linux cooked v1", 113;
    /// IPv4 without a link layer.
    Ipv4 = "raw IPv4", 228;
    /// IPv6 without a link layer.
    Ipv6 = "raw IPv6", 229;
    /// Linux netfilter log.
    Nflog = "NFLOG", 239;
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
        Link::Raw | Link::Ipv4 | Link::Ipv6 => Some((ip_version(data, 0)?, 0)),
        Link::Null | Link::Loop => Some((loopback_family(data)?, 4)),
        Link::CiscoHdlc => Some((be16(data, 2)?, 4)),
        Link::Ppp => ppp(data),
        Link::Nflog => nflog(data, u16::from_le_bytes).or_else(|| nflog(data, u16::from_be_bytes)),
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
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
        [0x06, 0x06, 0x03, ..] => Some((IPV4, at + 3)),
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
