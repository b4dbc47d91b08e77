//! One half of a connection, put in order: segments anywhere, overlapping, contradicting each other, with holes given up and
//! marks set in between, against a model that knows every byte on its own.
//!
//! What must hold: what comes out is, byte for byte, what came first; nothing is left out or comes twice; holes and ends are
//! where the model has them; other versions are made of bytes that were really seen; memory stays in its bound.

use std::collections::{BTreeMap, BTreeSet};

use sensor::slow::stream::{OVERHEAD, PATCHES_MAX, Pushed, Stream};

use crate::input::Input;

/// Steps of one input.
const STEPS: usize = 500;
/// Place of the first byte, far enough from 0 for what lies before it.
const START: u64 = 1 << 40;
/// Sequence number of the first byte: it wraps soon.
const SEQUENCE: u32 = 0xffff_fff0;

/// What was said to stand at one place.
#[derive(Default)]
struct Byte {
    /// What came first, if it was taken; unknown when the stream had no room, because it may have taken a part.
    first: Option<u8>,
    /// Everything that was ever said.
    said: BTreeSet<u8>,
}

struct Model {
    stream: Stream,
    limit: usize,
    history: usize,
    /// Place of the next byte to come out.
    position: u64,
    /// Place of the last mark.
    mark: u64,
    bytes: BTreeMap<u64, Byte>,
    ends: BTreeSet<u64>,
    delivered: Vec<u8>,
    longest: usize,
    now: u64,
    latest: u64,
    /// A segment was refused, in whole or in part.
    full: bool,
}

/// The first two bytes are the bounds, the others steps.
pub fn target(data: &[u8]) {
    let mut input = Input(data);
    let (limit, history) = (usize::from(input.byte()) * 32, usize::from(input.byte()) * 8);
    let mut model = Model {
        stream: Stream::new(SEQUENCE, limit).remembering(history),
        limit,
        history,
        position: START,
        mark: START,
        bytes: BTreeMap::new(),
        ends: BTreeSet::new(),
        delivered: Vec::new(),
        longest: 0,
        now: 0,
        latest: 0,
        full: false,
    };
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        model.step(&mut input);
        model.check();
    }
    while model.next() {}
    model.check();
}

/// The byte that stands at a place unless somebody says otherwise.
fn original(at: u64) -> u8 {
    (at ^ (at >> 5)).to_le_bytes()[0]
}

