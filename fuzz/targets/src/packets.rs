//! Frames: anything at all, or segments of a connection inside any layers, whole, cut short or damaged.
//!
//! What must hold: every packet gets one disposition, the other identities of the totals, and the bound of the flow table.

use sensor::capture::offline::Offline;

use crate::frames::{ACK, FIN, Numbers, SYN, ipv4, ipv6, tcp};
use crate::input::Input;
use crate::rig::{Side, check_identities, limits, settle, tables};

/// Flows that the table holds.
const FLOWS: usize = 2;
/// Most frames of one input.
const FRAMES: usize = 200;

/// Each frame begins with a byte: 0 to 3 for bytes as they stand, above for a segment in layers.
pub fn target(data: &[u8]) {
    let mut engine = Offline::new(tables(0), data.len().is_multiple_of(2), FLOWS, 2, limits());
    let mut input = Input(data);
    let mut next = [0xffff_ff00, 1000];
    for at in 0..FRAMES {
        if input.0.is_empty() {
            break;
        }
        let at = at as u64;
        match input.byte() {
            kind @ 0..4 => raw(&mut engine, at, kind, &mut input),
            mode => {
                for frame in built(mode, &mut next, &mut input) {
                    engine.ethernet(at, &frame, u32::try_from(frame.len()).unwrap_or(u32::MAX));
                }
            }
        }
        assert!(engine.flows() <= FLOWS, "more flows than the table may hold");
    }
    settle(&mut engine);
    check_identities(&engine);
}

fn raw(engine: &mut Offline, at: u64, kind: u8, input: &mut Input<'_>) {
    let (len, stated) = (input.byte(), input.half());
    let frame = input.bytes(usize::from(len));
    let stated = if stated == 0 { u32::from(len) } else { u32::from(stated) };
    match kind {
        0 | 1 => engine.ethernet(at, frame, stated),
        2 => engine.network(at, frame, 0x0800, 0, stated),
        _ => engine.network(at, frame, 0x86dd, 0, stated),
    }
}

/// A segment in its layers: one frame, or two when the outermost packet is fragmented.
fn built(mode: u8, next: &mut [u32; 2], input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let side = if mode & 1 == 0 { Side::Client } else { Side::Server };
    let mut inner = Layered::segment(side, mode, next, input);
    for _ in 0..input.byte() % 6 {
        let layer = input.byte();
        inner.wrap(side, layer, input);
    }
    let mut frames = if mode & 8 != 0 { inner.fragments(input) } else { vec![inner.frame()] };
    if mode & 16 != 0 {
        let (at, mask) = (usize::from(input.byte()), input.byte());
        for frame in &mut frames {
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= mask;
            }
        }
    }
    if mode & 32 != 0 {
        let len = usize::from(input.byte());
        for frame in &mut frames {
            frame.truncate(len);
        }
    }
    frames
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const MPLS: u16 = 0x8847;
/// Transparent Ethernet bridging: an Ethernet frame follows.
const ETHERNET: u16 = 0x6558;

/// What stands behind the Ethernet header, and the type that the header gives it.
struct Layered {
    ethertype: u16,
    bytes: Vec<u8>,
}

impl Layered {
    /// The innermost packet.
    fn segment(side: Side, mode: u8, next: &mut [u32; 2], input: &mut Input<'_>) -> Self {
        let (flags, len) = (input.byte(), input.byte());
        let payload = input.bytes(usize::from(len));
        let flags = match flags & 7 {
            0 => SYN,
            1 => SYN | ACK,
            2 => FIN | ACK,
            3 => flags,
            _ => ACK,
        };
        let shift = if mode & 64 == 0 { 0 } else { i32::from(input.half().cast_signed()) };
        let numbers = Numbers {
            sequence: next[side as usize].wrapping_add_signed(shift),
            acknowledged: next[side.other() as usize],
        };
        let len = u32::try_from(payload.len()).unwrap_or(0) + u32::from(flags & (SYN | FIN) != 0);
        next[side as usize] = numbers.sequence.wrapping_add(len);
        let mut bytes = tcp(side, numbers, flags);
        bytes.extend(payload);
        if mode & 2 == 0 {
            return Self { ethertype: IPV4, bytes: [ipv4(side, 6, 0, bytes.len()), bytes].concat() };
        }
        // Extension headers, of types 0, 43, 44, 51, 60 and others; each of 8 bytes.
        let mut protocol = 6;
        for _ in 0..input.byte() % 4 {
            let content = input.bytes(6);
            bytes = [&[protocol, 0], content, &[0; 6][content.len()..], bytes.as_slice()].concat();
            protocol = input.byte();
        }
        Self { ethertype: IPV6, bytes: [ipv6(side, protocol, bytes.len()), bytes].concat() }
    }

