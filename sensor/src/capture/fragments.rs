//! IP fragments: pieces in, whole datagrams out (RFC 791 §3.2 with RFC 815, RFC 8200 §4.5).
//!
//! Owns the datagrams that are not whole yet. Pieces come from a capture's frames or, live, from the kernel's byte ring;
//! a finished [`Datagram`] goes to the packet parser as if it had come in one. Everything is bounded: datagrams, bytes
//! held (an entry for a piece counts as well, so that many tiny pieces gain nothing), and 30 seconds of capture time.
//! What is in the way goes oldest first, and is counted.
//!
//! Pieces may overlap, which no sender needs and which receivers resolve differently. Bytes that came first win. Where
//! others are different, an IPv6 datagram is refused (RFC 5722), and an IPv4 one is marked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use ahash::AHasher;
use sensor_ebpf::packet::{Address, ethertype, mapped};
use zeroize::Zeroizing;

/// How long a datagram may take, nanoseconds of capture time (what Linux waits for IPv4, and half of what RFC 8200
/// asks for: a receiver that waits longer is not seen).
const PATIENCE_NS: u64 = 30_000_000_000;
/// Largest payload of an IPv4 datagram (a header is 20 bytes at least) and of an IPv6 one.
const PAYLOAD_MAX: (u32, u32) = (65_535 - 20, 65_535);
/// What an entry counts for beside its bytes.
const PIECE_COST: usize = 64;

/// A piece of a fragment.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol of the datagram's payload.
    pub protocol: u8,
    /// The datagram's identification.
    pub identification: u32,
    /// Offset in the datagram's payload, bytes.
    pub at: u32,
    /// True unless the piece ends the datagram.
    pub more: bool,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A datagram that is whole again.
pub struct Datagram {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol of the payload; for IPv6 perhaps an extension header.
    pub protocol: u8,
    /// The IP payload.
    pub payload: Zeroizing<Vec<u8>>,
    /// True if two versions of some of its bytes were seen: its receiver may have the other one.
    pub conflicting: bool,
}

impl Datagram {
    /// Makes an IP packet of it, at the end of `into`, and gives its ethertype.
    pub fn packet(&self, into: &mut Vec<u8>) -> u16 {
        let len = u16::try_from(self.payload.len()).unwrap_or(u16::MAX);
        if let (Some(source), Some(destination)) = (ipv4(self.source), ipv4(self.destination)) {
            into.extend([0x45, 0]);
            into.extend(len.saturating_add(20).to_be_bytes());
            into.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
            into.extend(source);
            into.extend(destination);
            into.extend(self.payload.iter());
            return ethertype::IPV4;
        }
        into.extend([0x60, 0, 0, 0]);
        into.extend(len.to_be_bytes());
        into.extend([self.protocol, 64]);
        for word in self.source.iter().chain(&self.destination) {
            into.extend(word.to_ne_bytes());
        }
        into.extend(self.payload.iter());
        ethertype::IPV6
    }
}

/// The four bytes of a mapped address.
fn ipv4(address: Address) -> Option<[u8; 4]> {
    let bytes = address[1].to_ne_bytes();
    let [.., a, b, c, d] = bytes;
    (mapped(u32::from_ne_bytes([a, b, c, d])) == address).then_some([a, b, c, d])
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: Address,
    destination: Address,
    /// 0 for IPv6, where fragments of one datagram may name different ones (RFC 8200 §4.5).
    protocol: u8,
    identification: u32,
}

/// A datagram that is not whole.
struct Partial {
    /// Which one of its key, as in the order list.
    serial: u64,
    since_ns: u64,
    /// Bytes by where they begin; none overlaps another.
    pieces: BTreeMap<u32, Zeroizing<Vec<u8>>>,
    /// Sum of their lengths.
    held: u32,
    /// Length of the payload, once the last fragment was seen.
    len: Option<u32>,
    /// Of the first fragment.
    protocol: u8,
    conflicting: bool,
    /// Two versions of an IPv6 datagram: what else comes of it is thrown away.
    refused: bool,
}

