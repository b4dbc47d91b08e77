//! Estimators: what no single observation shows.
//!
//! Observations flow in, in order, and leave with their [`Estimates`](crate::observation::Estimates) filled; at ticks,
//! [`Estimate`] events flow out. Estimators measure and nothing else: thresholds, levels and groups are those of the rules
//! in `rules/detection`. All state is bounded, and time is that of the observations and ticks, so that a replay says the
//! same.

mod doubt;
mod drift;
mod fault;
mod members;
mod miss;
mod newest;
mod progress;
mod routes;
mod season;
mod sight;
mod silence;
mod state;
mod table;
#[cfg(test)]
mod testing;
mod time;
mod told;
mod walk;

use crate::ahead;
use crate::config::model::Config;
use crate::ledger::IssuerStats;
use crate::observation::{Estimate, EstimateKind, Instant, Measure, Observation, ServiceId};
pub use doubt::DoubtState;
pub use progress::{PARTS, Part};
pub use season::Season;
pub use state::{RouteState, ServiceState, State};
pub use table::TableStats;
pub use walk::FrontierState;

use doubt::{Doubts, Spent};
use drift::{Drift, Drifts};
use members::{Member, Members};
use miss::{Fault, Misses};
use routes::Routes;
use sight::{Fall, Sights};
use silence::{Silence, Silent};
use table::Hasher;
use time::{Epoch, Tenths};
use walk::Walks;

/// What has a season by service, in the order of [`ServiceState::seasons`].
const SEASONS: [Measure; 3] = [Measure::ReadsPerLogin, Measure::Logins, Measure::LoginFailures];

/// All estimators of a run.
#[derive(Debug)]
pub struct Estimators {
    /// What their state is of: services, routes, issuers, bounds.
    shape: [u8; 16],
    epoch: Epoch,
    routes: Routes,
    walks: Walks,
    misses: Misses,
    silence: Silence,
    doubts: Doubts,
    sights: Sights,
    drifts: Drifts,
    members: Members,
}

impl Estimators {
    /// Ready, knowing nothing.
    pub fn new(config: &Config) -> Self {
        let routes = Routes::new(config);
        // The account key, where there is one, keeps collisions from being chosen.
        let hasher = Hasher::new(config.keys.account.unwrap_or(*b"authsensor walks"));
        let kept = &config.estimate;
        Self {
            shape: progress::shape(config),
            epoch: Epoch::default(),
            walks: Walks::new(kept.walks, &routes, hasher),
            misses: Misses::new(kept.misses, routes.len(), hasher),
            silence: Silence::new(&routes),
            doubts: Doubts::new(config),
            sights: Sights::new(config),
            drifts: Drifts::new(&routes),
            members: Members::new(kept.known_clients, kept.members, routes.services(), routes.len(), hasher),
            routes,
        }
    }

    /// Takes observations in their order, as [`Estimators::annotate`] takes each. The memory that some of them need is
    /// fetched at once.
    pub fn annotate_all(&mut self, observations: &mut [Observation]) {
        for some in observations.chunks_mut(ahead::WINDOW) {
            for o in &*some {
                self.members.expect(o);
            }
            for o in some {
                self.annotate(o);
            }
        }
    }

    /// Takes one observation into account and fills its estimates.
    pub fn annotate(&mut self, o: &mut Observation) {
        let now = self.epoch.tenths(o.at.monotonic_ns);
        self.doubts.observe(o);
        let Some(route) = self.routes.number(o) else { return };
        self.silence.observe(o, route, now);
        self.drifts.observe(o, route);
        self.members.observe(o, route, now);
        let walk = self.walks.observe(o, route, now);
        o.estimates.walk_client = walk.client;
        o.estimates.walk_network = walk.network;
        o.estimates.walk_route = walk.route;
        let odds = self.misses.observe(o, route, now);
        o.estimates.miss_client = odds.client;
        o.estimates.miss_network = odds.network;
        o.estimates.miss_kid = odds.kid;
    }

    /// Says what time it is; events that are due are appended to `out`.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Estimate>) {
        let tenths = self.epoch.tenths(now.monotonic_ns);
        let (routes, misses) = (&self.routes, &mut self.misses);
        misses.faults(tenths, |fault| out.extend(fault_event(now, tenths, routes, fault)));
        self.silence.tick(tenths, |silent| out.extend(silence_event(now, tenths, routes, silent)));
        let unix = i64::try_from(now.unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
        self.doubts.tick(tenths, unix, |spent| out.push(doubt_event(now, tenths, spent)));
        let unix = now.unix_ns / 1_000_000_000;
        let told = out.len();
        self.drifts.tick(tenths, unix, |drift| out.push(drift_event(now, tenths, &self.routes, drift)));
        for event in out.iter_mut().skip(told) {
            let (accounts, clients) = self.drifts.newest(usize::from(event.service.0), event.measure);
            (event.accounts, event.clients) = (accounts.to_vec(), clients.to_vec());
        }
        let (drifts, routes) = (&self.drifts, &self.routes);
        self.members
            .tick(tenths, drifts.alarms(), |member| out.push(member_event(now, tenths, drifts, routes, member)));
    }

