//! Segments that came in IP fragments, whole again, until their flow comes.
//!
//! The fast path does not see what is in fragments; at a segment's first one it hands the flow over. Datagrams are put
//! together by [`crate::capture::fragments`], and what completes before its flow was handed over (inside a tunnel: before
//! the fast path finds bytes missing) waits here. Bounded in number, bytes and time; what no flow claims is counted.

use std::collections::VecDeque;

use sensor_ebpf::flow::FlowKey;
use sensor_ebpf::packet::Packet;
use sensor_ebpf::wire::{FlowId, RecordHead, SEGMENT_LAST, SegmentRecord, direction, kind};
use zeroize::Zeroizing;

/// A segment that is whole again. (No `Debug`: it holds raw bytes.)
pub(super) struct Whole {
    pub(super) packet: Packet,
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// When its last piece came, nanoseconds.
    pub(super) time: u64,
}

impl Whole {
    /// The connection that it belongs to if it goes in this direction.
    pub(super) fn key(&self, way: u8) -> FlowKey {
        let Packet { source, destination, source_port, destination_port, .. } = self.packet;
        if way == direction::REQUEST {
            FlowKey {
                client: source,
                server: destination,
                client_port: source_port,
                server_port: destination_port,
                reserved: 0,
            }
        } else {
            FlowKey {
                client: destination,
                server: source,
                client_port: destination_port,
                server_port: source_port,
                reserved: 0,
            }
        }
    }

    /// Its direction in a connection; none if it is of another.
    pub(super) fn way_in(&self, key: &FlowKey) -> Option<u8> {
        [direction::REQUEST, direction::RESPONSE].into_iter().find(|way| self.key(*way) == *key)
    }

    /// As the fast path would have handed it over, in this epoch of the flow.
    pub(super) fn record(&self, flow: FlowId, epoch: u16, key: FlowKey, way: u8) -> SegmentRecord {
        SegmentRecord {
            head: RecordHead {
                kind: kind::SEGMENT,
                direction: way,
                time_ns: self.time,
                flow,
                epoch: epoch.into(),
                ..RecordHead::default()
            },
            key,
            sequence: self.packet.sequence,
            acknowledged: self.packet.acknowledgement,
            flags: self.packet.flags | SEGMENT_LAST,
            len: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Segments without a flow, oldest first.
pub(super) struct Unclaimed {
    list: VecDeque<Whole>,
    bytes: usize,
    most: usize,
    bytes_most: usize,
}

impl Unclaimed {
    /// Keeps at most so many segments, with so many bytes.
    pub(super) fn new(most: usize, bytes_most: usize) -> Self {
        Self { list: VecDeque::new(), bytes: 0, most, bytes_most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Keeps one; gives how many went for it.
    pub(super) fn keep(&mut self, segment: Whole) -> u64 {
        self.bytes += segment.bytes.len();
        self.list.push_back(segment);
        let mut gone = 0;
        while self.list.len() > self.most || self.bytes > self.bytes_most {
            let Some(oldest) = self.list.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            gone += 1;
        }
        gone
    }

    /// Takes those of a connection out, in the order in which they came.
    pub(super) fn claim(&mut self, key: &FlowKey) -> Vec<(u8, Whole)> {
        let mut claimed = Vec::new();
        if !self.list.iter().any(|segment| segment.way_in(key).is_some()) {
            return claimed;
        }
        for _ in 0..self.list.len() {
            let Some(segment) = self.list.pop_front() else { break };
            match segment.way_in(key) {
                Some(way) => {
                    self.bytes -= segment.bytes.len();
                    claimed.push((way, segment));
                }
                None => self.list.push_back(segment),
            }
        }
        claimed
    }

    /// Forgets those that came at `late` or before; gives how many.
    pub(super) fn expire(&mut self, late: u64) -> u64 {
        let mut gone = 0;
        while self.list.front().is_some_and(|segment| segment.time <= late) {
            let Some(oldest) = self.list.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            gone += 1;
        }
        gone
    }
}