impl Model {
    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        self.now += u64::from(kind >> 6);
        match kind % 8 {
            0..=2 => {
                let ahead = i64::from(input.byte().cast_signed());
                self.push(ahead, kind, input);
            }
            3 => {
                let ahead = i64::from(i32::from(input.half().cast_signed()) << 13);
                self.push(ahead, kind, input);
            }
            4 => {
                self.next();
            }
            5 => while self.next() {},
            6 if kind & 8 == 0 => self.skip(),
            6 => self.mark(u64::from(input.byte())),
            _ => self.versions(),
        }
    }

    /// Gives a segment that begins `ahead` of the next byte.
    fn push(&mut self, ahead: i64, kind: u8, input: &mut Input<'_>) {
        let (len, mask) = (u64::from(input.byte()), if kind & 8 == 0 { 0 } else { input.byte() });
        let at = self.position.checked_add_signed(ahead).expect("places are far from 0");
        // The mask spares the first bytes, so that a segment contradicts in part.
        let byte = |place: u64| original(place) ^ if place - at >= u64::from(mask & 7) { mask } else { 0 };
        let bytes: Vec<u8> = (at..at + len).map(byte).collect();
        let fin = kind & 16 != 0;
        let sequence = Self::sequence(at);
        let pushed = self.stream.push(sequence, &bytes, fin, self.now);
        self.longest = self.longest.max(bytes.len());
        if pushed == Pushed::OutOfWindow {
            assert!(ahead.abs() > 1 << 25, "out of window, {ahead} ahead");
            return;
        }
        if fin && at + len >= self.position {
            self.ends.insert(at + len);
        }
        let refused = pushed == Pushed::Full;
        self.full |= refused;
        let mut new = false;
        for (place, value) in (at..).zip(&bytes) {
            let known = self.bytes.entry(place).or_default();
            if place >= self.position {
                new |= known.said.is_empty();
                if known.said.is_empty() && !refused {
                    known.first = Some(*value);
                }
            }
            known.said.insert(*value);
        }
        match pushed {
            Pushed::Duplicate => assert!(!new, "new bytes, called a duplicate"),
            Pushed::Held => assert!(ahead > 0, "held, though next in order"),
            Pushed::InOrder => assert!(ahead <= 0, "in order, though behind a hole"),
            Pushed::Full | Pushed::OutOfWindow => {}
        }
    }

    fn sequence(place: u64) -> u32 {
        let low = u32::try_from(place.wrapping_sub(START) & u64::from(u32::MAX)).expect("masked");
        SEQUENCE.wrapping_add(low)
    }

    /// Takes the next piece.
    fn next(&mut self) -> bool {
        let (mut bytes, mut time) = (Vec::new(), 0);
        let given = self.stream.next(|piece| {
            bytes.extend_from_slice(piece.bytes);
            time = piece.time;
        });
        if !given {
            let waiting = self.bytes.get(&self.position).is_some_and(|byte| byte.first.is_some());
            assert!(!waiting, "a byte in order is not given");
            return false;
        }
        assert!(!bytes.is_empty(), "an empty piece");
        assert!((self.latest..=self.now).contains(&time), "a piece out of time");
        self.latest = time;
        for value in bytes {
            let byte = self.bytes.get(&self.position).expect("a byte that nobody sent");
            assert!(byte.said.contains(&value), "a byte that nobody said");
            assert!(byte.first.is_none_or(|first| first == value), "not what came first");
            self.delivered.push(value);
            self.position += 1;
        }
        true
    }

    fn skip(&mut self) {
        let hole = self.stream.hole();
        let missing = self.stream.skip();
        assert_eq!(hole.map_or(0, |hole| hole.missing), missing, "the hole");
        if missing == 0 {
            return;
        }
        let end = self.position + u64::from(missing);
        let inside = self.bytes.range(self.position..end).any(|(_, byte)| byte.first.is_some());
        assert!(!inside, "a byte that was taken is called missing");
        self.position = end;
        self.forget(end);
    }

    fn mark(&mut self, back: u64) {
        let at = self.position - back;
        self.stream.mark_at(Self::sequence(at));
        if at >= self.mark {
            self.forget(at);
        }
    }

    fn forget(&mut self, at: u64) {
        let old = usize::try_from(at - self.mark).unwrap_or(usize::MAX).min(self.delivered.len());
        self.delivered.drain(..old);
        self.mark = at;
    }

    /// Looks at the other versions of what was delivered since the mark.
    fn versions(&mut self) {
        let conflicted = self.stream.conflicted();
        let (mark, sequence) = (self.mark, Self::sequence(self.mark));
        let mut given = 0;
        for version in self.stream.conflicts() {
            given += 1;
            assert_eq!(version.sequence, sequence, "a version begins at the mark");
            assert!(version.bytes.len() <= self.delivered.len(), "a version longer than what was delivered");
            for (place, value) in (mark..).zip(version.bytes.iter()) {
                assert!(
                    self.bytes.get(&place).is_some_and(|byte| byte.said.contains(value)),
                    "a byte that nobody said"
                );
            }
        }
        assert_eq!(conflicted, given > 0, "versions, as announced");
        assert!(given < 1 << PATCHES_MAX, "more versions than combinations");
        assert!(!self.stream.conflicted(), "versions are given once");
    }

    /// What holds at any time.
    fn check(&self) {
        let bound = 2 * self.limit + self.longest + 3 * self.history + (PATCHES_MAX + 1) * OVERHEAD;
        assert!(self.stream.held() <= bound, "{} bytes held, bound {bound}", self.stream.held());
        assert_eq!(self.stream.next_sequence(), Self::sequence(self.position), "the next byte");
        if self.stream.finished() {
            assert!(self.ends.contains(&self.position), "finished where nobody ended");
        }
        if let Some(hole) = self.stream.hole() {
            let behind = self.position + u64::from(hole.missing);
            assert!(self.bytes.contains_key(&behind), "a hole with nothing behind it");
            assert!(hole.since <= self.now, "a hole of the future");
        }
        // Nothing waits that the model does not know of.
        let first = self.bytes.range(self.position..).find(|(_, byte)| byte.first.is_some());
        if let (false, Some((place, _))) = (self.full, first) {
            let expected = (*place > self.position).then(|| *place - self.position);
            assert_eq!(self.stream.hole().map(|hole| u64::from(hole.missing)), expected, "the hole in front");
        }
    }
}
