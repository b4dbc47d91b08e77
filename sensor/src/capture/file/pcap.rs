//! The classic format (draft-ietf-opsawg-pcap): a 24-byte file header, then records of 16 bytes and a packet.

use std::io::Read;

use super::error::{Part, Problem};
use super::link::Link;
use super::window::Window;
use super::{ByteOrder, Found, packet_limit};

/// Bytes of the file header.
const FILE_HEADER: usize = 24;

/// What the magic number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    order: ByteOrder,
    /// Nanoseconds of one unit of the fractional time field.
    unit_ns: u64,
    /// Bytes of a record header: 16, or 24 in the modified format (interface, protocol and packet type follow).
    record_header: usize,
}

impl Encoding {
    /// What the four bytes of `magic` stand for, if it is a known magic number.
    pub(super) fn of_magic(magic: &[u8]) -> Option<Self> {
        let (order, number) = match *magic {
            [0xa1, b, c, d] => (ByteOrder::Big, [b, c, d]),
            [d, c, b, 0xa1] => (ByteOrder::Little, [b, c, d]),
            _ => return None,
        };
        let (unit_ns, record_header) = match number {
            [0xb2, 0xc3, 0xd4] => (1_000, 16),
            [0xb2, 0x3c, 0x4d] => (1, 16),
            [0xb2, 0xcd, 0x34] => (1_000, 24),
            _ => return None,
        };
        Some(Self { order, unit_ns, record_header })
    }
}

/// Which of the two lengths of a record stands first (old writers disagree).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    CapturedFirst,
    WireFirst,
    SmallerIsCaptured,
}

/// The file header: what holds for every record.
pub(super) struct Header {
    encoding: Encoding,
    lengths: Lengths,
    snaplen: u32,
    link: Link,
}

impl Header {
    pub(super) fn read<R: Read>(encoding: Encoding, window: &mut Window<R>) -> Result<Self, Problem> {
        if !window.fill(FILE_HEADER)? {
            return Err(Problem::Truncated { part: Part::FileHeader, offset: window.end_offset(), packets: 0 });
        }
        let bytes = window.bytes(0, FILE_HEADER);
        let order = encoding.order;
        let (major, minor) = (order.u16(bytes, 4), order.u16(bytes, 6));
        if major != 2 {
            return Err(Problem::Version { format: "pcap", major, minor, readable: "2.x" });
        }
        let lengths = match minor {
            0..=2 => Lengths::WireFirst,
            3 => Lengths::SmallerIsCaptured,
            _ => Lengths::CapturedFirst,
        };
        let snaplen = order.u32(bytes, 16);
        // The upper half of the field holds the length of a frame check sequence and reserved bits. The checksum needs
        // no cutting off: the IP header says where a packet ends.
        let [low, high, ..] = order.u32(bytes, 20).to_le_bytes();
        let number = u16::from_le_bytes([low, high]);
        let link = Link::from_number(number).ok_or(Problem::Link { packet: 1, number })?;
        window.consume(FILE_HEADER);
        Ok(Self { encoding, lengths, snaplen, link })
    }

    /// The record at the start of the window. `packets` were delivered before it.
    pub(super) fn next<R: Read>(&self, window: &mut Window<R>, packets: u64) -> Result<Option<Found>, Problem> {
        let Encoding { order, unit_ns, record_header } = self.encoding;
        let packet = packets + 1;
        if !window.fill(record_header)? {
            return if window.available().is_empty() { Ok(None) } else { Err(truncated(window, packets)) };
        }
        let bytes = window.bytes(0, record_header);
        let (seconds, fraction) = (order.u32(bytes, 0), order.u32(bytes, 4));
        let (first, second) = (order.u32(bytes, 8), order.u32(bytes, 12));
        let (captured, wire_len) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::WireFirst => (second, first),
            Lengths::SmallerIsCaptured => (first.min(second), first.max(second)),
        };
        let limit = packet_limit(self.snaplen);
        if captured > limit {
            return Err(Problem::PacketTooLong { packet, offset: window.offset(), len: captured, limit });
        }
        let len = captured as usize;
        let record = record_header + len;
        if !window.fill(record)? {
            return Err(truncated(window, packets));
        }
        let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit_ns;
        Ok(Some(Found { at_ns, link: self.link, wire_len, start: record_header, len, record }))
    }
}

fn truncated<R: Read>(window: &Window<R>, packets: u64) -> Problem {
    Problem::Truncated { part: Part::Packet(packets + 1), offset: window.end_offset(), packets }
}
