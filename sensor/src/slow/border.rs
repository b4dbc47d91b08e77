//! Where the kernel stopped in a request stream, and what of a segment reaches back behind that place.

use sensor_ebpf::flow::{Flow, phase};
use sensor_ebpf::http::in_head;
use sensor_ebpf::wire::SegmentRecord;

/// Where the kernel stopped in the request stream: segments that reach back behind it contradict what only it has read.
#[derive(Clone, Copy)]
pub(super) struct Border {
    /// Sequence number of the first byte that was handed over.
    next: u32,
    /// Sequence number of the first byte of the last message in front of it.
    message: u32,
    /// Its transaction number.
    txn: u32,
    /// Requests that waited for an answer, up to that one.
    waiting: u32,
    /// What the server acknowledged.
    acknowledged: u32,
}

impl Border {
    /// The border of a flow whose request half was just handed over; none when nothing waits for an answer there.
    pub(super) fn of(flow: &Flow) -> Option<Self> {
        let (half, open) = (&flow.request, in_head(flow.request.parser.phase));
        let waiting = flow.requested.wrapping_sub(flow.answered).wrapping_add(u32::from(open));
        let back = half.consumed.wrapping_sub(half.parser.message_at);
        if half.parser.phase == phase::LOST || waiting == 0 || half.parser.body_bytes >= back {
            return None;
        }
        let message = half.next_sequence.wrapping_sub(u32::try_from(back).ok()?);
        let txn = if open { flow.requested } else { flow.requested.wrapping_sub(1) };
        Some(Border { next: half.next_sequence, message, txn, waiting, acknowledged: half.acknowledged })
    }

    /// True when the segment says again what only the kernel has read, and the server may take it instead:
    /// `acknowledged` is how far it is known to have got.
    pub(super) fn reaches_back(&self, record: &SegmentRecord, acknowledged: Option<u32>) -> bool {
        let end = record.sequence.wrapping_add(record.len);
        let before = |one: u32, other: u32| one.wrapping_sub(other).cast_signed() < 0;
        let known = |acknowledged: u32| acknowledged != 0 && !before(acknowledged, end);
        before(record.sequence, self.next)
            && !known(self.acknowledged)
            && !acknowledged.is_some_and(known)
            && (self.waiting > 1 || before(self.message, end))
    }

    /// The segment, as one that is to be compared with the last message in front of the border.
    pub(super) fn compared(&self, record: &SegmentRecord) -> SegmentRecord {
        let mut again = *record;
        again.acknowledged = self.message;
        again.head.txn = self.txn;
        again.head.offset = self.waiting.into();
        again
    }

    /// True when its message was answered.
    pub(super) fn is_passed(&self, answered: u32) -> bool {
        answered.wrapping_sub(self.txn).cast_signed() > 0
    }
}