    /// Puts one more layer around, where it can stand.
    fn wrap(&mut self, side: Side, layer: u8, input: &mut Input<'_>) {
        let ip = self.ethertype == IPV4 || self.ethertype == IPV6;
        match layer % 12 {
            0 => self.tagged(0x8100, input.half()),
            1 => self.tagged(0x88a8, input.half()),
            2 if ip || self.ethertype == MPLS => {
                let bottom = u8::from(ip);
                self.put(MPLS, &[0, 1, 0x10 | bottom, 64]);
            }
            3 if ip => {
                let protocol = if self.ethertype == IPV4 { 0x21 } else { 0x57 };
                let len = u16::try_from(self.bytes.len() + 2).unwrap_or(0).to_be_bytes();
                self.put(0x8864, &[0x11, 0, 0, 1, len[0], len[1], 0, protocol]);
            }
            4 if ip => self.outer_v4(side, if self.ethertype == IPV4 { 4 } else { 41 }),
            5 if ip => self.outer_v6(side, if self.ethertype == IPV4 { 4 } else { 41 }),
            6 => {
                let flags = input.byte() & 0xb0;
                let options = [0; 12];
                let len = (flags & 0xb0).count_ones() as usize * 4;
                let kind = self.ethertype.to_be_bytes();
                self.put(0, &[&[flags, 0, kind[0], kind[1]], &options[..len]].concat());
                self.outer_v4(side, 47);
            }
            7 => {
                self.bytes = self.frame();
                self.put(0, &[8, 0, 0, 0, 0, 0, 1, 0]);
                self.udp(side, 4789);
            }
            8 => {
                let kind = if ip && layer & 128 != 0 { self.ethertype } else { ETHERNET };
                if kind == ETHERNET {
                    self.bytes = self.frame();
                }
                let options = usize::from(input.byte() & 3);
                let (words, kind) = (u8::try_from(options).unwrap_or(0), kind.to_be_bytes());
                self.put(0, &[&[words, 0, kind[0], kind[1], 0, 0, 1, 0], &[0; 12][..options * 4]].concat());
                self.udp(side, 6081);
            }
            9 if ip => {
                let flags = 0x30 | input.byte() & 7;
                let more: &[u8] = if flags & 7 == 0 { &[] } else { &[0, 1, 0, 0] };
                let len = u16::try_from(self.bytes.len() + more.len()).unwrap_or(0).to_be_bytes();
                self.put(0, &[&[flags, 255, len[0], len[1], 0, 0, 0, 1], more].concat());
                self.udp(side, 2152);
            }
            10 if self.ethertype == IPV6 => self.udp(side, 3544),
            _ => {}
        }
    }

    fn put(&mut self, ethertype: u16, header: &[u8]) {
        self.ethertype = ethertype;
        self.bytes.splice(0..0, header.iter().copied());
    }

    fn tagged(&mut self, ethertype: u16, tag: u16) {
        let (tag, inner) = (tag.to_be_bytes(), self.ethertype.to_be_bytes());
        self.put(ethertype, &[tag[0], tag[1], inner[0], inner[1]]);
    }

    fn outer_v4(&mut self, side: Side, protocol: u8) {
        let header = ipv4(side, protocol, 0, self.bytes.len());
        self.put(IPV4, &header);
    }

    fn outer_v6(&mut self, side: Side, protocol: u8) {
        let header = ipv6(side, protocol, self.bytes.len());
        self.put(IPV6, &header);
    }

    fn udp(&mut self, side: Side, port: u16) {
        let (port, len) = (port.to_be_bytes(), u16::try_from(self.bytes.len() + 8).unwrap_or(0).to_be_bytes());
        self.put(0, &[0xc0, 1, port[0], port[1], len[0], len[1], 0, 0]);
        self.outer_v4(side, 17);
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(&self.bytes);
        frame
    }

    /// Two fragments of an IPv4 packet, in either order; anything else is left whole.
    fn fragments(&self, input: &mut Input<'_>) -> Vec<Vec<u8>> {
        let (at, order) = (usize::from(input.byte()) * 8, input.byte());
        let parts =
            self.bytes.split_at_checked(20).and_then(|(header, rest)| Some((header, rest.split_at_checked(at)?)));
        let (IPV4, Some((header, (first, second)))) = (self.ethertype, parts) else { return vec![self.frame()] };
        let piece = |field: u16, content: &[u8]| {
            let mut bytes = [header, content].concat();
            let len = u16::try_from(bytes.len()).unwrap_or(0);
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            Self { ethertype: IPV4, bytes }.frame()
        };
        let mut frames = vec![piece(0x2000, first), piece(u16::try_from(at / 8).unwrap_or(0), second)];
        if order & 1 != 0 {
            frames.swap(0, 1);
        }
        if order & 2 != 0 {
            frames.push(frames[0].clone());
        }
        frames
    }
}
