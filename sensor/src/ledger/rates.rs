//! How many issuances a service sees, so that a time without sight can be bounded: by the busiest second of the last
//! minute for a few seconds, by the busiest ten seconds of the last ten minutes for some minutes, and by the busiest
//! hour of the last day, if that is more, beyond.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * SECOND_NS;
const DAY_NS: u64 = 24 * HOUR_NS;
/// Up to this time without sight the busiest second speaks for it; up to the next the busiest ten seconds.
const SECONDS: Duration = Duration::from_secs(10);
const MINUTES: Duration = Duration::from_mins(10);

/// The most that a service saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busiest {
    /// In a second of the last minute.
    pub second: u32,
    /// In ten seconds of the last ten minutes.
    pub spell: u32,
    /// In an hour of the last day.
    pub hour: u32,
}

impl Busiest {
    /// At most so many issuances come in a time without sight: what the busiest times bring, and three standard
    /// deviations.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, and not negative")]
    pub fn bound(self, without_sight: Duration) -> u64 {
        let spell = f64::from(self.spell) / 10.0;
        let a_second = match without_sight {
            short if short <= SECONDS => f64::from(self.second),
            some if some <= MINUTES => spell,
            _ => spell.max(f64::from(self.hour) / 3600.0),
        };
        let expected = a_second * without_sight.as_secs_f64();
        (expected + 3.0 * expected.sqrt()).ceil() as u64
    }

    fn max(self, other: Self) -> Self {
        Self {
            second: self.second.max(other.second),
            spell: self.spell.max(other.spell),
            hour: self.hour.max(other.hour),
        }
    }
}

/// Issuances of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    seconds: Ring<60>,
    spells: Ring<60>,
    hours: Ring<24>,
    /// When the first one came, monotonic ns.
    first: Option<u64>,
    /// When the latest one came.
    last: u64,
    /// What an earlier run saw, and until when that counts (monotonic ns).
    carried: (Busiest, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
struct Ring<const N: usize> {
    counts: [u32; N],
    last: u64,
    width: u64,
}

/// A ring as it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    counts: Vec<u32>,
    last: u64,
    width: u64,
}

impl<const N: usize> From<Ring<N>> for Written {
    fn from(ring: Ring<N>) -> Self {
        Self { counts: ring.counts.to_vec(), last: ring.last, width: ring.width }
    }
}

impl<const N: usize> TryFrom<Written> for Ring<N> {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let counts = written.counts.try_into().map_err(|_| "a ring of another length")?;
        if written.width == 0 {
            return Err("a ring without a width");
        }
        Ok(Self { counts, last: written.last, width: written.width })
    }
}

impl<const N: usize> Ring<N> {
    fn new(width: u64) -> Self {
        Self { counts: [0; N], last: 0, width }
    }

    fn turn(&mut self, now: u64) {
        let tick = now / self.width;
        for old in (self.last.saturating_add(1)..=tick).rev().take(N) {
            if let Some(count) = self.place(old) {
                *count = 0;
            }
        }
        self.last = self.last.max(tick);
    }

    fn count(&mut self, now: u64) {
        self.turn(now);
        if let Some(count) = self.place(self.last) {
            *count = count.saturating_add(1);
        }
    }

    fn place(&mut self, tick: u64) -> Option<&mut u32> {
        self.counts.get_mut(usize::try_from(tick % N as u64).ok()?)
    }

    /// How many came in the newest `n` of its times, and since when these are (ns).
    fn latest(&self, n: u64) -> (u64, u64) {
        let from = (self.last + 1).saturating_sub(n.min(N as u64));
        let places = (from..=self.last).filter_map(|tick| usize::try_from(tick % N as u64).ok());
        let count = places.filter_map(|place| self.counts.get(place)).map(|count| u64::from(*count)).sum();
        (count, from * self.width)
    }

    fn most(&mut self, now: u64) -> u32 {
        self.turn(now);
        self.counts.iter().copied().max().unwrap_or(0)
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            seconds: Ring::new(SECOND_NS),
            spells: Ring::new(10 * SECOND_NS),
            hours: Ring::new(HOUR_NS),
            first: None,
            last: 0,
            carried: (Busiest::default(), 0),
        }
    }
}

impl Rates {
    /// Counts one at monotonic time `now`.
    pub fn count(&mut self, now: u64) {
        self.first.get_or_insert(now);
        self.last = self.last.max(now);
        self.seconds.count(now);
        self.spells.count(now);
        self.hours.count(now);
    }

    /// The busiest times up to monotonic time `now`.
    pub fn busiest(&mut self, now: u64) -> Busiest {
        let second = self.seconds.most(now);
        let mut spell = self.spells.most(now);
        // Before a whole spell was seen, the seconds say more.
        if self.first.is_some_and(|first| now.saturating_sub(first) < 20 * SECOND_NS) {
            spell = spell.max(second.saturating_mul(10));
        }
        let seen = Busiest { second, spell, hour: self.hours.most(now) };
        let (carried, until) = self.carried;
        if now < until { seen.max(carried) } else { seen }
    }

    /// Least of the means over the last ten minutes, the last one to two hours and the last day, a second, as they were
    /// at the last one that was counted; of a shorter run, over that.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn least_mean(&self) -> f64 {
        let Some(first) = self.first else { return 0.0 };
        let watched = self.last.saturating_sub(first).max(SECOND_NS);
        let windows = [self.spells.latest(60), self.hours.latest(2), self.hours.latest(24)];
        let mean = |(count, from): (u64, u64)| {
            let window = self.last.saturating_sub(from).min(watched).max(SECOND_NS);
            count as f64 * SECOND_NS as f64 / window as f64
        };
        windows.into_iter().map(mean).fold(f64::INFINITY, f64::min)
    }

    /// Goes on from what an earlier run saw.
    pub fn carry(&mut self, busiest: Busiest, now: u64) {
        self.carried = (busiest, now.saturating_add(DAY_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_times_bound_what_was_not_seen() {
        let mut rates = Rates::default();
        assert_eq!(rates.busiest(5 * SECOND_NS), Busiest::default());
        assert_eq!(Busiest::default().bound(Duration::from_secs(10)), 0);
        for n in 0..2400 {
            rates.count(n * SECOND_NS / 4);
        }
        let busy = rates.busiest(600 * SECOND_NS);
        assert_eq!(busy, Busiest { second: 4, spell: 40, hour: 2400 });
        assert_eq!(busy.bound(Duration::from_secs(4)), 16 + 12);
        assert_eq!(busy.bound(Duration::from_secs(100)), 400 + 60);
        // Twelve hours later the seconds are quiet, the day is not.
        let busy = rates.busiest(12 * HOUR_NS);
        assert_eq!(busy, Busiest { second: 0, spell: 0, hour: 2400 });
        assert_eq!(busy.bound(Duration::from_mins(1)), 0);
        assert_eq!(busy.bound(Duration::from_hours(6)), 14_400 + 360);
        assert_eq!(rates.busiest(40 * HOUR_NS), Busiest::default());
        rates.carry(busy, 0);
        assert_eq!(rates.busiest(23 * HOUR_NS), busy);
        assert_eq!(rates.busiest(25 * HOUR_NS), Busiest::default());
    }

    #[test]
    fn a_short_run_is_taken_for_what_it_was() {
        let mut rates = Rates::default();
        (0..2500).for_each(|n| rates.count(7 * SECOND_NS + n * 1_000_000));
        let busy = rates.busiest(9_500_000_000);
        assert_eq!((busy.second, busy.spell), (1000, 10_000));
    }
}
