//! More than so many requests of one key in so long: an exact sliding window.

use std::collections::VecDeque;
use std::hash::Hash;

use super::table::Table;
use super::{Fired, Request, distinct};

/// A limit of requests in a window, for each key.
#[derive(Debug)]
pub struct Window<K> {
    limit: usize,
    length_ns: u64,
    /// How long a key that fired is not reported again, nanoseconds; 0: until its count was down at the limit again.
    quiet_ns: u64,
    logs: Table<K, Log>,
}

/// The requests in one key's window: times and accounts (0: none is named). Never longer than the limit and one.
#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<(u64, u64)>,
    above: bool,
    quiet_until_ns: u64,
}

impl<K: Copy + Eq + Hash> Window<K> {
    /// More than `limit` requests in `length_ns`, then silence for `quiet_ns`; keeps `kept` keys.
    pub fn new(limit: usize, length_ns: u64, quiet_ns: u64, kept: usize) -> Self {
        Self { limit, length_ns, quiet_ns, logs: Table::new(kept) }
    }

    /// `request` counts for `key`.
    pub fn count(&mut self, key: K, request: &Request) -> Option<Fired> {
        let log = self.logs.at(key);
        let begin_ns = request.at_ns.saturating_sub(self.length_ns);
        while log.entries.front().is_some_and(|(at_ns, _)| *at_ns <= begin_ns) {
            log.entries.pop_front();
        }
        log.entries.push_back((request.at_ns, request.account.unwrap_or(0)));
        if log.entries.len() <= self.limit {
            log.above = false;
            return None;
        }
        let reported = if self.quiet_ns == 0 { log.above } else { request.at_ns < log.quiet_until_ns };
        log.above = true;
        let fired = (!reported).then(|| {
            let accounts = distinct(log.entries.iter().map(|(_, account)| *account));
            Fired { at_ns: request.at_ns, client: request.client, accounts }
        });
        if fired.is_some() {
            log.quiet_until_ns = request.at_ns.saturating_add(self.quiet_ns);
        }
        log.entries.pop_front();
        fired
    }

    /// Keys that were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.logs.forgotten()
    }
}
