//! What else a flow's requests may have been: retransmissions that say something else.
//!
//! The request stream keeps the bytes since the last mark, and what contradicts them; here the mark is moved as requests are
//! answered, and other versions go out to be judged, or, where none can be read, the doubt.

use sensor_ebpf::flow::{Parser, QUEUE, flow_flag, phase};
use sensor_ebpf::http::in_head;
use sensor_ebpf::wire::{SegmentRecord, direction};
use sensor_ebpf::work::Captured;

use super::SlowFlow;
use crate::slow::border::Border;
use crate::slow::{Shared, again};

/// Where the history of the request stream begins: enough to read it again.
pub(super) struct Mark {
    pub(super) requested: u32,
    pub(super) consumed: u64,
    /// What the parser was in there, if not between two messages: the head that was open when the flow was handed over,
    /// or what it is in behind a hole.
    pub(super) open: Option<Box<(Parser, Option<Box<Captured>>)>>,
}

impl SlowFlow {
    /// The first piece of a request segment that reaches back behind the hand-over, as one that is to be compared; none
    /// when what it says is known, or not of interest.
    pub(in crate::slow) fn looks_back(&mut self, record: &SegmentRecord) -> Option<SegmentRecord> {
        let border = self.border.filter(|_| record.head.direction == direction::REQUEST)?;
        if !border.reaches_back(record, self.response.acknowledged) {
            return None;
        }
        if self.mark.open.is_some() {
            // The head is complete here only: told then.
            self.doubtful = true;
            return None;
        }
        Some(border.compared(record))
    }

    /// Sends other versions of unanswered requests to be judged, and forgets what was answered.
    pub(super) fn compare(&mut self, now: u64, shared: &mut Shared) {
        let Some(stream) = self.request.stream.as_mut() else { return };
        // Not before the request that it is a version of.
        let now = now.max(stream.ready());
        let half = &self.flow.request;
        // Of a head that is still open no other version can be read yet.
        let open = if in_head(half.parser.phase) { half.consumed.wrapping_sub(half.parser.message_at) } else { 0 };
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        let read = stream.next_sequence().wrapping_sub(open);
        if stream.conflicted_before(read) {
            for version in stream.conflicts_before(read) {
                let mut copy = self.flow;
                copy.flags &= !flow_flag::PASSED;
                copy.requested = self.mark.requested;
                copy.answered = self.mark.requested;
                copy.request.consumed = self.mark.consumed;
                let open = self.mark.open.as_deref();
                copy.request.parser = open.map_or_else(Parser::default, |open| open.0);
                let captured = open.and_then(|open| open.1.clone());
                let (key, bytes, more_from) = (self.key, &version.bytes, self.flow.requested);
                again::Version { key, flow: copy, captured, bytes, now, more_from }.judge(shared);
            }
        }
        let counts = stream.take_counts();
        shared.counts.conflicts += u64::from(counts.conflicts);
        shared.counts.unjudged += u64::from(counts.unjudged);
        self.doubtful |= stream.doubted(self.heads_to);
        let complete = open == 0 || self.request.ended || self.reset;
        if self.doubtful && complete {
            self.doubtful = false;
            let waiting = self.flow.requested.wrapping_sub(self.mark.requested).min(QUEUE);
            for txn in (1..=waiting).rev().map(|back| self.flow.requested.wrapping_sub(back)) {
                again::tell_doubt(&self.flow, txn, now, shared);
            }
        }
        // The head that stood open there is not among the requests yet.
        let passed = |border: Border| border.is_passed(self.flow.answered);
        if self.border.is_some_and(passed) {
            self.border = None;
        }
        if self.flow.requested != self.flow.answered {
            return;
        }
        if half.parser.phase == phase::START {
            stream.mark();
            self.mark = Mark { requested: self.flow.requested, consumed: half.consumed, open: None };
        } else if in_head(half.parser.phase) && half.parser.message_at > self.mark.consumed {
            stream.mark_at(read);
            self.mark = Mark { requested: self.flow.requested, consumed: half.parser.message_at, open: None };
        }
    }
}
