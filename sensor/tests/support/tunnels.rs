//! Headers made byte by byte, and everything that can stand around an IP packet.

pub fn link(tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0x20, 7]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

pub fn ipv4(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// With extension headers: kind and bytes (whose first byte is put in here).
pub fn ipv6(extensions: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).chain([6]).collect();
    for ((_, bytes), next) in extensions.iter().zip(&kinds[1..]) {
        body.push(*next);
        body.extend(&bytes[1..]);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    packet.extend([kinds[0], 64]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(body);
    packet
}

pub fn extension(units: u8) -> Vec<u8> {
    let mut bytes = vec![0; 8 * (usize::from(units) + 1)];
    bytes[1] = units;
    bytes
}

/// A name, and what puts a packet inside.
pub type Layer = (&'static str, fn(Vec<u8>) -> Vec<u8>);

pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

pub fn with(header: &[u8], mut payload: Vec<u8>) -> Vec<u8> {
    payload.splice(..0, header.iter().copied());
    payload
}

pub fn over_udp(to: u16, header: &[u8], payload: Vec<u8>) -> Vec<u8> {
    ipv4(&[], 0, 17, &udp(50_000, to, &with(header, payload)))
}

pub fn over_gre(header: &[u8], payload: Vec<u8>) -> Vec<u8> {
    ipv4(&[], 0, 47, &with(header, payload))
}

pub fn frame(packet: Vec<u8>) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    with(&link(&[], kind), packet)
}

/// IPv6 with another last header than TCP.
pub fn over_ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv6(&[], payload);
    packet[6] = next;
    packet
}

pub fn gtp(flags: u8, options: &[u8], payload: Vec<u8>) -> Vec<u8> {
    let mut header = vec![flags, 255];
    header.extend(u16::try_from(options.len() + payload.len()).unwrap().to_be_bytes());
    header.extend([0, 0, 0, 1]);
    header.extend(options);
    over_udp(2152, &header, payload)
}

fn teredo(header: &[u8], payload: Vec<u8>) -> Vec<u8> {
    // Only IPv6 goes through Teredo.
    let inside = if payload[0] >> 4 == 6 { payload } else { over_ipv6(4, &payload) };
    over_udp(3544, header, inside)
}

/// IP packets with an IP packet inside, and what they are called.
pub const IN_IP: &[Layer] = &[
    ("4in4", |inner| ipv4(&[], 0, if inner[0] >> 4 == 4 { 4 } else { 41 }, &inner)),
    ("in6", |inner| over_ipv6(if inner[0] >> 4 == 4 { 4 } else { 41 }, &inner)),
    ("gre", |inner| over_gre(&[0, 0, kind(&inner)[0], kind(&inner)[1]], inner)),
    ("gre with all", |inner| over_gre(&[&[0xb0, 0][..], &kind(&inner), &[0; 12]].concat(), inner)),
    ("pptp", |inner| {
        let ppp = if inner[0] >> 4 == 4 { 0x21 } else { 0x57 };
        over_gre(&[&[0x30, 0x81, 0x88, 0x0b][..], &[0; 12], &[0xff, 3, 0, ppp]].concat(), inner)
    }),
    ("bridged gre", |inner| over_gre(&[0, 0, 0x65, 0x58], frame(inner))),
    ("erspan i", |inner| over_gre(&[0, 0, 0x88, 0xbe], frame(inner))),
    ("erspan ii", |inner| over_gre(&[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10][..], &[0; 7]].concat(), frame(inner))),
    ("erspan iii", |inner| over_gre(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20][..], &[0; 11]].concat(), frame(inner))),
    ("erspan iii with more", |inner| {
        over_gre(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20][..], &[0; 10], &[1], &[0; 8]].concat(), frame(inner))
    }),
    ("erspan iii of ip", |inner| {
        over_gre(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20][..], &[0; 9], &[8, 0]].concat(), inner)
    }),
    ("vxlan", |inner| over_udp(4789, &[8, 0, 0, 0, 0, 0, 1, 0], frame(inner))),
    ("linux vxlan", |inner| over_udp(8472, &[8, 0, 0, 0, 0, 0, 1, 0], frame(inner))),
    ("vxlan gpe", |inner| {
        let next = if inner[0] >> 4 == 4 { 1 } else { 2 };
        over_udp(4790, &[12, 0, 0, next, 0, 0, 1, 0], inner)
    }),
    ("geneve", |inner| over_udp(6081, &[&[3, 0, 0x65, 0x58, 0, 0, 1, 0][..], &[0; 12]].concat(), frame(inner))),
    ("geneve of ip", |inner| over_udp(6081, &[0, 0, kind(&inner)[0], kind(&inner)[1], 0, 0, 1, 0], inner)),
    ("gtp", |inner| gtp(0x30, &[], inner)),
    ("gtp with sequence", |inner| gtp(0x32, &[0, 1, 0, 0x85], inner)),
    ("gtp with extensions", |inner| gtp(0x34, &[0, 0, 0, 0x85, 1, 0, 0, 0x40, 2, 1, 2, 3, 4, 5, 6, 0], inner)),
    ("teredo", |inner| teredo(&[], inner)),
    ("teredo with origin", |inner| teredo(&[0, 0, 1, 2, 3, 4, 5, 6], inner)),
    ("teredo with all", |inner| teredo(&[&[0, 1, 2, 3][..], &[9; 14], &[0, 0, 1, 2, 3, 4, 5, 6]].concat(), inner)),
    ("mpls in ip", |inner| ipv4(&[], 0, 137, &with(&[0, 1, 1, 64], inner))),
    ("mpls in udp", |inner| over_udp(6635, &[0, 1, 1, 64], inner)),
    ("etherip", |inner| ipv4(&[], 0, 97, &with(&[0x30, 0], frame(inner)))),
    ("many extensions", |inner| {
        let next = if inner[0] >> 4 == 4 { 4 } else { 41 };
        let mut packet = ipv6(&vec![(60, extension(0)); 6], &inner);
        packet[40 + 5 * 8] = next;
        packet
    }),
];

