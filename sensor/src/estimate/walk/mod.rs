//! Enumeration: identifiers walked in order or evenly stepped, by one client, by one network, or by all together.
//!
//! **In**: account reads that returned data or found nothing, with the number that their target names. **Out**: for each,
//! how many distinct identifiers the walk that it belongs to has come to. Nothing else is kept of a number than the front
//! of a walk and the 64 places behind it.
//!
//! **Method.** A [`tracker`] follows a front: what lands within 64 ahead of it moves it on, what lands within 63 behind it
//! for the first time came late (readers that share the work overtake each other), what was read before neither
//! extends nor breaks it. Once under way it never turns, so each identifier counts once. [`stride`] adds progressions with
//! wider steps, which must come in order. Both are sequential tests (E. S. Page, "Continuous inspection schemes", 1954):
//! every step adds ln 16 to the evidence, and what passes meanwhile takes 15 times as many hits as chance makes among the
//! 128 identifiers within reach. Over all clients time passes, and [`density`] measures chance by the second from the same
//! traffic; for a client or network its own reads pass, and the chance is that of one read, or what its own jumps make of
//! it ([`reader`]). The length told is what the evidence vouches for.
//!
//! **Bound.** While chance hits at most as measured, evidence is the logarithm of a likelihood-ratio supermartingale that
//! begins at 16, so a length of *n* comes about with a probability of at most 16¹⁻ⁿ for each identifier that begins
//! one (Ville's inequality; up to three walks and eight progressions for each). At 10,000 requests a second, *all* of them
//! fed, 14 days have 1.2 · 10¹⁰ beginnings: a length of 12 is expected 1.2 · 10¹⁰ · 11 · 16⁻¹¹ = 0.008 times, one of 20 ten
//! orders of magnitude less often. Where chance is up to 5.4 times as frequent as measured (15 / ln 16), evidence still
//! wears off; that covers neighbourhoods that are read more than their bucket. A walk over all is found if it makes more
//! steps a second than 5.4 times the background: against 10,000 *random doubtful* reads a second over 33 million accounts
//! that is 0.21 a second, against the reads that are left when members' own are not fed, next to nothing.
//!
//! **What is fed.** Members' own accounts, read with credentials that logins issued, are not: they are millions of random
//! numbers. The rest goes in three lanes, so that none drowns another: without an issued credential, other people's
//! accounts, and all whose reader's right is not known. Of the last two, identifiers that are newer than 12 to 24 hours are
//! left out (sign-ups and orders walk too, [`frontier`]). Own *objects* count for client and network only.
//!
//! **What it does not see.** Random order, and clients that read in a narrow range in no order. Order over several clients that is shuffled wider than 64. Wide steps over
//! several clients that are shuffled at all. On a route that nobody else reads, a walk upwards from the highest identifier
//! by somebody whose credential is issued (fan-out rules count those).
//!
//! **State.** A table of `walks` walks and one of half as many readers, and 48 KiB for each lane of each route that is fed;
//! what has evidence is never pushed out by what has less.

mod density;
mod frontier;
mod reader;
mod stride;
mod tracker;

pub use frontier::FrontierState;

use density::Density;
use frontier::Frontier;
use reader::Reader;
use stride::Strides;
use tracker::{Fit, Moment, REACH, Tracker};

use super::routes::Routes;
use super::table::{Hasher, Table, TableStats};
use super::time::Tenths;
use crate::observation::{Observation, Outcome, Provenance, Relation, RouteClass};

/// Walks shorter than this are not told.
const TOLD: u32 = 3;
/// Identifiers of one block stand in one set of the table.
const BLOCK: u64 = 2 * REACH;

/// Chance of coming near its own reads from which on a reader takes no part in walks over all.
const NARROW: f32 = 1.0 / 64.0;

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

#[derive(Debug)]
struct LaneState {
    density: Density,
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
        let state =
            state.get_or_insert_with(|| Box::new(LaneState { density: Density::new(), strides: Strides::new() }));
        let chance = state.density.count(id, now);
        let lane_of = (route as u64) << 8 | (lane as u64) << 4;
        // The same numbers on several routes are one walk to a client.
        let kind = u64::from(o.service.0) << 8 | (lane as u64) << 4 | u64::from(o.object.is_some());
        let client = self.hasher.hash(self.hasher.address(o.client), kind << 2 | 1);
        let network = self.hasher.hash(self.hasher.network(o.client), kind << 2 | 2);
        let mut lengths = Lengths::default();
        let (own, length) = self.reader(client, id, chance.a_read, now);
        lengths.client = length;
        (_, lengths.network) = self.reader(network, id, chance.a_read, now);
        // Who reads at random in a narrow range is no step of a walk over all.
        if over_all && own < NARROW {
            let over_all = Moment { clock: now, chance: chance.a_tenth, now };
            let state = self.routes.get_mut(route).and_then(|route| route.lanes.get_mut(lane as usize)?.as_mut());
            let stride = state.map_or(0, |state| state.strides.take(id, over_all));
            lengths.route = stride.max(self.walk(self.hasher.hash(lane_of, 0), id, over_all));
        }
        for length in [&mut lengths.client, &mut lengths.network, &mut lengths.route] {
            if *length < TOLD {
                *length = 0;
            }
        }
        lengths.network = lengths.network.max(lengths.client);
        lengths
    }

    /// Takes a read of a client or network; by its own jumps, the chance that it comes near itself, and the walk's length.
    fn reader(&mut self, scope: u64, id: u64, chance: f32, now: Tenths) -> (f32, u32) {
        if self.readers.find(scope).is_none() {
            self.readers.insert(scope, Reader::new(id, now), now);
        }
        let Some(reader) = self.readers.find(scope) else { return (0.0, 0) };
        let (moment, length) = reader.read(id, chance, now);
        let own = reader.own();
        (own, self.walk(scope, id, moment).max(length))
    }

    /// Follows `id` within `scope`.
    fn walk(&mut self, scope: u64, id: u64, moment: Moment) -> u32 {
        let block = id / BLOCK;
        let neighbour = if id % BLOCK < REACH { block.wrapping_sub(1) } else { block.wrapping_add(1) };
        let mut best: Option<(f32, u64, u64)> = None;
        for near in [block, neighbour] {
            let tag = self.hasher.hash(scope, near);
            for tracker in self.trackers.matching(tag) {
                match tracker.fit(id) {
                    Fit::Apart => {}
                    Fit::Again => return tracker.vouched(),
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
            self.trackers.insert(self.hasher.hash(scope, block), Tracker::new(id, moment), moment.now);
            return 1;
        };
        let tag = self.hasher.hash(scope, near);
        let Some(tracker) = self.trackers.matching(tag).find(|tracker| tracker.front == front) else { return 0 };
        tracker.step(id, moment);
        let walk = *tracker;
        let at = walk.front / BLOCK;
        if at != near && self.trackers.take(tag, |tracker| tracker.front == walk.front).is_some() {
            self.trackers.insert(self.hasher.hash(scope, at), walk, moment.now);
        }
        walk.vouched()
    }

    /// What became of walks, and of readers, for want of room.
    pub fn stats(&self) -> [TableStats; 2] {
        [self.trackers.stats, self.readers.stats]
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
