//! Cloudflare API Shield, for each session of each endpoint: Volumetric Abuse Detection (requests in ten minutes), and the
//! label for BOLA enumeration (distinct accounts).
//!
//! Sources: <https://developers.cloudflare.com/api-shield/security/volumetric-abuse-detection/> (per endpoint and session,
//! not per address; percentiles p50, p90 and p99 of each session's highest number of requests in ten minutes; learnt over
//! 24 hours and recalculated through the day; at least 50 sessions of the endpoint in 24 hours) and
//! <https://developers.cloudflare.com/api-shield/security/bola-vulnerability-detection/> (sessions that successfully request
//! many more distinct values than usual at the endpoint; at least 10,000 sessions).
//!
//! Restated: more than the 99th percentile of the sessions first seen in the last 24 hours, recalculated every ten minutes,
//! once 24 hours were seen. Of both, the figure really used is not published: the recommendation that Cloudflare prefers to
//! a percentile, and how much is "significantly more". A higher one is quieter and never faster. The ten minutes begin with
//! a session's first request. A session is a credential, as `Authorization` or a session cookie identifies it there; it is
//! reported once. Left out: parameter pollution.

use std::collections::{HashMap, VecDeque};

use sensor::observation::RouteClass;

use super::table::Table;
use super::{ACCOUNTS_MAX, Baseline, Fired, Request, SECOND};

const HOUR_NS: u64 = 3600 * SECOND;
/// Ten minutes: of counting, and between two calculations.
const PERIOD_NS: u64 = 600 * SECOND;
/// Hours that are learnt from.
const HOURS: u64 = 24;
/// Counts told apart; higher ones are as this one.
const COUNTS: usize = 1024;
/// Endpoints that are learnt.
const ENDPOINTS_MAX: usize = 256;

/// What is counted of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// The most requests in ten minutes.
    Requests,
    /// Distinct accounts that were returned.
    Accounts,
}

/// The detection.
#[derive(Debug)]
pub struct Sessions {
    measure: Measure,
    /// Sessions below which nothing is recommended for an endpoint.
    least: u64,
    first_ns: Option<u64>,
    endpoints: HashMap<u16, Endpoint>,
    table: Table<(u16, u128), Session>,
}

/// What was learnt of an endpoint.
#[derive(Debug, Default)]
struct Endpoint {
    /// By the hour in which sessions were first seen, oldest first.
    hours: VecDeque<Hour>,
    /// More than this is too much.
    threshold: Option<usize>,
    calculated_ns: u64,
}

/// Sessions by their highest count.
#[derive(Debug)]
struct Hour {
    hour: u64,
    sessions: Vec<u32>,
}

#[derive(Debug, Default)]
struct Session {
    /// The hour in which it was first seen.
    hour: u64,
    /// Its highest count so far.
    most: usize,
    /// Begin of its ten minutes, and requests in them.
    begin_ns: u64,
    count: usize,
    accounts: Vec<u64>,
    reported: bool,
}

impl Sessions {
    /// Volumetric Abuse Detection; keeps `kept` sessions.
    pub fn volumetric(kept: usize) -> Self {
        Self::new(Measure::Requests, 50, kept)
    }

    /// The label for BOLA enumeration; keeps `kept` sessions.
    pub fn enumeration(kept: usize) -> Self {
        Self::new(Measure::Accounts, 10_000, kept)
    }

    fn new(measure: Measure, least: u64, kept: usize) -> Self {
        Self { measure, least, first_ns: None, endpoints: HashMap::new(), table: Table::new(kept) }
    }

    /// What `request` makes the count of `session`, and whether it counted at all.
    fn count(measure: Measure, session: &mut Session, request: &Request) -> Option<usize> {
        if let Some(account) = request.account.filter(|_| request.returned)
            && session.accounts.len() < ACCOUNTS_MAX
            && !session.accounts.contains(&account)
        {
            session.accounts.push(account);
        }
        match measure {
            Measure::Accounts => request.returned.then_some(session.accounts.len()),
            Measure::Requests => {
                if session.count == 0 || request.at_ns.saturating_sub(session.begin_ns) >= PERIOD_NS {
                    (session.begin_ns, session.count) = (request.at_ns, 0);
                }
                session.count += 1;
                Some(session.count)
            }
        }
    }
}

