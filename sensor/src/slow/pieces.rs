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

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(port: u16, len: usize, time: u64) -> Whole {
        let packet = Packet {
            source: [0, 1],
            destination: [0, 2],
            source_port: port,
            destination_port: 80,
            ..Packet::default()
        };
        Whole { packet, bytes: Zeroizing::new(vec![b'x'; len]), time }
    }

    #[test]
    fn number_bytes_and_time_are_bounded() {
        let mut unclaimed = Unclaimed::new(3, 100);
        assert_eq!([1, 2, 3].map(|time| unclaimed.keep(segment(1, 10, time))), [0, 0, 0]);
        assert_eq!(unclaimed.keep(segment(1, 10, 4)), 1, "one too many");
        assert_eq!(unclaimed.keep(segment(1, 95, 5)), 3, "too many bytes");
        assert_eq!(unclaimed.keep(segment(1, 101, 6)), 2, "more than there may be at all");
        assert!(unclaimed.is_empty());
        assert_eq!([7, 8].map(|time| unclaimed.keep(segment(1, 50, time))), [0, 0]);
        assert_eq!((unclaimed.expire(6), unclaimed.expire(7), unclaimed.expire(7)), (0, 1, 0));
        assert_eq!((unclaimed.list.len(), unclaimed.bytes), (1, 50));
    }

    #[test]
    fn a_connection_claims_its_own_in_both_directions() {
        let mut unclaimed = Unclaimed::new(10, 1000);
        let mut answer = segment(2, 4, 3);
        (answer.packet.source, answer.packet.destination) = (answer.packet.destination, answer.packet.source);
        (answer.packet.source_port, answer.packet.destination_port) = (80, 2);
        for one in [segment(1, 1, 1), segment(2, 2, 2), answer, segment(3, 8, 4), segment(2, 16, 5)] {
            unclaimed.keep(one);
        }
        let key = segment(2, 0, 0).key(direction::REQUEST);
        let claimed: Vec<(u8, u64)> = unclaimed.claim(&key).iter().map(|(way, one)| (*way, one.time)).collect();
        assert_eq!(claimed, [(direction::REQUEST, 2), (direction::RESPONSE, 3), (direction::REQUEST, 5)]);
        assert_eq!(unclaimed.list.iter().map(|one| one.time).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(unclaimed.bytes, 9);
        assert!(unclaimed.claim(&key).is_empty());
    }
}
