//! The slow path: halves of connections that the kernel handed over, because their segments came out of order, were lost,
//! or contradict each other.
//!
//! Records come in from capture; those that are not for the slow path pass through. The bytes of handed-over flows are put
//! in order ([`stream`]) and parsed by the same functions as in the kernel, from the state in which the kernel stopped;
//! what that makes goes out as the same records. Where a flow comes to rest between two messages, [`Resume`] tells the
//! kernel where it may go on. Everything is bounded by the configuration; who goes when a bound is reached says `room`, and
//! it is counted.

mod again;
mod border;
mod flow;
mod limits;
mod pieces;
mod read;
mod room;
pub mod stream;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use sensor_ebpf::flow::FlowKey;
use sensor_ebpf::packet::tcp_flag;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{
    FlowId, FragmentRecord, HandoverRecord, RecordHead, ResumeEntry, SegmentRecord, direction, kind,
};
use sensor_ebpf::work::Captured;
use zeroize::Zeroize as _;

use crate::capture::fragments::Piece;
use crate::capture::host::{self, HostEngine};
use crate::capture::tables::Tables;

use again::Comparison;
use flow::SlowFlow;
pub use limits::{Limits, SlowCounts};
use pieces::{Unclaimed, Whole};
use room::{Room, Why};

/// Where the kernel (or the engine that plays it) is told that it may take a flow back.
pub trait Resume {
    /// The flow of `key` may be taken back as `entry` says.
    fn put(&mut self, key: &FlowKey, entry: &ResumeEntry);
    /// It may not.
    fn remove(&mut self, key: &FlowKey);
}

/// What flows of the slow path share.
struct Shared {
    /// The parser, with its own totals.
    engine: HostEngine,
    /// Reads other versions of requests; its totals are nobody's.
    versions: HostEngine,
    limit: usize,
    head_bytes: usize,
    hole_timeout: u64,
    counts: SlowCounts,
    /// Records on their way out.
    records: Vec<u8>,
}

impl Shared {
    /// A record that the parser did not make: it goes out behind what the parser made so far, and in front of what it
    /// makes then. A version must stand behind its request, and in front of the answer and the end of the connection.
    fn tell(&mut self, record: &[u8]) {
        let records = &mut self.records;
        self.engine.drain(|made| records.extend_from_slice(made));
        records.extend_from_slice(record);
    }
}

/// The slow path of one shard. (No `Debug`: it holds raw bytes.)
pub struct SlowPath {
    shared: Shared,
    flows: HashMap<FlowId, Box<SlowFlow>>,
    /// Flows by who goes first.
    room: Room,
    /// Flows by what they hold.
    large: BTreeSet<(usize, FlowId)>,
    comparisons: HashMap<FlowId, Comparison>,
    /// The flow of a connection, perhaps one that is gone: for segments that came in fragments, which name no flow.
    by_key: HashMap<FlowKey, FlowId>,
    unclaimed: Unclaimed,
    /// Flows that ended, as many as are followed at most: what is sent again of them is not followed.
    over: HashSet<FlowId>,
    over_in_order: VecDeque<FlowId>,
    /// Flows of which segments came, and no state.
    found: u32,
    flows_max: usize,
    held_max: usize,
    /// When holes are looked at again.
    look_at: u64,
}

/// Segments that are compared at once, whose pieces did not all come yet.
const COMPARISONS_MAX: usize = 256;

impl SlowPath {
    /// With the same compiled configuration as the fast path.
    pub fn new(tables: &Tables, limits: Limits) -> Self {
        let engine = || HostEngine::new(tables.clone(), false, 1, 2 * limits.flows + 2);
        Self {
            shared: Shared {
                engine: engine().with_fragments(limits.fragments),
                versions: engine(),
                limit: limits.half_bytes,
                head_bytes: limits.head_bytes,
                hole_timeout: nanoseconds(limits.hole_timeout),
                counts: SlowCounts::default(),
                records: Vec::new(),
            },
            flows: HashMap::new(),
            room: Room::new(limits.flows),
            large: BTreeSet::new(),
            comparisons: HashMap::new(),
            by_key: HashMap::new(),
            unclaimed: Unclaimed::new(limits.fragments, limits.half_bytes),
            over: HashSet::new(),
            over_in_order: VecDeque::new(),
            found: 0,
            flows_max: limits.flows,
            held_max: limits.held_bytes,
            look_at: 0,
        }
    }

