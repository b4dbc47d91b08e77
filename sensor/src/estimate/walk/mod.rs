//! Enumeration: identifiers walked in order or evenly stepped, by one client, by one network, or by all together.
//!
//! **In**: account reads that returned data or found nothing, with the number that their target names. **Out**: for each,
//! how many distinct identifiers the walk that it belongs to has come to. Nothing else is kept of a number than the front
//! of a walk and the 64 places behind it.
//!
//! **Method.** A [`tracker`] follows a front: what lands within 64 ahead of it moves it on, what lands within 63 behind it
//! for the first time came late (readers that share the work overtake each other), what was read before neither
//! extends nor breaks it. Once under way it never turns, so each identifier counts once. What tells a walk from chance is
//! what *else* is read in its neighbourhood ([`regions`]): every step adds ln 16 to the evidence, every read in the neighbourhood
//! (4,096 to 6,144 identifiers) that is no step takes 2.5 from it, and of a client or network every read anywhere 0.03. That is a
//! sequential test (E. S. Page, "Continuous inspection schemes", 1954) whose clock is the traffic itself: neither rates nor
//! bursts matter. [`stride`] adds progressions with wider steps, which must come in order and make up a hundredth of what
//! is fed. The length told is what the evidence vouches for.
//!
//! **Bound.** Reads at random over a range of 2,219 identifiers or more hit the 128 within reach with q ≤ 1/17.3 each; then
//! 16 q + (1 − q) e⁻²·⁵ ≤ 1, so evidence is the logarithm of a supermartingale that begins at 16, and a length of *n* comes
//! about with a probability of at most 16¹⁻ⁿ for each read that begins one (Ville's inequality; up to three walks and eight
//! progressions for each). At 10,000 requests a second, *all* of them fed, 14 days have 1.2 · 10¹⁰ beginnings: a length of
//! 12 is expected 1.2 · 10¹⁰ · 11 · 16⁻¹¹ = 0.008 times, one of 20 ten orders of magnitude less often. Down to a range of
//! 270, evidence still wears off; who reads fewer than 270 neighbours in any order comes to at most that many. A walk over
//! all is found if there are fewer random reads in its neighbourhood than steps: 6,144 of 33 million accounts have 1.9 of
//! 10,000 *doubtful* reads a second, and next to none of those that are left when members' own are not fed.
//!
//! **What is fed.** Members' own accounts, read with credentials that logins issued, are not: they are millions of random
//! numbers. The rest goes in three lanes, so that none drowns another: without an issued credential, other people's
//! accounts, and all whose reader's right is not known. Of the last two, identifiers that are newer than 12 to 24 hours are
//! left out (sign-ups and orders walk too, [`frontier`]). Own *objects* count for client and network only.
//!
//! **What it does not see.** Random order. Order over several clients that is shuffled wider than 64. Wide steps over
//! several clients that are shuffled at all. On a route that nobody else reads, a walk upwards from the highest identifier
//! by somebody whose credential is issued (fan-out rules count those).
//!
//! **State.** A table of `walks` walks and one of half as many readers, and 128 KiB for each lane of each route that is fed;
//! what has evidence is never pushed out by what has less.

mod frontier;
mod reader;
mod regions;
mod stride;
mod tracker;

pub use frontier::FrontierState;

use serde::{Deserialize, Serialize};

use frontier::Frontier;
use reader::Reader;
use regions::Regions;
use stride::{EACH, Strides};
use tracker::{Fit, Moment, REACH, Tracker};

use super::routes::Routes;
use super::table::{Hasher, Table, TableStats};
use super::time::Tenths;
use crate::observation::{Observation, Outcome, Provenance, Relation, RouteClass};

/// Walks shorter than this are not told.
const TOLD: u32 = 3;
/// Identifiers of one block stand in one set of the table.
const BLOCK: u64 = 2 * REACH;

/// Which reads are followed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// No login issued the credential, or there is none.
    Unissued,
    /// Somebody else's account.
    Foreign,
    /// Whose it is, or where the credential comes from, is not known; and own objects.
    Unknown,
}

const LANES: usize = 3;

/// How long the walk of an observation is, by scope; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    pub client: u32,
    pub network: u32,
    pub route: u32,
}

/// Walks under way, and what they are measured against.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WalksProgress {
    trackers: Vec<(u64, Tracker)>,
    readers: Vec<(u64, Reader)>,
    lanes: Vec<[Option<Box<LaneState>>; LANES]>,
    objects: Vec<Frontier>,
    accounts: Vec<Frontier>,
}

