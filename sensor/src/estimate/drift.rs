//! Drift: reads for each login, the volume of each sensitive route, logins and their failures, against their own weekly
//! season.
//!
//! **In**: account reads and logins. **Out**: measures that left their season, with what was observed and expected.
//!
//! **Method.** By the hour (of the wall clock, UTC), each measure is compared with its [`season`](super::season). A
//! cumulative sum of its deviations (E. S. Page 1954; V. Javed and M. Paxson, "Detecting stealthy, distributed SSH
//! brute-forcing", ACM CCS 2013, whose first stage it is) rises with what is more than one deviation above and alarms at
//! eight: one hour nine deviations above, or three of four. Counts are compared while their hour lasts, so a burst is told
//! within a minute; shares and ratios when it ends. Even on a scale where chance is normal, the sum takes e¹⁶ hours to
//! alarm of itself. Counts of refused logins and of reads rise for good reasons too (a push, a storm, a campaign): events
//! say how much, rules say whether that matters, and [`super::members`] who it was.
//!
//! Events about logins carry accounts and clients of the newest logins that were tried, or refused: where stuffing is most
//! of them, most of the sample is the stuffing's.
//!
//! **State.** Four measures at most for each service and one for each account route, 192 figures each.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::newest::Newest;
use super::routes::Routes;
use super::season::Season;
use super::time::Tenths;
use super::told::Told;
use crate::observation::{AccountHash, Measure, Observation, Outcome, RouteClass};

const HOUR_S: u64 = 3_600;
/// An hour counts if it was watched from its first two minutes on.
const LATE_S: u64 = 120;
/// What the sum takes each hour, the most that an hour adds, and where it alarms.
const SLACK: f32 = 1.0;
const MOST: f32 = 10.0;
const ALARM: f32 = 8.0;
/// Running hours are looked at this often, in seconds.
const PERIOD_S: u64 = 60;
/// Newest logins that are told.
const SAMPLE: usize = 16;

/// All measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Drifts {
    /// The running hour since 1970, and whether it is watched as a whole.
    hour: Option<u64>,
    whole: bool,
    looked: u64,
    services: Vec<Counts>,
    /// Logins tried and refused, by service.
    newest: Vec<[Newest<SAMPLE>; 2]>,
    /// Reads of the running hour by number of the route.
    routes: Vec<u32>,
    series: Vec<Series>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    reads: u32,
    logins: u32,
    failures: u32,
}

/// One measure with its season.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Series {
    measure: Measure,
    service: usize,
    route: Option<usize>,
    season: Season,
    sum: f32,
    told: Told,
}

/// A measure that left its season.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drift {
    pub measure: Measure,
    pub service: usize,
    /// Number of the route.
    pub route: Option<usize>,
    pub since: Tenths,
    /// Counts, or thousandths.
    pub observed: f32,
    pub expected: f32,
    /// The sum, in deviations.
    pub sum: f32,
    /// Requests of the hour.
    pub requests: u32,
}

/// What an hour came to: on the scale of the season, what chance deviates, and how many requests it was.
struct Value {
    scaled: f32,
    floor: f32,
    requests: u32,
}

impl Drifts {
    /// Of all services and account routes.
    pub fn new(routes: &Routes) -> Self {
        let series = |measure, service, route| Series {
            measure,
            service,
            route,
            season: Season::default(),
            sum: 0.0,
            told: Told::default(),
        };
        let mut all = Vec::new();
        for service in 0..routes.services() {
            for measure in [Measure::ReadsPerLogin, Measure::Logins, Measure::LoginFailures] {
                all.push(series(measure, service, None));
            }
        }
        for number in 0..routes.len() {
            let Some(route) = routes.get(number).filter(|route| route.class == RouteClass::AccountRead) else {
                continue;
            };
            all.push(series(Measure::RouteVolume, usize::from(route.service.0), Some(number)));
        }
        Self {
            hour: None,
            whole: false,
            looked: 0,
            services: vec![Counts::default(); routes.services()],
            newest: vec![Default::default(); routes.services()],
            routes: vec![0; routes.len()],
            series: all,
        }
    }

    /// Takes one observation of the route numbered `route`.
    #[inline]
    pub fn observe(&mut self, o: &Observation, route: usize) {
        let Some(counts) = self.services.get_mut(usize::from(o.service.0)) else { return };
        match (o.class, o.outcome) {
            (RouteClass::AccountRead, Outcome::Read) => {
                counts.reads = counts.reads.saturating_add(1);
                if let Some(reads) = self.routes.get_mut(route) {
                    *reads = reads.saturating_add(1);
                }
            }
            (RouteClass::Login, Outcome::Read) => counts.logins = counts.logins.saturating_add(1),
            (RouteClass::Login, Outcome::Denied) => counts.failures = counts.failures.saturating_add(1),
            _ => {}
        }
        if o.class == RouteClass::Login
            && let Some([tried, refused]) = self.newest.get_mut(usize::from(o.service.0))
        {
            tried.take(o);
            if o.outcome == Outcome::Denied {
                refused.take(o);
            }
        }
    }

