//! The newer format (draft-ietf-opsawg-pcapng): a sequence of blocks in sections, each section with a byte order and a
//! list of interfaces of its own.
//!
//! Enhanced, simple and obsolete packet blocks are delivered, every other block is skipped unread.

use std::io::Read;

use super::error::{Part, Problem};
use super::link::Link;
use super::window::Window;
use super::{ByteOrder, Found, PACKET_MAX, packet_limit};

/// Block type of a section header: the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Interfaces kept per section.
const INTERFACES_MAX: usize = 65_536;
/// Bytes of a block around its body: type, length, and the length again.
const FRAME: u32 = 12;
/// Bytes before the body.
const BODY: usize = 8;
/// Most that the options of a packet block may take.
const OPTIONS_MAX: u32 = 1024 * 1024;

const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// One interface of a section.
#[derive(Clone, Copy)]
struct Interface {
    /// `LINKTYPE_` number: an unknown one is an error only once a packet has it.
    link: u16,
    snaplen: u32,
    resolution: Resolution,
    /// Seconds to add to every time.
    offset_s: i64,
}

/// `if_tsresol`: units per second.
#[derive(Clone, Copy)]
enum Resolution {
    PowerOfTen(u32),
    PowerOfTwo(u32),
}

impl Resolution {
    fn of_option(value: u8) -> Self {
        let exponent = u32::from(value & 0x7f);
        if value & 0x80 == 0 { Self::PowerOfTen(exponent) } else { Self::PowerOfTwo(exponent) }
    }

    /// Nanoseconds of `units`.
    fn nanoseconds(self, units: u64) -> i128 {
        let per_second = match self {
            Self::PowerOfTen(exponent) => 10_u128.checked_pow(exponent),
            Self::PowerOfTwo(exponent) => 1_u128.checked_shl(exponent),
        };
        // A unit so small that 2^64 of them are less than a nanosecond: the time is 0.
        let nanoseconds = per_second.map_or(0, |per_second| u128::from(units) * 1_000_000_000 / per_second);
        i128::try_from(nanoseconds).unwrap_or(i128::MAX)
    }
}

/// The current section.
#[derive(Default)]
pub(super) struct Section {
    order: ByteOrder,
    interfaces: Vec<Interface>,
    /// Largest packet that any interface of the section may have captured.
    limit: u32,
    /// Time of the packet before, for packets that have none.
    last_ns: u64,
}

/// A whole block at the start of the window, its lengths checked.
struct Block {
    kind: u32,
    len: usize,
}

impl Section {
    /// The next packet. `packets` were delivered before it.
    pub(super) fn next<R: Read>(&mut self, window: &mut Window<R>, packets: u64) -> Result<Option<Found>, Problem> {
        while let Some(block) = self.next_block(window, packets)? {
            let body = window.bytes(BODY, block.len - FRAME as usize);
            let at = Place { offset: window.offset(), packets };
            let found = match block.kind {
                INTERFACE => {
                    self.add_interface(body, at)?;
                    window.consume(block.len);
                    continue;
                }
                ENHANCED_PACKET | OBSOLETE_PACKET => self.packet(block.kind, body, at)?,
                _ => self.simple_packet(body, at)?,
            };
            self.last_ns = found.at_ns;
            return Ok(Some(Found { start: BODY + found.start, record: block.len, ..found }));
        }
        Ok(None)
    }

