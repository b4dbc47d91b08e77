//! How many issuances a service sees, so that a time without sight can be bounded: by the busiest ten
//! seconds of the last ten minutes for a short one, by the busiest hour of the last day for a longer one.

use std::time::Duration;

const SPELL_NS: u64 = 10_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;
/// Spells of ten seconds and hours that are looked back at.
const SPELLS: usize = 60;
const HOURS: usize = 24;
/// Up to this time without sight, the recent spells speak for it.
const SHORT: Duration = Duration::from_mins(10);

/// Issuances of one service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    spells: Ring<SPELLS>,
    hours: Ring<HOURS>,
    /// What an earlier run saw, and until when that counts (monotonic ns).
    carried: (u32, u32, u64),
}

#[derive(Clone, Copy, Debug)]
struct Ring<const N: usize> {
    counts: [u32; N],
    last: u64,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self { counts: [0; N], last: 0 }
    }
}

impl<const N: usize> Ring<N> {
    fn turn(&mut self, tick: u64) {
        for old in (self.last.saturating_add(1)..=tick).rev().take(N) {
            if let Some(count) = self.place(old) {
                *count = 0;
            }
        }
        self.last = self.last.max(tick);
    }

    fn place(&mut self, tick: u64) -> Option<&mut u32> {
        self.counts.get_mut(usize::try_from(tick % N as u64).ok()?)
    }

    fn most(&self) -> u32 {
        self.counts.iter().copied().max().unwrap_or(0)
    }
}

impl Rates {
    /// Counts one at monotonic time `now`.
    pub fn count(&mut self, now: u64) {
        self.turn(now);
        let (spell, hour) = (self.spells.last, self.hours.last);
        for count in [self.spells.place(spell), self.hours.place(hour)].into_iter().flatten() {
            *count = count.saturating_add(1);
        }
    }

    fn turn(&mut self, now: u64) {
        self.spells.turn(now / SPELL_NS);
        self.hours.turn(now / HOUR_NS);
    }

    /// Issuances in the busiest ten seconds of late and in the busiest hour of the last day, at monotonic time `now`.
    pub fn busiest(&mut self, now: u64) -> (u32, u32) {
        self.turn(now);
        let (spell, hour, until) = self.carried;
        let carried = if now < until { (spell, hour) } else { (0, 0) };
        (self.spells.most().max(carried.0), self.hours.most().max(carried.1))
    }

    /// Goes on from what an earlier run saw.
    pub fn carry(&mut self, spell: u32, hour: u32, now: u64) {
        self.carried = (spell, hour, now.saturating_add(HOUR_NS * HOURS as u64));
    }
}

/// At most so many issuances come in a time without sight: what the busiest times bring, and three standard deviations.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, and not negative")]
pub fn bound(spell: u32, hour: u32, without_sight: Duration) -> u64 {
    let (spell, hour) = (f64::from(spell), f64::from(hour));
    let a_second = if without_sight <= SHORT { spell / 10.0 } else { (spell / 10.0).max(hour / 3600.0) };
    let expected = a_second * without_sight.as_secs_f64();
    (expected + 3.0 * expected.sqrt()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_times_bound_what_was_not_seen() {
        let mut rates = Rates::default();
        let second = 1_000_000_000;
        assert_eq!(rates.busiest(5 * second), (0, 0));
        assert_eq!(bound(0, 0, Duration::from_secs(10)), 0);
        for n in 0..600 {
            rates.count(n * second);
        }
        assert_eq!(rates.busiest(600 * second), (10, 600));
        assert_eq!(bound(10, 600, Duration::from_secs(4)), 10);
        // Twelve hours later the spells are quiet, the day is not.
        assert_eq!(rates.busiest(12 * 3600 * second), (0, 600));
        assert_eq!(bound(0, 600, Duration::from_mins(1)), 0);
        assert_eq!(bound(0, 600, Duration::from_hours(6)), 3780);
        assert_eq!(rates.busiest(40 * 3600 * second), (0, 0));
        rates.carry(7, 8, 0);
        assert_eq!(rates.busiest(23 * 3600 * second), (7, 8));
        assert_eq!(rates.busiest(25 * 3600 * second), (0, 0));
    }
}
