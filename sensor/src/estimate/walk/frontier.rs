//! The highest identifier that was there some time ago: what is newer grew by sign-ups (or orders), which walk too.

use serde::{Deserialize, Serialize};

use super::super::time::Tenths;

/// First and longest time between two steps: the frontier is one to two steps old.
const FIRST: Tenths = 600;
const LONGEST: Tenths = 432_000;

/// Highest identifiers read: so far, and as of one to two steps ago. Steps grow from a minute to twelve hours, so that a
/// sensor that has just started soon knows nearly all that members read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frontier {
    highest: u64,
    before: u64,
    long_before: u64,
    next: Tenths,
    step: Tenths,
}

/// What outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierState {
    highest: u64,
    before: u64,
    long_before: u64,
    step: u32,
}

impl Frontier {
    /// One that has long known `highest`.
    #[cfg(test)]
    pub fn knowing(highest: u64) -> Self {
        Self { highest, before: highest, long_before: highest, step: LONGEST, next: LONGEST }
    }

    /// Moves time on.
    pub fn advance(&mut self, now: Tenths) {
        if self.step == 0 {
            (self.step, self.next) = (FIRST, now.saturating_add(FIRST));
        }
        if now >= self.next {
            self.long_before = self.before;
            self.before = self.highest;
            self.step = self.step.saturating_mul(2).min(LONGEST);
            self.next = now.saturating_add(self.step);
        }
    }

    /// Somebody who may read it read `id`.
    pub fn raise(&mut self, id: u64) {
        self.highest = self.highest.max(id);
    }

    /// True when `id` may be newer than one to two steps.
    pub fn is_new(&self, id: u64) -> bool {
        id > self.long_before
    }

    /// For a snapshot.
    pub fn state(&self) -> FrontierState {
        let Self { highest, before, long_before, step, .. } = *self;
        FrontierState { highest, before, long_before, step: step.max(FIRST) }
    }

    /// From a snapshot.
    pub fn restore(&mut self, state: FrontierState) {
        let FrontierState { highest, before, long_before, step } = state;
        *self = Self { highest, before, long_before, step: step.clamp(FIRST, LONGEST), next: 0 };
        // The next step comes a whole one after the restart.
        self.next = self.step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signed_up_lately_is_new() {
        let mut frontier = Frontier::default();
        frontier.advance(0);
        frontier.raise(1_000);
        assert!(frontier.is_new(5), "nothing is known yet");
        for (now, highest) in [(600, 1_100), (1_800, 1_200), (4_200, 1_300)] {
            frontier.advance(now);
            frontier.raise(highest);
        }
        assert!(!frontier.is_new(1_100) && frontier.is_new(1_101), "{frontier:?}");
        let mut restored = Frontier::default();
        restored.restore(frontier.state());
        assert!(!restored.is_new(1_100) && restored.is_new(1_101));
    }
}
