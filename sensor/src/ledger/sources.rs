//! Sources of issuances that fall silent: a gap whose size is known before anybody says that something was lost.
//!
//! **In**: every exchange of an issuing route that handed something out. **Out**: whether a credential that is in no ledger
//! may have been issued by a source that fell silent, for so many credentials as that source would have handed out.
//!
//! A deploy moves the login to a path that the sensor does not know: from then on every member's new token is one that no
//! login was seen issuing. What tells that from an attack is what *stops*. Members no longer log in where they did, all of
//! them at once, while forged tokens leave logins as they are. So the doubt cannot be bought with forged tokens, nor
//! with logins (a flood and its end are no silence while members log in).
//!
//! **Method.** A source's rate is the least of its means over ten minutes, one to two hours and a day, as they were at its
//! last success. It is silent when [`SILENT`] successes were expected since, and not one came. By chance that is so for a
//! share e⁻⁷ = 0.1 % of the time, which nobody outside can tell from any other; and before it is so, about as many
//! unknown credentials were judged as without it: fewer than any rule asks for.
//!
//! Only sources whose successes come by chance count. One that pauses every day (an office goes home) would
//! excuse forgeries every night: a source is *steady* when of the last days at least one had no silence of
//! [`STEADY`] expected successes, and it was watched for most of a day. (One such day is enough, so that an outage of the
//! login service does not make a source unsteady.)
//!
//! **Budget.** As many credentials as the busiest time before would have brought in the time of silence
//! ([`Rates`]), each once. When a long silence ends, what is left of it becomes a gap like any other; a short one was chance
//! and leaves nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rates::{Busiest, Rates, SECOND_NS};
use super::verdict::Leeway;
use crate::observation::{Instant, ServiceId};

/// Successes that must have been expected without one. Rules ask for ten accounts.
const SILENT: f64 = 7.0;
/// A silence of so many expected successes does not come by chance (2 · 10⁻⁹ after each success).
const STEADY: f64 = 20.0;
/// Successes before a source's pace is known well enough to say how long a silence is. It counts as watched from then on.
const PACED: u64 = 20;
/// Successes, and the time, before a source is known. What pauses every day for more than four hours has paused by then.
const KNOWN: u64 = 100;
const KNOWN_NS: u64 = 20 * HOUR_NS;
const HOUR_NS: u64 = 3600 * SECOND_NS;
const DAY_NS: u64 = 24 * HOUR_NS;
/// Days of which the calmest speaks for a source.
const DAYS: usize = 3;

/// The sources of all services.
#[derive(Debug)]
pub struct Sources {
    /// By service and route.
    services: Vec<Vec<Option<Box<Source>>>>,
    leeway: Leeway,
}

/// An issuing route that handed something out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    rates: Rates,
    first: Instant,
    last: Instant,
    successes: u64,
    credentials: u64,
    /// Longest silence of each of the last days, in expected successes, the newest first; how many there are.
    days: [f64; DAYS],
    whole_days: usize,
    /// Longest silence of this day, and the day's number since the first success.
    today: f64,
    day: u64,
    /// Credentials excused in the present silence.
    given: u64,
}

/// A silence that is over, and what is left of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    pub from: Instant,
    pub to: Instant,
    pub left: u64,
}

impl Sources {
    /// None known yet.
    pub fn new(services: usize, leeway: Leeway) -> Self {
        Self { services: vec![Vec::new(); services], leeway }
    }

    /// A route handed `credentials` out. Gives the silence that this ends, if it was one.
    pub fn spoke(&mut self, service: ServiceId, route: usize, credentials: u64, at: Instant) -> Option<Over> {
        let routes = self.services.get_mut(usize::from(service.0))?;
        if routes.len() <= route {
            routes.resize(route + 1, None);
        }
        let place = routes.get_mut(route)?;
        let Some(source) = place else {
            let mut source = Box::new(Source::new(at));
            source.count(credentials, at);
            *place = Some(source);
            return None;
        };
        let over = source.over(at);
        source.turn(at);
        source.count(credentials, at);
        over
    }

