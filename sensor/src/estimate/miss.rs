//! Credentials for accounts that are not there: a sequential test decides in a handful of requests.
//!
//! **In**: reads and misses of account reads. **Out**: for each, how much likelier what its client, network and key have
//! done is that of someone who guesses than a member's; and a server fault, when misses rise over all who are known to be
//! members ([`super::fault`]).
//!
//! **Method.** Wald's sequential probability ratio test, as used against scanners by J. Jung, V. Paxson, A. Berger and
//! H. Balakrishnan, "Fast portscan detection using sequential hypothesis testing" (IEEE S&P 2004, "TRW"). A member misses
//! with probability θ₀, the route's usual share (2 % to 10 %, measured from witnesses); who guesses misses with θ₁ = 40 %.
//! A miss multiplies the odds by θ₁/θ₀, a read by (1 − θ₁)/(1 − θ₀): 1.30 and −0.21 in log₁₀ at 2 %. Four misses running
//! come to 10⁵·²; of the 56.6 % absent accounts of the incident of 2025, seven to eight requests do in the mean. Odds below
//! 1/100 stay there (a member's past buys nothing), above 10¹² too, and half of them is forgotten every six hours.
//!
//! **What counts.** Never a credential that a login issued, whose account is there. The same target again does not count:
//! an application that asks for all objects of one deleted account all day is one miss. Of a key, only credentials that no login issued
//! count. During a server fault nothing counts, and odds above 1 are not told.
//!
//! **Bound.** For a member who misses with θ₀, the odds pass 10ⁿ from where they stand (10⁻² or more) with a probability of
//! at most 10⁻ⁿ by Ville's inequality, each time that they return to the bottom; for one who misses with a tenth of θ₀, with
//! 10⁻ⁿ to a power of nearly two. Rules over many clients should therefore ask for more than one over few.
//!
//! **State.** One table of `misses` entries for all three scopes; the greatest odds are never pushed out by lesser ones.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

use super::fault::{Turn, Witnesses};
use super::newest::Ring;
use super::table::{Hasher, Kept, Table, TableStats};
use super::time::{Tenths, fade, seconds};
use crate::observation::{Observation, Outcome, Provenance, Relation, RouteClass};

/// log₁₀ of the odds of a miss and of a read, in hundredths, by the route's usual share θ₀, for θ₁ = 0.4.
const ODDS: [(f32, f32, f32); 5] = [
    (0.02, 130.103, -21.307),
    (0.03, 112.494, -20.862),
    (0.05, 90.309, -19.957),
    (0.07, 75.696, -19.033),
    (0.10, 60.206, -17.609),
];
/// Least and greatest odds, log₁₀ in hundredths.
const LEAST: f32 = -200.0;
const MOST: f32 = 1_200.0;
/// Whose odds are this low is a member.
const MEMBER: f32 = -100.0;
/// Half of what was learned is forgotten in this many seconds.
const HALF_S: f32 = 21_600.0;
/// Clients of a fault that are told.
const SAMPLE: usize = 8;

/// The test of one client, network or key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Test {
    /// log₁₀ of the odds, in hundredths, as of `at`.
    odds: f32,
    at: Tenths,
    /// Hashes of the last two targets.
    last: [u32; 2],
}

impl Test {
    fn now(&self, now: Tenths) -> f32 {
        fade(self.odds, seconds(self.at, now), HALF_S)
    }

    /// Counts a read or miss of `target`, unless it is one of the last two.
    fn count(&mut self, miss: bool, target: u32, usual: f32, now: Tenths) {
        let [last, before] = self.last;
        if target == last || target == before {
            return;
        }
        self.last = [target, last];
        let (_, of_miss, of_read) = ODDS.into_iter().rfind(|(share, ..)| usual + 0.000_1 >= *share).unwrap_or(ODDS[0]);
        self.odds = (self.now(now) + if miss { of_miss } else { of_read }).clamp(LEAST, MOST);
        self.at = now;
    }
}

impl Kept for Test {
    /// The odds; what has rested for a day is worth no more than a newcomer.
    fn worth(&self, now: Tenths) -> f32 {
        self.now(now) - seconds(self.at, now) / 864.0
    }
}

/// What the tests say of an observation, log₁₀ of the odds in hundredths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Odds {
    pub client: i32,
    pub network: i32,
    pub kid: i32,
}

/// A fault that began or goes on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// Number of its route.
    pub route: usize,
    pub since: Tenths,
    /// Share of misses now, and what is usual.
    pub share: f32,
    pub usual: f32,
    /// Reads of witnesses behind it.
    pub reads: f32,
    /// Some clients that missed.
    pub clients: Vec<IpAddr>,
}

/// The tests of all clients, networks and keys.
#[derive(Debug)]
pub(super) struct Misses {
    hasher: Hasher,
    tests: Table<Test>,
    routes: Vec<Route>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Route {
    witnesses: Witnesses,
    /// Clients that missed.
    sample: Ring<IpAddr, SAMPLE>,
    /// When the fault was last told.
    told: Option<Tenths>,
}

/// Tests under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MissesProgress {
    tests: Vec<(u64, Test)>,
    routes: Vec<Route>,
}

/// A fault that goes on is told again after this.
const AGAIN: Tenths = 6_000;

impl Misses {
    /// At most `misses` tests at once; `routes` routes.
    pub fn new(misses: usize, routes: usize, hasher: Hasher) -> Self {
        Self { hasher, tests: Table::new(misses), routes: (0..routes).map(|_| Route::default()).collect() }
    }

