//! `CrowdSec`'s leaky buckets for each address, with the figures of three scenarios of its hub.
//!
//! Sources, in <https://github.com/crowdsecurity/hub/tree/master/scenarios/crowdsecurity>: `http-crawl-non_statics.yaml` (GET
//! requests, distinct file names, capacity 40, one leaks every 0.5 s), `http-probing.yaml` (400, 403 and 404, distinct
//! paths, capacity 10, 10 s) and `http-generic-bf.yaml` (401, and likewise 403, capacity 5, 10 s). How buckets work:
//! <https://docs.crowdsec.net/docs/scenarios/format>; an address that overflows one is banned for four hours
//! (<https://github.com/crowdsecurity/crowdsec/blob/master/config/profiles.yaml>), and here not reported again for so long.
//!
//! Restated: one leaks every `leakspeed` since the bucket's beginning; a value that is in the bucket's memory is not poured
//! again; a bucket into which nothing is poured until it would have run dry from full is thrown away with its memory. Only
//! one service is watched, so the host is no part of the key. What is distinct is route, account and object together: the
//! crawl scenario's file name would be `addresses` in `/members/17/addresses`, the same for every account, and so blind.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;

use super::table::Table;
use super::{Baseline, Fired, Request, SECOND, distinct};

/// A scenario.
pub struct Leaky {
    name: &'static str,
    /// Which requests are poured.
    filter: fn(&Request) -> bool,
    distinct: bool,
    capacity: usize,
    leak_ns: u64,
    buckets: Table<IpAddr, Bucket>,
    /// Values that full memories of buckets forgot.
    values_forgotten: u64,
}

/// Distinct values that one bucket remembers.
const VALUES_MAX: usize = 4096;
/// How long an address is banned.
const BAN_NS: u64 = 4 * 3600 * SECOND;

#[derive(Debug, Default)]
struct Bucket {
    /// Since when it leaks.
    since_ns: u64,
    /// How much leaked since then.
    leaked: u64,
    level: usize,
    /// When something was poured last.
    poured_ns: u64,
    values: HashSet<u64, BuildHasherDefault<DefaultHasher>>,
    /// Accounts of what was poured last.
    accounts: VecDeque<u64>,
    banned_until_ns: u64,
}

impl Leaky {
    /// `http-crawl-non_statics`; keeps `kept` addresses. Requests that read nothing are no crawl: logins are not GET.
    pub fn crawl(kept: usize) -> Self {
        use sensor::observation::RouteClass::{AccountRead, Other};
        let filter = |request: &Request| matches!(request.class, AccountRead | Other);
        Self::new("CrowdSec http-crawl-non_statics", filter, true, 40, SECOND / 2, kept)
    }

    /// `http-probing`; keeps `kept` addresses.
    pub fn probing(kept: usize) -> Self {
        let filter = |request: &Request| matches!(request.status, 400 | 403 | 404);
        Self::new("CrowdSec http-probing", filter, true, 10, 10 * SECOND, kept)
    }

    /// `http-generic-bf` with its rules for 401 and 403; keeps `kept` addresses.
    pub fn refused(kept: usize) -> Self {
        let filter = |request: &Request| matches!(request.status, 401 | 403);
        Self::new("CrowdSec http-generic-bf", filter, false, 5, 10 * SECOND, kept)
    }

    fn new(
        name: &'static str,
        filter: fn(&Request) -> bool,
        distinct: bool,
        capacity: usize,
        leak_ns: u64,
        kept: usize,
    ) -> Self {
        Self { name, filter, distinct, capacity, leak_ns, buckets: Table::new(kept), values_forgotten: 0 }
    }
}

impl Bucket {
    /// Lets leak what leaks until `at_ns`.
    fn leak(&mut self, at_ns: u64, leak_ns: u64) {
        let leaks = at_ns.saturating_sub(self.since_ns) / leak_ns.max(1);
        let due = leaks.saturating_sub(self.leaked);
        self.leaked = self.leaked.max(leaks);
        self.level = self.level.saturating_sub(usize::try_from(due).unwrap_or(usize::MAX));
    }

    /// A new bucket of the same address.
    fn renew(&mut self, at_ns: u64) {
        let banned_until_ns = self.banned_until_ns;
        *self = Self { since_ns: at_ns, poured_ns: at_ns, banned_until_ns, ..Self::default() };
    }
}

