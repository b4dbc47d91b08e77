//! One walk: a front that moves one way, the identifiers just behind it, and the evidence that it is no chance.

use serde::{Deserialize, Serialize};

use super::super::table::Kept;
use super::super::time::{Tenths, seconds};

/// Identifiers ahead of the front within which the next step may land; behind it a late one may within one less.
pub(super) const REACH: u64 = 64;
/// ln 16: the evidence of one step.
pub(super) const STEP: f32 = 2.772_589;
/// What a read in the neighbourhood that is no step takes from it.
const APART: f32 = 2.5;
/// Steps forward after which the direction stands.
const SETTLED: u64 = 16;
/// Times that the direction may change before.
const TURNS: u8 = 3;

/// A walk, or the first identifier of what may become one.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tracker {
    /// The identifier that is furthest in the walk's direction.
    pub front: u64,
    /// Bit `i`: the identifier `i` behind the front was seen.
    seen: u64,
    /// Distinct identifiers.
    length: u32,
    /// Evidence that this is no chance: a logarithm of odds, as of the last step.
    score: f32,
    /// Reads beside walks in the front's neighbourhood then, and all reads of the scope.
    apart: u32,
    reads: u32,
    touched: Tenths,
    /// How far the front has come.
    progress: u16,
    down: bool,
    turns: u8,
}

/// What a scope knows when it reads an identifier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<F> {
    /// Reads so far that were no step, in the neighbourhood of an identifier.
    pub apart: F,
    /// All reads so far, this one included, and what each other one takes from the evidence.
    pub reads: u32,
    pub each: f32,
    /// Time.
    pub now: Tenths,
}

/// What an identifier is to a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is not within reach.
    Apart,
    /// It was seen before.
    Again,
    /// It is the next step, or a late one.
    Step,
}

impl Tracker {
    /// Starts at `id`, which will be counted as a read beside walks.
    pub fn new<F: Fn(u64) -> u32>(id: u64, moment: &Moment<F>) -> Self {
        let apart = (moment.apart)(id).wrapping_add(1);
        let Moment { reads, now, .. } = *moment;
        Self { front: id, seen: 1, length: 1, score: STEP, apart, reads, touched: now, ..Self::default() }
    }

    /// How far `id` lies ahead (in the walk's direction), if within reach.
    fn ahead(&self, id: u64) -> Option<i64> {
        let (ahead, behind) = if self.down { (self.front, id) } else { (id, self.front) };
        let reach = i64::try_from(REACH).unwrap_or(0);
        let distance = i64::try_from(i128::from(ahead) - i128::from(behind)).ok()?;
        (-reach < distance && distance <= reach).then_some(distance)
    }

    /// What `id` would be.
    pub fn fit(&self, id: u64) -> Fit {
        match self.ahead(id) {
            None => Fit::Apart,
            Some(distance) if distance <= 0 && self.seen >> distance.unsigned_abs() & 1 == 1 => Fit::Again,
            Some(_) => Fit::Step,
        }
    }

    /// Evidence left.
    pub fn score<F: Fn(u64) -> u32>(&self, moment: &Moment<F>) -> f32 {
        let apart = (moment.apart)(self.front).saturating_sub(self.apart);
        let others = moment.reads.saturating_sub(self.reads).saturating_sub(1);
        #[expect(clippy::cast_precision_loss, reason = "beyond 16 million one more or less is nothing")]
        let (apart, others) = (apart as f32, others as f32);
        self.score - APART * apart - moment.each * others
    }

    /// Takes `id`, for which [`Tracker::fit`] said `Step`. Without evidence left, it begins anew there.
    pub fn step<F: Fn(u64) -> u32>(&mut self, id: u64, moment: &Moment<F>) {
        let left = self.score(moment);
        if left <= 0.0 {
            *self = Self::new(id, moment);
            return;
        }
        self.score = left + STEP;
        self.length = self.length.saturating_add(1);
        (self.reads, self.touched) = (moment.reads, moment.now);
        self.advance(id);
        self.apart = (moment.apart)(self.front);
    }

    /// The read just counted was of one that was seen before: it takes nothing.
    pub fn again(&mut self) {
        self.reads = self.reads.wrapping_add(1);
    }

    fn advance(&mut self, id: u64) {
        let Some(mut distance) = self.ahead(id) else { return };
        if distance < 0 && self.unsettled() && (self.length == 2 || distance <= -32) {
            self.turn();
            distance = self.ahead(id).unwrap_or(0);
        }
        let far = distance.unsigned_abs();
        if distance > 0 {
            self.seen = if far < 64 { self.seen << far | 1 } else { 1 };
            self.front = id;
            self.progress = self.progress.saturating_add(u16::try_from(far).unwrap_or(u16::MAX));
        } else {
            self.seen |= 1 << far;
        }
    }