    /// Brings the next block that matters wholly into the window; section headers are applied, others skipped.
    fn next_block<R: Read>(&mut self, window: &mut Window<R>, packets: u64) -> Result<Option<Block>, Problem> {
        loop {
            if !window.fill(BODY)? {
                let empty = window.available().is_empty();
                let first = window.offset() == 0;
                let part = if first { Part::FileHeader } else { Part::Block };
                return if empty { Ok(None) } else { Err(truncated(window, part, packets)) };
            }
            let at = Place { offset: window.offset(), packets };
            if window.bytes(0, 4) == SECTION_HEADER {
                self.start_section(window, packets)?;
                continue;
            }
            let head = window.bytes(0, BODY);
            let (kind, len) = (self.order.u32(head, 0), self.order.u32(head, 4));
            if len < FRAME || !len.is_multiple_of(4) {
                return Err(at.damaged("a block's length is below 12 or no multiple of 4"));
            }
            let part = match kind {
                ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET => Part::Packet(packets + 1),
                _ => Part::Block,
            };
            match kind {
                INTERFACE if len > PACKET_MAX => return Err(at.damaged("an interface description above 256 KiB")),
                INTERFACE | ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET => {
                    self.check_packet_length(kind, len, window, packets)?;
                    if !window.fill(len as usize)? {
                        return Err(truncated(window, part, packets));
                    }
                    if self.order.u32(window.bytes(0, len as usize), len as usize - 4) != len {
                        return Err(at.damaged("a block's two lengths differ"));
                    }
                    return Ok(Some(Block { kind, len: len as usize }));
                }
                _ => self.skip_block(window, len, packets)?,
            }
        }
    }

    /// Refuses a packet block that is longer than any packet with its options, before the buffer grows for it.
    fn check_packet_length<R: Read>(
        &self,
        kind: u32,
        len: u32,
        window: &Window<R>,
        packets: u64,
    ) -> Result<(), Problem> {
        let limit = self.limit.max(PACKET_MAX);
        if kind == INTERFACE || len <= limit + OPTIONS_MAX {
            return Ok(());
        }
        Err(Problem::PacketTooLong { packet: packets + 1, offset: window.offset(), len, limit })
    }

    /// Skips a block of no interest without keeping it, checking its second length.
    fn skip_block<R: Read>(&self, window: &mut Window<R>, len: u32, packets: u64) -> Result<(), Problem> {
        let at = Place { offset: window.offset(), packets };
        if !window.skip(u64::from(len) - 4)? || !window.fill(4)? {
            return Err(truncated(window, Part::Block, packets));
        }
        if self.order.u32(window.bytes(0, 4), 0) != len {
            return Err(at.damaged("a block's two lengths differ"));
        }
        window.consume(4);
        Ok(())
    }