    /// Whether a source of `service` is silent that may have issued a credential presented at `at`, and first at `first`
    /// (monotonic ns), issued at `iat` if it says so. With `spends` it takes one from that silence's budget.
    pub fn excuses(&mut self, service: ServiceId, iat: Option<i64>, first: u64, at: Instant, spends: bool) -> bool {
        let Some(routes) = self.services.get_mut(usize::from(service.0)) else { return false };
        let leeway = self.leeway;
        for source in routes.iter_mut().flatten() {
            let issued = match iat {
                Some(iat) => {
                    let from = super::seconds(source.last).saturating_sub(leeway.unix);
                    (from..=super::seconds(at).saturating_add(leeway.unix)).contains(&iat)
                }
                None => first >= source.last.monotonic_ns.saturating_sub(leeway.monotonic),
            };
            if issued && source.silent(at) && source.budget(at) > source.given {
                source.given += u64::from(spends);
                return true;
            }
        }
        false
    }
}

impl Sources {
    /// Most credentials that the sources of `service` hand out in `length` from `at` on, by what they did before; `None`
    /// before they were watched for an hour.
    pub fn most(&mut self, service: ServiceId, at: Instant, length: Duration) -> Option<u64> {
        let routes = self.services.get_mut(usize::from(service.0))?;
        let known = at.monotonic_ns.checked_sub(HOUR_NS)?;
        let watched = routes.iter().flatten().any(|source| source.first.monotonic_ns <= known);
        let most = routes.iter_mut().flatten().map(|source| source.most(at, length));
        watched.then(|| most.fold(0, u64::saturating_add))
    }
}

impl Sources {
    /// The sources of `service` by their routes, to be written down.
    pub fn of(&self, service: ServiceId) -> impl Iterator<Item = (usize, &Source)> {
        let routes = self.services.get(usize::from(service.0)).map_or(&[][..], Vec::as_slice);
        routes.iter().enumerate().filter_map(|(route, source)| Some((route, source.as_deref()?)))
    }

    /// What an earlier run knew of a source at `written`. The time without sight, up to `started`, is no silence, unless it
    /// fell into one.
    pub fn restore(
        &mut self,
        (service, route): (ServiceId, usize),
        source: &Source,
        written: Instant,
        started: Instant,
    ) {
        let Some(routes) = self.services.get_mut(usize::from(service.0)) else { return };
        if routes.len() <= route {
            routes.resize(route + 1, None);
        }
        if let Some(place) = routes.get_mut(route) {
            let mut source = source.clone();
            if !source.silent(written) {
                source.last = started;
            }
            *place = Some(Box::new(source));
        }
    }
}

impl Source {
    fn new(at: Instant) -> Self {
        Self {
            rates: Rates::default(),
            first: at,
            last: at,
            successes: 0,
            credentials: 0,
            days: [0.0; DAYS],
            whole_days: 0,
            today: 0.0,
            day: 0,
            given: 0,
        }
    }

    fn count(&mut self, credentials: u64, at: Instant) {
        self.rates.count(at.monotonic_ns);
        self.successes += 1;
        self.credentials += credentials;
        self.given = 0;
        if at.monotonic_ns >= self.last.monotonic_ns {
            self.last = at;
        }
    }

    /// Takes the silence that ends at `at` into its day.
    fn turn(&mut self, at: Instant) {
        if self.successes < PACED {
            self.first = at;
            return;
        }
        let silence = self.expected(at);
        let day = at.monotonic_ns.saturating_sub(self.first.monotonic_ns) / DAY_NS;
        if day > self.day {
            // A silence over midnight belongs to both days; days without a success tell nothing.
            self.days.rotate_right(1);
            if let Some(newest) = self.days.first_mut() {
                *newest = self.today.max(silence);
            }
            self.whole_days = (self.whole_days + 1).min(DAYS);
            (self.day, self.today) = (day, 0.0);
        }
        self.today = self.today.max(silence);
    }

