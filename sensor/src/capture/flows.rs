//! The host's flow table: as many connections as the kernel's map has, and like that one it drops what is not used.
//!
//! A flow is *fresh* until the table has to make room and finds that it was used ([`PROVEN`]): then it is *kept*. Room is
//! made among the fresh ones as long as they are a quarter of the table, else among the kept ones that were not used since
//! they were last considered. So a flood of SYNs pushes out only itself, whether it is answered or not, and connections
//! that fell silent do not keep new ones out.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::mem;

use ahash::AHasher;
use sensor_ebpf::flow::{Flow, FlowKey};

/// Room is made among the fresh flows while they are at least this part of the table.
const FRESH_PART: usize = 4;
/// Lookups after which a flow is more than an attempt: the first may be the SYN-ACK, which a forged address gets too.
const PROVEN: u8 = 2;
/// Places of removed flows that may stand in the queues, beside as many as there are flows.
const STALE_MAX: usize = 1024;

/// The table.
pub struct FlowTable {
    flows: HashMap<FlowKey, Entry, BuildHasherDefault<AHasher>>,
    /// Flows in the order in which they came; some were removed since (another number, or no entry).
    fresh: VecDeque<(FlowKey, u64)>,
    /// Flows in the order in which they are considered.
    kept: VecDeque<(FlowKey, u64)>,
    /// Flows that are fresh.
    fresh_count: usize,
    inserted: u64,
    most: usize,
}

struct Entry {
    flow: Box<Flow>,
    /// Tells a flow from an earlier one of the same key.
    number: u64,
    /// Lookups since it was last considered.
    uses: u8,
    kept: bool,
}

impl FlowTable {
    /// For at most `most` flows (and at least one).
    pub fn new(most: usize) -> Self {
        Self {
            flows: HashMap::default(),
            fresh: VecDeque::new(),
            kept: VecDeque::new(),
            fresh_count: 0,
            inserted: 0,
            most: most.max(1),
        }
    }

    /// Flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Looks a flow up, which counts as a use.
    pub fn find(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let entry = self.flows.get_mut(key)?;
        entry.uses = entry.uses.saturating_add(1);
        Some(&mut entry.flow)
    }

    /// Adds a flow, which is no use. Gives back the one that had to go: of the same key, or of another when the
    /// table is full.
    pub fn insert(&mut self, key: &FlowKey, flow: &Flow) -> Option<Box<Flow>> {
        let mut gone = self.remove(key);
        if self.flows.len() >= self.most {
            gone = self.evict();
        }
        self.inserted += 1;
        let entry = Entry { flow: Box::new(*flow), number: self.inserted, uses: 0, kept: false };
        self.flows.insert(*key, entry);
        self.fresh.push_back((*key, self.inserted));
        self.fresh_count += 1;
        gone
    }

    /// Removes a flow.
    pub fn remove(&mut self, key: &FlowKey) -> Option<Box<Flow>> {
        let entry = self.flows.remove(key)?;
        self.fresh_count -= usize::from(!entry.kept);
        if self.fresh.len() + self.kept.len() > 2 * self.flows.len() + STALE_MAX {
            let flows = &self.flows;
            let live = |(key, number): &(FlowKey, u64)| flows.get(key).is_some_and(|entry| entry.number == *number);
            self.fresh.retain(live);
            self.kept.retain(live);
        }
        Some(entry.flow)
    }

    /// Makes room for one. A flow is passed over if it was used since it was last considered.
    fn evict(&mut self) -> Option<Box<Flow>> {
        loop {
            let among_fresh = self.fresh_count * FRESH_PART >= self.most || self.fresh_count == self.flows.len();
            let queue = if among_fresh { &mut self.fresh } else { &mut self.kept };
            let (key, number) = queue.pop_front()?;
            let Some(entry) = self.flows.get_mut(&key).filter(|entry| entry.number == number) else { continue };
            let needed = if entry.kept { 1 } else { PROVEN };
            if mem::take(&mut entry.uses) < needed {
                return self.remove(&key);
            }
            if !mem::replace(&mut entry.kept, true) {
                self.fresh_count -= 1;
            }
            self.kept.push_back((key, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    fn key(number: u64) -> FlowKey {
        FlowKey { client: [number, 0], ..FlowKey::default() }
    }

    fn flow(number: u64) -> Flow {
        let mut flow = Flow::default();
        flow.id.created_ns = number;
        flow
    }

    fn filled(numbers: std::ops::Range<u64>) -> FlowTable {
        let mut table = FlowTable::new(MOST);
        for number in numbers {
            assert!(table.insert(&key(number), &flow(number)).is_none());
        }
        table
    }

    fn touch(table: &mut FlowTable, number: u64) -> bool {
        (0..PROVEN).all(|_| table.find(&key(number)).is_some_and(|flow| flow.id.created_ns == number))
    }

    #[test]
    fn a_flood_of_attempts_pushes_out_only_itself() {
        for answered in [false, true] {
            let mut table = filled(0..600);
            assert!((0..600).all(|number| touch(&mut table, number)));
            // They stay silent for a flood of a hundred tables.
            for number in 1_000_000..1_100_000 {
                let gone = table.insert(&key(number), &flow(number));
                assert!(gone.is_none_or(|gone| gone.id.created_ns >= 1_000_000));
                assert!(!answered || table.find(&key(number)).is_some());
            }
            assert_eq!(table.len(), MOST);
            assert!((0..600).all(|number| touch(&mut table, number)));
            assert!(table.fresh.len() + table.kept.len() <= 2 * MOST + STALE_MAX);
        }
    }

    #[test]
    fn connections_that_fell_silent_do_not_keep_new_ones_out() {
        let mut table = filled(0..1000);
        assert!((0..1000).all(|number| touch(&mut table, number)));
        // New connections, used a while after they began.
        for number in 1000..3000 {
            table.insert(&key(number), &flow(number));
            assert!(number < 1100 || touch(&mut table, number - 100), "{}", number - 100);
        }
        assert_eq!(table.len(), MOST);
        assert!(
            (0..1000).filter(|number| table.find(&key(*number)).is_some()).count() < 100,
            "the silent ones made room"
        );
    }

    #[test]
    fn a_full_table_of_unused_flows_drops_the_oldest() {
        let mut table = filled(0..1000);
        for number in 1000..1500 {
            assert_eq!(table.insert(&key(number), &flow(number)).unwrap().id.created_ns, number - 1000);
        }
    }

    #[test]
    fn a_flow_replaces_that_of_the_same_key() {
        let mut table = FlowTable::new(2);
        for round in 0..10_000 {
            let gone = table.insert(&key(7), &flow(round));
            assert_eq!(gone.map(|gone| gone.id.created_ns), round.checked_sub(1));
        }
        assert_eq!(table.len(), 1);
        assert!(table.fresh.len() <= 2 + STALE_MAX + 1);
        assert_eq!(table.remove(&key(7)).unwrap().id.created_ns, 9999);
        assert!(table.remove(&key(7)).is_none() && table.find(&key(7)).is_none());
        // The places that it left behind are nobody's.
        for number in 0..4 {
            table.insert(&key(number), &flow(number));
        }
        assert_eq!((table.len(), table.fresh_count), (2, 2));
        let mut table = FlowTable::new(0);
        for number in 0..3 {
            table.insert(&key(number), &flow(number));
            assert!(table.find(&key(number)).is_some());
        }
        assert_eq!(table.len(), 1);
    }
}
