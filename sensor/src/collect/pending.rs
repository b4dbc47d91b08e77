//! Requests that wait for their response (or for the end of its body), found by flow and transaction number.
//!
//! A slab with three intrusive orders: by key, by flow (a closed connection takes all of its requests along), and by
//! deadline (the oldest goes first when the table is full). Slots and their buffers are reused.

use std::net::IpAddr;

use ahash::{AHashMap, RandomState};
use sensor_ebpf::wire::{Credential, FlowId, anomaly};

use super::account::Reading;
use super::secret::SecretBuf;
use crate::ledger::Verdict;
use crate::observation::{AccountHash, Provenance, RouteClass, RouteId, ServiceId, Validity};

/// No slot.
const NIL: u32 = u32::MAX;

/// A hash state that is the same in every run, so that replay is reproducible (DESIGN invariant 7).
pub(super) fn fixed_state() -> RandomState {
    RandomState::with_seeds(0x61_7574_6873, 0x65_6e73_6f72, 0x70_656e_6469, 0x6e67_0000)
}

/// A transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// The connection.
    pub flow: FlowId,
    /// Its transaction number.
    pub txn: u32,
}

/// A credential with its verdict.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// As the record has it.
    pub credential: Credential,
    /// What the ledger said when the request came.
    pub verdict: Verdict,
    /// True when the route may authenticate with it.
    pub counts: bool,
}

/// State of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing is read from it.
    No,
    /// What it presents is not known (yet).
    Awaited,
    /// What it presents was judged.
    Read,
}

/// What is known of an answer that was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may come.
    Awaited,
    /// It may have been among bytes that were lost.
    PerhapsLost,
}

/// A judged request.
#[derive(Debug)]
pub(super) struct Pending {
    pub key: Key,
    pub service: ServiceId,
    /// When the request head was complete, monotonic nanoseconds.
    pub time_ns: u64,
    /// The request record.
    pub request: SecretBuf,
    /// The response record, once it is there and its body is still awaited.
    pub response: Option<SecretBuf>,
    pub route: Option<RouteId>,
    pub class: RouteClass,
    pub credentials: Vec<Judged>,
    /// Captures or credentials of the request are incomplete.
    pub doubtful: bool,
    /// Bits of `wire::anomaly`, of all that was seen of the transaction.
    pub anomalies: u32,
    /// Whose data it reads, and what else its target names.
    pub reading: Reading,
    /// Of a login: the account that its body names.
    pub tried: Option<AccountHash>,
    /// Of a login: the account that its response names.
    pub said: Option<AccountHash>,
    /// Credentials that this exchange issued so far.
    pub issued: u8,
    pub client: IpAddr,
    /// Whether something is read from the request body.
    pub request_body: Wanted,
    /// The response body is wanted, should it be teed.
    pub wants_response_body: bool,
    /// Body bytes of the response, once known.
    pub body_bytes: Option<u64>,
    /// The response's `TEE_END` was seen.
    pub tee_ended: bool,
    /// What is known of the answer, as long as there is none.
    pub answer: Answer,
}

impl Pending {
    /// The credential that the observation carries: worst provenance, then worst validity, then first.
    pub fn worst(&self) -> Option<&Judged> {
        weighed(self.credentials.iter().filter(|one| one.counts)).reduce(|worst, one| {
            let rank = |judged: &Judged| (judged.verdict.provenance, judged.verdict.validity);
            if rank(one) > rank(worst) { one } else { worst }
        })
    }

    /// True when the server may have read something else than what was judged.
    pub fn uncertain(&self) -> bool {
        self.anomalies & (anomaly::AMBIGUOUS | anomaly::CONFLICT) != 0
    }

    /// Provenance of the request: that of its `worst` credential; never better than unverifiable when some are missing.
    /// Where the server may have read something else, nothing can be said of what authenticated the request: neither
    /// that it was not issued nor that it was.
    pub fn provenance(&self, worst: Option<&Judged>) -> Provenance {
        if self.anomalies & anomaly::AMBIGUOUS != 0 {
            return Provenance::Unverifiable;
        }
        let seen = worst.map_or(Provenance::None, |worst| worst.verdict.provenance);
        if self.doubtful { seen.max(Provenance::Unverifiable) } else { seen }
    }
}

/// Of credentials that a server may go by, those that say something of it: not a token past its end that stands beside a
/// good credential, as browsers and applications send it, unless it is one that no login ever issued.
pub(super) fn weighed<'a>(all: impl Iterator<Item = &'a Judged> + Clone) -> impl Iterator<Item = &'a Judged> + Clone {
    let mut others = all.clone();
    let good = others.any(|one| (one.verdict.provenance, one.verdict.validity) == (Provenance::Issued, Validity::Ok));
    all.filter(move |one| !(good && one.verdict.is_left_over()))
}

#[derive(Debug)]
struct Slot {
    /// `None`: free, `newer` links the free list.
    pending: Option<Pending>,
    deadline_ns: u64,
    older: u32,
    newer: u32,
    flow_previous: u32,
    flow_next: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: u32,
    by_key: AHashMap<Key, u32>,
    /// First and last slot of each connection.
    by_flow: AHashMap<FlowId, (u32, u32)>,
    oldest: u32,
    newest: u32,
    max: usize,
}

impl Table {
    /// A table of at most `max` requests (at least one).
    pub fn new(max: usize) -> Self {
        let state = fixed_state();
        Self {
            slots: Vec::new(),
            free: NIL,
            by_key: AHashMap::with_hasher(state.clone()),
            by_flow: AHashMap::with_hasher(state),
            oldest: NIL,
            newest: NIL,
            max: max.max(1),
        }
    }