    /// Successes to be expected since the last one.
    fn expected(&self, at: Instant) -> f64 {
        let silent = at.monotonic_ns.saturating_sub(self.last.monotonic_ns);
        self.rates.least_mean() * seconds(silent)
    }

    fn silent(&self, at: Instant) -> bool {
        self.steady() && self.expected(at) >= SILENT
    }

    fn steady(&self) -> bool {
        let watched = self.last.monotonic_ns.saturating_sub(self.first.monotonic_ns);
        let first_day = (self.whole_days == 0).then_some(self.today);
        let days = self.days.iter().take(self.whole_days).chain(&first_day);
        self.successes >= KNOWN
            && watched >= KNOWN_NS
            && days.fold(f64::INFINITY, |least, day| least.min(*day)) < STEADY
    }

    /// Credentials that it would have handed out since its last success, at most.
    fn budget(&mut self, at: Instant) -> u64 {
        let silent = Duration::from_nanos(at.monotonic_ns.saturating_sub(self.last.monotonic_ns));
        self.most(self.last, silent)
    }

    /// Most credentials in `length` from `at` on, by the busiest times before; behind an outage that is the hour before it.
    fn most(&mut self, at: Instant, length: Duration) -> u64 {
        let busiest = self.rates.busiest(at.monotonic_ns);
        let (second, spell) = (busiest.hour.div_ceil(3600), busiest.hour.div_ceil(360));
        let busiest = Busiest { second: busiest.second.max(second), spell: busiest.spell.max(spell), ..busiest };
        let successes = busiest.bound(length);
        successes.saturating_mul(self.credentials.div_ceil(self.successes.max(1)))
    }

