//! Issuance sources that fall silent while reads go on: a deploy moved the login path, or the issuer is down.
//!
//! **In**: logins and refreshes with whether they issued anything, and how many account reads their service has. **Out**:
//! for a source without a success, how many would have been expected since the last one.
//!
//! **Method.** A source's rate is the least of its means over ten minutes, an hour and a day, as they were at its last
//! success; what was expected since is that rate times the time, or the day's successes for each read times the reads
//! since, whichever is less: nobody reads when the service is down, and a burst of reads without logins takes its time. With
//! *n* expected, silence by chance has a probability of e⁻ⁿ after each success; where the true rate has fallen to two
//! thirds within the ten minutes, e^(−2n/3). At 20 expected that is 2 · 10⁻⁹ and 2 · 10⁻⁶.
//!
//! Sources that come in bursts are no Poisson process (an office logs in at nine): a source is known after 20 hours, when
//! whatever pauses every day for more than four hours has paused once, and a silence counts only when it is twice as long as the longest of the last weeks.
//!
//! **What it does not see.** A source that never had a hundred successes, or is younger than 20 hours; one of several paths of
//! a source that is one route.

use serde::{Deserialize, Serialize};

use super::routes::Routes;
use super::time::{Fading, Tenths, seconds};
use super::told::Told;
use crate::observation::{Observation, Outcome, RouteClass};

/// Half-lives of the means, in seconds.
const HALVES_S: [f32; 3] = [600.0, 3_600.0, 86_400.0];
/// Successes and seconds before a source is known.
const KNOWN: u32 = 100;
const KNOWN_S: f32 = 72_000.0;
/// How many times as long as the longest silence of late one must be, and the half-life of that, in seconds.
const LONGER: f32 = 2.0;
const LONGEST_HALF_S: f32 = 14.0 * 86_400.0;
/// Successes that must have been expected, and the least time without one, in seconds.
const EXPECTED: f32 = 20.0;
const LEAST_S: f32 = 60.0;
/// Sources are looked at this often.
const PERIOD: Tenths = 50;

/// All sources.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Silence {
    /// By number of the route.
    sources: Vec<Option<Source>>,
    /// Account reads by service, since the start, and fading by the day.
    reads: Vec<(u64, Fading)>,
    next: Tenths,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Source {
    service: usize,
    first: Option<Tenths>,
    last: Tenths,
    successes: u32,
    means: [Fading; 3],
    /// The longest time between two successes of late, in seconds.
    longest: f32,
    /// Requests, and account reads of the service, since the last success.
    tried: u64,
    reads_then: u64,
    told: Told,
}

/// A source that is silent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Silent {
    /// Number of its route.
    pub route: usize,
    pub since: Tenths,
    /// Successes expected since.
    pub expected: f32,
    /// Requests to it since.
    pub tried: u64,
}

impl Silence {
    /// Of the login and refresh routes.
    pub fn new(routes: &Routes) -> Self {
        let source = |number| {
            let route = routes.get(number)?;
            let issues = matches!(route.class, RouteClass::Login | RouteClass::Refresh);
            issues.then(|| Source { service: usize::from(route.service.0), ..Source::default() })
        };
        Self {
            sources: (0..routes.len()).map(source).collect(),
            reads: vec![(0, Fading::default()); routes.services()],
            next: 0,
        }
    }

    /// Takes one observation of the route numbered `route`.
    #[inline]
    pub fn observe(&mut self, o: &Observation, route: usize, now: Tenths) {
        let Some((reads, mean)) = self.reads.get_mut(usize::from(o.service.0)) else { return };
        if o.class == RouteClass::AccountRead {
            if o.outcome == Outcome::Read {
                *reads += 1;
                mean.add(1.0, now, HALVES_S[2]);
            }
            return;
        }
        let Some(Some(source)) = self.sources.get_mut(route) else { return };
        if o.issued == 0 && o.outcome != Outcome::Read {
            source.tried += 1;
            return;
        }
        (source.tried, source.reads_then) = (0, *reads);
        if source.first.is_some() {
            let gap = seconds(source.last, now);
            source.longest = gap.max(source.longest * (-gap / LONGEST_HALF_S).exp2());
        }
        source.first.get_or_insert(now);
        source.last = now;
        source.successes = source.successes.saturating_add(1);
        for (mean, half) in source.means.iter_mut().zip(HALVES_S) {
            mean.add(1.0, now, half);
        }
        source.told.end();
    }

    /// True while a source of `service` is told to be silent.
    pub fn lasts(&self, service: usize) -> bool {
        self.sources.iter().flatten().any(|source| source.service == service && source.told.lasts())
    }

