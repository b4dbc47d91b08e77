//! Segments of heads that came in several: known again when they are sent again.
//!
//! A repetition that begins inside a head cannot be read on its own, and the first bytes are nowhere kept, so whether it
//! says the same could not be told. Of each segment that leaves a request's head open, or goes on with one, a keyed digest
//! flows into a table of its own here; a repetition with the same place, length and digest is the same bytes, and nothing
//! is in doubt. (Loss probes repeat just the last segment of a head whenever the server takes a few milliseconds to
//! answer.) What is not found there, because the table was full or the bytes differ, goes on to be compared.

use super::Tables;
use super::half::half_of;
use crate::flow::{Half, HeadPiece, HeadPieceKey};
use crate::http;
use crate::siphash::SipState;
use crate::wire::direction;
use crate::work::Work;

/// Longest segment that is remembered, bytes.
pub const PIECE_MAX: u32 = 4096;
/// Bytes of one step of a digest.
pub const STEP: u32 = 64;

/// Behind the parser, with the half locked: remembers the segment if a request's head goes on in front of it or behind. The
/// result says nothing (the verifier refuses a function that leaves an address there).
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn remember<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    let split = work.goes_on != 0 || http::in_head(work.parser.phase);
    if !split || work.direction != u32::from(direction::REQUEST) {
        return 0;
    }
    if work.present == 0 || work.present > PIECE_MAX || work.end != work.present || !tables.compares() {
        return 0;
    }
    let digest = tables.digest(work);
    let flow = tables.flow();
    if digest == 0 || flow.is_null() {
        return 0;
    }
    // SAFETY: the flow is valid, and the half locked.
    let key = unsafe {
        let half = half_of(flow, work.direction);
        HeadPieceKey { flow: (*flow).id, position: (*half).consumed.wrapping_sub(u64::from(work.present)) }
    };
    tables.keep_piece(&key, &HeadPiece { sequence: work.sequence, len: work.present, digest });
    0
}

/// True when the segment, which was seen before, says the very same.
#[inline(always)]
pub(super) fn is_known<T: Tables>(tables: &mut T, work: &mut Work, half: &Half) -> bool {
    work.position = half.consumed.wrapping_sub(u64::from(half.next_sequence.wrapping_sub(work.sequence)));
    known(tables, work) != 0
}

#[cfg_attr(target_arch = "bpf", inline(never))]
fn known<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    if work.present == 0 || work.present > PIECE_MAX {
        return 0;
    }
    let digest = tables.digest(work);
    let flow = tables.flow();
    if digest == 0 || flow.is_null() {
        return 0;
    }
    // SAFETY: the flow is valid; its id does not change while it is in the table.
    let key = HeadPieceKey { flow: unsafe { (*flow).id }, position: work.position };
    u32::from(tables.has_piece(&key, &HeadPiece { sequence: work.sequence, len: work.present, digest }))
}

/// The digest that `state` came to, once it has taken `len` bytes, whole steps of them; 0 when it did not.
#[inline(always)]
pub fn digest(state: &SipState, len: u32) -> u64 {
    if state.len() < len { 0 } else { state.finish().0 }
}