    /// Takes one record of capture; what is not for the slow path goes on to `out`, as does what it makes.
    pub fn record(&mut self, record: &[u8], resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        let Some((head, _)) = read::read::<RecordHead>(record) else { return out(record) };
        match head.kind {
            kind::HANDOVER => {
                if let Some((handover, rest)) = read::read::<HandoverRecord>(record) {
                    let captured = (handover.captured != 0).then(|| read::boxed::<Captured>(rest)).flatten();
                    self.handover(&handover, captured, resume, out);
                }
            }
            kind::SEGMENT => {
                if let Some((segment, bytes)) = read::read::<SegmentRecord>(record) {
                    self.segment(&segment, bytes, resume, out);
                }
            }
            kind::AGAIN => {
                if let Some((segment, bytes)) = read::read::<SegmentRecord>(record) {
                    self.again(&segment, bytes, None, out);
                }
            }
            kind::FRAGMENT => {
                if let Some((fragment, bytes)) = read::read::<FragmentRecord>(record) {
                    self.fragment(&fragment, bytes, resume, out);
                }
            }
            kind::RESUMED => {
                if let Some(flow) = self.take(head.flow) {
                    self.shared.engine.drop_kept(flow.id());
                }
            }
            _ => out(record),
        }
    }

    fn handover(
        &mut self,
        record: &HandoverRecord,
        captured: Option<Box<Captured>>,
        resume: &mut impl Resume,
        out: &mut impl FnMut(&[u8]),
    ) {
        let now = record.head.time_ns;
        let mut flow = self
            .take(record.head.flow)
            .unwrap_or_else(|| self.fresh(record.key, || SlowFlow::new(record.key, &record.flow)));
        flow.handed(record, captured, &mut self.shared);
        self.claim(&mut flow, &record.key);
        flow.settle(now, &mut self.shared, resume);
        self.put(flow, now, resume, out);
    }

    fn segment(&mut self, record: &SegmentRecord, bytes: &[u8], resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        let now = record.head.time_ns;
        let id = record.head.flow;
        let known = self.take(record.head.flow);
        let claims = known.is_none();
        let mut flow = match known {
            Some(flow) => flow,
            // What is sent again behind the end was parsed.
            None if self.over.contains(&record.head.flow) => return,
            None => {
                // Its hand-over was lost, or comes behind it.
                self.found = self.found.wrapping_add(1);
                let found = self.found;
                self.fresh(record.key, || SlowFlow::found(record, found))
            }
        };
        let again = flow.looks_back(record);
        flow.segment(record, bytes, &mut self.shared);
        if claims {
            self.claim(&mut flow, &record.key);
        }
        let over = flow.settle(now, &mut self.shared, resume);
        if let Some(first) = again.or_else(|| self.comparisons.contains_key(&id).then_some(*record)) {
            self.again(&first, bytes, Some(flow.requested()), out);
        }
        if over {
            self.over(&flow, out);
        } else {
            self.put(flow, now, resume, out);
        }
    }

    /// A flow that comes to the slow path.
    fn fresh(&mut self, key: FlowKey, make: impl FnOnce() -> SlowFlow) -> Box<SlowFlow> {
        // Entries of flows that are gone go now and then: the index stays in proportion to what is followed.
        if self.by_key.len() > 2 * self.flows.len() + 1024 {
            let flows = &self.flows;
            self.by_key.retain(|_, id| flows.contains_key(id));
        }
        let flow = Box::new(make());
        self.by_key.insert(key, flow.id());
        flow
    }

    /// Gives a flow what came of it in fragments before it did.
    fn claim(&mut self, flow: &mut SlowFlow, key: &FlowKey) {
        if self.unclaimed.is_empty() {
            return;
        }
        for (way, segment) in self.unclaimed.claim(key) {
            let record = segment.record(flow.id(), flow.epoch(), *key, way);
            flow.segment(&record, &segment.bytes, &mut self.shared);
        }
    }