/// What became of fragments, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams put together.
    pub reassembled: u64,
    /// Of those, datagrams of which two versions were seen.
    pub conflicting: u64,
    /// Datagrams given up (too old, pushed out, contradicting themselves) and pieces that fit nowhere.
    pub dropped: u64,
}

/// Puts datagrams together.
pub struct Reassembler {
    partial: HashMap<Key, Partial, BuildHasherDefault<AHasher>>,
    /// By arrival of the first piece; entries whose serial is not their datagram's any more are stale.
    order: VecDeque<(Key, u64)>,
    datagrams_max: usize,
    bytes_max: usize,
    bytes: usize,
    serial: u64,
    counts: Counts,
}

impl Reassembler {
    /// Holds at most `datagrams_max` datagrams (at least one) and `bytes_max` bytes.
    pub fn new(datagrams_max: usize, bytes_max: usize) -> Self {
        Self {
            partial: HashMap::default(),
            order: VecDeque::new(),
            datagrams_max: datagrams_max.max(1),
            bytes_max,
            bytes: 0,
            serial: 0,
            counts: Counts::default(),
        }
    }

    /// What became of fragments so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Datagrams that are not whole yet.
    pub fn waiting(&self) -> usize {
        self.partial.len()
    }

    /// Bytes held for them, with what an entry counts for.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a piece, seen at `at_ns`; gives the datagram that it completes.
    pub fn push(&mut self, at_ns: u64, piece: &Piece<'_>) -> Option<Datagram> {
        self.expire(at_ns);
        let four = ipv4(piece.source).is_some();
        let Some(piece) = fitting(*piece, four) else {
            self.counts.dropped += 1;
            return None;
        };
        let key = Key {
            source: piece.source,
            destination: piece.destination,
            protocol: if four { piece.protocol } else { 0 },
            identification: piece.identification,
        };
        if !self.partial.contains_key(&key) {
            self.open(key, piece.protocol, at_ns);
        }
        let partial = self.partial.get_mut(&key)?;
        if partial.refused {
            self.counts.dropped += 1;
            return None;
        }
        let before = partial.cost();
        let fits = partial.add(&piece);
        if !fits && !four {
            partial.refuse();
        }
        self.bytes = self.bytes + partial.cost() - before;
        if !fits {
            self.counts.dropped += 1;
            partial.conflicting = true;
            return None;
        }
        if partial.len == Some(partial.held) {
            return self.finish(&key);
        }
        while self.bytes > self.bytes_max && self.drop_oldest() {}
        None
    }

    fn open(&mut self, key: Key, protocol: u8, at_ns: u64) {
        while self.partial.len() >= self.datagrams_max && self.drop_oldest() {}
        // Stale entries are dropped in passing, so that the list stays in proportion to the table.
        if self.order.len() > 2 * self.partial.len() + 1024 {
            let partial = &self.partial;
            self.order.retain(|(key, serial)| partial.get(key).is_some_and(|one| one.serial == *serial));
        }
        self.serial += 1;
        self.order.push_back((key, self.serial));
        let partial = Partial {
            serial: self.serial,
            since_ns: at_ns,
            pieces: BTreeMap::new(),
            held: 0,
            len: None,
            protocol,
            conflicting: false,
            refused: false,
        };
        self.bytes += partial.cost();
        self.partial.insert(key, partial);
    }

    /// Gives up the oldest datagram; false if there is none.
    fn drop_oldest(&mut self) -> bool {
        while let Some((key, serial)) = self.order.pop_front() {
            if self.partial.get(&key).is_some_and(|partial| partial.serial == serial) {
                if let Some(partial) = self.partial.remove(&key) {
                    self.bytes -= partial.cost();
                    // A refused one was counted when it was.
                    self.counts.dropped += u64::from(!partial.refused);
                }
                return true;
            }
        }
        false
    }

