//! One flow of the slow path: two streams, and the parser's state between them.
//!
//! The state of its halves and its segments come in, in any order; here they are put together, what is in order goes to the
//! parser, and a flow that rests is offered back to the kernel. What is given up stands in [`loss`], what the requests may
//! have been instead in [`versions`].

mod loss;
mod side;
mod versions;

use sensor_ebpf::flow::{Flow, FlowKey, Half, flow_flag, half_flag, phase};
use sensor_ebpf::http::in_head;
use sensor_ebpf::packet::tcp_flag;
use sensor_ebpf::wire::{FlowId, HandoverRecord, ResumeEntry, SEGMENT_LAST, SegmentRecord, direction, kind};
use sensor_ebpf::work::Captured;
use zeroize::Zeroizing;

use side::Side;
use versions::Mark;

use super::border::Border;
use super::room::{Rank, Seat};
use super::stream::{Pushed, Stream};
use super::{Resume, Shared};
use crate::capture::host::Followed;

/// Memory of a flow beside what its streams hold, bytes.
const OVERHEAD: usize = size_of::<SlowFlow>() + 512;
/// Where transactions of a flow are counted from whose state was lost.
const FOUND: u32 = 1 << 31;
/// Segments of a half that are kept until its state comes.
const ORPHANS_MAX: usize = 64;

/// A segment that came before the state of its half.
struct Orphan {
    direction: u8,
    sequence: u32,
    flags: u32,
    time: u64,
    bytes: Zeroizing<Vec<u8>>,
}

/// How a flow came here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// With its state.
    HandedOver,
    /// Without: that was lost, or is on its way.
    Found,
}

/// One handed-over flow. (No `Debug`: it holds raw bytes.)
pub(super) struct SlowFlow {
    key: FlowKey,
    flow: Flow,
    request: Side,
    response: Side,
    reset: bool,
    orphans: Vec<Orphan>,
    mark: Mark,
    /// As long as requests in front of it wait for an answer.
    border: Option<Border>,
    /// Place in the request stream behind which no head was seen to reach.
    heads_to: u64,
    /// A request since the mark may have been another, and it cannot be told which.
    doubtful: bool,
    /// The kernel was told that it may take the flow back.
    offered: bool,
    origin: Origin,
    /// Since when the server's end has been there, and not the bytes in front of it, nanoseconds.
    lacks_end: Option<u64>,
    last: u64,
    counted: usize,
    seat: Seat,
}

impl SlowFlow {
    /// A flow whose first half was just handed over.
    pub(super) fn new(key: FlowKey, flow: &Flow) -> Self {
        let mark = Mark { requested: flow.requested, consumed: flow.request.consumed, open: None };
        Self {
            key,
            flow: *flow,
            request: Side::default(),
            response: Side::default(),
            reset: false,
            orphans: Vec::new(),
            mark,
            border: None,
            heads_to: 0,
            doubtful: false,
            offered: false,
            origin: Origin::HandedOver,
            lacks_end: None,
            last: 0,
            counted: 0,
            seat: Seat::default(),
        }
    }

    /// A flow of which a segment came, and no state; `number` of them were found so far. How many requests it had is not
    /// known: it counts them from where none was counted.
    pub(super) fn found(record: &SegmentRecord, number: u32) -> Self {
        let mut flow =
            Flow { id: record.head.flow, service: record.head.service, flags: flow_flag::PICKED_UP, ..Flow::default() };
        flow.request.parser.phase = phase::LOST;
        flow.response.parser.phase = phase::LOST;
        flow.requested = FOUND | (number & 0x3fff) << 16;
        flow.answered = flow.requested;
        Self { origin: Origin::Found, ..Self::new(record.key, &flow) }
    }

    /// Its id.
    pub(super) fn id(&self) -> FlowId {
        self.flow.id
    }

    /// Epoch of its request half.
    pub(super) fn epoch(&self) -> u16 {
        self.flow.request.epoch
    }