fn kind(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }
}

/// Frames with an IP packet inside, below IP.
pub const IN_FRAME: &[Layer] = &[
    ("plain", frame),
    ("vlan", |inner| with(&link(&[0x8100], u16::from_be_bytes(kind(&inner))), inner)),
    ("mpls", |inner| with(&[&link(&[], 0x8847)[..], &[0, 1, 0, 64, 0, 2, 1, 64]].concat(), inner)),
    ("mpls multicast", |inner| with(&[&link(&[0x8100], 0x8848)[..], &[0, 1, 1, 64]].concat(), inner)),
    ("pseudowire", |inner| with(&[&link(&[], 0x8847)[..], &[0, 1, 1, 64, 0, 0, 0, 0]].concat(), frame(inner))),
    ("pppoe", |inner| pppoe(&[0, if inner[0] >> 4 == 4 { 0x21 } else { 0x57 }], inner)),
    ("short pppoe", |inner| pppoe(&[if inner[0] >> 4 == 4 { 0x21 } else { 0x57 }], inner)),
    ("mpls over pppoe", |inner| pppoe(&[2, 0x81, 0, 1, 1, 64], inner)),
    ("five tags", |inner| with(&link(&[0x88a8; 5], u16::from_be_bytes(kind(&inner))), inner)),
];

pub fn pppoe(protocol: &[u8], inner: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(protocol.len() + inner.len()).unwrap().to_be_bytes();
    let header = [&link(&[], 0x8864)[..], &[0x11, 0, 0, 7, len[0], len[1]], protocol].concat();
    // Ethernet pads, and PPPoE says where it ends.
    [with(&header, inner), vec![b'X'; 9]].concat()
}