impl Baseline for Leaky {
    fn name(&self) -> &str {
        self.name
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        if !(self.filter)(request) {
            return None;
        }
        let bucket = self.buckets.at(request.client);
        let life_ns = self.leak_ns.saturating_mul(self.capacity as u64);
        if request.at_ns.saturating_sub(bucket.poured_ns) > life_ns {
            bucket.renew(request.at_ns);
        }
        if self.distinct {
            if bucket.values.len() >= VALUES_MAX {
                self.values_forgotten += bucket.values.len() as u64;
                bucket.values.clear();
            }
            if !bucket.values.insert(request.target()) {
                return None;
            }
        }
        bucket.leak(request.at_ns, self.leak_ns);
        bucket.poured_ns = bucket.poured_ns.max(request.at_ns);
        bucket.level += 1;
        bucket.accounts.push_back(request.account.unwrap_or(0));
        if bucket.accounts.len() > self.capacity + 1 {
            bucket.accounts.pop_front();
        }
        if bucket.level <= self.capacity {
            return None;
        }
        let accounts = distinct(bucket.accounts.iter().copied());
        bucket.renew(request.at_ns);
        if request.at_ns < bucket.banned_until_ns {
            return None;
        }
        bucket.banned_until_ns = request.at_ns.saturating_add(BAN_NS);
        Some(Fired { at_ns: request.at_ns, client: request.client, accounts })
    }

    fn forgotten(&self) -> u64 {
        self.buckets.forgotten() + self.values_forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    fn refusal(seconds: f64, account: u32, status: u16) -> Request {
        Request { status, returned: false, ..read(address(1), seconds, 1, account) }
    }

    #[test]
    fn the_timeline_of_crowdsec_s_documentation() {
        // Five fit; of the first ones two leaked by then, 10 and 20 s after the bucket's beginning, so the eighth overflows.
        // (There the bucket begins 2 s before its first event, here with it; that makes the leaks 12 and 22 s of theirs.)
        let at = [2.0, 4.0, 11.0, 16.0, 16.0, 23.0, 23.0, 24.0];
        let mut bucket = Leaky::refused(100);
        assert_eq!(times(&mut bucket, at[..7].iter().map(|at| refusal(100.0 + at, 17, 401))), NEVER);
        assert_eq!(times(&mut bucket, at[7..].iter().map(|at| refusal(100.0 + at, 17, 401))), [124.0]);
    }

    #[test]
    fn a_crawl_of_three_accounts_a_second_overflows() {
        // Level after n: n less the 2/s that leaked; n at t = (n − 1)/3, leaked ⌊2t⌋: 41 first at n = 120.
        let overflow = (1..400).find(|n: &u32| n - (2 * (n - 1)) / 3 > 40).unwrap();
        let mut crawl = Leaky::crawl(100);
        let requests = (0..400).map(|n| read(address(1), 1000.0 + f64::from(n) / 3.0, n, n));
        let fired: Vec<Fired> = requests.filter_map(|request| crawl.see(&request)).collect();
        assert_eq!(fired.len(), 1);
        let milliseconds = 1_000_000 + (u64::from(overflow) - 1) * 1000 / 3;
        assert_eq!(fired[0].at_ns / 10_000_000, milliseconds / 10);
        assert_eq!(fired[0].accounts.len(), 41);
    }

    #[test]
    fn two_a_second_and_the_same_page_ever_again_are_allowed() {
        let mut crawl = Leaky::crawl(100);
        assert_eq!(times(&mut crawl, (0..5000).map(|n| read(address(1), 1000.0 + f64::from(n) / 2.0, n, n))), NEVER);
        assert_eq!(times(&mut crawl, (0..5000).map(|n| read(address(2), 1000.0 + f64::from(n) / 50.0, n, 17))), NEVER);
    }

    #[test]
    fn probing_needs_eleven_distinct_misses() {
        let mut probing = Leaky::probing(100);
        assert_eq!(times(&mut probing, (0..10).map(|n| refusal(100.0, n, 404))), NEVER);
        assert_eq!(times(&mut probing, (0..10).map(|n| refusal(101.0, n, 404))), NEVER);
        assert_eq!(times(&mut probing, (10..11).map(|n| refusal(102.0, n, 404))), [102.0]);
        // Banned for four hours, then reported again; one miss every ten seconds never overflows.
        let burst = |from: f64| (100..111).map(move |n| refusal(from, n, 404));
        assert_eq!(times(&mut probing, burst(7_000.0).chain(burst(14_503.0)).chain(burst(14_700.0))), [14_503.0]);
        let slow = (0..1000).map(|n| refusal(40_000.0 + f64::from(n) * 10.0, n, 404));
        assert_eq!(times(&mut probing, slow), NEVER);
    }

    #[test]
    fn memories_are_bounded() {
        let mut crawl = Leaky::crawl(100);
        for n in 0..20_000 {
            crawl.see(&read(address(1), 1000.0 + f64::from(n) / 2.0, n, n));
            assert!(crawl.buckets.at(address(1)).values.len() <= VALUES_MAX);
        }
        assert!(crawl.forgotten() >= 20_000 - 2 * VALUES_MAX as u64);
    }
}