    /// Sources that are silent, as they are to be told.
    pub fn tick(&mut self, now: Tenths, mut tell: impl FnMut(Silent)) {
        if now < self.next {
            return;
        }
        self.next = now.saturating_add(PERIOD);
        for (route, source) in self.sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            let Some((reads, mean)) = self.reads.get(source.service) else { continue };
            let expected = source.expected(*reads, mean.at(now, HALVES_S[2]), now);
            if expected < EXPECTED {
                continue;
            }
            if source.told.tell(now, expected).is_some() {
                tell(Silent { route, since: source.last, expected, tried: source.tried });
            }
        }
    }
}

impl Source {
    /// Successes to be expected since the last one; `reads` of the service so far, `mean` of them fading by the day.
    fn expected(&self, reads: u64, mean: f32, now: Tenths) -> f32 {
        let Some(first) = self.first else { return 0.0 };
        let watched = seconds(first, self.last);
        let silent = seconds(self.last, now);
        if self.successes < KNOWN || watched < KNOWN_S || silent < LEAST_S.max(LONGER * self.longest) {
            return 0.0;
        }
        let rates = self.means.iter().zip(HALVES_S).map(|(fading, half)| {
            let window = (half * Fading::WINDOW).min(watched);
            fading.at(fading.last(), half) / window
        });
        let by_time = rates.fold(f32::INFINITY, f32::min) * silent;
        let [.., day] = self.means;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let since = (reads - self.reads_then) as f32;
        let by_reads = day.at(now, HALVES_S[2]) / mean.max(1.0) * since;
        by_time.min(by_reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::*;
    use crate::estimate::time::Epoch;

    /// Runs a service for `hours`, with `logins` and `reads` a second by the time; what is told, and when.
    fn run(hours: u32, rates: impl Fn(f64) -> (f64, f64, f64)) -> Vec<(f64, Silent)> {
        let routes = Routes::new(&config());
        let (mut silence, mut epoch, mut random) = (Silence::new(&routes), Epoch::default(), Random(1));
        let mut told = Vec::new();
        for tenth in 0..hours * 36_000 {
            let now = f64::from(tenth) / 10.0;
            let (logins, failures, reads) = rates(now);
            let mut observations = Vec::new();
            if random.happens(logins / 10.0) {
                observations.push(login_of(now, address(1), true));
            }
            if random.happens(failures / 10.0) {
                observations.push(login_of(now, address(1), false));
            }
            if random.happens(reads / 10.0) {
                observations.push(own_read(now, 1, address(1)));
            }
            for o in observations {
                let route = routes.number(&o).unwrap();
                silence.observe(&o, route, epoch.tenths(o.at.monotonic_ns));
            }
            silence.tick(epoch.tenths(at(now).monotonic_ns), |silent| told.push((now, silent)));
        }
        told
    }

    #[test]
    fn a_moved_login_path_is_told_within_minutes() {
        let told = run(27, |now| if now < 93_600.0 { (0.2, 0.02, 5.0) } else { (0.0, 0.0, 5.0) });
        let (at, silent) = told[0];
        assert!((93_660.0..93_900.0).contains(&at), "{told:?}");
        assert_eq!((silent.route, silent.tried), (usize::from(LOGIN), 0));
        assert!(told.len() < 10, "told again when doubled: {}", told.len());
    }

    #[test]
    fn an_issuer_that_is_down_is_told_with_its_requests() {
        let told = run(27, |now| if now < 93_600.0 { (0.2, 0.02, 5.0) } else { (0.0, 0.2, 5.0) });
        assert!(told[0].1.tried > 10, "{told:?}");
    }

    /// Staff who log in within minutes at nine and again after each hour, and go home at six.
    #[test]
    fn an_office_that_logs_in_at_once_is_no_silence() {
        let told = run(80, |now| {
            let hour = now / 3_600.0 % 24.0;
            let at_work = (9.0..18.0).contains(&hour) && hour.fract() < 0.05;
            (if at_work { 2.0 } else { 0.0 }, 0.0, 5.0)
        });
        assert_eq!(told, []);
    }

    /// The day's course, a push that brings ten times the reads, a storm of logins, an outage of all for an hour.
    #[test]
    fn days_bursts_storms_and_outages_are_no_silence() {
        let told = run(100, |now| {
            let day = 1.05 - (now / 86_400.0 * std::f64::consts::TAU).cos();
            match now {
                150_000.0..151_000.0 => (0.2 * day, 0.0, 10.0),
                200_000.0..200_600.0 => (5.0, 1.0, 3.0 * day),
                250_000.0..253_600.0 => (0.0, 0.0, 0.0),
                _ => (0.2 * day, 0.01, 2.0 * day),
            }
        });
        assert_eq!(told, []);
    }
}
