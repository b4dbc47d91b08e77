//! One group of one rule: its window, and its finding while one is open.
//!
//! Matching observations flow in; whether the group is at its threshold, and everything a finding says, flow out.

use std::net::IpAddr;

use super::distinct::Distinct;
use super::field::Key;
use super::rule::GROUP_FIELDS_MAX;
use super::window::{KEPT, SLICES, Window, leaving, slot};
use crate::observation::{AccountHash, Instant, Observation};

/// Most clients, and most accounts, that a finding names.
pub(super) const SAMPLE_MAX: usize = 10;

/// The values of the `group-by` fields, in the rule's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey(pub [Option<Key>; GROUP_FIELDS_MAX]);

/// What happened in one slice.
#[derive(Clone, Copy, Debug)]
struct Slice {
    observations: u64,
    first: Instant,
    last: Instant,
}

const EMPTY: Slice = Slice {
    observations: 0,
    first: Instant { monotonic_ns: u64::MAX, unix_ns: 0 },
    last: Instant { monotonic_ns: 0, unix_ns: 0 },
};

/// Up to [`SAMPLE_MAX`] distinct values, the first seen; one that left the window makes room.
#[derive(Clone, Debug)]
struct Sample<T> {
    values: [Option<(T, u64)>; SAMPLE_MAX],
}

impl<T: Copy + PartialEq> Sample<T> {
    const fn new() -> Self {
        Self { values: [None; SAMPLE_MAX] }
    }

    fn take(&mut self, value: T, slice: u64, oldest: u64) {
        let mut room = None;
        for entry in &mut self.values {
            match entry {
                Some((known, last)) if *known == value => {
                    *last = slice.max(*last);
                    return;
                }
                Some((_, last)) if *last >= oldest => {}
                _ if room.is_none() => room = Some(entry),
                _ => {}
            }
        }
        if let Some(entry) = room {
            *entry = Some((value, slice));
        }
    }

    fn since(&self, oldest: u64) -> Vec<T> {
        self.values.iter().flatten().filter(|(_, last)| *last >= oldest).map(|(value, _)| *value).collect()
    }
}

/// An open finding: counts that forget nothing.
#[derive(Debug)]
pub(super) struct Incident {
    pub uid: String,
    pub first: Instant,
    pub last: Instant,
    /// The slice of `first`: samples since then belong to it.
    since: u64,
    pub observations: u64,
    pub values: Option<Distinct>,
    pub clients: Distinct,
    /// Count at the last report.
    pub reported: u64,
}

impl Incident {
    /// What the rule counts, and whether that is exact.
    pub fn count(&self) -> (u64, bool) {
        self.values.as_ref().map_or((self.observations, true), Distinct::count)
    }
}

/// State of one group.
#[derive(Debug)]
pub(super) struct Group {
    /// None: everything that no group could be kept for.
    pub key: Option<GroupKey>,
    /// Distinct values of the counted field; unused by `event_count`.
    values: Window,
    clients: Window,
    ring: [Slice; KEPT],
    /// Sum over the ring.
    observations: u64,
    newest: u64,
    /// Newest slice with an observation in it.
    pub last_slice: u64,
    accounts: Sample<AccountHash>,
    addresses: Sample<IpAddr>,
    pub incident: Option<Box<Incident>>,
}

impl Group {
    /// `bound`: distinct values and clients that are counted exactly.
    pub fn new(bound: usize) -> Self {
        Self {
            key: None,
            values: Window::new(bound),
            clients: Window::new(bound),
            ring: [EMPTY; KEPT],
            observations: 0,
            newest: 0,
            last_slice: 0,
            accounts: Sample::new(),
            addresses: Sample::new(),
            incident: None,
        }
    }

    /// Starts anew for `key`.
    pub fn reset(&mut self, key: Option<GroupKey>, now: u64) {
        self.key = key;
        self.values.reset(now);
        self.clients.reset(now);
        self.ring = [EMPTY; KEPT];
        self.observations = 0;
        self.newest = now;
        self.last_slice = 0;
        self.accounts = Sample::new();
        self.addresses = Sample::new();
        self.incident = None;
    }

    /// Moves the window on.
    pub fn advance(&mut self, now: u64) {
        if now <= self.newest {
            return;
        }
        for slot in leaving(self.newest, now) {
            if let Some(slice) = self.ring.get_mut(slot) {
                self.observations -= slice.observations;
                *slice = EMPTY;
            }
        }
        self.values.advance(now);
        self.clients.advance(now);
        self.newest = now;
    }

    /// Counts `o` in `slice`; `value` is that of the counted field.
    pub fn take(&mut self, o: &Observation, value: Option<&Key>, client: &Key, slice: u64) {
        let oldest = self.newest.saturating_sub(SLICES);
        if let Some(entry) = self.ring.get_mut(slot(slice)) {
            entry.observations += 1;
            entry.first = earlier(entry.first, o.at);
            entry.last = later(entry.last, o.at);
            self.observations += 1;
        }
        self.last_slice = self.last_slice.max(slice);
        if let Some(account) = o.account {
            self.accounts.take(account, slice, oldest);
        }
        self.addresses.take(o.client.to_canonical(), slice, oldest);
        match &mut self.incident {
            None => {
                if let Some(value) = value {
                    self.values.insert(value, slice);
                }
                self.clients.insert(client, slice);
            }
            // While a finding is open only its own counts matter: they grow, and the next window starts after it.
            Some(incident) => {
                incident.observations += 1;
                incident.first = earlier(incident.first, o.at);
                incident.last = later(incident.last, o.at);
                if let (Some(values), Some(value)) = (&mut incident.values, value) {
                    values.insert(value);
                }
                incident.clients.insert(client);
            }
        }
    }

    /// What the rule counts, within the window (for an open finding: since its first observation).
    pub fn count(&mut self, events: bool) -> (u64, bool) {
        match &self.incident {
            Some(incident) => incident.count(),
            None if events => (self.observations, true),
            None => self.values.count(),
        }
    }

    /// Opens a finding over what is in the window now. `uid` makes its id from the first observation.
    pub fn open(&mut self, events: bool, uid: impl FnOnce(Instant) -> String) {
        let held = self.ring.iter().filter(|slice| slice.observations > 0);
        let (first, last) = held.fold((EMPTY.first, EMPTY.last), |(first, last), slice| {
            (earlier(first, slice.first), later(last, slice.last))
        });
        let values = if events { None } else { Some(self.values.distinct()) };
        let mut incident = Incident {
            uid: uid(first),
            first,
            last,
            since: self.newest.saturating_sub(SLICES),
            observations: self.observations,
            values,
            clients: self.clients.distinct(),
            reported: 0,
        };
        incident.reported = incident.count().0;
        self.incident = Some(Box::new(incident));
        self.values.reset(self.newest);
        self.clients.reset(self.newest);
    }

    /// Accounts and clients to name in a report of the open finding.
    pub fn samples(&self) -> (Vec<AccountHash>, Vec<IpAddr>) {
        let since = self.incident.as_ref().map_or(0, |incident| incident.since);
        (self.accounts.since(since), self.addresses.since(since))
    }

    /// True when nothing is left in the window at slice `now`.
    pub fn is_over(&self, now: u64) -> bool {
        self.last_slice.saturating_add(SLICES) < now
    }
}

fn earlier(left: Instant, right: Instant) -> Instant {
    if right.monotonic_ns < left.monotonic_ns { right } else { left }
}

fn later(left: Instant, right: Instant) -> Instant {
    if right.monotonic_ns >= left.monotonic_ns { right } else { left }
}