impl Endpoint {
    /// It is `hour` now; sessions first seen more than a day before are forgotten.
    fn reach(&mut self, hour: u64) {
        while self.hours.front().is_some_and(|oldest| oldest.hour + HOURS < hour) {
            self.hours.pop_front();
        }
        if self.hours.back().is_none_or(|latest| latest.hour < hour) {
            self.hours.push_back(Hour { hour, sessions: vec![0; COUNTS] });
        }
    }

    /// A session of `hour` had `before` at most (0: it is new) and has `now`.
    fn learn(&mut self, hour: u64, before: usize, now: usize) {
        let Some(hour) = self.hours.iter_mut().rev().find(|known| known.hour == hour) else { return };
        let slot = |count: usize| count.min(COUNTS - 1);
        if before > 0
            && let Some(sessions) = hour.sessions.get_mut(slot(before))
        {
            *sessions = sessions.saturating_sub(1);
        }
        if let Some(sessions) = hour.sessions.get_mut(slot(now)) {
            *sessions += 1;
        }
    }

    /// The smallest count that 99 of 100 sessions do not exceed; `None` with fewer than `least` sessions.
    fn percentile(&self, least: u64) -> Option<usize> {
        let at = |count: usize| -> u64 {
            self.hours.iter().filter_map(|hour| hour.sessions.get(count)).map(|sessions| u64::from(*sessions)).sum()
        };
        let all: u64 = (0..COUNTS).map(at).sum();
        if all < least.max(1) {
            return None;
        }
        let mut below = 0;
        (0..COUNTS).find(|count| {
            below += at(*count);
            below * 100 >= all * 99
        })
    }
}

impl Baseline for Sessions {
    fn name(&self) -> &str {
        match self.measure {
            Measure::Requests => "Cloudflare volumetric, p99 per session",
            Measure::Accounts => "Cloudflare BOLA enumeration, p99 per session",
        }
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        let (route, credential) = (request.route?, request.session?);
        if self.measure == Measure::Accounts && request.class != RouteClass::AccountRead {
            return None;
        }
        let first_ns = *self.first_ns.get_or_insert(request.at_ns);
        if self.endpoints.len() >= ENDPOINTS_MAX && !self.endpoints.contains_key(&route) {
            return None;
        }
        let endpoint = self.endpoints.entry(route).or_default();
        let hour = request.at_ns / HOUR_NS;
        endpoint.reach(hour);
        let learnt = request.at_ns.saturating_sub(first_ns) >= HOURS * HOUR_NS;
        if learnt && request.at_ns.saturating_sub(endpoint.calculated_ns) >= PERIOD_NS {
            endpoint.threshold = endpoint.percentile(self.least);
            endpoint.calculated_ns = request.at_ns;
        }
        let session = self.table.at((route, credential));
        let count = Self::count(self.measure, session, request)?;
        if session.most == 0 {
            session.hour = hour;
        }
        if count > session.most {
            endpoint.learn(session.hour, session.most, count);
            session.most = count;
        }
        if session.reported || count <= endpoint.threshold? {
            return None;
        }
        session.reported = true;
        Some(Fired { at_ns: request.at_ns, client: request.client, accounts: session.accounts.clone() })
    }

    fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    /// A day in which `sessions` each read their own account, one in fifty five times within a minute and the others once.
    fn day(sessions: u32) -> impl Iterator<Item = Request> {
        let at = move |session: u32| 10.0 + f64::from(session) * 86_400.0 / f64::from(sessions);
        (0..sessions).flat_map(move |session| {
            let reads = if session % 50 == 0 { 5 } else { 1 };
            (0..reads).map(move |n| read(address(session), at(session) + f64::from(n), session, session))
        })
    }