/// Walks of all scopes.
#[derive(Debug)]
pub(super) struct Walks {
    hasher: Hasher,
    trackers: Table<Tracker>,
    readers: Table<Reader>,
    routes: Vec<Route>,
    /// Of accounts, by service; objects have one by route.
    accounts: Vec<Frontier>,
}

#[derive(Debug)]
struct Route {
    objects: Frontier,
    /// Made when the lane is first read.
    lanes: [Option<Box<LaneState>>; LANES],
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct LaneState {
    regions: Regions,
    strides: Strides,
}

/// The lane of `o`, and whether it counts over all clients; `None`: it is not fed.
fn lane(o: &Observation) -> Option<(Lane, bool)> {
    if o.class != RouteClass::AccountRead || !matches!(o.outcome, Outcome::Read | Outcome::Miss) {
        return None;
    }
    match (o.provenance, o.relation) {
        (Provenance::None | Provenance::Unissued, _) => Some((Lane::Unissued, true)),
        (_, Relation::Foreign) => Some((Lane::Foreign, true)),
        (Provenance::Issued, Relation::Own) => o.object.is_some().then_some((Lane::Unknown, false)),
        _ => Some((Lane::Unknown, true)),
    }
}

impl Walks {
    /// Knowing nothing; at most `walks` walks are followed, and half as many clients and networks.
    pub fn new(walks: usize, routes: &Routes, hasher: Hasher) -> Self {
        Self {
            hasher,
            trackers: Table::new(walks),
            readers: Table::new(walks / 2),
            routes: (0..routes.len())
                .map(|_| Route { objects: Frontier::default(), lanes: [const { None }; LANES] })
                .collect(),
            accounts: vec![Frontier::default(); routes.services()],
        }
    }

    /// Takes one observation of the route numbered `route`.
    #[inline]
    pub fn observe(&mut self, o: &Observation, route: usize, now: Tenths) -> Lengths {
        let Some(id) = o.target_id else { return Lengths::default() };
        let is_new = self.frontier(o, id, route, now);
        match lane(o) {
            None => Lengths::default(),
            Some((lane, _)) if is_new && lane != Lane::Unissued => Lengths::default(),
            Some((lane, over_all)) => self.feed(o, id, route, now, lane, over_all),
        }
    }

    /// Whether `id` is new; whoever has a credential that may be good, and was given data, raises the frontier.
    fn frontier(&mut self, o: &Observation, id: u64, route: usize, now: Tenths) -> bool {
        let frontier = if o.object.is_some() {
            self.routes.get_mut(route).map(|route| &mut route.objects)
        } else {
            self.accounts.get_mut(usize::from(o.service.0))
        };
        let Some(frontier) = frontier else { return true };
        frontier.advance(now);
        let good = matches!(o.provenance, Provenance::Issued | Provenance::Preexisting | Provenance::Unverifiable);
        if good && o.outcome == Outcome::Read && o.class == RouteClass::AccountRead {
            frontier.raise(id);
        }
        frontier.is_new(id)
    }

    fn feed(&mut self, o: &Observation, id: u64, route: usize, now: Tenths, lane: Lane, over_all: bool) -> Lengths {
        let Some(state) = self.routes.get_mut(route).and_then(|route| route.lanes.get_mut(lane as usize)) else {
            return Lengths::default();
        };
        let state = state.get_or_insert_with(Box::default);
        // The same numbers on several routes are one walk to a client.
        let kind = u64::from(o.service.0) << 8 | (lane as u64) << 4 | u64::from(o.object.is_some());
        let client = self.hasher.hash(self.hasher.address(o.client), kind << 2 | 1);
        let network = self.hasher.hash(self.hasher.network(o.client), kind << 2 | 2);
        for scope in [client, network] {
            self.readers.fetch(scope);
            self.trackers.fetch(self.hasher.hash(scope, id / BLOCK));
        }
        let mut lengths = Lengths::default();
        if over_all {
            let regions = &mut state.regions;
            regions.reads = regions.reads.wrapping_add(1);
            let moment = Moment { apart: |id| regions.apart(id), reads: regions.reads, each: 0.0, now };
            let scope = self.hasher.hash((route as u64) << 8 | (lane as u64) << 4, 0);
            let stride = state.strides.take(id, regions.reads, now);
            let walk = walk(self.hasher, &mut self.trackers, scope, id, &moment);
            if walk.is_none() {
                regions.count(id);
            }
            lengths.route = stride.max(walk.unwrap_or(0));
        }
        lengths.client = self.reader(client, id, now);
        lengths.network = self.reader(network, id, now);
        for length in [&mut lengths.client, &mut lengths.network, &mut lengths.route] {
            if *length < TOLD {
                *length = 0;
            }
        }
        lengths.network = lengths.network.max(lengths.client);
        lengths
    }

