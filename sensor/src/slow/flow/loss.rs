//! What a flow gives up: bytes that will never come, answers that may have been among them, and in the end itself.
//!
//! Acknowledgements, deadlines and want of room say when; the parser is told of each hole, and the ledger of each answer
//! that may be lost.

use sensor_ebpf::flow::{QUEUE, flow_flag, phase};
use sensor_ebpf::wire::{RecordHead, direction, kind};

use super::versions::Mark;
use super::{Side, SlowFlow};
use crate::capture::host::Followed;
use crate::slow::{Shared, read};

impl SlowFlow {
    /// Gives up the holes that are none for the other side.
    pub(super) fn pass_confirmed(&mut self, way: u8, now: u64, shared: &mut Shared) {
        while self.confirmed(way) {
            self.skip(way, now, shared);
            self.deliver(way, shared);
        }
    }

    /// True when the other side has the bytes that are missing here: nobody will send them again.
    fn confirmed(&mut self, way: u8) -> bool {
        let other = if way == direction::REQUEST { direction::RESPONSE } else { direction::REQUEST };
        let acknowledged = self.side(other).acknowledged;
        let Some(stream) = &self.side(way).stream else { return false };
        let (Some(hole), Some(acknowledged)) = (stream.hole(), acknowledged) else { return false };
        let end = stream.next_sequence().wrapping_add(hole.missing);
        acknowledged.wrapping_sub(end).cast_signed() >= 0
    }

    /// Gives up the hole that stands next in a half.
    pub(super) fn skip(&mut self, way: u8, now: u64, shared: &mut Shared) {
        let key = self.key;
        let Some(stream) = &mut self.side(way).stream else { return };
        let missing = stream.skip();
        if missing == 0 {
            return;
        }
        shared.counts.holes += 1;
        let segment = Followed { key, direction: way, bytes: &[], ending: false, acknowledged: None };
        shared.engine.gap(now, &mut self.flow, &segment, missing);
        if way == direction::RESPONSE && self.flow.response.parser.phase == phase::LOST {
            self.lose_answers(now, shared);
        }
        if way == direction::REQUEST {
            // What is remembered begins here: other versions of it are read from the state that the parser is in now.
            let half = &self.flow.request;
            let open = (half.parser.phase != phase::START).then(|| Box::new((half.parser, None)));
            self.mark = Mark { requested: self.flow.requested, consumed: half.consumed, open };
        }
    }

    /// Bytes of answers were lost for good: says so of every request that waits for one.
    pub(in crate::slow) fn lose_answers(&mut self, now: u64, shared: &mut Shared) {
        if self.flow.flags & flow_flag::PASSED != 0 {
            return;
        }
        let waiting = self.flow.requested.wrapping_sub(self.flow.answered).min(QUEUE);
        for txn in (0..waiting).map(|ahead| self.flow.answered.wrapping_add(ahead)) {
            let size = u32::try_from(size_of::<RecordHead>()).unwrap_or(0);
            let lost = RecordHead {
                kind: kind::ANSWER_LOST,
                direction: direction::RESPONSE,
                size,
                service: self.flow.service,
                flow: self.flow.id,
                txn,
                time_ns: now,
                ..RecordHead::default()
            };
            shared.tell(&read::head_bytes(&lost));
        }
    }

    /// Since when it has been waiting for missing bytes, or for the state of a half; `u64::MAX` when it does not.
    pub(in crate::slow) fn waits_since(&self) -> u64 {
        let hole = |side: &Side| side.hole().map_or(u64::MAX, |hole| hole.since);
        let orphan = self.orphans.first().map_or(u64::MAX, |orphan| orphan.time);
        hole(&self.request).min(hole(&self.response)).min(orphan).min(self.lacks_end.unwrap_or(u64::MAX))
    }

    /// Gives up every hole that has been there since `late` or before.
    pub(in crate::slow) fn give_up(&mut self, late: u64, now: u64, shared: &mut Shared) {
        if self.orphans.first().is_some_and(|orphan| orphan.time <= late) {
            self.adopt(shared);
        }
        for way in [direction::REQUEST, direction::RESPONSE] {
            self.deliver(way, shared);
            while self.side(way).hole().is_some_and(|hole| hole.since <= late) {
                self.skip(way, now, shared);
                self.deliver(way, shared);
            }
            self.compare(now, shared);
        }
        if self.lacks_end.is_some_and(|since| since <= late) {
            self.lacks_end = None;
            if self.response.lacks_its_end() {
                self.lose_answers(now, shared);
            }
        }
    }

    /// Nobody follows the flow any more: bodies end, and what waits for an answer gets none.
    pub(in crate::slow) fn abandon(&mut self, now: u64, shared: &mut Shared) {
        for way in [direction::REQUEST, direction::RESPONSE] {
            let side = self.side(way);
            if !side.ended && side.stream.is_some() {
                side.ended = true;
                let segment = Followed { key: self.key, direction: way, bytes: &[], ending: true, acknowledged: None };
                shared.engine.follow(now, &mut self.flow, &segment);
            }
        }
        if self.flow.requested != self.flow.answered {
            let way = direction::RESPONSE;
            let segment = Followed { key: self.key, direction: way, bytes: &[], ending: true, acknowledged: None };
            shared.engine.close(now, &mut self.flow, &segment);
        }
    }
}