    /// Requests that were read of it, as their transaction numbers count them.
    pub(super) fn requested(&self) -> u32 {
        self.flow.requested
    }

    /// True when a reset ended it.
    pub(super) fn was_reset(&self) -> bool {
        self.reset
    }

    /// When something last came, nanoseconds.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Something came.
    pub(super) fn touch(&mut self, now: u64) {
        self.last = now;
    }

    /// Where it stands in the order of those who go when there is no room.
    pub(super) fn seat(&self) -> Seat {
        self.seat
    }

    /// Takes its place in that order.
    pub(super) fn sit(&mut self) -> Seat {
        let rank = match self.origin {
            _ if self.offered => Rank::Resting,
            Origin::Found => Rank::Found,
            Origin::HandedOver => Rank::Followed,
        };
        self.seat = Seat::new(&self.key, rank, self.last, self.flow.id);
        self.seat
    }

    /// What it was last counted with, bytes.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// Counts the memory that it uses, bytes.
    pub(super) fn count(&mut self) -> usize {
        let held = |side: &Side| side.stream.as_ref().map_or(0, Stream::held);
        let streams = held(&self.request) + held(&self.response);
        let orphans: usize = self.orphans.iter().map(|orphan| orphan.bytes.len() + size_of::<Orphan>()).sum();
        let open = self.mark.open.as_ref().map_or(0, |_| size_of::<Captured>());
        let kept = [&self.flow.request, &self.flow.response].map(|half| half.flags & half_flag::SLOT != 0);
        let slots = kept.iter().filter(|kept| **kept).count() * size_of::<Captured>();
        self.counted = OVERHEAD + streams + orphans + open + slots;
        self.counted
    }

    fn side(&mut self, way: u8) -> &mut Side {
        if way == direction::REQUEST { &mut self.request } else { &mut self.response }
    }

    fn half(&mut self, way: u8) -> &mut Half {
        if way == direction::REQUEST { &mut self.flow.request } else { &mut self.flow.response }
    }

    /// The state of a half came.
    pub(super) fn handed(&mut self, record: &HandoverRecord, captured: Option<Box<Captured>>, shared: &mut Shared) {
        let way = record.head.direction;
        if self.request.stream.is_none() && self.response.stream.is_none()
            || (self.half(way).epoch != 0 && self.side(way).stream.is_some())
        {
            // The first of the flow, or the flow was taken back meanwhile, and that was not heard of.
            let orphans = std::mem::take(&mut self.orphans);
            shared.engine.drop_kept(self.flow.id);
            *self = Self::new(record.key, &record.flow);
            self.orphans = orphans;
        }
        self.origin = Origin::HandedOver;
        // The kernel does not know yet that the flow left HTTP here.
        let passed = self.flow.flags & flow_flag::PASSED;
        self.flow.flags = passed | record.flow.flags & !flow_flag::SLOW;
        let (half, stream) = if way == direction::REQUEST {
            self.flow.requested = record.flow.requested;
            self.flow.queue = record.flow.queue;
            self.flow.request = record.flow.request;
            (&mut self.flow.request, &mut self.request.stream)
        } else {
            self.flow.answered = record.flow.answered;
            self.flow.response = record.flow.response;
            (&mut self.flow.response, &mut self.response.stream)
        };
        let remembered = if way == direction::REQUEST { shared.head_bytes } else { 0 };
        *stream = Some(Stream::new(half.next_sequence, shared.limit).remembering(remembered));
        half.flags &= !half_flag::SLOT;
        if way == direction::REQUEST {
            let open = in_head(half.parser.phase).then(|| Box::new((half.parser, captured.clone())));
            self.mark = Mark { requested: self.flow.requested, consumed: half.consumed, open };
            self.border = Border::of(&record.flow);
        }
        if let Some(captured) = captured {
            half.flags |= half_flag::SLOT;
            shared.engine.keep(self.flow.id, way, captured);
        }
        let orphans = std::mem::take(&mut self.orphans);
        for orphan in orphans {
            if orphan.direction == way {
                self.push(&orphan, shared);
            } else {
                self.orphans.push(orphan);
            }
        }
    }