    #[test]
    fn more_than_the_99th_percentile_of_a_day_s_sessions() {
        let mut detection = Sessions::volumetric(100_000);
        assert_eq!(times(&mut detection, day(20_000)), NEVER);
        // A 50th has five, so 99 % have at most five: the sixth within ten minutes is one too many.
        let six = (0..6).map(|n| read(address(7), 90_000.0 + f64::from(n) * 100.0, 1_000_000, 17));
        assert_eq!(times(&mut detection, six), [90_500.0]);
        let slow = (0..60).map(|n| read(address(7), 91_000.0 + f64::from(n) * 150.0, 1_000_001, 17));
        assert_eq!(times(&mut detection, slow), NEVER);
    }

    #[test]
    fn nothing_is_said_in_the_first_day_or_of_fewer_sessions_than_it_takes() {
        let flood = |from: f64| (0..500).map(move |n| read(address(7), from + f64::from(n) / 10.0, 1_000_000, n));
        let mut detection = Sessions::volumetric(100_000);
        assert_eq!(
            times(&mut detection, day(20_000).filter(|one| one.at_ns < 43_200 * SECOND).chain(flood(43_200.0))),
            NEVER
        );
        for (sessions, least, reports) in [(49, 50, 0), (50, 50, 1), (9_999, 10_000, 0), (10_000, 10_000, 1)] {
            let measure = if least == 50 { Measure::Requests } else { Measure::Accounts };
            let mut detection = Sessions::new(measure, least, 100_000);
            let fired = times(&mut detection, day(sessions).chain(flood(86_500.0)));
            assert_eq!(fired.len(), reports, "{sessions}");
        }
        assert_eq!((Sessions::volumetric(1).least, Sessions::enumeration(1).least), (50, 10_000));
    }

    #[test]
    fn a_session_that_reads_two_accounts_where_all_read_their_own() {
        let mut detection = Sessions::enumeration(100_000);
        assert_eq!(times(&mut detection, day(12_000)), NEVER);
        let walk = (0..100).map(|n| read(address(7), 90_000.0 + f64::from(n), 1_000_000, n));
        let fired: Vec<Fired> = walk.filter_map(|request| detection.see(&request)).collect();
        assert_eq!(fired, [Fired { at_ns: 90_001 * SECOND, client: address(7), accounts: vec![1, 2] }]);
        // What is refused was not got.
        let refused =
            (0..100).map(|n| Request { returned: false, status: 404, ..read(address(7), 91_000.0, 1_000_001, n) });
        assert_eq!(times(&mut detection, refused), NEVER);
    }

    #[test]
    fn one_token_for_each_account_is_not_seen() {
        let (mut requests, mut accounts) = (Sessions::volumetric(100_000), Sessions::enumeration(100_000));
        assert_eq!(times(&mut requests, day(12_000)), NEVER);
        assert_eq!(times(&mut accounts, day(12_000)), NEVER);
        // Four views of each of 20,000 accounts, ten a second.
        let forged =
            |n: u32| read(address(n % 2313), 90_000.0 + f64::from(n) / 10.0, 1_000_000 + n / 4, 1_000_000 + n / 4);
        assert_eq!(times(&mut requests, (0..80_000).map(forged)), NEVER);
        assert_eq!(times(&mut accounts, (0..80_000).map(forged)), NEVER);
    }

    #[test]
    fn sessions_of_the_day_before_are_forgotten() {
        let mut endpoint = Endpoint::default();
        for hour in 0..60 {
            endpoint.reach(hour);
            for _ in 0..100 {
                endpoint.learn(hour, 0, if hour < 30 { 9 } else { 2 });
            }
        }
        assert_eq!(endpoint.percentile(50), Some(2));
        assert_eq!(endpoint.hours.len(), 25);
    }
}
