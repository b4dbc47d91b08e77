//! Files of every format, byte order and resolution, built in memory and read back; cut off at every byte; arbitrary
//! bytes; captures of other projects where they are at hand.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// What a packet was when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    at_ns: u64,
    link: Link,
    data: Vec<u8>,
    wire_len: u32,
}

/// A file under construction, and where its records end (a cut there is a clean end).
#[derive(Clone)]
struct Builder {
    order: ByteOrder,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Builder {
    fn new(order: ByteOrder) -> Self {
        Self { order, bytes: Vec::new(), ends: Vec::new() }
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend(if self.order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(if self.order == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn pcap(order: ByteOrder, magic: u32, minor: u16, snaplen: u32, link: u32) -> Self {
        let mut file = Self::new(order);
        file.u32(magic);
        file.u16(2);
        file.u16(minor);
        file.u32(0);
        file.u32(0);
        file.u32(snaplen);
        file.u32(link);
        file.ends.push(file.bytes.len());
        file
    }

    fn record(&mut self, seconds: u32, fraction: u32, lengths: (u32, u32), extra: &[u8], data: &[u8]) {
        for field in [seconds, fraction, lengths.0, lengths.1] {
            self.u32(field);
        }
        self.bytes.extend(extra);
        self.bytes.extend(data);
        self.ends.push(self.bytes.len());
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let padding = body.len().next_multiple_of(4) - body.len();
        let len = u32::try_from(12 + body.len() + padding).unwrap();
        self.u32(kind);
        self.u32(len);
        self.bytes.extend(body);
        self.bytes.extend(vec![0; padding]);
        self.u32(len);
        self.ends.push(self.bytes.len());
    }

    /// A body written with this builder's byte order.
    fn body(&self, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut body = Self::new(self.order);
        write(&mut body);
        body.bytes
    }

    fn section(&mut self, order: ByteOrder) {
        self.order = order;
        let body = self.body(|body| {
            body.u32(0x1a2b_3c4d);
            body.u16(1);
            body.u16(0);
            body.u32(u32::MAX);
            body.u32(u32::MAX);
            // shb_userappl, so that the header is longer than its least.
            body.u16(4);
            body.u16(3);
            body.bytes.extend(b"abc\0");
            body.u32(0);
        });
        self.block(0x0a0d_0d0a, &body);
    }

    fn interface(&mut self, link: u16, snaplen: u32, resolution: Option<u8>, offset: Option<i64>) {
        let body = self.body(|body| {
            body.u16(link);
            body.u16(0);
            body.u32(snaplen);
            // if_name, before the options that matter.
            body.u16(2);
            body.u16(5);
            body.bytes.extend(b"veth0\0\0\0");
            if let Some(resolution) = resolution {
                body.u16(9);
                body.u16(1);
                body.bytes.extend([resolution, 0, 0, 0]);
            }
            if let Some(offset) = offset {
                body.u16(14);
                body.u16(8);
                let offset = if body.order == ByteOrder::Big { offset.to_be_bytes() } else { offset.to_le_bytes() };
                body.bytes.extend(offset);
            }
            body.u32(0);
        });
        self.block(1, &body);
    }

    fn packet_block(&mut self, kind: u32, interface: u16, units: u64, wire_len: u32, data: &[u8], options: bool) {
        let body = self.body(|body| {
            if kind == 2 {
                body.u16(interface);
                body.u16(0xffff);
            } else {
                body.u32(interface.into());
            }
            body.u32(u32::try_from(units >> 32).unwrap());
            body.u32(u32::try_from(units & 0xffff_ffff).unwrap());
            body.u32(u32::try_from(data.len()).unwrap());
            body.u32(wire_len);
            body.bytes.extend(data);
            body.bytes.resize(body.bytes.len().next_multiple_of(4), 0xee);
            if options {
                body.u16(1);
                body.u16(2);
                body.bytes.extend(b"hi\0\0");
                body.u32(0);
            }
        });
        self.block(kind, &body);
    }
}

fn read_all(bytes: &[u8]) -> (Vec<Written>, Result<(), CaptureError>) {
    let mut packets = Vec::new();
    let mut reader = match CaptureReader::new("test".to_owned(), bytes) {
        Ok(reader) => reader,
        Err(error) => return (packets, Err(error)),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(Packet { at_ns, link, data, wire_len })) => {
                packets.push(Written { at_ns, link, data: data.to_vec(), wire_len });
            }
            Ok(None) => return (packets, Ok(())),
            Err(error) => {
                assert!(matches!(reader.next_packet(), Ok(None)), "stays at the end after an error");
                return (packets, Err(error));
            }
        }
    }
}

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];
const AT_S: u32 = 1_745_000_000;
const AT_NS: u64 = 1_745_000_000_000_000_000;

/// Classic files: every magic, byte order, old length order, and link types with bits in the upper half.
fn pcap_files() -> Vec<(Builder, Vec<Written>)> {
    let mut files = Vec::new();
    for order in ORDERS {
        for (magic, minor, unit, link) in [
            (0xa1b2_c3d4, 4, 1_000, 1),
            (0xa1b2_3c4d, 4, 1, 0x4400_0065),
            (0xa1b2_cd34, 4, 1_000, 0x0224_0071),
            (0xa1b2_c3d4, 2, 1_000, 0),
            (0xa1b2_c3d4, 3, 1_000, 276),
        ] {
            let extra: &[u8] = if magic == 0xa1b2_cd34 { &[0; 8] } else { &[] };
            let mut file = Builder::pcap(order, magic, minor, 65_535, link);
            let mut packets = Vec::new();
            for (seconds, fraction, wire_len, data) in
                [(AT_S, 999_999, 5, b"hello".as_slice()), (AT_S - 7, 1, 1500, b"cut"), (AT_S + 1, 0, 0, b"")]
            {
                let captured = u32::try_from(data.len()).unwrap();
                let lengths = if minor == 2 { (wire_len, captured) } else { (captured, wire_len) };
                file.record(seconds, fraction, lengths, extra, data);
                packets.push(Written {
                    at_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit,
                    link: Link::from_number(u16::try_from(link & 0xffff).unwrap()).unwrap(),
                    data: data.to_vec(),
                    wire_len,
                });
            }
            files.push((file, packets));
        }
    }
    files
}

/// A pcapng file with everything: unknown blocks, two sections of different byte order, several interfaces with their
/// own resolution and offset, all three packet blocks, a packet block with options.
fn pcapng_file(first: ByteOrder, second: ByteOrder) -> (Builder, Vec<Written>) {
    let mut file = Builder::new(first);
    file.section(first);
    file.interface(1, 4, None, None);
    file.interface(101, 0, Some(9), Some(-10));
    file.block(0x0bad_cafe, b"a block that nobody knows");
    file.packet_block(6, 0, AT_NS / 1_000, 1500, b"four", true);
    file.packet_block(6, 1, AT_NS + 10_000_000_001, 3, b"abc", false);
    file.block(
        3,
        &file.body(|body| {
            body.u32(9);
            body.bytes.extend(b"snap");
        }),
    );
    file.packet_block(2, 1, AT_NS + 10_000_000_000, 5, b"older", true);
    file.section(second);
    // A link type that is not read: harmless as long as no packet has it.
    file.interface(220, 0, None, None);
    file.interface(276, 0, Some(0x8a), Some(1));
    file.packet_block(6, 1, (AT_NS / 1_000_000_000) << 10 | 512, 0, b"", false);
    file.block(5, &[0; 12]);
    let packet = |at_ns, link, data: &[u8], wire_len| Written { at_ns, link, data: data.to_vec(), wire_len };
    let packets = vec![
        packet(AT_NS, Link::Ethernet, b"four", 1500),
        packet(AT_NS + 1, Link::Raw, b"abc", 3),
        packet(AT_NS + 1, Link::Ethernet, b"snap", 9),
        packet(AT_NS, Link::Raw, b"older", 5),
        packet(AT_NS + 1_500_000_000, Link::LinuxSll2, b"", 0),
    ];
    (file, packets)
}

fn all_files() -> Vec<(Builder, Vec<Written>)> {
    let mut files = pcap_files();
    for first in ORDERS {
        for second in ORDERS {
            files.push(pcapng_file(first, second));
        }
    }
    files
}

#[test]
fn every_format_reads_back_what_was_written() {
    for (file, written) in all_files() {
        let (packets, end) = read_all(&file.bytes);
        end.unwrap();
        assert_eq!(packets, written);
    }
}

#[test]
fn cut_at_every_byte_delivers_what_is_whole_and_then_says_so() {
    for (file, written) in all_files() {
        for cut in 0..file.bytes.len() {
            let (packets, end) = read_all(&file.bytes[..cut]);
            assert_eq!(packets, written[..packets.len()], "cut at {cut}");
            let clean = file.ends.contains(&cut);
            match end.map_err(|error| error.problem) {
                Ok(()) => assert!(clean, "cut at {cut}: no error"),
                Err(Problem::NotACapture { first }) => assert!(cut < 4 && first == file.bytes[..cut]),
                Err(Problem::Truncated { part, offset, packets: before }) => {
                    assert!(!clean, "cut at {cut}: truncated at a boundary");
                    assert_eq!((offset, before), (cut as u64, packets.len() as u64));
                    match part {
                        Part::FileHeader => assert!(cut < file.ends[0]),
                        Part::Packet(number) => assert_eq!(number, before + 1),
                        Part::Block => assert!(cut > file.ends[0]),
                    }
                }
                Err(other) => panic!("cut at {cut}: {other}"),
            }
        }
    }
}

#[test]
fn a_changed_byte_never_panics_and_leaves_earlier_packets_alone() {
    for (file, written) in all_files() {
        for at in 0..file.bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = file.bytes.clone();
                bytes[at] ^= flip;
                let (packets, _) = read_all(&bytes);
                // What stands wholly before the change is read as it was.
                let (before, _) = read_all(&file.bytes[..at]);
                assert_eq!(before, written[..before.len()]);
                assert!(packets.starts_with(&before), "change at {at}");
            }
        }
    }
}