    /// Moves time on to `unix` seconds since 1970.
    pub fn tick(&mut self, now: Tenths, unix: u64, mut tell: impl FnMut(Drift)) {
        let hour = unix / HOUR_S;
        match self.hour {
            None => {
                self.hour = Some(hour);
                self.whole = unix % HOUR_S <= LATE_S;
            }
            Some(running) if hour > running => {
                // Several hours without a tick were not watched.
                if self.whole && hour == running + 1 {
                    self.look(now, running, true, &mut tell);
                }
                self.whole = hour == running + 1 || unix % HOUR_S <= LATE_S;
                self.hour = Some(hour);
                self.services.fill(Counts::default());
                self.routes.fill(0);
            }
            Some(running) if self.whole && unix >= self.looked.saturating_add(PERIOD_S) => {
                self.looked = unix;
                self.look(now, running, false, &mut tell);
            }
            Some(_) => {}
        }
    }

    /// Compares the running hour, which may be over.
    fn look(&mut self, now: Tenths, hour: u64, over: bool, tell: &mut impl FnMut(Drift)) {
        for series in &mut self.series {
            let counts = self.services.get(series.service).copied().unwrap_or_default();
            let reads = series.route.and_then(|route| self.routes.get(route)).copied().unwrap_or(0);
            let Some(value) = series.value(counts, reads, over) else { continue };
            series.look(now, hour, &value, over, tell);
        }
    }

    /// The measures of reads that are out of season now: whose, and of which route if it is of one.
    pub fn alarms(&self) -> impl Iterator<Item = (usize, Measure, Option<usize>)> {
        let of_reads = |measure| matches!(measure, Measure::ReadsPerLogin | Measure::RouteVolume);
        let out = self.series.iter().filter(move |series| of_reads(series.measure) && series.told.lasts());
        out.map(|series| (series.service, series.measure, series.route))
    }

    /// Accounts and clients of the newest logins that a measure counts.
    pub fn newest(&self, service: usize, measure: Measure) -> (&[AccountHash], &[IpAddr]) {
        let Some([tried, refused]) = self.newest.get(service) else { return (&[], &[]) };
        match measure {
            Measure::Logins => (tried.accounts(), tried.clients()),
            Measure::LoginFailures => (refused.accounts(), refused.clients()),
            _ => (&[], &[]),
        }
    }

    /// The season of a measure, for a snapshot.
    pub fn season(&self, measure: Measure, service: usize, route: Option<usize>) -> Option<&Season> {
        let of = |series: &&Series| (series.measure, series.service, series.route) == (measure, service, route);
        self.series.iter().find(of).map(|series| &series.season)
    }

    /// From a snapshot.
    pub fn restore(&mut self, measure: Measure, service: usize, route: Option<usize>, season: &Season) {
        let of = |series: &&mut Series| (series.measure, series.service, series.route) == (measure, service, route);
        if let Some(series) = self.series.iter_mut().find(of).filter(|_| season.is_sound()) {
            series.season = season.clone();
        }
    }
}

impl Series {
    /// What the hour came to so far; ratios and shares only when it is over.
    #[expect(clippy::cast_precision_loss, reason = "on a scale on which that is nothing")]
    fn value(&self, counts: Counts, reads: u32, over: bool) -> Option<Value> {
        let Counts { reads: all, logins, failures } = counts;
        let tried = logins.saturating_add(failures);
        let count = |count: u32| Value { scaled: 2.0 * (count as f32).sqrt(), floor: 1.0, requests: count };
        match self.measure {
            Measure::RouteVolume => Some(count(reads)),
            Measure::Logins => Some(count(tried)),
            Measure::ReadsPerLogin if over => {
                let scaled = (all as f32 / (logins as f32 + 0.5)).sqrt();
                let chance = 0.5 * scaled * (1.0 / (all as f32 + 1.0) + 1.0 / (logins as f32 + 0.5)).sqrt();
                Some(Value { scaled, floor: chance, requests: all })
            }
            Measure::LoginFailures if over => {
                let share = (failures as f32 + 0.5) / (tried as f32 + 1.0);
                let chance = (share * (1.0 - share) / (tried as f32 + 1.0)).sqrt();
                Some(Value { scaled: share, floor: chance.max(0.01), requests: tried })
            }
            _ => None,
        }
    }

    /// On the scale of people.
    fn shown(&self, scaled: f32) -> f32 {
        match self.measure {
            Measure::RouteVolume | Measure::Logins => scaled * scaled / 4.0,
            Measure::ReadsPerLogin => scaled * scaled * 1_000.0,
            _ => scaled * 1_000.0,
        }
    }

    fn look(&mut self, now: Tenths, hour: u64, value: &Value, over: bool, tell: &mut impl FnMut(Drift)) {
        if let Some(expected) = self.season.expected(hour, value.floor) {
            let score = expected.score(value.scaled).clamp(-MOST, MOST);
            let sum = (self.sum + score - SLACK).clamp(0.0, 100.0);
            if sum >= ALARM {
                if let Some(since) = self.told.tell(now, sum) {
                    tell(Drift {
                        measure: self.measure,
                        service: self.service,
                        route: self.route,
                        since,
                        observed: self.shown(value.scaled),
                        expected: self.shown(expected.level.max(0.0)),
                        sum,
                        requests: value.requests,
                    });
                }
            } else if over {
                self.told.end();
            }
            if over {
                // What is over is over: the sum falls by no less than an eighth an hour, and at once below the season.
                self.sum = if score < SLACK { sum.min(self.sum * 0.5) } else { sum };
            }
        }
        if over {
            self.season.learn(hour, value.scaled, value.floor);
        }
    }
}