    /// Takes what the ledger measured of an issuer over the last day, and since when (seconds since 1970) none of its
    /// credentials can be older than the horizon; to be called every minute or so.
    pub fn sight(&mut self, issuer: &IssuerStats, now: Instant, out: &mut Vec<Estimate>) {
        let tenths = self.epoch.tenths(now.monotonic_ns);
        self.doubts.horizon(issuer.service, issuer.issuer, issuer.complete_unix);
        // One cause, one event: while a source is silent, its issuers' sight falls with it.
        if self.silence.lasts(usize::from(issuer.service.0)) {
            return;
        }
        let of = (issuer.service, issuer.issuer);
        if let Some(fall) = self.sights.take(of, issuer.sight, issuer.compared, tenths) {
            out.push(sight_event(now, tenths, issuer, fall));
        }
    }

    /// What became of entries for want of room.
    pub fn stats(&self) -> Stats {
        let [walks, readers] = self.walks.stats();
        let full_days = self.members.full_days();
        Stats { walks, readers, misses: self.misses.stats(), members: self.members.stats(), full_days }
    }

    /// What must be known again after a restart; `now` is the time of the latest tick.
    pub fn snapshot(&mut self, now: Instant) -> State {
        let tenths = self.epoch.tenths(now.monotonic_ns);
        let (accounts, objects) = self.walks.state();
        let services = self.routes.service_names().zip(accounts).enumerate();
        let services = services.map(|(number, (service, accounts))| ServiceState {
            service: service.to_owned(),
            accounts,
            doubts: self.doubts.state(number),
            seasons: SEASONS.iter().filter_map(|measure| self.drifts.season(*measure, number, None)).cloned().collect(),
        });
        let services = services.collect();
        let routes = self.routes.names().zip(objects).zip(self.misses.state(tenths));
        let routes = routes.enumerate().map(|(number, (((service, route), objects), misses))| RouteState {
            service: service.to_owned(),
            route: route.to_owned(),
            objects,
            misses,
            volume: self.routes.get(number).and_then(|route| {
                let service = usize::from(route.service.0);
                self.drifts.season(Measure::RouteVolume, service, Some(number)).cloned()
            }),
        });
        State { taken_unix_ns: now.unix_ns, services, routes: routes.collect() }
    }

    /// Takes up what an earlier run knew, of the services and routes that there still are.
    pub fn restore(&mut self, state: &State, now: Instant) {
        let tenths = self.epoch.tenths(now.monotonic_ns);
        for (number, name) in self.routes.service_names().enumerate() {
            if let Some(known) = state.services.iter().find(|known| known.service == name) {
                self.walks.restore_accounts(number, known.accounts);
                for (issuer, doubt) in known.doubts.iter().enumerate() {
                    self.doubts.restore(number, issuer, *doubt);
                }
                for (measure, season) in SEASONS.iter().zip(&known.seasons) {
                    self.drifts.restore(*measure, number, None, season);
                }
            }
        }
        for (number, (service, route)) in self.routes.names().enumerate() {
            if let Some(known) = state.routes.iter().find(|known| known.service == service && known.route == route) {
                self.walks.restore_objects(number, known.objects);
                self.misses.restore(number, known.misses, tenths);
                let service = self.routes.get(number).map_or(0, |route| usize::from(route.service.0));
                if let Some(season) = &known.volume {
                    self.drifts.restore(Measure::RouteVolume, service, Some(number), season);
                }
            }
        }
    }
}

/// What became of entries for want of room, by estimator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Walks.
    pub walks: TableStats,
    /// Clients and networks whose walks are followed.
    pub readers: TableStats,
    /// Tests of misses.
    pub misses: TableStats,
    /// Members of a drift.
    pub members: TableStats,
    /// Days that had more clients than `known_clients` tells apart.
    pub full_days: u64,
}