    /// Requests held.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True when the next insertion needs room.
    pub fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// The request of `key`.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Pending> {
        let slot = *self.by_key.get(&key)?;
        self.slot_mut(slot)?.pending.as_mut()
    }

    /// Takes `pending` in, to be given up at `deadline_ns`. The caller made room and removed an equal key before.
    pub fn insert(&mut self, pending: Pending, deadline_ns: u64) {
        let key = pending.key;
        let index = if self.free == NIL {
            let Ok(index) = u32::try_from(self.slots.len()) else { return };
            let (older, newer, flow_previous, flow_next) = (NIL, NIL, NIL, NIL);
            self.slots.push(Slot { pending: None, deadline_ns, older, newer, flow_previous, flow_next });
            index
        } else {
            self.free
        };
        let ends = self.by_flow.entry(key.flow).or_insert((index, index));
        let flow_previous = if ends.0 == index { NIL } else { ends.1 };
        ends.1 = index;
        self.by_key.insert(key, index);
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if self.free == index {
            self.free = slot.newer;
        }
        slot.pending = Some(pending);
        slot.flow_previous = flow_previous;
        slot.flow_next = NIL;
        if let Some(previous) = self.slot_mut(flow_previous) {
            previous.flow_next = index;
        }
        self.append(index, deadline_ns);
    }

    /// Takes the request of `key` out.
    pub fn remove(&mut self, key: Key) -> Option<Pending> {
        let index = self.by_key.remove(&key)?;
        self.unlink(index);
        let free = self.free;
        let slot = self.slot_mut(index)?;
        let (previous, next) = (slot.flow_previous, slot.flow_next);
        let pending = slot.pending.take();
        slot.newer = free;
        self.free = index;
        if let Some(after) = self.slot_mut(next) {
            after.flow_previous = previous;
        }
        if let Some(before) = self.slot_mut(previous) {
            before.flow_next = next;
        }
        match (previous, next) {
            (NIL, NIL) => drop(self.by_flow.remove(&key.flow)),
            _ => {
                if let Some((first, last)) = self.by_flow.get_mut(&key.flow) {
                    *first = if previous == NIL { next } else { *first };
                    *last = if next == NIL { previous } else { *last };
                }
            }
        }
        pending
    }

    /// The request that is given up first, and when.
    pub fn oldest(&self) -> Option<(Key, u64)> {
        let slot = self.slots.get(self.oldest as usize)?;
        slot.pending.as_ref().map(|pending| (pending.key, slot.deadline_ns))
    }

    /// The request of `flow` that came first.
    pub fn first_of(&self, flow: FlowId) -> Option<Key> {
        let (first, _) = self.by_flow.get(&flow)?;
        self.slots.get(*first as usize)?.pending.as_ref().map(|pending| pending.key)
    }

    /// Every record held.
    #[cfg(test)]
    pub fn buffers(&self) -> impl Iterator<Item = &SecretBuf> {
        let held = self.slots.iter().filter_map(|slot| slot.pending.as_ref());
        held.flat_map(|pending| std::iter::once(&pending.request).chain(&pending.response))
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    fn append(&mut self, index: u32, deadline_ns: u64) {
        let newest = std::mem::replace(&mut self.newest, index);
        if let Some(slot) = self.slot_mut(index) {
            slot.deadline_ns = deadline_ns;
            slot.older = newest;
            slot.newer = NIL;
        }
        match self.slot_mut(newest) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slot_mut(index) else { return };
        let (older, newer) = (slot.older, slot.newer);
        match self.slot_mut(older) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn pending(flow: u64, txn: u32) -> Pending {
        Pending {
            key: key(flow, txn),
            service: ServiceId::NONE,
            time_ns: 0,
            request: SecretBuf::default(),
            response: None,
            route: None,
            class: RouteClass::Other,
            credentials: Vec::new(),
            doubtful: false,
            anomalies: 0,
            reading: Reading::default(),
            tried: None,
            said: None,
            issued: 0,
            client: IpAddr::from([0, 0, 0, 0]),
            request_body: Wanted::No,
            wants_response_body: false,
            body_bytes: None,
            tee_ended: false,
            answer: Answer::Awaited,
        }
    }

    fn key(flow: u64, txn: u32) -> Key {
        Key { flow: FlowId { created_ns: flow, salt: 0, reserved: 0 }, txn }
    }

    proptest! {
        /// The slab agrees with an ordered list of (key, deadline).
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec((0u8..3, 0u64..3, 0u32..5), 0..200)) {
            let mut table = Table::new(100);
            let mut model: Vec<(Key, u64)> = Vec::new();
            let mut came: Vec<Key> = Vec::new();
            for (clock, (what, flow, txn)) in (0u64..).zip(steps) {
                let key = key(flow, txn);
                let known = model.iter().position(|(one, _)| *one == key);
                match (what, known) {
                    (0 | 1, None) => {
                        table.insert(pending(flow, txn), clock);
                        model.push((key, clock));
                        came.retain(|one| *one != key);
                        came.push(key);
                    }
                    (2, Some(at)) => { model.remove(at); prop_assert_eq!(table.remove(key).unwrap().key, key); }
                    (_, at) => prop_assert_eq!(table.get_mut(key).is_some(), at.is_some()),
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.oldest(), model.first().copied());
                for flow in 0..3 {
                    let id = FlowId { created_ns: flow, salt: 0, reserved: 0 };
                    let first = came.iter().find(|one| one.flow == id && model.iter().any(|(key, _)| key == *one));
                    prop_assert_eq!(table.first_of(id), first.copied());
                }
            }
            prop_assert!(table.slots.len() <= 15, "slots are reused");
        }
    }
}