    /// A piece of an IP fragment came: the segment that it completes goes to its flow.
    fn fragment(
        &mut self,
        record: &FragmentRecord,
        bytes: &[u8],
        resume: &mut impl Resume,
        out: &mut impl FnMut(&[u8]),
    ) {
        let Ok(protocol) = u8::try_from(record.protocol) else { return };
        let piece = Piece {
            source: record.source,
            destination: record.destination,
            protocol,
            identification: record.identification,
            at: record.at,
            more: record.more != 0,
            bytes,
        };
        let time = record.head.time_ns;
        let Some((packet, bytes)) = self.shared.engine.piece(time, &piece) else { return };
        let segment = Whole { packet, bytes, time };
        let unclaimed = if packet.flags & tcp_flag::SYN != 0 {
            // Only the fast path opens flows.
            1
        } else if let Some((record, bytes)) = self.followed(&segment) {
            self.segment(&record, bytes, resume, out);
            0
        } else {
            self.unclaimed.keep(segment)
        };
        self.shared.engine.add(Counter::FragmentsUnclaimed, unclaimed);
    }

    /// A segment as one of its flow, if that is followed.
    fn followed<'a>(&self, segment: &'a Whole) -> Option<(SegmentRecord, &'a [u8])> {
        [direction::REQUEST, direction::RESPONSE].into_iter().find_map(|way| {
            let key = segment.key(way);
            let flow = self.flows.get(self.by_key.get(&key)?)?;
            Some((segment.record(flow.id(), flow.epoch(), key, way), segment.bytes.as_slice()))
        })
    }

    /// A flow ended: it is remembered for a while that it did. (But for one that was reset: what comes behind a reset that
    /// its receiver dropped, for a wrong checksum, is no repetition.)
    fn over(&mut self, flow: &SlowFlow, out: &mut impl FnMut(&[u8])) {
        let id = flow.id();
        self.shared.engine.drop_kept(id);
        self.comparisons.remove(&id);
        if !flow.was_reset() && self.over.insert(id) {
            self.over_in_order.push_back(id);
        }
        if self.over.len() > self.flows_max
            && let Some(oldest) = self.over_in_order.pop_front()
        {
            self.over.remove(&oldest);
        }
        self.flush(out);
    }

    /// A piece of a segment to be compared with what was read before; of a flow that is followed, `requested` is how far
    /// that reaches.
    fn again(&mut self, record: &SegmentRecord, bytes: &[u8], requested: Option<u32>, out: &mut impl FnMut(&[u8])) {
        if self.comparisons.len() >= COMPARISONS_MAX && !self.comparisons.contains_key(&record.head.flow) {
            // Pieces of one segment follow each other: what waits for its last one lost it.
            let mut cut: Vec<_> = self.comparisons.drain().collect();
            cut.sort_unstable_by_key(|(id, _)| *id);
            for (_, comparison) in cut {
                comparison.give_up(&mut self.shared);
            }
        }
        let comparison = self.comparisons.entry(record.head.flow).or_insert_with(|| Comparison::new(record));
        if let Some(requested) = requested {
            comparison.knows(requested);
        }
        if comparison.add(record, bytes, self.shared.head_bytes)
            && let Some(comparison) = self.comparisons.remove(&record.head.flow)
        {
            comparison.judge(&mut self.shared);
            self.flush(out);
        }
    }

    /// Time goes on: holes that were waited for too long are given up.
    pub fn tick(&mut self, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        if !self.flows.is_empty() && now >= self.look_at {
            // Looked for now and then: who waits some hundredths longer loses nothing.
            self.look_at = now.saturating_add(self.shared.hole_timeout / 64);
            self.give_up(now.saturating_sub(self.shared.hole_timeout), now, resume, out);
        }
        self.forget_unclaimed(now.saturating_sub(self.shared.hole_timeout));
    }

    /// Whatever is missing now is not waited for any longer.
    pub fn settle(&mut self, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        self.give_up(now, now, resume, out);
        self.forget_unclaimed(now);
    }

    fn forget_unclaimed(&mut self, late: u64) {
        if !self.unclaimed.is_empty() {
            let gone = self.unclaimed.expire(late);
            self.shared.engine.add(Counter::FragmentsUnclaimed, gone);
        }
    }

    fn give_up(&mut self, late: u64, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        let mut waiting: Vec<FlowId> =
            self.flows.values().filter(|flow| flow.waits_since() <= late).map(|flow| flow.id()).collect();
        // The same input gives the same output.
        waiting.sort_unstable();
        for id in waiting {
            let Some(mut flow) = self.take(id) else { continue };
            let last = flow.last();
            flow.give_up(late, now, &mut self.shared);
            if flow.settle(now, &mut self.shared, resume) {
                self.over(&flow, out);
            } else {
                self.put(flow, last, resume, out);
            }
        }
    }

    /// The capture is over: nothing more fills a hole.
    pub fn finish(&mut self, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        let mut ids: Vec<FlowId> = self.flows.keys().copied().collect();
        ids.sort_unstable();
        self.forget_unclaimed(u64::MAX);
        for id in ids {
            let Some(mut flow) = self.take(id) else { continue };
            flow.give_up(u64::MAX, now, &mut self.shared);
            flow.settle(now, &mut self.shared, resume);
            self.flush(out);
        }
    }

    /// Totals of the parser: heads, bytes and what else it counts of handed-over flows.
    pub fn totals(&self) -> &[u64; Counter::COUNT] {
        self.shared.engine.totals()
    }

    /// The fast path's totals with what the parser counts here. (Bytes have totals of their own: what was handed over is
    /// new only once.)
    pub fn with_fast(&self, fast: &[u64; Counter::COUNT]) -> [u64; Counter::COUNT] {
        let mut sum = *fast;
        for (&counter, (sum, slow)) in Counter::ALL.iter().zip(sum.iter_mut().zip(self.totals())) {
            if counter != Counter::BytesNew && !Counter::BYTE_DISPOSITIONS.contains(&counter) {
                *sum += slow;
            }
        }
        sum
    }

    /// What was counted so far.
    pub fn counts(&self) -> SlowCounts {
        SlowCounts { flows: self.flows.len() as u64, ..self.shared.counts }
    }

    fn take(&mut self, id: FlowId) -> Option<Box<SlowFlow>> {
        let flow = self.flows.remove(&id)?;
        self.room.remove(&flow.seat());
        self.large.remove(&(flow.counted(), id));
        self.shared.counts.held = self.shared.counts.held.saturating_sub(flow.counted() as u64);
        Some(flow)
    }

    /// Puts a flow (back), and makes room where a bound is reached.
    fn put(&mut self, mut flow: Box<SlowFlow>, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) {
        flow.touch(now);
        self.keep(flow);
        while self.flows.len() > self.flows_max || self.shared.counts.held > self.held_max as u64 {
            if self.flows.len() <= self.flows_max && self.unburden(now, resume, out) {
                continue;
            }
            let Some((first, why)) = self.room.first_out() else { break };
            let Some(flow) = self.take(first) else { break };
            self.evict(flow, why, now, resume);
        }
        self.flush(out);
    }

    /// A flow goes because there is no room: what it holds is parsed, what it waits for is not waited for.
    fn evict(&mut self, mut flow: Box<SlowFlow>, why: Why, now: u64, resume: &mut impl Resume) {
        let counts = &mut self.shared.counts;
        counts.evicted += 1;
        match why {
            Why::Resting => counts.evicted_resting += 1,
            Why::Found => counts.evicted_found += 1,
            Why::Share => counts.evicted_share += 1,
            Why::Quiet => {}
        }
        flow.give_up(u64::MAX, flow.last().max(now), &mut self.shared);
        flow.settle(now, &mut self.shared, resume);
        flow.lose_answers(now, &mut self.shared);
        flow.abandon(now, &mut self.shared);
        self.shared.engine.drop_kept(flow.id());
    }

    fn keep(&mut self, mut flow: Box<SlowFlow>) {
        let id = flow.id();
        self.shared.counts.held += flow.count() as u64;
        self.room.insert(&flow.sit());
        self.large.insert((flow.counted(), id));
        self.flows.insert(id, flow);
    }

    /// Whoever holds most makes room before others do: what waits behind its holes is not waited for any longer. False
    /// when that brings little.
    fn unburden(&mut self, now: u64, resume: &mut impl Resume, out: &mut impl FnMut(&[u8])) -> bool {
        let Some(&(size, id)) = self.large.last() else { return false };
        let Some(mut flow) = self.take(id) else { return false };
        flow.give_up(u64::MAX, now, &mut self.shared);
        if flow.settle(now, &mut self.shared, resume) {
            self.over(&flow, out);
            return true;
        }
        let shrank = flow.count() <= size / 2;
        self.keep(flow);
        shrank
    }

    /// Gives what was made to `out`.
    fn flush(&mut self, out: &mut impl FnMut(&[u8])) {
        host::each(&self.shared.records, &mut *out);
        self.shared.records.zeroize();
        self.shared.engine.drain(&mut *out);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
