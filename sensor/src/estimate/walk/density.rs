//! How often chance hits an identifier: the background that a walk has to stand out from.
//!
//! Reads of a lane are counted by magnitude of their identifier, 128 buckets to each power of two and none narrower than
//! 2,048 identifiers, with a half-life of an hour; a burst over all (the last ten seconds against the hour) raises every
//! bucket at once. A walk fills its own bucket too; its region is at most a sixteenth of that, which costs it a third of its
//! evidence at most.

use super::super::time::{Fading, Tenths, seconds};
use super::tracker::REGION;

/// Half-lives of what is usual, and of what is now, in seconds.
const USUAL_S: f32 = 3_600.0;
const NOW_S: f32 = 10.0;
/// Narrowest bucket, as a power of two, and how many buckets a power of two has.
const NARROWEST: u32 = 11;
const FINE: u32 = 7;
/// Below this power of two all buckets are of the narrowest.
const LINEAR: u32 = NARROWEST + FINE;
const BUCKETS: usize = (1 << FINE) * (1 + 64 - LINEAR as usize);
/// Most that a burst raises the background.
const BURST_MAX: f32 = 100.0;

/// The background of one lane of one route.
#[derive(Clone, Debug)]
pub(super) struct Density {
    since: Option<Tenths>,
    usual: Fading,
    now: Fading,
    buckets: Box<[Fading]>,
}

/// Bucket of `id`, and its width.
fn bucket(id: u64) -> (usize, f32) {
    let power = (id | 1).ilog2().max(LINEAR);
    let shift = power - FINE;
    let octave = usize::try_from(power - LINEAR).unwrap_or(0);
    let within = usize::try_from(id >> shift).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let width = (1u64 << shift) as f32;
    ((octave << FINE) + within, width)
}

impl Density {
    /// Of a lane without reads. What it needs is taken from the system as it is touched.
    pub fn new() -> Self {
        let buckets = vec![Fading::default(); BUCKETS].into_boxed_slice();
        Self { since: None, usual: Fading::default(), now: Fading::default(), buckets }
    }

    /// Counts a read of `id`.
    pub fn count(&mut self, id: u64, now: Tenths) -> Chance {
        let since = *self.since.get_or_insert(now);
        let usual = self.usual.add(1.0, now, USUAL_S);
        let recent = self.now.add(1.0, now, NOW_S);
        let window = seconds(since, now).clamp(60.0, USUAL_S * Fading::WINDOW);
        let rate = recent / (NOW_S * Fading::WINDOW);
        let burst = if recent < 20.0 { 1.0 } else { (rate * window / usual).clamp(1.0, BURST_MAX) };
        let (index, width) = bucket(id);
        // Two more than were counted: little is known of a bucket that nothing hit.
        let count = self.buckets.get_mut(index).map_or(0.0, |bucket| bucket.add(1.0, now, USUAL_S)) + 2.0;
        Chance {
            a_tenth: 0.1 * count / window * burst / width * REGION,
            a_read: count / (usual + 2.0) / width * REGION,
        }
    }
}

/// How often chance hits one of the [`REGION`] identifiers about one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chance {
    /// In a tenth of a second, over all readers.
    pub a_tenth: f32,
    /// By one read of any reader.
    pub a_read: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_as_wide_as_they_say() {
        let mut last = (0, 0.0);
        for power in 0..64u32 {
            for part in 0..16u64 {
                let id = (1u64 << power).saturating_add(part.wrapping_mul(1u64 << power.saturating_sub(4)));
                let (index, width) = bucket(id);
                assert!(index >= last.0 && index < BUCKETS && width >= last.1, "{id}: {index} {width} after {last:?}");
                last = (index, width);
            }
        }
        assert_eq!(bucket(u64::MAX).0, BUCKETS - 1);
        assert_eq!(bucket(0).0, 0);
        assert_eq!(bucket((1 << 20) - 1).0 + 1, bucket(1 << 20).0);
        assert_eq!(bucket((1 << 25) - 1).0 + 1, bucket(1 << 25).0);
        assert!((bucket(0).1 - 2_048.0).abs() + (bucket(1 << 25).1 - 262_144.0).abs() < f32::EPSILON);
    }

    #[test]
    fn chance_is_what_random_reads_make_it() {
        let mut density = Density::new();
        let (mut chance, mut state) = (0.0, 1u64);
        // 100 a second over a million: 100 · 128 / 10⁶ a second.
        for now in 0..1_000_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chance = density.count((state >> 33) % 1_000_000, now / 10).a_tenth;
        }
        assert!((0.0008..0.002).contains(&chance), "{chance}");
        for n in 0..20_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chance = density.count((state >> 33) % 1_000_000, 100_000 + n / 100).a_tenth;
        }
        assert!((0.006..0.03).contains(&chance), "ten times the reads for 20 seconds: {chance}");
        let a_read = density.count(500_000, 100_200).a_read;
        assert!((1e-4..2e-4).contains(&a_read), "{a_read}");
    }
}
