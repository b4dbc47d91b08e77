//! Which request a response answers: the flow's queue of outstanding requests.
//!
//! A complete request head goes in with what its answer must be read by; a response head takes the oldest out, with what is
//! doubtful about that. One half writes what was asked, the other what was answered, each without the other's lock.

use crate::flow::{Flow, Outstanding, QUEUE, flow_flag, outstanding_flag};
use crate::packet::tcp_flag;
use crate::wire::{NO_ROUTE, anomaly};
use crate::work::{Work, bound};

/// What a response answers.
pub(super) struct Answer {
    pub(super) txn: u32,
    pub(super) request: Outstanding,
    pub(super) anomalies: u32,
}

/// Adds an outstanding request: its transaction number, and whether the queue was full.
///
/// # Safety
/// `flow` must be valid; only the holder of the request half's lock may call this.
#[inline(always)]
pub(super) unsafe fn push(flow: *mut Flow, entry: Outstanding) -> (u32, bool) {
    // SAFETY: the caller's promise; the other half may write `answered` meanwhile, which is read whole.
    unsafe {
        let txn = (&raw const (*flow).requested).read_volatile();
        let answered = (&raw const (*flow).answered).read_volatile();
        let waiting = txn.wrapping_sub(answered) as i32;
        let full = waiting >= QUEUE as i32;
        // The oldest stay when it is full: what answers them must not be misjudged. The turn of the queue stands in the
        // entry, so that one that found no room is known by it.
        if !full {
            let index = bound::<{ QUEUE - 1 }>(txn) as usize;
            let entry = Outstanding { flags: entry.flags | turn(txn), ..entry };
            (&raw mut (*flow).queue).cast::<Outstanding>().add(index).write_volatile(entry);
        }
        (&raw mut (*flow).requested).write_volatile(txn.wrapping_add(1));
        (txn, full)
    }
}

/// Which turn of the queue a transaction number belongs to, in the high bits of [`Outstanding::flags`].
#[inline(always)]
const fn turn(txn: u32) -> u8 {
    ((txn / QUEUE) << 4) as u8
}

/// The bits that [`turn`] uses.
const TURN: u8 = 0xf0;

/// Takes the request that a response answers.
///
/// # Safety
/// `flow` must be valid; only the holder of the response half's lock may call this.
#[inline(always)]
pub(super) unsafe fn pop(flow: *mut Flow, early: bool, newest: bool) -> Answer {
    const NOBODY: Outstanding = Outstanding { route: NO_ROUTE, method: 0, flags: 0 };
    // SAFETY: the caller's promise; the other half may write `requested` meanwhile, which is read whole.
    unsafe {
        let mut txn = (&raw const (*flow).answered).read_volatile();
        let requested = (&raw const (*flow).requested).read_volatile();
        let waiting = requested.wrapping_sub(txn) as i32;
        if waiting <= 0 {
            if early && waiting == 0 {
                (&raw mut (*flow).answered).write_volatile(txn.wrapping_add(1));
                return Answer { txn, request: NOBODY, anomalies: anomaly::EARLY };
            }
            return Answer { txn: u32::MAX, request: NOBODY, anomalies: anomaly::UNSOLICITED };
        }
        if newest {
            txn = requested.wrapping_sub(1);
        }
        let index = bound::<{ QUEUE - 1 }>(txn) as usize;
        let request = (&raw const (*flow).queue).cast::<Outstanding>().add(index).read_volatile();
        (&raw mut (*flow).answered).write_volatile(txn.wrapping_add(1));
        // It found no room: only the number is certain.
        if request.flags & TURN != turn(txn) {
            return Answer { txn, request: NOBODY, anomalies: anomaly::QUEUE_OVERFLOW };
        }
        Answer { txn, request, anomalies: 0 }
    }
}

/// True when the response is the first thing that was said on a connection whose opening was seen, and acknowledges
/// nothing: no request was missed. The client takes it for the answer to its first request when it sends one.
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
pub(super) unsafe fn unasked(flow: *mut Flow, work: &Work) -> bool {
    // SAFETY: the caller's promise; the other half may write these meanwhile, each is read whole.
    unsafe {
        let opened = (&raw const (*flow).flags).read_volatile() & flow_flag::OPENED != 0;
        let next = (&raw const (*flow).request.next_sequence).read_volatile();
        let consumed = (&raw const (*flow).request.consumed).read_volatile();
        opened
            && consumed == 0
            && work.packet.flags & tcp_flag::ACK != 0
            && work.packet.acknowledgement.wrapping_sub(next) as i32 <= 0
    }
}

/// True when the packet with the response does not acknowledge the first byte of the request that it answers: the server
/// may never have seen what was seen here. Only of the newest request is the place known.
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
pub(super) unsafe fn unconfirmed(flow: *mut Flow, txn: u32, work: &Work) -> bool {
    if work.packet.flags & tcp_flag::ACK == 0 {
        return false;
    }
    // SAFETY: the caller's promise; the other half may write these meanwhile, each is read whole, and a newer request
    // shows in `requested`, which is read last.
    unsafe {
        let request = &raw const (*flow).request;
        let next = (&raw const (*request).next_sequence).read_volatile();
        let consumed = (&raw const (*request).consumed).read_volatile();
        let message_at = (&raw const (*request).parser.message_at).read_volatile();
        let requested = (&raw const (*flow).requested).read_volatile();
        let from = next.wrapping_sub(consumed.wrapping_sub(message_at) as u32);
        requested == txn.wrapping_add(1) && work.packet.acknowledgement.wrapping_sub(from) as i32 <= 0
    }
}

/// True when the oldest outstanding request is of HTTP/0.9.
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
pub(super) unsafe fn next_is_simple(flow: *mut Flow) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let txn = (&raw const (*flow).answered).read_volatile();
        let requested = (&raw const (*flow).requested).read_volatile();
        let index = bound::<{ QUEUE - 1 }>(txn) as usize;
        let entry = (&raw const (*flow).queue).cast::<Outstanding>().add(index).read_volatile();
        requested.wrapping_sub(txn) as i32 > 0 && entry.flags & outstanding_flag::HTTP_09 != 0
    }
}