    fn unsettled(&self) -> bool {
        u64::from(self.progress) <= SETTLED && self.turns < TURNS
    }

    /// Turns round: what was last becomes the front.
    fn turn(&mut self) {
        let last = (self.seen | 1).ilog2();
        self.seen = self.seen.reverse_bits() >> (63 - last);
        self.front = if self.down { self.front + u64::from(last) } else { self.front - u64::from(last) };
        self.down = !self.down;
        self.progress = 0;
        self.turns += 1;
    }

    /// More than a beginning.
    pub fn under_way(&self) -> bool {
        self.length > 1
    }

    /// Distinct identifiers, no more than the evidence vouches for: `n` comes about by chance with a probability of at
    /// most 16¹⁻ⁿ for each identifier that a walk could begin with.
    pub fn vouched(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; a cast saturates")]
        let steps = (self.score / STEP + 0.05) as u32;
        self.length.min(steps)
    }
}

impl Kept for Tracker {
    /// Walks by their evidence; beginnings by their age, so that the oldest goes first. What nobody has walked for a week
    /// is worth nothing.
    fn worth(&self, now: Tenths) -> f32 {
        const WEEK_S: f32 = 604_800.0;
        let age = seconds(self.touched, now);
        if age > WEEK_S { -1.0 } else { self.score - (age / WEEK_S).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(apart: u32, reads: u32) -> Moment<impl Fn(u64) -> u32> {
        Moment { apart: move |_| apart, reads, each: 0.03, now: reads }
    }

    /// Walks `ids`, a tenth apart; those that fit nowhere are counted apart.
    fn walk(ids: impl IntoIterator<Item = u64>) -> (Tracker, u32) {
        let mut ids = (0u32..).zip(ids);
        let mut tracker = Tracker::new(ids.next().unwrap().1, &moment(0, 0));
        let mut apart = 0;
        for (now, id) in ids {
            match tracker.fit(id) {
                Fit::Step => tracker.step(id, &moment(1, now)),
                Fit::Apart => apart += 1,
                Fit::Again => tracker.again(),
            }
        }
        (tracker, apart)
    }

    #[test]
    fn up_down_stepped_and_shuffled() {
        for ids in [
            (1000..1500).collect::<Vec<u64>>(),
            (1000..1500).rev().collect(),
            (0..500).map(|n| 5_000 + n * 7).collect(),
            (0..500).map(|n| 50_000 - n * 63).collect(),
            // Shuffled within blocks of 25: 7 is prime to it.
            (0..500).map(|n| 1000 + n / 25 * 25 + n % 25 * 7 % 25).collect(),
            (0..500).map(|n| 90_000 - (n / 25 * 25 + n % 25 * 7 % 25)).collect(),
            (0..500).map(|n| u64::MAX - 499 + n).collect(),
            (0..500).rev().collect(),
        ] {
            let (tracker, apart) = walk(ids.iter().copied());
            assert_eq!((tracker.vouched(), apart), (500, 0), "from {:?}", &ids[..3]);
        }
    }

    #[test]
    fn the_same_again_adds_nothing() {
        let (tracker, apart) = walk((0..400u64).map(|n| 1000 + n / 4));
        assert_eq!((tracker.vouched(), apart), (100, 0));
        let (tracker, _) = walk((0..10_000u64).map(|n| 1000 + n * 37 % 60));
        assert!(tracker.vouched() <= 120, "sixty identifiers over and over: {}", tracker.vouched());
    }

    #[test]
    fn evidence_wears_off_with_reads_beside() {
        let mut tracker = Tracker::new(10, &moment(0, 0));
        (11..20).for_each(|id| tracker.step(id, &moment(1, 0)));
        assert_eq!(tracker.vouched(), 10);
        // 27.7 of evidence; 2.5 for each read in the neighbourhood, 0.03 for any other.
        assert!((tracker.score(&moment(5, 101)) - 14.7).abs() < 0.1);
        tracker.step(20, &moment(9, 300));
        assert_eq!((tracker.vouched(), tracker.length), (1, 1), "it began anew");
    }

    #[test]
    fn the_edges_of_the_number_range() {
        let (tracker, _) = walk([u64::MAX, 0, u64::MAX - 1, 1]);
        assert_eq!(tracker.vouched(), 2);
        assert_eq!(Tracker::new(0, &moment(0, 0)).fit(u64::MAX), Fit::Apart);
    }
}
