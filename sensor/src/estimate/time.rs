//! Time as estimators count it, and how what they know fades.
//!
//! Ticks of a tenth of a second since the run's first observation: 32 bits last 13 years. Fading uses sums and products
//! only, so that a replay gives the same figures on every machine.

use serde::{Deserialize, Serialize};

/// Tenths of a second since the first observation.
pub(super) type Tenths = u32;

const TENTH_NS: u64 = 100_000_000;

/// Counts tenths from the first time it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epoch {
    start_ns: Option<u64>,
    /// Tenths that an earlier run, and the time without one, came to.
    before: Tenths,
}

impl Epoch {
    /// The tenth that `monotonic_ns` falls into; what lies before the start is the start.
    pub fn tenths(&mut self, monotonic_ns: u64) -> Tenths {
        let start = *self.start_ns.get_or_insert(monotonic_ns);
        let passed = u32::try_from(monotonic_ns.saturating_sub(start) / TENTH_NS).unwrap_or(u32::MAX);
        passed.saturating_add(self.before)
    }

    /// Goes on from where an earlier run stood `passed_ns` before `monotonic_ns`.
    pub fn resume(&mut self, tenths: Tenths, passed_ns: u64, monotonic_ns: u64) {
        let passed = u32::try_from(passed_ns / TENTH_NS).unwrap_or(u32::MAX);
        *self = Self { start_ns: Some(monotonic_ns), before: tenths.saturating_add(passed) };
    }
}

/// Seconds from `from` to `to`; none when `to` is not later.
#[expect(clippy::cast_precision_loss, reason = "beyond 19 days a tenth of a second more or less is nothing")]
pub(super) fn seconds(from: Tenths, to: Tenths) -> f32 {
    to.saturating_sub(from) as f32 * 0.1
}

/// What is left of `value` after `elapsed`, when half of it is left after `half` (both in the same unit).
///
/// Whole halvings, times 2⁻ᶠ for the rest by its Taylor polynomial, to 0.1 %.
pub(super) fn fade(value: f32, elapsed: f32, half: f32) -> f32 {
    let halves = elapsed / half;
    if halves >= 64.0 {
        return 0.0;
    }
    let whole = halves.floor();
    let f = halves - whole;
    let part = 1.0 - f * (std::f32::consts::LN_2 - f * (0.240_227 - f * (0.055_504 - f * 0.009_0)));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a power of two, up to 2⁶³"
    )]
    let divisor = (1u64 << whole as u32) as f32;
    value * part / divisor
}

/// A count that fades: its steady state is the rate times [`Fading::WINDOW`] half-lives.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Fading {
    count: f32,
    at: Tenths,
}

impl Fading {
    /// Half-lives that the steady state stands for: 1/ln 2.
    pub const WINDOW: f32 = std::f32::consts::LOG2_E;

    /// Adds `amount` at `now`, with a half-life of `half` seconds.
    pub fn add(&mut self, amount: f32, now: Tenths, half: f32) -> f32 {
        self.count = self.at(now, half) + amount;
        self.at = now.max(self.at);
        self.count
    }

    /// When something was last added.
    pub fn last(self) -> Tenths {
        self.at
    }

    /// What it is at `now`.
    pub fn at(self, now: Tenths, half: f32) -> f32 {
        if now <= self.at { self.count } else { fade(self.count, seconds(self.at, now), half) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_halves_and_between_is_between() {
        for (elapsed, left) in [(0.0, 1.0), (10.0, 0.5), (20.0, 0.25), (2.5, 0.840_896), (9.99, 0.500_347)] {
            assert!((fade(1.0, elapsed, 10.0) - left).abs() < 0.002, "{elapsed}: {}", fade(1.0, elapsed, 10.0));
        }
        assert!(fade(1e30, 640.0, 10.0).abs() < f32::EPSILON);
    }

    #[test]
    fn a_steady_rate_has_a_steady_count_however_often_it_is_asked() {
        for step in [1u32, 7, 50] {
            let (mut count, mut now) = (Fading::default(), 0);
            while now < 20_000 {
                now += step;
                count.add(1.0, now, 60.0);
            }
            let rate = 10.0 / f64::from(step);
            let expected = rate * 60.0 * f64::from(Fading::WINDOW);
            assert!((f64::from(count.at(now, 60.0)) / expected - 1.0).abs() < 0.05, "{step}: {count:?} {expected}");
        }
    }

    #[test]
    fn tenths_start_at_the_first() {
        let mut epoch = Epoch::default();
        assert_eq!(epoch.tenths(7_000_000_000), 0);
        assert_eq!(epoch.tenths(6_000_000_000), 0);
        assert_eq!(epoch.tenths(8_050_000_000), 10);
    }
}
