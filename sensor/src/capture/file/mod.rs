//! Capture files: pcap and pcapng in, packets out.
//!
//! Owns the reading of both formats and the link layers that may stand in them. Bytes flow in from any [`Read`];
//! [`Packet`]s flow out one at a time, borrowed from the reader's buffer, to the same packet parser that the kernel
//! runs. Files are hostile input: every length is checked before it is believed, the buffer never grows beyond
//! [`PACKET_MAX`] plus what the file's own snapshot length allows (itself capped), and the list of interfaces is
//! bounded.
//!
//! Both formats are read by hand, not with the `pcap-parser` crate: its pcapng reader collects the options of every
//! block in a `Vec` (an allocation per packet), refuses every power-of-two `if_tsresol`, reads `if_tsoffset` as
//! little-endian in big-endian sections, and stops at one fixed buffer size without saying where in the file.

mod error;
mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod window;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::{CaptureError, Part, Problem};
pub use link::{Link, network_offset};
use window::Window;

/// Most captured bytes of one packet, before the snapshot length that the file states is added.
pub const PACKET_MAX: u32 = 256 * 1024;
/// Most of a stated snapshot length that is believed: a file cannot make the buffer larger than this and
/// [`PACKET_MAX`] together.
pub const SNAPLEN_MAX: u32 = 16 * 1024 * 1024;

/// One captured packet. Borrowed from the reader, valid until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Capture time, nanoseconds since 1970 UTC. Not necessarily in order. A packet without a time of its own
    /// (pcapng Simple Packet Block) has that of the packet before it.
    pub at_ns: u64,
    /// What `data` begins with.
    pub link: Link,
    /// The captured bytes.
    pub data: &'a [u8],
    /// Bytes that were on the wire; more than `data` holds where the capture cut the packet.
    pub wire_len: u32,
}

/// What a format's reader found: where in the window the packet's bytes stand.
struct Found {
    at_ns: u64,
    link: Link,
    wire_len: u32,
    /// Offset of the packet's bytes from the start of the window.
    start: usize,
    /// Number of captured bytes.
    len: usize,
    /// Bytes of the whole record, to be consumed before the next one is read.
    record: usize,
}

enum Format {
    Pcap(pcap::Header),
    Pcapng(pcapng::Section),
    /// An error was returned, or the end reached.
    Done,
}

/// Reads a capture file of either format packet by packet, in file order.
pub struct CaptureReader<R = File> {
    name: String,
    window: Window<R>,
    format: Format,
    packets: u64,
    pending: usize,
}

impl CaptureReader<File> {
    /// Opens the file at `path` and reads its header.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::new(name, file),
            Err(source) => Err(CaptureError { file: name, problem: Problem::Unreadable { source, offset: 0 } }),
        }
    }
}

impl<R: Read> CaptureReader<R> {
    /// Reads a capture from `source`; `name` stands in error messages.
    pub fn new(name: String, source: R) -> Result<Self, CaptureError> {
        let mut window = Window::new(source);
        match start(&mut window) {
            Ok(format) => Ok(Self { name, window, format, packets: 0, pending: 0 }),
            Err(problem) => Err(CaptureError { file: name, problem }),
        }
    }

    /// The next packet, or `None` at a clean end. After an error (every packet before it was delivered) the reader
    /// stays at `None`.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        self.window.consume(std::mem::take(&mut self.pending));
        let found = match &mut self.format {
            Format::Pcap(header) => header.next(&mut self.window, self.packets),
            Format::Pcapng(section) => section.next(&mut self.window, self.packets),
            Format::Done => Ok(None),
        };
        match found {
            Ok(Some(found)) => {
                self.packets += 1;
                self.pending = found.record;
                let data = self.window.bytes(found.start, found.len);
                Ok(Some(Packet { at_ns: found.at_ns, link: found.link, data, wire_len: found.wire_len }))
            }
            Ok(None) => {
                self.format = Format::Done;
                Ok(None)
            }
            Err(problem) => {
                self.format = Format::Done;
                Err(CaptureError { file: self.name.clone(), problem })
            }
        }
    }

    /// Packets delivered so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }
}

/// Tells the format by the first four bytes and reads the file header.
fn start<R: Read>(window: &mut Window<R>) -> Result<Format, Problem> {
    if !window.fill(4)? {
        return Err(Problem::NotACapture { first: window.available().to_vec() });
    }
    let magic = window.bytes(0, 4);
    if magic == pcapng::SECTION_HEADER {
        return Ok(Format::Pcapng(pcapng::Section::default()));
    }
    if let Some(encoding) = pcap::Encoding::of_magic(magic) {
        return pcap::Header::read(encoding, window).map(Format::Pcap);
    }
    window.fill(8)?;
    let available = window.available();
    Err(Problem::NotACapture { first: available.get(..8).unwrap_or(available).to_vec() })
}

/// Largest packet that a stated snapshot length allows; 0 means that the file states none.
fn packet_limit(snaplen: u32) -> u32 {
    PACKET_MAX + snaplen.min(SNAPLEN_MAX)
}

/// Byte order of a file or section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ByteOrder {
    #[default]
    Little,
    Big,
}

impl ByteOrder {
    /// The 16-bit number at `at`, 0 beyond the end (callers have checked the length).
    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let raw = bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        match self {
            Self::Little => u16::from_le_bytes(raw),
            Self::Big => u16::from_be_bytes(raw),
        }
    }

    /// The 32-bit number at `at`, 0 beyond the end (callers have checked the length).
    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let raw = bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        match self {
            Self::Little => u32::from_le_bytes(raw),
            Self::Big => u32::from_be_bytes(raw),
        }
    }

    /// The signed 64-bit number at `at`, 0 beyond the end (callers have checked the length).
    fn i64(self, bytes: &[u8], at: usize) -> i64 {
        let raw = bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        match self {
            Self::Little => i64::from_le_bytes(raw),
            Self::Big => i64::from_be_bytes(raw),
        }
    }
}