    /// Applies a section header block: byte order, version, no interfaces.
    fn start_section<R: Read>(&mut self, window: &mut Window<R>, packets: u64) -> Result<(), Problem> {
        const LEAST: usize = 28;
        let at = Place { offset: window.offset(), packets };
        let part = if at.offset == 0 { Part::FileHeader } else { Part::Block };
        if !window.fill(LEAST)? {
            return Err(truncated(window, part, packets));
        }
        let head = window.bytes(0, LEAST);
        let order = match head.get(8..12) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => ByteOrder::Big,
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => ByteOrder::Little,
            _ => return Err(at.damaged("a section header without a byte-order magic")),
        };
        let len = order.u32(head, 4);
        let (major, minor) = (order.u16(head, 12), order.u16(head, 14));
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(Problem::Version { format: "pcapng", major, minor, readable: "1.0" });
        }
        if (len as usize) < LEAST || !len.is_multiple_of(4) {
            return Err(at.damaged("a section header's length is below 28 or no multiple of 4"));
        }
        *self = Self { order, last_ns: self.last_ns, ..Self::default() };
        self.skip_block(window, len, packets).map_err(|problem| match problem {
            Problem::Truncated { offset, packets, .. } => Problem::Truncated { part, offset, packets },
            other => other,
        })
    }

    fn add_interface(&mut self, body: &[u8], at: Place) -> Result<(), Problem> {
        if body.len() < 8 {
            return Err(at.damaged("an interface description below 20 bytes"));
        }
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(at.damaged("a section with more than 65,536 interfaces"));
        }
        let mut interface = Interface {
            link: self.order.u16(body, 0),
            snaplen: self.order.u32(body, 4),
            resolution: Resolution::PowerOfTen(6),
            offset_s: 0,
        };
        self.read_options(body.get(8..).unwrap_or_default(), &mut interface, at)?;
        self.limit = self.limit.max(packet_limit(interface.snaplen));
        self.interfaces.push(interface);
        Ok(())
    }

    /// Reads the options of an interface that bear on time (`if_tsresol`, `if_tsoffset`).
    fn read_options(&self, mut options: &[u8], interface: &mut Interface, at: Place) -> Result<(), Problem> {
        const END: u16 = 0;
        const TS_RESOLUTION: u16 = 9;
        const TS_OFFSET: u16 = 14;
        while options.len() >= 4 {
            let (code, len) = (self.order.u16(options, 0), self.order.u16(options, 2) as usize);
            if code == END {
                return Ok(());
            }
            let Some(value) = options.get(4..4 + len) else {
                return Err(at.damaged("an option reaches beyond its block"));
            };
            match (code, value) {
                (TS_RESOLUTION, &[value]) => interface.resolution = Resolution::of_option(value),
                (TS_OFFSET, value) if len == 8 => interface.offset_s = self.order.i64(value, 0),
                (TS_RESOLUTION | TS_OFFSET, _) => return Err(at.damaged("a time option of wrong length")),
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// An enhanced packet block, or the obsolete one, which differs in the width of its interface number.
    fn packet(&self, kind: u32, body: &[u8], at: Place) -> Result<Found, Problem> {
        const HEADER: usize = 20;
        if body.len() < HEADER {
            return Err(at.damaged("a packet block below 32 bytes"));
        }
        let number = if kind == ENHANCED_PACKET { self.order.u32(body, 0) } else { self.order.u16(body, 0).into() };
        let interface = self.interface(number, at)?;
        let units = u64::from(self.order.u32(body, 4)) << 32 | u64::from(self.order.u32(body, 8));
        let (captured, wire_len) = (self.order.u32(body, 12), self.order.u32(body, 16));
        let len = at.check_captured(captured, interface, body.len() - HEADER)?;
        let link = at.link(interface)?;
        let offset_ns = i128::from(interface.offset_s) * 1_000_000_000;
        let at_ns = interface.resolution.nanoseconds(units).saturating_add(offset_ns).max(0);
        let at_ns = u64::try_from(at_ns).unwrap_or(u64::MAX);
        Ok(Found { at_ns, link, wire_len, start: HEADER, len, record: 0 })
    }

    /// A simple packet block: always of the first interface, without a time.
    fn simple_packet(&self, body: &[u8], at: Place) -> Result<Found, Problem> {
        const HEADER: usize = 4;
        if body.len() < HEADER {
            return Err(at.damaged("a simple packet block below 16 bytes"));
        }
        let interface = self.interface(0, at)?;
        let wire_len = self.order.u32(body, 0);
        let captured = if interface.snaplen == 0 { wire_len } else { wire_len.min(interface.snaplen) };
        let len = at.check_captured(captured, interface, body.len() - HEADER)?;
        Ok(Found { at_ns: self.last_ns, link: at.link(interface)?, wire_len, start: HEADER, len, record: 0 })
    }

    fn interface(&self, number: u32, at: Place) -> Result<&Interface, Problem> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.interfaces.get(index).ok_or_else(|| at.damaged("a packet of an interface that was not described"))
    }
}

/// Where a block stands, for error messages.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    packets: u64,
}

impl Place {
    fn damaged(self, what: &'static str) -> Problem {
        Problem::Damaged { offset: self.offset, packets: self.packets, what }
    }

    /// The captured length as an index, if it is allowed and stands within the `room` of the block.
    fn check_captured(self, captured: u32, interface: &Interface, room: usize) -> Result<usize, Problem> {
        let limit = packet_limit(interface.snaplen);
        if captured > limit {
            let Self { offset, packets } = self;
            return Err(Problem::PacketTooLong { packet: packets + 1, offset, len: captured, limit });
        }
        let len = captured as usize;
        if len > room {
            return Err(self.damaged("a packet's captured length reaches beyond its block"));
        }
        Ok(len)
    }

    fn link(self, interface: &Interface) -> Result<Link, Problem> {
        let number = interface.link;
        Link::from_number(number).ok_or(Problem::Link { packet: self.packets + 1, number })
    }
}

fn truncated<R: Read>(window: &Window<R>, part: Part, packets: u64) -> Problem {
    Problem::Truncated { part, offset: window.end_offset(), packets }
}