    /// A piece of a segment came.
    pub(super) fn segment(&mut self, record: &SegmentRecord, bytes: &[u8], shared: &mut Shared) {
        let way = record.head.direction;
        if record.flags & tcp_flag::ACK != 0 {
            let known = &mut self.side(way).acknowledged;
            if known.is_none_or(|known| record.acknowledged.wrapping_sub(known).cast_signed() > 0) {
                *known = Some(record.acknowledged);
            }
            // What it acknowledges came before it, and is parsed before it: a response must not find a later request.
            let other = if way == direction::REQUEST { direction::RESPONSE } else { direction::REQUEST };
            self.pass_confirmed(other, record.head.time_ns, shared);
        }
        // Of a flow of which nothing is known, a reset is all that will come.
        let unknown = self.request.stream.is_none() && self.response.stream.is_none() && self.orphans.is_empty();
        self.reset |= unknown && record.flags & tcp_flag::RST != 0;
        // At a fragment the kernel makes what was offered before void.
        if way == direction::REQUEST && self.request.stream.is_some() {
            // Epochs wrap; records of one half come in their order.
            self.flow.request.epoch = u16::try_from(record.head.epoch & 0xffff).unwrap_or(0);
        }
        let orphan = Orphan {
            direction: way,
            sequence: record.sequence,
            flags: record.flags,
            time: record.head.time_ns,
            bytes: Zeroizing::new(bytes.to_vec()),
        };
        if self.side(way).stream.is_some() {
            self.push(&orphan, shared);
        } else {
            self.orphans.push(orphan);
            if self.orphans.len() > ORPHANS_MAX {
                self.adopt(shared);
            }
        }
    }

    /// No state came for segments that wait for it: their half is picked up where they begin.
    fn adopt(&mut self, shared: &mut Shared) {
        for way in [direction::REQUEST, direction::RESPONSE] {
            let first = self.orphans.iter().find(|orphan| orphan.direction == way).map(|orphan| orphan.sequence);
            let (Some(first), None) = (first, &self.side(way).stream) else { continue };
            let half = self.half(way);
            half.parser.phase = phase::LOST;
            half.next_sequence = first;
            self.side(way).stream = Some(Stream::new(first, shared.limit).remembering(0));
        }
        for orphan in std::mem::take(&mut self.orphans) {
            self.push(&orphan, shared);
        }
    }

    fn push(&mut self, segment: &Orphan, shared: &mut Shared) {
        let fin = segment.flags & tcp_flag::FIN != 0;
        self.reset |= self.resets(segment);
        let Some(stream) = &mut self.side(segment.direction).stream else { return };
        let mut pushed = stream.push(segment.sequence, &segment.bytes, fin, segment.time);
        while pushed == Pushed::Full {
            // What was waited for would take more than there is: it is given up.
            self.skip(segment.direction, segment.time, shared);
            self.deliver(segment.direction, shared);
            let Some(stream) = &mut self.side(segment.direction).stream else { return };
            if stream.hole().is_none() && stream.held() > shared.limit {
                break;
            }
            pushed = stream.push(segment.sequence, &segment.bytes, fin, segment.time);
        }
        shared.counts.out_of_window += u64::from(pushed == Pushed::OutOfWindow);
        if segment.direction == direction::RESPONSE && self.lacks_end.is_none() && self.response.lacks_its_end() {
            self.lacks_end = Some(segment.time);
        }
    }

