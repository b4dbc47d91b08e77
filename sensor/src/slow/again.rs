//! Other versions of requests: what a retransmission says where it says something else.
//!
//! The server may have read either version, so both are judged. Here the other one is parsed on its own; the collector
//! compares it with the first, and takes the worse of two that differ.

use sensor_ebpf::flow::{Flow, FlowKey, QUEUE, half_flag, phase};
use sensor_ebpf::wire::{HeadRecord, RecordHead, SEGMENT_LAST, SegmentRecord, anomaly, direction, head_flag, kind};
use sensor_ebpf::work::Captured;
use zeroize::Zeroizing;

use super::Shared;
use super::flow::VERSION;
use super::read;
use crate::capture::host::Followed;

/// Another version of the bytes from a place on at which the parser's state is known.
pub(super) struct Version<'a> {
    pub(super) key: FlowKey,
    /// The flow as it stood there.
    pub(super) flow: Flow,
    /// The captures of the head that was open there.
    pub(super) captured: Option<Box<Captured>>,
    pub(super) bytes: &'a [u8],
    pub(super) now: u64,
    /// Transaction number of the first request that the first reading does not have (yet).
    pub(super) more_from: u32,
}

impl Version<'_> {
    /// Parses it, and sends the requests that it has; true if there are any.
    pub(super) fn judge(mut self, shared: &mut Shared) -> bool {
        self.flow.request.flags &= !half_flag::SLOT;
        if let Some(captured) = self.captured {
            self.flow.request.flags |= half_flag::SLOT;
            shared.versions.keep(self.flow.id, direction::REQUEST, captured);
        }
        let segment = Followed {
            key: self.key,
            direction: direction::REQUEST,
            bytes: self.bytes,
            ending: false,
            acknowledged: None,
        };
        shared.versions.follow(self.now, &mut self.flow, &segment);
        shared.versions.drop_kept(self.flow.id);
        // What was made so far goes first.
        shared.tell(&[]);
        let mut found = false;
        let more_from = self.more_from;
        let (records, counts) = (&mut shared.records, &mut shared.counts);
        shared.versions.drain(|record| {
            if record.get(KIND_AT) != Some(&kind::REQUEST) {
                return;
            }
            found = true;
            counts.versions += 1;
            let at = records.len();
            records.extend_from_slice(record);
            if let Some(kind) = records.get_mut(at + KIND_AT) {
                *kind = VERSION;
            }
            if is_more(record, more_from)
                && let Some(flags) = records.get_mut(at + FLAGS_AT)
            {
                *flags |= head_flag::MORE;
            }
        });
        found
    }
}

/// Where a record has its kind.
const KIND_AT: usize = std::mem::offset_of!(RecordHead, kind);
/// Where the record of a head has its flags.
const FLAGS_AT: usize = std::mem::offset_of!(HeadRecord, flags);

/// True for the record of a request whose number is `from` or a later one.
fn is_more(record: &[u8], from: u32) -> bool {
    read::read::<RecordHead>(record).is_some_and(|(head, _)| head.txn.wrapping_sub(from).cast_signed() >= 0)
}

/// A segment of seen bytes, of a request without an answer, that the kernel sent to be compared.
pub(super) struct Comparison {
    first: SegmentRecord,
    bytes: Zeroizing<Vec<u8>>,
    whole: bool,
    /// When the latest piece came: a version is told behind its request.
    time: u64,
    /// Requests that the first reading has, as far as is known.
    requested: u32,
}

impl Comparison {
    pub(super) fn new(first: &SegmentRecord) -> Self {
        let requested = first.head.txn.wrapping_add(1);
        Self { first: *first, bytes: Zeroizing::new(Vec::new()), whole: true, time: 0, requested }
    }

    /// The first reading has requests up to this number: what the segment repeats of them is none that it lacks.
    pub(super) fn knows(&mut self, requested: u32) {
        if requested.wrapping_sub(self.requested).cast_signed() > 0 {
            self.requested = requested;
        }
    }

    /// One more piece; true when it was the last.
    pub(super) fn add(&mut self, piece: &SegmentRecord, bytes: &[u8], most: usize) -> bool {
        self.time = self.time.max(piece.head.time_ns);
        let known = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if piece.sequence != self.first.sequence.wrapping_add(known) || self.bytes.len() + bytes.len() > 2 * most {
            self.whole = false;
        } else {
            // Growing would leave a copy behind that nobody wipes.
            if self.bytes.capacity() < self.bytes.len() + bytes.len() {
                let mut larger = Zeroizing::new(Vec::with_capacity(2 * (self.bytes.len() + bytes.len())));
                larger.extend_from_slice(&self.bytes);
                self.bytes = larger;
            }
            self.bytes.extend_from_slice(bytes);
        }
        piece.flags & SEGMENT_LAST != 0
    }

    /// Its last piece never comes.
    pub(super) fn give_up(mut self, shared: &mut Shared) {
        self.whole = false;
        self.judge(shared);
    }

    /// Sends what the segment says of the request; where it cannot be told, that the request is in doubt.
    pub(super) fn judge(self, shared: &mut Shared) {
        let head = RecordHead { time_ns: self.time, ..self.first.head };
        let behind = self.first.acknowledged.wrapping_sub(self.first.sequence).cast_signed();
        if behind > 0 {
            // Earlier requests that wait for their answer may stand in it. Where they begin is not known.
            let earlier = u32::try_from(head.offset).unwrap_or(u32::MAX).saturating_sub(1).min(QUEUE);
            for txn in (1..=earlier).rev().map(|back| head.txn.wrapping_sub(back)) {
                shared.counts.unjudged += 1;
                shared.tell(&doubt(RecordHead { txn, ..head }));
            }
        }
        let from = usize::try_from(behind).ok().and_then(|behind| self.bytes.get(behind..));
        if let Some(bytes) = from.filter(|_| self.whole) {
            if bytes.is_empty() {
                return;
            }
            let mut flow = Flow { id: head.flow, service: head.service, ..Flow::default() };
            flow.requested = head.txn;
            flow.answered = flow.requested;
            flow.request.parser.phase = phase::START;
            let (key, now, more_from) = (self.first.key, self.time, self.requested);
            let version = Version { key, flow, captured: None, bytes, now, more_from };
            if version.judge(shared) {
                return;
            }
        }
        shared.counts.unjudged += 1;
        shared.tell(&doubt(head));
    }
}

/// Says that there may be another version of a request of `flow`, of which nothing is known.
pub(super) fn tell_doubt(flow: &Flow, txn: u32, now: u64, shared: &mut Shared) {
    let head = RecordHead { service: flow.service, flow: flow.id, txn, time_ns: now, ..RecordHead::default() };
    shared.tell(&doubt(head));
}

/// A version of which nothing is known but that there may be one.
fn doubt(head: RecordHead) -> [u8; size_of::<HeadRecord>()] {
    let size = u32::try_from(size_of::<HeadRecord>()).unwrap_or(0);
    let head = RecordHead { kind: VERSION, direction: direction::REQUEST, size, ..head };
    let record = HeadRecord { head, anomalies: anomaly::CONFLICT, ..HeadRecord::default() };
    read::bytes(&record)
}