    /// The silence that a success at `at` ends, when it was none by chance.
    fn over(&mut self, at: Instant) -> Option<Over> {
        if !self.silent(at) || self.expected(at) < STEADY {
            return None;
        }
        let left = self.budget(at).saturating_sub(self.given);
        Some(Over { from: self.last, to: at, left })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceId = ServiceId(0);
    const HOUR: f64 = 3600.0;

    fn at(seconds: f64) -> Instant {
        let ns = super::super::nanos(Duration::from_secs_f64(seconds));
        Instant { monotonic_ns: ns, unix_ns: 1_800_000_000_000_000_000 + ns }
    }

    /// One service, whose route 0 succeeds at random times.
    struct Rig {
        sources: Sources,
        word: u64,
        next: f64,
    }

    impl Rig {
        fn new() -> Self {
            let sources = Sources::new(1, Duration::from_mins(2).into());
            Self { sources, word: 88_172_645_463_325_252, next: 0.0 }
        }

        fn spoke(&mut self, now: f64) -> Option<Over> {
            self.sources.spoke(SERVICE, 0, 2, at(now))
        }

        /// Successes up to second `to`, `rate` a second by the time.
        fn run(&mut self, from: f64, to: f64, rate: impl Fn(f64) -> f64) {
            self.next = self.next.max(from);
            while self.next < to {
                self.spoke(self.next);
                self.word ^= self.word << 13;
                self.word ^= self.word >> 7;
                self.word ^= self.word << 17;
                let unit = (f64::from(u32::try_from(self.word >> 32).unwrap()) + 0.5) / 4_294_967_296.0;
                self.next += -unit.ln() / rate(self.next).max(1e-6);
            }
        }

        /// Unknown credentials, presented one every `every` seconds from `from` to `to`: how many are excused.
        fn excused(&mut self, from: f64, to: f64, every: f64) -> u64 {
            let (mut given, mut now) = (0, from);
            while now < to {
                let iat = super::super::seconds(at(now));
                given += u64::from(self.sources.excuses(SERVICE, Some(iat), 0, at(now), true));
                now += every;
            }
            given
        }
    }

    /// The day's course of a service with people in it.
    fn day(now: f64) -> f64 {
        0.5 * (1.0 - 0.6 * (now / 86_400.0 * std::f64::consts::TAU).cos())
    }

    #[test]
    fn a_source_that_falls_silent_excuses_what_it_would_have_issued() {
        let mut rig = Rig::new();
        let moved = 30.0 * HOUR;
        rig.run(0.0, moved, day);
        // Members' new tokens: a credential for each login that goes elsewhere.
        let logins = 0.5 * (1.0 - 0.6 * (30.0 / 24.0 * std::f64::consts::TAU).cos());
        assert!(rig.excused(moved, moved + 600.0, 1.0 / logins) > 270, "all but the first of 300");
        // An hour of twenty forged tokens a second gets no more than the busiest times would have brought.
        let more = rig.excused(moved + 600.0, moved + 4200.0, 0.05);
        assert!((2_000..11_000).contains(&more), "{more}");
    }

    /// Two logins within a second say nothing of the pace, and a minute without one after them is no long silence.
    #[test]
    fn a_slow_source_is_known_on_its_first_day() {
        for hurried in [false, true] {
            let mut rig = Rig::new();
            if hurried {
                for n in 0..5 {
                    assert_eq!(rig.spoke(f64::from(n) / 10.0), None);
                }
            }
            rig.run(60.0, 26.0 * HOUR, |_| 0.03);
            assert!(rig.excused(26.0 * HOUR, 27.0 * HOUR, 30.0) > 90, "{hurried}");
        }
    }

    #[test]
    fn nothing_is_excused_while_logins_go_on() {
        let mut rig = Rig::new();
        rig.run(0.0, 26.0 * HOUR, day);
        let mut given = 0;
        for n in 0..36_000 {
            let now = 26.0 * HOUR + f64::from(n) * 0.1;
            rig.run(now, now + 0.1, day);
            given += rig.excused(now, now + 0.1, 1.0);
        }
        assert!(given < 120, "by chance, for about a thousandth of the time: {given} of 36,000");
    }

    /// Staff who log in within minutes at nine and again after each hour, and go home at six.
    #[test]
    fn what_pauses_every_day_excuses_nothing() {
        let mut rig = Rig::new();
        for hour in 0..24 * 4 {
            let from = f64::from(hour) * HOUR;
            if (9..18).contains(&(hour % 24)) {
                rig.run(from, from + 180.0, |_| 0.5);
            }
            assert_eq!(rig.excused(from + 300.0, from + HOUR, 60.0), 0, "hour {hour}");
        }
    }

    #[test]
    fn the_end_of_a_flood_or_of_a_storm_is_no_silence() {
        let mut rig = Rig::new();
        rig.run(0.0, 26.0 * HOUR, |_| 0.5);
        rig.run(26.0 * HOUR, 26.5 * HOUR, |_| 30.0);
        let mut given = 0;
        for n in 0..3_600 {
            let now = 26.5 * HOUR + f64::from(n);
            rig.run(now, now + 1.0, |_| 0.5);
            given += rig.excused(now, now + 1.0, 0.1);
        }
        // Half an hour of thirty a second raises the mean of the day to twice the usual.
        assert!(given < 1_500, "{given} of 36,000");
    }

    #[test]
    fn a_silence_that_ends_is_a_gap_and_an_outage_spoils_nothing() {
        let mut rig = Rig::new();
        rig.run(0.0, 30.0 * HOUR, |_| 0.5);
        assert!(rig.excused(30.0 * HOUR, 30.2 * HOUR, 10.0) > 60);
        let over = rig.spoke(30.2 * HOUR).unwrap();
        assert!((600..2_000).contains(&over.left) && over.to == at(30.2 * HOUR), "{over:?}");
        assert!(rig.spoke(30.2 * HOUR + 1.0).is_none());
        rig.run(30.2 * HOUR + 1.0, 50.0 * HOUR, |_| 0.5);
        assert!(rig.excused(50.0 * HOUR, 50.2 * HOUR, 10.0) > 60);
    }

    /// What is written down, read again by the next run at `started`.
    fn restarted(before: &Sources, written: Instant, started: Instant) -> Rig {
        let mut rig = Rig::new();
        for (route, source) in before.of(SERVICE) {
            let text = serde_json::to_string(source).unwrap();
            let source: Source = serde_json::from_str(&text).unwrap();
            rig.sources.restore((SERVICE, route), &source, written, started);
        }
        rig
    }

    #[test]
    fn a_source_is_known_again_after_a_restart() {
        let mut rig = Rig::new();
        let (killed, back) = (30.0 * HOUR, 30.0 * HOUR + 60.0);
        rig.run(0.0, killed, |_| 0.5);
        let mut after = restarted(&rig.sources, at(killed), at(back));
        assert_eq!(after.excused(back, back + 10.0, 1.0), 0, "the time without sight is a gap, not a silence");
        assert!(after.excused(back + 10.0, back + 610.0, 2.0) > 270);
        // Killed in the middle of a silence: what was handed out before the kill is excused, too, and nothing twice.
        assert_eq!(rig.excused(killed + 300.0, killed + 600.0, 2.0), 150);
        let mut after = restarted(&rig.sources, at(killed + 600.0), at(killed + 660.0));
        let iat = super::super::seconds(at(killed + 400.0));
        assert!(after.sources.excuses(SERVICE, Some(iat), 0, at(killed + 670.0), false));
        let given = after.sources.of(SERVICE).map(|(_, source)| source.given).sum::<u64>();
        assert_eq!(given, 150);
        let nobody = Sources::new(1, Duration::from_mins(2).into());
        assert_eq!(restarted(&nobody, at(killed), at(back)).excused(back, back + 610.0, 2.0), 0);
    }

    #[test]
    fn older_and_earlier_credentials_are_not_excused() {
        let mut rig = Rig::new();
        rig.run(0.0, 25.0 * HOUR, |_| 0.5);
        let now = at(25.0 * HOUR + 600.0);
        let iat = super::super::seconds(now);
        assert!(!rig.sources.excuses(SERVICE, Some(iat - 3600), 0, now, true));
        assert!(!rig.sources.excuses(SERVICE, Some(iat + 3600), 0, now, true));
        assert!(!rig.sources.excuses(SERVICE, None, at(24.0 * HOUR).monotonic_ns, now, true), "presented before");
        assert!(rig.sources.excuses(SERVICE, None, now.monotonic_ns, now, true));
        assert!(!rig.sources.excuses(ServiceId(3), None, now.monotonic_ns, now, true));
    }

    #[test]
    fn a_source_of_which_little_is_known_excuses_nothing() {
        let mut rig = Rig::new();
        rig.run(0.0, 10.0 * HOUR, |_| 0.5);
        assert_eq!(rig.excused(10.0 * HOUR, 11.0 * HOUR, 10.0), 0);
    }

    #[test]
    fn a_time_without_sight_is_bounded_by_the_busiest_before_it() {
        let mut rig = Rig::new();
        rig.run(0.0, 1800.0, |_| 0.5);
        assert_eq!(rig.sources.most(SERVICE, at(1800.0), Duration::from_mins(5)), None, "too little is known");
        rig.run(1800.0, 2.0 * HOUR, |_| 0.5);
        let most = rig.sources.most(SERVICE, at(2.0 * HOUR), Duration::from_mins(5)).unwrap();
        assert!((300..1_200).contains(&most), "{most}: a success every two seconds, two credentials each");
        assert_eq!(rig.sources.most(ServiceId(9), at(2.0 * HOUR), Duration::from_mins(5)), None);
    }
}
