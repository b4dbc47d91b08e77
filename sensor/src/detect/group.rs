//! One group of one rule: its window, and its finding while one is open.
//!
//! What a rule counts flows in; whether the group is at its threshold, and everything a finding says, flow out.

use std::net::IpAddr;

use super::distinct::Distinct;
use super::field::Key;
use super::rule::{Count, GROUP_FIELDS_MAX};
use super::sample::{Lowest, Sample};
use super::touched::Touched;
use super::window::{KEPT, SLICES, Window, leaving, slot};
use crate::detect::field::{Field, address};
use crate::observation::{AccountHash, Instant};

/// The values of the `group-by` fields, in the rule's order. As numbers, because each observation makes some, copies and
/// hashes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    values: [u128; GROUP_FIELDS_MAX],
    /// Which of them are there: a bit each.
    present: u8,
}

impl GroupKey {
    /// Of the values of the fields, at most [`GROUP_FIELDS_MAX`].
    #[inline]
    pub fn new(values: impl IntoIterator<Item = Option<Key>>) -> Self {
        let mut key = Self::default();
        for ((index, slot), value) in (0..).zip(&mut key.values).zip(values) {
            if let Some(value) = value {
                *slot = u128::from_be_bytes(value);
                key.present |= 1 << index;
            }
        }
        key
    }

    /// The value of the field with that number, if it has one.
    pub fn get(&self, index: usize) -> Option<Key> {
        self.numbers().nth(index)?.map(u128::to_be_bytes)
    }

    /// The values, and nothing for the fields that have none.
    #[inline]
    pub fn numbers(&self) -> impl Iterator<Item = Option<u128>> {
        (0u8..).zip(self.values).map(|(index, value)| (self.present >> index & 1 == 1).then_some(value))
    }
}

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

/// What is counted at once: an observation, an event, or what a quiet group has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken<'a> {
    /// Value of the counted field.
    pub value: Option<&'a Key>,
    /// Of `temporal` and `temporal_ordered`: bits of the base rules that matched.
    pub steps: u32,
    /// Whose data.
    pub account: Option<AccountHash>,
    /// Who read.
    pub client: Option<IpAddr>,
    /// When.
    pub at: Instant,
    /// The slice of that.
    pub slice: u64,
    /// How many observations or events.
    pub count: u64,
    /// How many requests are behind them.
    pub requests: u64,
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
    pub requests: u64,
    values: Option<Distinct>,
    pub clients: Distinct,
    accounts: Distinct,
    sample: Lowest,
    /// Count at the last report.
    pub reported: u64,
}

impl Incident {
    /// What the rule counts, and whether that is exact.
    pub fn count(&self) -> (u64, bool) {
        self.values.as_ref().map_or((self.observations, true), Distinct::count)
    }

    /// Distinct accounts that are known of, and whether that is exact.
    pub fn accounts(&self) -> (u64, bool) {
        self.accounts.count()
    }

    fn account(&mut self, account: AccountHash) {
        self.accounts.insert(&account.0);
        self.sample.take(account);
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
    /// Of `temporal_ordered`, for each step: start and end of the latest chain that ends with it.
    chain: Vec<Option<(u64, u64)>>,
    ring: [Slice; KEPT],
    /// Sum over the ring.
    observations: u64,
    /// Requests behind what was counted, without a window: figures of findings over events.
    requests: u64,
    newest: u64,
    /// Newest slice with an observation in it.
    pub last_slice: u64,
    accounts: Sample<AccountHash>,
    addresses: Sample<IpAddr>,
    pub touched: Touched,
    /// Its values were counted by estimate when it was judged last.
    pub estimated: bool,
    pub incident: Option<Box<Incident>>,
}

impl Group {
    /// `bound`: distinct values and clients that are counted exactly.
    pub fn new(bound: usize) -> Self {
        Self {
            key: None,
            values: Window::new(bound),
            clients: Window::new(bound),
            chain: Vec::new(),
            ring: [EMPTY; KEPT],
            observations: 0,
            requests: 0,
            newest: 0,
            last_slice: 0,
            accounts: Sample::new(),
            addresses: Sample::new(),
            touched: Touched::new(),
            estimated: false,
            incident: None,
        }
    }

