//! One walk: a front that moves one way, the identifiers just behind it, and the evidence that it is no chance.

use super::super::table::Kept;
use super::super::time::{Tenths, seconds};

/// Identifiers ahead of the front within which the next step may land; behind it a late one may within one less.
pub(super) const REACH: u64 = 64;
/// Identifiers that a walk would take as its own at any time, at most: what chance has to hit.
pub(super) const REGION: f32 = 128.0;
/// How many times faster than chance a walk is assumed to hit; see the module's bound.
pub(super) const RATIO: f32 = 16.0;
/// ln [`RATIO`]: what one step is worth.
pub(super) const STEP: f32 = 2.772_589;
/// Steps forward after which the direction stands.
const SETTLED: u64 = 16;
/// Times that the direction may change before.
const TURNS: u8 = 3;

/// A walk, or the first identifier of what may become one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tracker {
    /// The identifier that is furthest in the walk's direction.
    pub front: u64,
    /// Bit `i`: the identifier `i` behind the front was seen.
    seen: u64,
    /// Distinct identifiers.
    length: u32,
    /// Log of the likelihood ratio of walk to chance, as of `at` on the scope's clock.
    score: f32,
    at: u32,
    touched: Tenths,
    /// How far the front has come.
    progress: u16,
    down: bool,
    turns: u8,
}

/// When something happens to a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// On the clock of the walk's scope: tenths over all clients, else what the client or network has read.
    pub clock: u32,
    /// How often chance hits the [`REGION`] about the identifier while that clock moves on by one.
    pub chance: f32,
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
    /// Starts at `id`.
    pub fn new(id: u64, moment: Moment) -> Self {
        let Moment { clock, now, .. } = moment;
        Self { front: id, seen: 1, length: 1, score: STEP, at: clock, touched: now, ..Self::default() }
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
    pub fn score(&self, moment: Moment) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "beyond 16 million one more or less is nothing")]
        let elapsed = moment.clock.saturating_sub(self.at) as f32;
        self.score - moment.chance * (RATIO - 1.0) * elapsed
    }

    /// Takes `id`, for which [`Tracker::fit`] said `Step`. Without evidence left, it begins anew there.
    pub fn step(&mut self, id: u64, moment: Moment) {
        let left = self.score(moment);
        if left <= 0.0 {
            *self = Self::new(id, moment);
            return;
        }
        self.score = left + STEP;
        (self.at, self.touched) = (moment.clock, moment.now);
        self.length = self.length.saturating_add(1);
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

    /// Distinct identifiers, no more than the evidence vouches for: `n` comes about by chance with a probability of at
    /// most [`RATIO`]¹⁻ⁿ for each identifier that a walk could begin with.
    pub fn vouched(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; a cast saturates")]
        let steps = (self.score / STEP + 0.01) as u32;
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

    fn moment(clock: u32, chance: f32) -> Moment {
        Moment { clock, chance, now: clock }
    }

    /// Walks `ids`, a tenth apart; those that fit nowhere are counted apart.
    fn walk(ids: impl IntoIterator<Item = u64>) -> (Tracker, u32) {
        let mut ids = (0u32..).zip(ids);
        let mut tracker = Tracker::new(ids.next().unwrap().1, moment(0, 0.0));
        let mut apart = 0;
        for (now, id) in ids {
            match tracker.fit(id) {
                Fit::Step => tracker.step(id, moment(now, 1e-7)),
                Fit::Apart => apart += 1,
                Fit::Again => {}
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
    fn evidence_wears_off_with_time() {
        let mut tracker = Tracker::new(10, moment(0, 0.0));
        for (n, now) in (11..20).zip([1u32; 9]) {
            tracker.step(n, moment(now, 0.001));
        }
        assert_eq!(tracker.vouched(), 10);
        // 27.7 of evidence, 0.015 less each tenth.
        assert!(tracker.score(moment(1_001, 0.001)) > 12.0);
        tracker.step(20, moment(3_001, 0.001));
        assert_eq!((tracker.vouched(), tracker.length), (1, 1), "it began anew");
    }

    #[test]
    fn the_edges_of_the_number_range() {
        let (tracker, _) = walk([u64::MAX, 0, u64::MAX - 1, 1]);
        assert_eq!(tracker.vouched(), 2);
        assert_eq!(Tracker::new(0, moment(0, 0.0)).fit(u64::MAX), Fit::Apart);
    }
}
