//! Walks in even steps too wide for a tracker: arithmetic progressions.

use serde::{Deserialize, Serialize};

use super::super::time::Tenths;
use super::tracker::{REACH, STEP};

/// What each read of the scope takes from the evidence: four identifiers would do of each range of some hundreds.
pub(super) const EACH: f32 = 0.03;
/// Steps of the progression that may be left out at once.
const SKIP: i128 = 4;

/// The last identifier of a progression, and the step before it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stride {
    last: u64,
    step: i64,
    length: u32,
    score: f32,
    /// Reads of the scope, as of the last step.
    reads: u32,
}

impl Stride {
    /// Starts at `id`.
    pub fn new(id: u64) -> Self {
        Self { last: id, length: 1, score: STEP, ..Self::default() }
    }

    /// Evidence, as of the last step.
    pub fn score(&self) -> f32 {
        self.score
    }

    /// True when `id` continues the progression; it is taken. Each read since the last step has taken [`EACH`].
    fn continues(&mut self, id: u64, reads: u32) -> bool {
        let distance = i128::from(id) - i128::from(self.last);
        let step = i128::from(self.step);
        if step == 0 || distance % step != 0 || !(1..=SKIP).contains(&(distance / step)) {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "beyond 16 million one more or less is nothing")]
        let left = self.score - EACH * reads.saturating_sub(self.reads).saturating_sub(1) as f32;
        self.length = if left <= 0.0 { 2 } else { self.length.saturating_add(1) };
        self.score = left.max(0.0) + STEP;
        (self.last, self.reads) = (id, reads);
        true
    }

    /// Takes the reader's next identifier.
    pub fn take(&mut self, id: u64, reads: u32) -> u32 {
        if id == self.last {
            return self.vouched();
        }
        if !self.continues(id, reads) {
            let step = i64::try_from(i128::from(id) - i128::from(self.last)).unwrap_or(0);
            *self = Self { last: id, step: wide(step), length: 2, score: STEP, reads };
        }
        self.vouched()
    }

    /// As [`super::tracker::Tracker::vouched`]: two identifiers always have a step, so the third is the first to count.
    fn vouched(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; a cast saturates")]
        let steps = (self.score / STEP + 0.05) as u32;
        if steps < 2 { 0 } else { self.length.min(steps + 1) }
    }
}

/// `step`, if a tracker would not see it.
fn wide(step: i64) -> i64 {
    if step.unsigned_abs() >= REACH { step } else { 0 }
}

/// Identifiers remembered to find progressions among, and progressions followed.
const RECENT: usize = 8;

/// Progressions over all readers of a lane: any three of the last identifiers may be the beginning of one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Strides {
    recent: [u64; RECENT],
    place: usize,
    runs: [(Stride, Tenths); RECENT],
}

impl Strides {
    /// Takes the lane's next identifier.
    pub fn take(&mut self, id: u64, reads: u32, now: Tenths) -> u32 {
        if self.recent.contains(&id) {
            return self
                .runs
                .iter()
                .find(|(run, _)| run.last == id && run.step != 0)
                .map_or(0, |(run, _)| run.vouched());
        }
        let run = self.runs.iter_mut().find_map(|(run, touched)| {
            run.continues(id, reads).then(|| {
                *touched = now;
                run.vouched()
            })
        });
        let vouched = run.unwrap_or_else(|| {
            self.begin(id, reads, now);
            0
        });
        if let Some(place) = self.recent.get_mut(self.place) {
            *place = id;
        }
        self.place = (self.place + 1) % RECENT;
        vouched
    }

    /// Begins a progression that ends in `id`, if two of the recent ones stand before it. It takes the place of the
    /// shortest that has rested for a minute, or of the shortest.
    fn begin(&mut self, id: u64, reads: u32, now: Tenths) {
        let step = self.recent.iter().find_map(|middle| {
            let first = middle.wrapping_sub(id.wrapping_sub(*middle));
            let step = wide(i64::try_from(i128::from(id) - i128::from(*middle)).unwrap_or(0));
            (step != 0 && self.recent.contains(&first)).then_some(step)
        });
        let Some(step) = step else { return };
        let rests = |touched: Tenths| now.saturating_sub(touched) > 600;
        let worst = self.runs.iter_mut().min_by_key(|(run, touched)| (!rests(*touched), run.length, *touched));
        if let Some((run, touched)) = worst {
            *run = Stride { last: id, step, length: 3, score: STEP, reads };
            *touched = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reader_in_wide_steps() {
        let mut stride = Stride::new(7);
        let lengths: Vec<u32> = (1..6u64).zip(1..).map(|(n, at)| stride.take(7 + n * 2_313, at)).collect();
        assert_eq!(lengths, [0, 3, 4, 5, 6]);
        // Some are left out, one comes twice.
        let lengths = [8, 8, 12].map(|n| stride.take(7 + n * 2_313, 10));
        assert_eq!(lengths, [7, 7, 8]);
        assert_eq!(stride.take(99, 11), 0);
    }

    #[test]
    fn random_identifiers_have_no_step() {
        let (mut stride, mut strides, mut state, mut most) = (Stride::new(1), Strides::default(), 1u64, 0);
        for at in 0..200_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let id = (state >> 33) % 1_000_000;
            most = most.max(stride.take(id, at)).max(strides.take(id, at, at));
        }
        assert!(most < 4, "{most}");
    }

    #[test]
    fn over_all_readers_two_at_once() {
        let mut strides = Strides::default();
        let mut last = (0, 0);
        for n in 0..50u64 {
            let at = u32::try_from(n).unwrap() * 3;
            last.0 = strides.take(1_000_000 + n * 100, at, at);
            last.1 = strides.take(77_000_000 - n * 1_000, at + 1, at + 1);
            strides.take(n * n * 7_919 % 1_000_003, at + 2, at + 2);
        }
        assert!(last.0 >= 45 && last.1 >= 45, "{last:?}");
    }
}