fn problem_of(bytes: &[u8]) -> Problem {
    read_all(bytes).1.unwrap_err().problem
}

#[test]
fn what_is_not_a_capture_is_named_by_its_first_bytes() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "begins with nothing (it is empty)"),
        (b"GET / HTTP/1.1", "begins with 47 45 54 20 2f 20 48 54;"),
        (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], "begins with 1f 8b 08 00 00 00 00 00 (gzip: decompress it first)"),
        (&[0xa1, 0xb2, 0xc3], "begins with a1 b2 c3;"),
    ];
    for (bytes, expected) in cases {
        let text = read_all(bytes).1.unwrap_err().to_string();
        assert!(text.starts_with("test: not a capture file") && text.contains(expected), "{text}");
        assert!(text.contains("pcapng are read"), "{text}");
    }
}

#[test]
fn packet_lengths_are_bounded_by_the_snapshot_length() {
    for (snaplen, limit) in [(0, 262_144), (1000, 263_144), (u32::MAX, 262_144 + 16 * 1024 * 1024)] {
        let mut file = Builder::pcap(ByteOrder::Little, 0xa1b2_c3d4, 4, snaplen, 1);
        file.record(0, 0, (3, 3), &[], b"abc");
        let mut most = file.clone();
        most.record(0, 0, (limit, limit), &[], &vec![1; limit as usize]);
        let (packets, end) = read_all(&most.bytes);
        end.unwrap();
        assert_eq!(packets[1].data.len(), limit as usize);
        file.record(0, 0, (limit + 1, limit + 1), &[], b"abc");
        match problem_of(&file.bytes) {
            Problem::PacketTooLong { packet: 2, offset: 43, len, limit: stated } => {
                assert_eq!((len, stated), (limit + 1, limit));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_block_that_claims_gigabytes_is_refused_or_skipped_without_memory() {
    let mut file = Builder::new(ByteOrder::Big);
    file.section(ByteOrder::Big);
    file.interface(1, 0, None, None);
    for kind in [6, 3, 2] {
        let mut file = file.clone();
        file.u32(kind);
        file.u32(0xffff_fff0);
        assert!(matches!(problem_of(&file.bytes), Problem::PacketTooLong { packet: 1, .. }));
    }
    let mut file = file.clone();
    file.u32(77);
    file.u32(0xffff_fff0);
    file.bytes.extend([0; 100]);
    assert!(matches!(problem_of(&file.bytes), Problem::Truncated { part: Part::Block, .. }));
}

#[test]
fn damage_is_named_with_its_place() {
    let mut good = Builder::new(ByteOrder::Little);
    good.section(ByteOrder::Little);
    good.interface(1, 0, None, None);
    let place = good.bytes.len() as u64;
    let damaged = |change: &dyn Fn(&mut Builder)| {
        let mut file = good.clone();
        change(&mut file);
        match problem_of(&file.bytes) {
            Problem::Damaged { offset, packets: 0, what } => {
                assert_eq!(offset, place, "{what}");
                what
            }
            other => panic!("{other}"),
        }
    };
    assert!(damaged(&|file| file.packet_block(6, 1, 0, 0, b"", false)).contains("not described"));
    assert!(damaged(&|file| file.block(6, &[0; 16])).contains("below 32"));
    assert!(damaged(&|file| file.bytes.extend([6, 0, 0, 0, 8, 0, 0, 0])).contains("below 12"));
    assert!(damaged(&|file| file.bytes.extend([6, 0, 0, 0, 33, 0, 0, 0])).contains("multiple of 4"));
    let mismatch = |kind| {
        damaged(&move |file| {
            file.block(kind, &[0; 40]);
            *file.bytes.last_mut().unwrap() = 1;
        })
    };
    assert!(mismatch(6).contains("two lengths differ") && mismatch(99).contains("two lengths differ"));
    let beyond = damaged(&|file| {
        let mut body = [0; 24];
        body[12] = 5;
        file.block(6, &body);
    });
    assert!(beyond.contains("beyond its block"));
}

#[test]
fn link_types_that_are_not_read_are_named() {
    let file = Builder::pcap(ByteOrder::Little, 0xa1b2_c3d4, 4, 0, 189);
    let text = read_all(&file.bytes).1.unwrap_err().to_string();
    assert!(text.contains("link type 189 (USB)") && text.contains("Linux cooked v2"), "{text}");

    let mut file = Builder::new(ByteOrder::Big);
    file.section(ByteOrder::Big);
    file.interface(1, 0, None, None);
    file.interface(220, 0, None, None);
    file.packet_block(6, 0, 0, 1, b"x", false);
    file.packet_block(6, 1, 0, 1, b"x", false);
    let (packets, end) = read_all(&file.bytes);
    assert_eq!(packets.len(), 1);
    assert!(matches!(end.unwrap_err().problem, Problem::Link { packet: 2, number: 220 }));
}

#[test]
fn times_at_the_edges_do_not_overflow() {
    for (resolution, offset, units, expected) in [
        (0, 0, u64::MAX, u64::MAX),
        (9, 0, u64::MAX, u64::MAX),
        (9, i64::MIN, 5, 0),
        (127, 0, u64::MAX, 0),
        (0xff, 0, u64::MAX, 0),
        (12, 0, 1_500, 1),
        (0xa0, 2, 3 << 31, 3_500_000_000),
        (3, i64::MAX, 1, u64::MAX),
    ] {
        let mut file = Builder::new(ByteOrder::Big);
        file.section(ByteOrder::Big);
        file.interface(1, 0, Some(resolution), Some(offset));
        file.packet_block(6, 0, units, 0, b"", false);
        assert_eq!(read_all(&file.bytes).0[0].at_ns, expected, "{resolution} {offset} {units}");
    }
}

#[test]
fn a_packet_without_a_time_takes_that_of_the_one_before_even_across_sections() {
    let mut file = Builder::new(ByteOrder::Little);
    for (order, units) in [(ByteOrder::Little, 7), (ByteOrder::Big, 9)] {
        file.section(order);
        file.interface(1, 0, Some(9), None);
        let simple = file.body(|body| body.u32(0));
        file.block(3, &simple);
        file.packet_block(6, 0, units, 0, b"", false);
    }
    let times: Vec<u64> = read_all(&file.bytes).0.iter().map(|packet| packet.at_ns).collect();
    assert_eq!(times, [0, 7, 7, 9]);
}

#[test]
fn unreadable_files_are_named() {
    let error = CaptureReader::open(Path::new("no/such/file.pcap")).err().unwrap();
    assert!(error.to_string().starts_with("no/such/file.pcap: cannot be read"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = CaptureReader::open(folder.path()).err().unwrap();
    assert!(matches!(error.problem, Problem::Unreadable { .. }), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        head in 0..all_files().len(),
        keep in 0..400_usize,
    ) {
        read_all(&bytes).1.ok();
        // Behind a good beginning, arbitrary bytes get further.
        let good = &all_files()[head].0.bytes;
        let mut mixed = good[..keep.min(good.len())].to_vec();
        mixed.extend(&bytes);
        read_all(&mixed).1.ok();
    }
}

/// Captures of other projects, in a folder beside the repository or where `AUTHSENSOR_CORPORA` says.
fn corpora() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let folder = std::env::var_os("AUTHSENSOR_CORPORA").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn captures_of_other_projects_are_readable() {
    let Some(folder) = corpora() else {
        eprintln!("skipped: no corpora (set AUTHSENSOR_CORPORA)");
        return;
    };
    let (mut files, mut packets) = (0, 0);
    for case in folder.read_dir().unwrap() {
        for name in ["capture.pcap", "capture.pcapng"] {
            let path = case.as_ref().unwrap().path().join(name);
            if !path.exists() {
                continue;
            }
            let mut reader = CaptureReader::open(&path).unwrap();
            let mut to_network = 0;
            while let Some(packet) = reader.next_packet().unwrap() {
                let network = network_offset(packet.link, packet.data);
                to_network += u64::from(network.is_some_and(|(ethertype, _)| ethertype >= 0x0600));
            }
            assert!(reader.packets() > 0 && to_network > 0, "{}", path.display());
            files += 1;
            packets += reader.packets();
        }
    }
    assert!(files > 0, "{} holds no capture", folder.display());
    eprintln!("{files} captures, {packets} packets");
}
