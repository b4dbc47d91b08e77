//! What can be wrong with a capture file, in words that say what to do.

use std::fmt;
use std::io;

use super::link::Link;

/// A capture file that cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CaptureError {
    /// The file as it was named by the user.
    pub file: String,
    /// What is wrong with it (in the message already, so no separate cause).
    pub problem: Problem,
}

/// What is wrong with a capture file. Offsets are bytes from the start of the file, packets count from 1.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Opening or reading failed.
    #[error("cannot be read (at byte {offset}): {source}; check the path and its permissions")]
    Unreadable {
        /// What the system said.
        source: io::Error,
        /// How far reading had come.
        offset: u64,
    },
    /// The first bytes are of no known format.
    #[error(
        "not a capture file: it begins with {}{}; pcap (micro- and nanosecond, both byte orders) and pcapng are read",
        Hex(first),
        hint(first)
    )]
    NotACapture {
        /// The first bytes, at most 8.
        first: Vec<u8>,
    },
    /// The file ends too early.
    #[error(
        "truncated: the file ends at byte {offset}, in the middle of {part}; \
         all {packets} packets before it were read. Copy the file again, or let the capture finish first"
    )]
    Truncated {
        /// What is incomplete.
        part: Part,
        /// Length of the file.
        offset: u64,
        /// Packets that were delivered.
        packets: u64,
    },
    /// A packet claims more bytes than a capture can hold.
    #[error(
        "packet {packet} at byte {offset} claims {len} captured bytes, more than the {limit} that this file may hold: \
         the file is damaged from there on"
    )]
    PacketTooLong {
        /// The packet.
        packet: u64,
        /// Where its header stands.
        offset: u64,
        /// The claimed length.
        len: u32,
        /// The most that is read: 256 KiB and the file's snapshot length.
        limit: u32,
    },
    /// A header or block contradicts itself or the format.
    #[error("damaged at byte {offset}, after {packets} packets: {what}")]
    Damaged {
        /// Where.
        offset: u64,
        /// Packets that were delivered.
        packets: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A version of the format that is not known.
    #[error("is {format} version {major}.{minor}; version {readable} is read. Convert it with editcap or tcpdump -r")]
    Version {
        /// The format.
        format: &'static str,
        /// Version in the file.
        major: u16,
        /// Version in the file.
        minor: u16,
        /// Versions that are read.
        readable: &'static str,
    },
    /// A link layer that is not read.
    #[error(
        "packet {packet} has link type {number}{}, which is not read; read are {}",
        link_name(*number),
        Link::readable()
    )]
    Link {
        /// The first packet that has it.
        packet: u64,
        /// `LINKTYPE_` number.
        number: u16,
    },
}

/// Which part of a file is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header at the start of the file.
    FileHeader,
    /// A packet, counted from 1.
    Packet(u64),
    /// A pcapng block that holds no packet, or whose kind was cut off.
    Block,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileHeader => f.write_str("the file header"),
            Self::Packet(number) => write!(f, "packet {number}"),
            Self::Block => f.write_str("a block between packets"),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing (it is empty)");
        }
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What the first bytes of something else suggest.
fn hint(first: &[u8]) -> &'static str {
    match first {
        [0x1f, 0x8b, ..] => " (gzip: decompress it first)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => " (zstd: decompress it first)",
        [0xfd, b'7', b'z', b'X', ..] => " (xz: decompress it first)",
        [b's', b'n', b'o', b'o', b'p', ..] => " (snoop: convert it with editcap -F pcap)",
        _ => "",
    }
}

/// Names of link types that captures of other media carry, for the error text.
fn link_name(number: u16) -> &'static str {
    match number {
        187 | 201 => " (Bluetooth HCI)",
        189 | 220 => " (USB)",
        195 | 230 => " (IEEE 802.15.4)",
        227 => " (SocketCAN)",
        252 => " (Wireshark upper PDU)",
        253 => " (netlink)",
        _ => "",
    }
}