    /// Starts anew for `key`.
    pub fn reset(&mut self, key: Option<GroupKey>, now: u64) {
        self.key = key;
        self.values.reset(now);
        self.clients.reset(now);
        self.chain.clear();
        self.ring = [EMPTY; KEPT];
        self.observations = 0;
        self.requests = 0;
        self.newest = now;
        self.last_slice = 0;
        self.accounts = Sample::new();
        self.addresses = Sample::new();
        self.touched = Touched::new();
        self.estimated = false;
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

    /// Counts `taken`.
    pub fn take(&mut self, taken: &Taken<'_>, count: Count, timespan_ns: u64) {
        let Taken { value, steps, slice, at, .. } = *taken;
        let oldest = self.newest.saturating_sub(SLICES);
        if let Some(entry) = self.ring.get_mut(slot(slice)) {
            entry.observations += taken.count;
            entry.first = earlier(entry.first, at);
            entry.last = later(entry.last, at);
            self.observations += taken.count;
        }
        self.requests = self.requests.saturating_add(taken.requests);
        self.last_slice = self.last_slice.max(slice);
        if let Some(client) = taken.client {
            self.addresses.take(client.to_canonical(), slice, oldest);
        }
        match &mut self.incident {
            None => {
                if let Some(account) = taken.account {
                    self.accounts.take(account, slice, oldest);
                }
                if let Some(value) = value {
                    self.values.insert(value, slice);
                }
                match count {
                    Count::Steps => {
                        bits(steps).for_each(|step| self.values.insert(&u128::from(step).to_be_bytes(), slice));
                    }
                    Count::Ordered => self.step(steps, at.monotonic_ns, timespan_ns),
                    Count::Events | Count::Distinct(_) => {}
                }
                if let Some(client) = taken.client {
                    self.clients.insert(&address(client), slice);
                }
            }
            // While a finding is open only its own counts matter: they grow, and the next window starts after it.
            Some(incident) => {
                incident.observations += taken.count;
                incident.requests = incident.requests.saturating_add(taken.requests);
                incident.first = earlier(incident.first, at);
                incident.last = later(incident.last, at);
                if let (Some(values), Some(value)) = (&mut incident.values, value) {
                    values.insert(value);
                }
                if let Some(client) = taken.client {
                    incident.clients.insert(&address(client));
                }
                if let Some(account) = taken.account {
                    incident.account(account);
                }
            }
        }
    }

    /// Lengthens chains by the steps of one observation; the last step first, so that it is no two steps of one chain.
    fn step(&mut self, steps: u32, at_ns: u64, timespan_ns: u64) {
        for step in bits(steps).rev() {
            let index = usize::try_from(step).unwrap_or(0);
            let before = index.checked_sub(1).map(|before| self.chain.get(before).copied().flatten());
            let start = match before {
                None => at_ns,
                Some(Some((start, end))) if end <= at_ns && at_ns - start <= timespan_ns => start,
                Some(_) => continue,
            };
            if self.chain.len() <= index {
                self.chain.resize(index + 1, None);
            }
            if let Some(chain) = self.chain.get_mut(index)
                && chain.is_none_or(|(known, _)| known <= start)
            {
                *chain = Some((start, at_ns));
            }
        }
    }

    /// What the rule counts, within the window (for an open finding: since its first observation).
    pub fn count(&mut self, count: Count) -> (u64, bool) {
        match (&self.incident, count) {
            (Some(incident), _) => incident.count(),
            (None, Count::Events) => (self.observations, true),
            (None, Count::Distinct(_) | Count::Steps) => self.values.count(),
            (None, Count::Ordered) => {
                let reached = self.chain.iter().rposition(Option::is_some);
                (reached.map_or(0, |index| index as u64 + 1), true)
            }
        }
    }

    /// Opens a finding over what is in the window now. `uid` makes its id from the first observation.
    pub fn open(&mut self, count: Count, uid: impl FnOnce(Instant) -> String) {
        let held = self.ring.iter().filter(|slice| slice.observations > 0);
        let (first, last) = held.fold((EMPTY.first, EMPTY.last), |(first, last), slice| {
            (earlier(first, slice.first), later(last, slice.last))
        });
        let since = self.newest.saturating_sub(SLICES);
        let mut incident = Incident {
            uid: uid(first),
            first,
            last,
            since,
            observations: self.observations,
            requests: self.requests,
            values: matches!(count, Count::Distinct(_)).then(|| self.values.distinct()),
            clients: self.clients.distinct(),
            accounts: Distinct::new(self.values.bound()),
            sample: Lowest::new(),
            reported: 0,
        };
        self.accounts.since(since).into_iter().for_each(|account| incident.account(account));
        if count == Count::Distinct(Field::Account) {
            self.values.each(|value| incident.sample.take(AccountHash(*value)));
            incident.accounts = self.values.distinct();
        }
        incident.reported = incident.count().0;
        self.touched.open(since);
        self.incident = Some(Box::new(incident));
        self.values.reset(self.newest);
        self.clients.reset(self.newest);
        self.chain.clear();
    }

    /// Accounts and clients to name in a report of the open finding.
    pub fn samples(&self) -> (Vec<AccountHash>, Vec<IpAddr>) {
        let Some(incident) = &self.incident else { return (Vec::new(), Vec::new()) };
        (incident.sample.values(), self.addresses.since(incident.since))
    }

    /// Adds accounts and clients that an event names besides its own.
    pub fn more(&mut self, accounts: &[AccountHash], clients: &[IpAddr], slice: u64) {
        let oldest = self.newest.saturating_sub(SLICES);
        for client in clients {
            self.addresses.take(client.to_canonical(), slice, oldest);
            match &mut self.incident {
                None => self.clients.insert(&address(*client), slice),
                Some(incident) => incident.clients.insert(&address(*client)),
            }
        }
        for account in accounts {
            match &mut self.incident {
                None => self.accounts.take(*account, slice, oldest),
                Some(incident) => incident.account(*account),
            }
        }
    }

    /// True when nothing is left in the window at slice `now`.
    pub fn is_over(&self, now: u64) -> bool {
        self.last_slice.saturating_add(SLICES) < now
    }
}

/// The numbers of the bits set, lowest first.
fn bits(set: u32) -> impl DoubleEndedIterator<Item = u32> {
    (0..u32::BITS).filter(move |bit| set >> bit & 1 == 1)
}

fn earlier(left: Instant, right: Instant) -> Instant {
    if right.monotonic_ns < left.monotonic_ns { right } else { left }
}

fn later(left: Instant, right: Instant) -> Instant {
    if right.monotonic_ns >= left.monotonic_ns { right } else { left }
}
