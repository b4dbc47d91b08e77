//! From a packet to the parser: service, flow, sequence numbers, dispositions.
//!
//! Shared by the kernel programs and the host: [`packet`] takes a parsed segment, finds or makes its flow, and gives the
//! new bytes to [`crate::http`]. Every packet gets exactly one disposition, every new stream byte exactly one of
//! parsed, skipped, handed over and gap.
//!
//! Here stand what the engine asks of its surroundings, and its entries: [`packet`] for the fast path, [`follow`] and
//! [`gap`] for the slow one. A packet flows from `admit` over `half`, or `order` where it does not begin where the half
//! stands, to `parse` and the parser; `repeats` knows segments again that came before.

mod admit;
mod half;
mod order;
mod parse;
pub mod repeats;

use crate::flow::{Flow, FlowKey, HeadPiece, HeadPieceKey, flow_flag, phase};
use crate::http::Env;
use crate::packet::{Address, Packet};
use crate::wire::{ListenKey, direction};
use crate::work::{Work, stage};

use admit::{GOES_ON, admit};
use half::{begin, conclude, half_of, take};
use order::hole;
use parse::parsed;

/// The tables that [`packet`] needs beside the parser's environment.
pub trait Tables: Env {
    /// True if some service may listen on `port`.
    fn watched(&self, port: u16) -> bool;
    /// [`Tables::watched`] for both ports of a packet: destination, source.
    #[inline(always)]
    fn watched_pair(&self, destination: u16, source: u16) -> (bool, bool) {
        (self.watched(destination), self.watched(source))
    }
    /// The service that listens there.
    fn listen(&self, key: &ListenKey) -> Option<u16>;
    /// True if the address is this host's (replay: always).
    fn is_local(&self, address: &Address) -> bool;
    /// Makes the flow of `key` the current one; false if there is none.
    fn find(&mut self, key: &FlowKey) -> bool;
    /// Makes a fresh flow for `key`, replacing one of the same key, without looking it up; false if it was refused.
    fn insert(&mut self, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes the flow.
    fn delete(&mut self, key: &FlowKey);
    /// Brings to `work.resume` where the slow path left the flow of `work.key`; false if it did not.
    fn resume_at(&mut self, work: &mut Work) -> bool;
    /// The flow was taken back: forgets where.
    fn resume_done(&mut self, work: &mut Work);
    /// Keyed digest of the segment's payload, of 1 to [`repeats::PIECE_MAX`] bytes; 0 when they are not there.
    fn digest(&mut self, work: &Work) -> u64;
    /// Remembers a segment.
    fn keep_piece(&mut self, key: &HeadPieceKey, piece: &HeadPiece);
    /// True if that segment is remembered.
    fn has_piece(&self, key: &HeadPieceKey, piece: &HeadPiece) -> bool;
    /// True if seen bytes are compared on this device (on the loopback device every packet passes twice).
    fn compares(&self) -> bool;
    /// Monotonic time, nanoseconds.
    fn now(&self) -> u64;
    /// A zeroed flow to fill in before [`Tables::insert`].
    fn blank(&mut self) -> *mut Flow;
    /// For a segment without a flow: which direction it has, and its service.
    #[inline(always)]
    fn place(&self, packet: &Packet, payload: u32) -> Option<(u8, u16)> {
        let _ = payload;
        if let Some(service) = service_of(self, &packet.destination, packet.destination_port) {
            return Some((direction::REQUEST, service));
        }
        service_of(self, &packet.source, packet.source_port).map(|service| (direction::RESPONSE, service))
    }
}

/// The service at an address and port, if that port is watched.
#[inline(always)]
pub fn service_of<T: Tables + ?Sized>(tables: &T, address: &Address, port: u16) -> Option<u16> {
    if !tables.watched(port) {
        return None;
    }
    let mut key = ListenKey { address: bytes(*address), port, reserved: [0; 6] };
    if let Some(service) = tables.listen(&key) {
        return Some(service);
    }
    key.address = [0; 16];
    let service = tables.listen(&key)?;
    tables.is_local(address).then_some(service)
}

#[inline(always)]
const fn bytes(words: Address) -> [u8; 16] {
    (words[0] as u128 | (words[1] as u128) << 64).to_ne_bytes()
}

/// Handles the TCP segment in `work.packet`, of which `present` payload bytes are there; the result is its disposition,
/// an index of [`crate::reason::Counter`].
///
/// What is needed behind the parser's loop stands in `work`, not in registers: so the verifier comes to the loop in one
/// state, whatever way the packet took, and follows the parser once.
#[inline(always)]
pub fn packet<T: Tables>(tables: &mut T, work: &mut Work, present: u32) -> u32 {
    work.present = present;
    work.sequence = work.packet.sequence;
    work.stage = stage::DONE;
    let admitted = admit(tables, work);
    if admitted != GOES_ON {
        return admitted;
    }
    let stage = begin(tables, work);
    if stage >= stage::PARSE && (work.end > 0 || work.parser.phase >= phase::COMPLETIONS) && !tables.flow().is_null() {
        let complete = tables.run(work);
        work.overrun = u32::from(!complete);
    }
    if work.stage != stage::DONE {
        conclude(tables, work);
    }
    work.disposition
}

/// Bytes of a half that the slow path follows: `work.present` of them, next in order, at the start of the frame. The
/// current flow, `work.key`, `work.direction` and `work.packet` are set.
///
/// # Safety
/// The current flow is valid and nobody else uses it.
pub unsafe fn follow<T: Tables>(tables: &mut T, work: &mut Work) {
    let flow = tables.flow();
    let half = half_of(flow, work.direction);
    work.stage = stage::LOCKED;
    work.base = 0;
    // SAFETY: the caller's promise.
    unsafe {
        let passed = (*flow).flags & flow_flag::PASSED != 0;
        take(tables, work, &mut *half, work.present, passed);
        if work.stage == stage::PARSE && (work.end > 0 || work.parser.phase >= phase::COMPLETIONS) {
            let complete = tables.run(work);
            work.overrun = u32::from(!complete);
        }
        if work.stage == stage::PARSE {
            parsed(tables, work, &mut *half);
        }
    }
}

/// The slow path gives up waiting for `missing` bytes of a half that it follows.
///
/// # Safety
/// As for [`follow`].
pub unsafe fn gap<T: Tables>(tables: &mut T, work: &mut Work, missing: u32) {
    let flow = tables.flow();
    let half = half_of(flow, work.direction);
    // SAFETY: the caller's promise.
    unsafe { hole(tables, work, &mut *half, missing, (*flow).flags & flow_flag::PASSED != 0) };
}