    /// Gives up what waited too long.
    fn expire(&mut self, at_ns: u64) {
        while let Some((key, serial)) = self.order.front() {
            let Some(partial) = self.partial.get(key).filter(|partial| partial.serial == *serial) else {
                self.order.pop_front();
                continue;
            };
            if at_ns.saturating_sub(partial.since_ns) <= PATIENCE_NS {
                return;
            }
            self.drop_oldest();
        }
    }

    fn finish(&mut self, key: &Key) -> Option<Datagram> {
        let partial = self.partial.remove(key)?;
        self.bytes -= partial.cost();
        self.counts.reassembled += 1;
        self.counts.conflicting += u64::from(partial.conflicting);
        let mut payload = Zeroizing::new(Vec::with_capacity(partial.held as usize));
        for piece in partial.pieces.values() {
            payload.extend_from_slice(piece);
        }
        Some(Datagram {
            source: key.source,
            destination: key.destination,
            protocol: partial.protocol,
            payload,
            conflicting: partial.conflicting,
        })
    }
}

/// What of a piece can stand in a datagram: `None` if it would reach beyond the longest, or is empty. All but the last
/// fragment have a multiple of eight bytes: of others IPv4 receivers take what is, and IPv6 receivers nothing.
fn fitting(mut piece: Piece<'_>, four: bool) -> Option<Piece<'_>> {
    let most = if four { PAYLOAD_MAX.0 } else { PAYLOAD_MAX.1 };
    if piece.more && !piece.bytes.len().is_multiple_of(8) {
        let len = if four { piece.bytes.len() & !7 } else { 0 };
        piece.bytes = piece.bytes.get(..len)?;
    }
    let len = u32::try_from(piece.bytes.len()).ok().filter(|len| *len > 0)?;
    (piece.at.checked_add(len)? <= most).then_some(piece)
}

impl Partial {
    fn cost(&self) -> usize {
        self.held as usize + (self.pieces.len() + 1) * PIECE_COST
    }

    /// Throws the bytes away, and keeps the key as a reminder.
    fn refuse(&mut self) {
        self.pieces.clear();
        self.held = 0;
        self.refused = true;
    }

    /// Adds what is new of a piece. False if it contradicts what is there (for IPv4: and was left out wholly because it
    /// says that the datagram ends elsewhere).
    fn add(&mut self, piece: &Piece<'_>) -> bool {
        let end = piece.at + u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX);
        let reach = self.pieces.last_key_value().map_or(0, |(at, bytes)| end_of(*at, bytes));
        let beyond = self.len.is_some_and(|len| end > len || (!piece.more && end != len));
        if beyond || (!piece.more && reach > end) {
            return false;
        }
        if piece.at == 0 {
            self.protocol = piece.protocol;
        }
        if !piece.more {
            self.len = Some(end);
        }
        let same = self.fill(piece, end);
        self.conflicting |= !same;
        same || ipv4(piece.source).is_some()
    }

    /// Puts a piece's bytes where nothing stands yet; false if what stands elsewhere is different.
    fn fill(&mut self, piece: &Piece<'_>, end: u32) -> bool {
        let part = |from: u32, to: u32| {
            piece.bytes.get((from - piece.at) as usize..(to - piece.at) as usize).unwrap_or_default()
        };
        // The first that may overlap begins before the piece, or where it does.
        let first = self.pieces.range(..=piece.at).next_back().map_or(piece.at, |(at, _)| *at);
        let (mut at, mut same, mut new) = (piece.at, true, Vec::new());
        for (start, bytes) in self.pieces.range(first..end) {
            let stop = end_of(*start, bytes);
            if stop <= at {
                continue;
            }
            if *start > at {
                new.push((at, *start));
            }
            let (from, to) = (at.max(*start), stop.min(end));
            let there = bytes.get((from - start) as usize..(to - start) as usize).unwrap_or_default();
            same &= there == part(from, to);
            at = to;
        }
        if at < end {
            new.push((at, end));
        }
        for (from, to) in new {
            self.pieces.insert(from, Zeroizing::new(part(from, to).to_vec()));
            self.held += to - from;
        }
        same
    }
}

fn end_of(at: u32, bytes: &[u8]) -> u32 {
    at + u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
