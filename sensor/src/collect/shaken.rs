//! Connections of which another reading was seen: a contradiction about one request may have moved the border of all that
//! follow it, so that an answer is taken for that of another request.
//!
//! Versions flow in; what later responses seem to issue is doubted. Bounded: the oldest is forgotten first,
//! and counted.

use std::collections::VecDeque;

use ahash::AHashSet;
use sensor_ebpf::wire::FlowId;

use super::pending::fixed_state;

/// Connections that are remembered.
const MOST: usize = 65_536;

/// A set of connections.
#[derive(Debug)]
pub(super) struct Shaken {
    known: AHashSet<FlowId>,
    in_order: VecDeque<FlowId>,
    /// Connections that were forgotten because there were too many.
    pub forgotten: u64,
}

impl Default for Shaken {
    fn default() -> Self {
        Self { known: AHashSet::with_hasher(fixed_state()), in_order: VecDeque::new(), forgotten: 0 }
    }
}

impl Shaken {
    /// Another reading of `flow` was seen.
    pub fn note(&mut self, flow: FlowId) {
        if !self.known.insert(flow) {
            return;
        }
        self.in_order.push_back(flow);
        if self.in_order.len() > MOST
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// True if one was.
    pub fn has(&self, flow: FlowId) -> bool {
        !self.known.is_empty() && self.known.contains(&flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded() {
        let flow = |created_ns: usize| FlowId { created_ns: created_ns as u64, salt: 0, reserved: 0 };
        let mut shaken = Shaken::default();
        (0..2 * MOST).for_each(|at| shaken.note(flow(at)));
        shaken.note(flow(2 * MOST - 1));
        assert_eq!((shaken.known.len(), shaken.in_order.len()), (MOST, MOST));
        assert_eq!(shaken.forgotten, MOST as u64);
        assert!(shaken.has(flow(MOST)) && !shaken.has(flow(MOST - 1)));
    }
}