    /// Takes one observation of the route numbered `route`.
    #[inline]
    pub fn observe(&mut self, o: &Observation, route: usize, now: Tenths) -> Odds {
        if o.class != RouteClass::AccountRead {
            return Odds::default();
        }
        let miss = match o.outcome {
            Outcome::Read => false,
            Outcome::Miss => true,
            _ => return Odds::default(),
        };
        if o.provenance == Provenance::Issued {
            // Who asks for others' accounts says nothing of whether members find theirs.
            if o.relation != Relation::Foreign {
                self.witness(o, miss, route, now);
            }
            return Odds::default();
        }
        self.test(o, miss, route, now)
    }

    fn witness(&mut self, o: &Observation, miss: bool, route: usize, now: Tenths) {
        let hasher = self.hasher;
        let Some(route) = self.routes.get_mut(route) else { return };
        // Where a read came from does not matter, and costs.
        let network = if miss { hasher.network(o.client) } else { 0 };
        if miss {
            route.sample.take(o.client);
        }
        if route.witnesses.count(miss, network, now) == Turn::Ended {
            route.told = None;
        }
    }

    fn test(&mut self, o: &Observation, miss: bool, route: usize, now: Tenths) -> Odds {
        let Some(witnesses) = self.routes.get(route).map(|route| &route.witnesses) else { return Odds::default() };
        let (fault, usual) = (witnesses.fault(now).is_some(), witnesses.usual(now));
        let target = self.target(o);
        let service = u64::from(o.service.0) << 2;
        let client = self.hasher.hash(self.hasher.address(o.client), service);
        let network = self.hasher.hash(self.hasher.network(o.client), service | 1);
        let before = self.tests.find(client).map_or(0.0, |test| test.now(now));
        if before <= MEMBER {
            self.witness(o, miss, route, now);
        }
        let kid = o.kid.filter(|_| o.provenance == Provenance::Unissued);
        let issuer = o.issuer.map_or(u64::from(u16::MAX), |issuer| u64::from(issuer.0));
        let kid = kid.map(|kid| self.hasher.hash(u64::from(kid.0) << 16 | issuer, service | 2));
        let mut scope = |tag: Option<u64>| {
            let Some(tag) = tag else { return 0 };
            let odds = self.one(tag, miss, target, (!fault).then_some(usual), now);
            #[expect(clippy::cast_possible_truncation, reason = "within the limits above")]
            let odds = odds.round() as i32;
            if fault { odds.min(0) } else { odds }
        };
        Odds { client: scope(Some(client)), network: scope(Some(network)), kid: scope(kid) }
    }

    /// The test of `tag` after one more read or miss; without a usual share, nothing counts.
    fn one(&mut self, tag: u64, miss: bool, target: u32, usual: Option<f32>, now: Tenths) -> f32 {
        if let Some(test) = self.tests.find(tag) {
            if let Some(usual) = usual {
                test.count(miss, target, usual, now);
            }
            return test.now(now);
        }
        let Some(usual) = usual else { return 0.0 };
        let mut test = Test { at: now, ..Test::default() };
        test.count(miss, target, usual, now);
        self.tests.insert(tag, test, now);
        test.odds
    }

    /// What was asked for: the account, or another's object; never 0.
    fn target(&self, o: &Observation) -> u32 {
        let hash = |hash: [u8; 16]| {
            let (low, high) = hash.split_at(8);
            let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            self.hasher.hash(word(low), word(high))
        };
        let object = o.object.filter(|_| o.relation != Relation::Own);
        let named = object.or(o.account).map(|hashed| hash(hashed.0));
        let hash = named.unwrap_or_else(|| match o.target_id {
            Some(id) => self.hasher.hash(id, 1),
            // Not known: every request is another.
            None => self.hasher.hash(o.at.monotonic_ns, 2),
        });
        u32::try_from(hash >> 32).unwrap_or(0).max(1)
    }

    /// Faults that began since the last time, or are to be told again.
    pub fn faults(&mut self, now: Tenths, mut tell: impl FnMut(Fault)) {
        for (number, route) in self.routes.iter_mut().enumerate() {
            let Some(since) = route.witnesses.fault(now) else { continue };
            if route.told.is_some_and(|told| now.saturating_sub(told) < AGAIN) {
                continue;
            }
            route.told = Some(now);
            let (misses, reads) = route.witnesses.recent(now);
            let (share, usual) = (misses / reads.max(1.0), route.witnesses.usual(now));
            tell(Fault { route: number, since, share, usual, reads, clients: route.sample.values().to_vec() });
        }
    }

    /// What became of tests for want of room.
    pub fn stats(&self) -> TableStats {
        self.tests.stats
    }

    /// Tests under way, and what is known of routes.
    pub fn progress(&self) -> MissesProgress {
        MissesProgress { tests: self.tests.kept(|_| true), routes: self.routes.clone() }
    }

    /// Takes up what was under way, of the same routes.
    pub fn resume(&mut self, progress: MissesProgress, now: Tenths) {
        self.tests.resume(&progress.tests, now);
        if progress.routes.len() == self.routes.len() {
            self.routes = progress.routes;
        }
    }

    /// Misses and reads that make up what is usual, by route.
    pub fn state(&self, now: Tenths) -> Vec<(f32, f32)> {
        self.routes.iter().map(|route| route.witnesses.state(now)).collect()
    }

    /// Takes up what an earlier run found usual on a route.
    pub fn restore(&mut self, route: usize, state: (f32, f32), now: Tenths) {
        if let Some(route) = self.routes.get_mut(route) {
            route.witnesses.restore(state, now);
        }
    }
}

#[cfg(test)]
#[path = "miss_tests.rs"]
mod tests;