    /// Takes a read of a client or network.
    fn reader(&mut self, scope: u64, id: u64, now: Tenths) -> u32 {
        if self.readers.find(scope).is_none() {
            self.readers.insert(scope, Reader::new(id, now), now);
        }
        let Some(reader) = self.readers.find(scope) else { return 0 };
        reader.reads = reader.reads.saturating_add(1);
        reader.touched = now;
        let stride = reader.stride.take(id, reader.reads);
        let moment = Moment { apart: |id| reader.regions.apart(id), reads: reader.reads, each: EACH, now };
        let walk = walk(self.hasher, &mut self.trackers, scope, id, &moment);
        if walk.is_none() {
            reader.regions.count(id);
        }
        stride.max(walk.unwrap_or(0))
    }

    /// What became of walks, and of readers, for want of room.
    pub fn stats(&self) -> [TableStats; 2] {
        [self.trackers.stats, self.readers.stats]
    }

    /// What is under way. It holds numbers of accounts: it must not reach a disk as it is.
    pub fn progress(&self) -> WalksProgress {
        WalksProgress {
            trackers: self.trackers.kept(Tracker::under_way),
            readers: self.readers.kept(|reader| reader.reads > 1),
            lanes: self.routes.iter().map(|route| route.lanes.clone()).collect(),
            objects: self.routes.iter().map(|route| route.objects).collect(),
            accounts: self.accounts.clone(),
        }
    }

    /// Takes up what was under way, of the same services and routes.
    pub fn resume(&mut self, progress: WalksProgress, now: Tenths) {
        self.trackers.resume(&progress.trackers, now);
        self.readers.resume(&progress.readers, now);
        let routes = progress.lanes.into_iter().zip(progress.objects);
        for (route, (lanes, objects)) in self.routes.iter_mut().zip(routes) {
            route.objects = objects;
            route.lanes = lanes;
        }
        if progress.accounts.len() == self.accounts.len() {
            self.accounts = progress.accounts;
        }
    }

    /// The frontiers of accounts by service, and of objects by route.
    pub fn state(&self) -> (Vec<FrontierState>, Vec<FrontierState>) {
        let objects = self.routes.iter().map(|route| route.objects.state());
        (self.accounts.iter().map(Frontier::state).collect(), objects.collect())
    }

    /// Takes up the frontier of accounts of a service.
    pub fn restore_accounts(&mut self, service: usize, state: FrontierState) {
        if let Some(frontier) = self.accounts.get_mut(service) {
            frontier.restore(state);
        }
    }

    /// Takes up the frontier of objects of a route.
    pub fn restore_objects(&mut self, route: usize, state: FrontierState) {
        if let Some(route) = self.routes.get_mut(route) {
            route.objects.restore(state);
        }
    }
}

/// Follows `id` within `scope`; the length of its walk, or `None` if it may begin one.
fn walk<F: Fn(u64) -> u32>(
    hasher: Hasher,
    trackers: &mut Table<Tracker>,
    scope: u64,
    id: u64,
    moment: &Moment<F>,
) -> Option<u32> {
    let block = id / BLOCK;
    let neighbour = if id % BLOCK < REACH { block.wrapping_sub(1) } else { block.wrapping_add(1) };
    let mut best: Option<(f32, u64, u64)> = None;
    for near in [block, neighbour] {
        for tracker in trackers.matching(hasher.hash(scope, near)) {
            match tracker.fit(id) {
                Fit::Apart => {}
                Fit::Again => {
                    tracker.again();
                    return Some(tracker.vouched());
                }
                Fit::Step => {
                    let evidence = tracker.score(moment);
                    if best.is_none_or(|(most, ..)| evidence > most) {
                        best = Some((evidence, near, tracker.front));
                    }
                }
            }
        }
    }
    let Some((_, near, front)) = best else {
        trackers.insert(hasher.hash(scope, block), Tracker::new(id, moment), moment.now);
        return None;
    };
    let tag = hasher.hash(scope, near);
    let tracker = trackers.matching(tag).find(|tracker| tracker.front == front)?;
    tracker.step(id, moment);
    let walk = *tracker;
    let at = walk.front / BLOCK;
    if at != near && trackers.take(tag, |tracker| tracker.front == walk.front).is_some() {
        trackers.insert(hasher.hash(scope, at), walk, moment.now);
    }
    // One that had no evidence left has begun anew: the read was beside it.
    (walk.vouched() > 1).then(|| walk.vouched())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