impl Stats {
    /// Name and figures of each table, as metrics label them.
    pub fn tables(&self) -> [(&'static str, TableStats); 4] {
        [("walks", self.walks), ("readers", self.readers), ("misses", self.misses), ("members", self.members)]
    }
}

/// `at`, but `tenths` earlier.
fn earlier(at: Instant, tenths: Tenths) -> Instant {
    let ns = u64::from(tenths) * 100_000_000;
    Instant { monotonic_ns: at.monotonic_ns.saturating_sub(ns), unix_ns: at.unix_ns.saturating_sub(ns) }
}

/// `share` in thousandths.
fn thousandths(share: f32) -> u64 {
    whole(share * 1_000.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; a cast saturates")]
fn whole(value: f32) -> u64 {
    value.round() as u64
}

fn fault_event(at: Instant, now: Tenths, routes: &Routes, fault: Fault) -> Option<Estimate> {
    let route = routes.get(fault.route)?;
    Some(Estimate {
        since: earlier(at, now.saturating_sub(fault.since)),
        route: Some(route.id),
        class: Some(route.class),
        observed: thousandths(fault.share),
        expected: thousandths(fault.usual),
        score: whole(fault.share / fault.usual * 100.0),
        requests: whole(fault.reads),
        clients: fault.clients,
        ..Estimate::new(at, EstimateKind::ServerFault, Measure::Misses, route.service)
    })
}

fn silence_event(at: Instant, now: Tenths, routes: &Routes, silent: Silent) -> Option<Estimate> {
    let route = routes.get(silent.route)?;
    Some(Estimate {
        since: earlier(at, now.saturating_sub(silent.since)),
        route: Some(route.id),
        class: Some(route.class),
        expected: whole(silent.expected),
        score: whole(silent.expected * 100.0),
        requests: silent.tried,
        ..Estimate::new(at, EstimateKind::Silence, Measure::Issuances, route.service)
    })
}

fn doubt_event(at: Instant, now: Tenths, spent: Spent) -> Estimate {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a score")]
    let (expected, score) = (spent.budget.round() as u64, (spent.doubtful as f64 / spent.budget * 100.0) as u64);
    Estimate {
        since: earlier(at, now.saturating_sub(spent.since)),
        issuer: spent.issuer,
        observed: spent.doubtful,
        expected,
        score,
        requests: spent.reads,
        accounts: spent.accounts,
        clients: spent.clients,
        ..Estimate::new(at, EstimateKind::Doubt, spent.measure, spent.service)
    }
}

fn drift_event(at: Instant, now: Tenths, routes: &Routes, drift: Drift) -> Estimate {
    let route = drift.route.and_then(|number| routes.get(number));
    Estimate {
        since: earlier(at, now.saturating_sub(drift.since)),
        route: route.map(|route| route.id),
        class: route.map(|route| route.class),
        observed: whole(drift.observed),
        expected: whole(drift.expected),
        score: whole(drift.sum * 100.0),
        requests: u64::from(drift.requests),
        ..Estimate::new(at, EstimateKind::Drift, drift.measure, service_id(drift.service))
    }
}

fn member_event(at: Instant, now: Tenths, drifts: &Drifts, routes: &Routes, member: Member) -> Estimate {
    let alarm = drifts.alarms().find(|(service, ..)| *service == member.service);
    let (measure, route) = alarm.map_or((Measure::ReadsPerLogin, None), |(_, measure, route)| (measure, route));
    let route = route.and_then(|number| routes.get(number));
    Estimate {
        since: earlier(at, now.saturating_sub(member.since)),
        route: route.map(|route| route.id),
        class: route.map(|route| route.class),
        kid: member.kid,
        client: member.client,
        observed: u64::from(member.reads),
        expected: whole(member.expected),
        score: u64::from(member.distinct) * 100,
        requests: u64::from(member.reads),
        accounts: member.accounts,
        clients: member.client.into_iter().collect(),
        ..Estimate::new(at, EstimateKind::Member, measure, service_id(member.service))
    }
}

fn service_id(number: usize) -> ServiceId {
    u16::try_from(number).map_or(ServiceId::NONE, ServiceId)
}

fn sight_event(at: Instant, now: Tenths, issuer: &IssuerStats, fall: Fall) -> Estimate {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares, and a score")]
    let whole = |value: f64| value.round() as u64;
    Estimate {
        since: earlier(at, now.saturating_sub(fall.since)),
        issuer: Some(issuer.issuer),
        observed: whole(fall.observed * 1_000.0),
        expected: whole(fall.confirmed * 1_000.0),
        score: whole(fall.deviations * 100.0),
        requests: fall.credentials,
        ..Estimate::new(at, EstimateKind::Sight, Measure::Sight, issuer.service)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{address, at, config, forged_read, own_read};
    use super::*;
    use crate::observation::Provenance;

    #[test]
    fn what_was_known_is_known_after_a_restart() {
        let mut estimators = Estimators::new(&config());
        for n in 0..4_000u32 {
            let now = f64::from(n);
            estimators.annotate(&mut own_read(now, u64::from(n % 1_000), address(n % 50)));
        }
        let state = estimators.snapshot(at(4_000.0));
        let text = serde_json::to_string(&state).unwrap();
        let state: State = serde_json::from_str(&text).unwrap();
        let mut again = Estimators::new(&config());
        again.restore(&state, at(5_000.0));
        assert_eq!(State { taken_unix_ns: 0, ..again.snapshot(at(5_000.0)) }, State { taken_unix_ns: 0, ..state });
        // Above the frontier only what no login issued counts.
        let mut walk = |from: u64, provenance: Provenance| {
            (0..30u32).fold(0, |_, n| {
                let now = 5_000.0 + f64::from(n);
                let mut o = Observation { provenance, ..forged_read(now, from + u64::from(n), address(n)) };
                again.annotate(&mut o);
                o.estimates.walk_route
            })
        };
        assert_eq!(walk(20_000, Provenance::Unverifiable), 0);
        assert!(walk(100, Provenance::Unverifiable) > 10);
        assert!(walk(30_000, Provenance::Unissued) > 10);
    }
}