    /// True when the segment is a reset that its receiver believes: one that stands exactly where the stream does (RFC
    /// 5961 §3.2), or behind its end. From anywhere else it is dropped, and would only hide what follows.
    fn resets(&mut self, segment: &Orphan) -> bool {
        const LAST: u32 = tcp_flag::RST | SEGMENT_LAST;
        let side = self.side(segment.direction);
        let Some(stream) = &side.stream else { return false };
        let ahead = segment.sequence.wrapping_sub(stream.next_sequence());
        segment.flags & LAST == LAST && (ahead == 0 || (ahead == 1 && side.ended))
    }

    /// Parses what is in order, gives up what the other side acknowledged, and offers the flow back if it rests. True
    /// when the flow is over.
    pub(super) fn settle(&mut self, now: u64, shared: &mut Shared, resume: &mut impl Resume) -> bool {
        // Requests first: a response follows from what is there of them.
        for way in [direction::REQUEST, direction::RESPONSE] {
            self.deliver(way, shared);
            self.pass_confirmed(way, now, shared);
            // And what else they may have been, before they are answered.
            self.compare(now, shared);
        }
        if self.reset {
            self.give_up(u64::MAX, now, shared);
        }
        // A half that was never handed over may have ended on the fast path.
        let flags = self.flow.flags;
        let ended = |side: &Side, fin: u32| side.ended || (side.stream.is_none() && flags & fin != 0);
        let over = self.reset
            || (ended(&self.request, flow_flag::FIN_REQUEST) && ended(&self.response, flow_flag::FIN_RESPONSE));
        if over {
            self.abandon(now, shared);
        }
        self.offer(over, resume);
        over
    }

    /// Gives the parser what is in order.
    fn deliver(&mut self, way: u8, shared: &mut Shared) {
        let (key, last, flow) = (self.key, self.last, &mut self.flow);
        let side = if way == direction::REQUEST { &mut self.request } else { &mut self.response };
        let acknowledged = side.acknowledged;
        let Some(stream) = &mut side.stream else { return };
        let engine = &mut shared.engine;
        let mut head = false;
        while stream.next(|piece| {
            let segment = Followed { key, direction: way, bytes: piece.bytes, ending: false, acknowledged };
            let before = flow.requested;
            engine.follow(piece.time, flow, &segment);
            head = flow.requested != before || in_head(flow.request.parser.phase);
        }) {
            if head && way == direction::REQUEST {
                self.heads_to = stream.position();
            }
        }
        if stream.finished() && !side.ended {
            side.ended = true;
            let segment = Followed { key, direction: way, bytes: &[], ending: true, acknowledged };
            engine.follow(last, flow, &segment);
        }
    }

    /// Tells the kernel that it may take the flow back if it rests between two messages, and that it may not if it does
    /// not rest any more.
    fn offer(&mut self, over: bool, resume: &mut impl Resume) {
        let passed = self.flow.flags & flow_flag::PASSED != 0;
        let between = |half: &Half| half.parser.phase == phase::START && half.parser.head_flags == 0;
        let idle = self.request.rests()
            && self.response.rests()
            && between(&self.flow.request)
            && between(&self.flow.response)
            && self.flow.requested == self.flow.answered;
        let (Some(request), Some(response)) = (&self.request.stream, &self.response.stream) else { return };
        if over || !(idle || passed) {
            if self.offered {
                self.offered = false;
                resume.remove(&self.key);
            }
            return;
        }
        self.offered = true;
        let entry = ResumeEntry {
            flow: self.flow.id,
            request_consumed: self.flow.request.consumed,
            response_consumed: self.flow.response.consumed,
            request_sequence: request.next_sequence(),
            response_sequence: response.next_sequence(),
            requested: self.flow.requested,
            epoch: self.flow.request.epoch.into(),
            passed: u32::from(passed),
            answered: self.flow.answered,
        };
        resume.put(&self.key, &entry);
    }
}

/// Records of this kind are what a version of a request is told as.
pub(super) const VERSION: u8 = kind::VERSION;
